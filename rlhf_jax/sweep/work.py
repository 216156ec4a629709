"""Carries out one unit of a sweep: `python -m rlhf_jax.sweep.work DIR/cells/NAME`, from any directory.

Output goes to log.txt in the run directory. The exit status is 0 when the unit is done, 75 where another process is at
work in it or what it needs is not done yet, 128 + number after a signal, and 2 or 1 for an error.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from pathlib import Path

from rlhf_jax.settings import ConfigError
from rlhf_jax.sweep import attempts
from rlhf_jax.sweep.units import Unit, read_unit, root_of

LATER = 75  # EX_TEMPFAIL of sysexits.h


def main(arguments: list[str]) -> int:
  """Entry point; returns the exit status."""
  if len(arguments) != 1:
    print("usage: python -m rlhf_jax.sweep.work DIR/cells/NAME", file=sys.stderr)
    return 2
  directory = Path(arguments[0]).absolute()
  try:
    unit, start = read_unit(directory)
  except ConfigError as error:
    print(f"rlhf-jax: {error}", file=sys.stderr)
    return 2
  os.chdir(start)
  sys.path.insert(0, "")  # a config may name functions of that directory
  log = os.open(directory / attempts.LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
  os.dup2(log, 1)
  os.dup2(log, 2)
  from rlhf_jax.train import job

  job.start()  # a unit may be the job of several tasks
  return carry_out(unit, directory)


def carry_out(unit: Unit, directory: Path) -> int:
  """Runs the unit in this process, or in all of its job, and records the attempt; returns the status as `main` does."""
  from rlhf_jax.pipeline.owner import RunIsOwned, own
  from rlhf_jax.train.processes import led
  from rlhf_jax.train.signals import Stopped, exit_on_signal

  status = led("unit", lambda: _is_ended(unit, directory))
  if status is not None:
    return status
  try:
    with exit_on_signal(), own(directory):
      return _attempt(unit, directory)
  except RunIsOwned:  # another process was a moment faster
    return LATER
  except Stopped as stop:
    return 128 + stop.number


def _is_ended(unit: Unit, directory: Path) -> int | None:
  """The exit status of a unit that cannot start, or needs not; None where it is to start."""
  from rlhf_jax.pipeline.owner import owned

  missing = [stage for stage in unit.links if not (directory / stage / "done.json").exists()]
  if missing or owned(directory):
    print(f"{unit.name}: {', '.join(missing) or 'another process'} is not done yet", file=sys.stderr)
    return LATER
  return 0 if unit.is_done(root_of(unit, directory)) else None


def _attempt(unit: Unit, directory: Path) -> int:
  """Runs the unit whose lock is held, and returns the exit status."""
  from rlhf_jax.pipeline.run import run
  from rlhf_jax.train import job, processes
  from rlhf_jax.train.signals import Interrupted, Stopped

  attempt = attempts.begin(directory) if processes.leader() else ""

  def ended(status: str, error: str = "") -> None:
    if processes.leader():
      with contextlib.suppress(OSError):  # on a full disk; what is done is seen in the stages
        attempts.end(directory, attempt, status, error)

  try:
    run(unit.config, directory, f"python -m rlhf_jax.sweep.work {directory}")
  except (Interrupted, Stopped) as stop:
    ended("interrupted", str(stop))
    return 128 + stop.number
  except Exception as error:
    cause = processes.lost(error) or error
    known = isinstance(cause, (ValueError, OSError, FloatingPointError, ModuleNotFoundError))  # a user can cause them
    if known:
      print(f"rlhf-jax: {cause}", file=sys.stderr)
    else:
      traceback.print_exception(cause)
    ended("failed", str(cause) if known else f"{type(cause).__name__}: {cause}")
    if processes.several():
      job.end(cause, 2 if known else 1)
    return 2 if known else 1
  ended("done")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
