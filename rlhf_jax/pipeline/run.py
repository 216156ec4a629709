"""A run: its stages one after the other, each done once, each continued where it was.

`config.stages` names the stages in order; `config.<stage>.algorithm` is the module that carries the stage out (a dotted
name or the path of a .py file) with its dataclass `Config` and its `run(config, stage)`. A stage is marked done, with a
fingerprint of its config and of the stages it reads from, only when it has returned.

Where several processes make the run, all of them carry out every stage, and the leader alone reads and writes the
records: whether a stage is done is its decision. A stage whose module sets `ON_LEADER` is the leader's alone.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.data.files import write_json, write_text
from rlhf_jax.pipeline.check import check_references, check_steps, left_out_lines
from rlhf_jax.pipeline.done import Books
from rlhf_jax.pipeline.owner import own
from rlhf_jax.pipeline.plan import Step, plan
from rlhf_jax.train.processes import barrier, leader, led
from rlhf_jax.train.programs import keep_programs
from rlhf_jax.train.progress import console
from rlhf_jax.train.provenance import provenance
from rlhf_jax.train.timeline import timeline
from rlhf_jax.writing import explain, leave_writing


class StageError(ValueError):
  """A stage, or the run around it, failed for a reason that lies in its surroundings; the message says what to do."""


def run(
  config: Mapping[str, Any], workdir: Path, command: str = "", redo: Collection[str] = (), accept_changes: bool = False
) -> None:
  """Carries out every stage that is not done yet; `config` is a plain nested mapping.

  Everything in the config is checked before anything starts. `command`, the command line that asked for the run, is
  kept for the report: in command.txt the last one, in done.json that of each stage. So are the versions and the
  hardware, in environment.json and in done.json. redo: stages that are deleted and made anew, with those that depend on
  them. accept_changes: whether stages are kept although files, code or results that they were made from have changed.

  Raises:
    ConfigError: a mistake in the config, a stage that was made from something else, or a process that is at work in
      `workdir` already.
    StageError: a stage called sys.exit, or there was an error of the file system.
    Interrupted: on a signal, after saving; the same call continues.
  """
  workdir = Path(workdir).absolute()
  keep_programs()
  with _told_errors("the run", workdir):
    _run(config, workdir, command, redo, accept_changes)


def _run(config: Mapping[str, Any], workdir: Path, command: str, redo: Collection[str], accept_changes: bool) -> None:
  if not leader():
    leave_writing()
  steps = plan(config, workdir)
  books = Books(steps, workdir, accept_changes)
  for line in led("checks", lambda: _check(config, steps, books.to_run(redo))):
    console.print(line, markup=False)
  with own(workdir):
    led("records", lambda: books.settle(redo))
    write_json(workdir / "config.json", config)
    write_json(workdir / "environment.json", provenance())
    if command:
      write_text(workdir / "command.txt", command + "\n")
    for number, step in enumerate(steps, 1):
      label = f"[{number}/{len(steps)}] {step.stage.name}"
      if led("done", functools.partial(books.confirm, step)):
        console.print(f"{label}: done already", markup=False)
        continue
      console.print(label, markup=False)
      seconds, parts = _carry_out(step, books, command)
      console.print(f"{label}: done in {_told_seconds(seconds, parts)}", markup=False)
      _report(workdir)
    if not (workdir / "report.html").exists():
      _report(workdir)


def _report(workdir: Path) -> None:
  if not leader():
    return
  from rlhf_jax.report.report import write_report  # with matplotlib, which a run that is done already does not wait for

  write_report(workdir)


def _check(config: Mapping[str, Any], steps: Sequence[Step], todo: Sequence[Step]) -> list[str]:
  """Checks a run, and returns what its lengths leave out, in lines."""
  check_references(config, steps, todo)
  check_steps(steps, todo)
  return left_out_lines(todo)


def _told_seconds(seconds: float, parts: Mapping[str, float]) -> str:
  """The seconds of a stage, and those of its parts that took any."""
  told = [f"{part} {value:.0f}" for part, value in parts.items() if round(value)]
  return f"{seconds:.0f} s" + (f" ({', '.join(told)})" if told[1:] else "")


def _carry_out(step: Step, books: Books, command: str) -> tuple[float, dict[str, float]]:
  """Runs a stage and marks it done; returns the seconds it took, and those of its parts."""
  start = time.monotonic()
  name = step.stage.name
  with _told_errors(f"stage {name!r}", step.stage.directory), timeline() as spent:
    try:
      stage = led("begin", lambda: books.begin(step))
      if getattr(step.module, "ON_LEADER", False):
        led("stage", lambda: step.module.run(step.config, stage))
      else:
        step.module.run(step.config, stage)
        barrier("stage is done")
      seconds = round(time.monotonic() - start, 1)
      parts = spent.seconds()
      led("finish", lambda: books.finish(step, seconds, parts, command))
    except SystemExit as error:
      raise StageError(
        f"stage {name!r} called sys.exit({error.code!r}) and is not done: let it return instead"
      ) from error
  return seconds, parts


@contextlib.contextmanager
def _told_errors(what: str, directory: Path) -> Iterator[None]:
  """Turns an error of the file system into one line: what it happened to, path, and what to do."""
  try:
    yield
  except BrokenPipeError:  # of the console
    raise
  except OSError as error:
    raise StageError(
      f"{what}: {explain(error, directory, 'repair that')}, and the same command goes on from what is saved"
    ) from error
