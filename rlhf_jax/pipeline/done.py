"""What a stage was made from and whether that still holds: started.json of a stage that was begun, done.json after it.

Both record the fingerprint of the config, the SHA-256 of the user's files and code and of the modules of this package,
and the results of the stages that were read; done.json adds the stage's own result. What has changed is named before
anything runs, with what to do about it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from rlhf_jax.data.files import read_json, write_json
from rlhf_jax.pipeline.origins import Origins, changed_config
from rlhf_jax.pipeline.owner import job_id
from rlhf_jax.pipeline.plan import Step, check_redo, steps_field, with_dependants
from rlhf_jax.pipeline.stage_files import (
  DONE,
  RESULT,
  STARTED,
  Record,
  config_then,
  differences,
  few,
  has_left,
  is_done,
  listed,
  read_record,
  remove,
  shown_files,
  written_files,
)
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import Stage
from rlhf_jax.train.checkpoint import last_checkpoint, verify_checkpoint
from rlhf_jax.train.checkpoint_errors import CheckpointError
from rlhf_jax.train.progress import console
from rlhf_jax.train.provenance import provenance


def steps_to_run(steps: Iterable[Step], redo: Collection[str] = (), accept: bool = False) -> list[Step]:
  """The steps that `Books.to_run` names; they may belong to many runs, and `redo` to each. Raises ConfigError."""
  runs: dict[Path, list[Step]] = {}
  for step in steps:
    runs.setdefault(step.stage.root, []).append(step)
  return [step for root, planned in runs.items() for step in Books(planned, root, accept).to_run(redo)]


class Books:
  """The records of a run's stages: what they were made from then, against what they would be made from now."""

  def __init__(self, steps: Sequence[Step], workdir: Path, accept: bool = False) -> None:
    """accept: whether changes of files, code and results are recorded rather than refused."""
    self._steps = {step.stage.name: step for step in steps}
    self._accept = accept
    self._origins = Origins(steps, workdir)
    self._begun: dict[str, Record] = {}
    self._redone: set[str] = set()
    self._news: list[str] = []  # lines of a comparison that are told where it is acted on

  def settle(self, redo: Collection[str] = ()) -> None:
    """Compares the stages that were begun with what they would be made from now, and brings their records up to date.

    redo: stages that are deleted, with those that depend on them. A stage whose directory is not there takes those that
    depend on it along. A finished stage whose last checkpoint does not verify, or that is to take more steps, counts as
    begun from here on. Nothing is written where it raises.

    Raises:
      ConfigError: `redo` names no stage, or a stage was made from something else than it would be now.
    """
    stale, reopened = self.compare(redo)
    self._tell_news()
    self._tell_what_stays(reopened)
    for name in self._closure(stale | self._redone):
      if self._was_begun(name):
        why = "" if name in self._redone else ", since a stage that it was made from is not there any more"
        console.print(f"{name}: deleted{why}", markup=False)
      remove(self._steps[name].stage.directory)
    for name, record in self._begun.items():
      self._write(self._steps[name].stage, record, reopened.get(name, ""))
    self._origins.hashes.save()

  def to_run(self, redo: Collection[str] = ()) -> list[Step]:
    """The steps that a run carries out: those that are not done, or that `settle` would delete or let go on.

    Raises:
      ConfigError: as `settle`, which would not begin.
    """
    stale, reopened = self.compare(redo)
    begun = stale | self._redone | reopened.keys()
    return [step for name, step in self._steps.items() if name in begun or not is_done(step)]

  def compare(self, redo: Collection[str] = ()) -> tuple[set[str], dict[str, str]]:
    """The comparison of `settle`: the stages that have lost one they were made from, and {stage: why it goes on}."""
    self._begun, self._news = {}, []
    self._redone = set(self._closure(self._to_redo(redo)))
    gone = [name for name, step in self._steps.items() if not step.stage.directory.is_dir()]
    stale = set(self._closure(gone)) - self._redone
    reopened: dict[str, str] = {}
    for name, step in self._steps.items():
      record = None if name in self._redone else self._compared(step, only_config=name in stale)
      if record is None or name in stale:
        continue
      self._begun[name] = record
      if is_done(step) and (why := self._goes_on(step, record)):
        reopened[name] = why
    return stale, reopened

  def _to_redo(self, redo: Collection[str]) -> set[str]:
    """The stages that are to be made anew; a job that was queued again goes on with what it has deleted before."""
    found = set()
    check_redo(redo, self._steps)
    for name in redo:
      if (
        job_id() and self._was_begun(name) and (read_record(self._steps[name].stage) or {}).get("redone_by") == job_id()
      ):
        self._news.append(f"{name}: made anew by this job before; it goes on")
      else:
        found.add(name)
    return found

  def confirm(self, step: Step) -> bool:
    """Whether a stage is done. It is compared with the results it was made from once more: stages before it may have
    trained on.

    Raises:
      ConfigError: one of them has another result now.
    """
    if not is_done(step):
      return False
    self._confirm(step)
    return True

  def _confirm(self, step: Step) -> None:
    name = step.stage.name
    if "inputs" in self._begun[name]:
      self._write(
        step.stage, self._resolved(step, self._begun[name], self._origins.changed_results(step, self._begun[name]))
      )
      self._tell_news()

  def begin(self, step: Step) -> Stage:
    """Records that a stage begins and from what; returns the stage, whose fingerprint is that of its checkpoints.

    Raises:
      ConfigError: the code of the stage has changed since it was imported, or a result that it goes on from.
    """
    name, stage = step.stage.name, step.stage
    changed = self._origins.changed_meanwhile(step)
    if changed:
      raise ConfigError(f"{listed(changed)} since this run began, before stage {name!r}: start the same command again")
    if name in self._begun:
      self._confirm(step)
    stage.directory.mkdir(parents=True, exist_ok=True)
    write_json(stage.directory / "config.json", step.given)
    if name not in self._begun:
      record = {"fingerprint": stage.fingerprint, **self._origins.now(step), "environment": provenance()}
      self._begun[name] = {**record, "redone_by": job_id()} if name in self._redone else record
      write_json(stage.directory / STARTED, self._begun[name])
    self._origins.hashes.save()
    return dataclasses.replace(stage, fingerprint=self._begun[name]["fingerprint"])

  def finish(self, step: Step, seconds: float, timeline: Mapping[str, float], command: str) -> None:
    """Marks a stage done, with its result and its seconds by part (see `rlhf_jax.train.timeline`).

    Raises:
      ConfigError: a file that it read has changed since it began.
    """
    stage, record = step.stage, self._begun[step.stage.name]
    changed = self._origins.changed_inputs(step, record)
    if changed:
      raise ConfigError(f"{listed(changed)} since stage {stage.name!r} began. {self._advice(stage.name)}")
    last = last_checkpoint(stage.directory / "checkpoints")
    result = {"step": last[0], "checkpoint": last[1]} if last else {}
    written = written_files(step)
    files, shown = (
      {name: self._origins.hashes.of(stage.directory / name) for name in names}
      for names in (written, shown_files(step, written))
    )
    record = {
      **record,
      **result,
      "files": files,
      "shown": shown,
      "seconds": seconds,
      "timeline": timeline,
      "command": command,
      "environment": provenance(),
    }
    write_json(stage.directory / DONE, record)
    (stage.directory / STARTED).unlink(missing_ok=True)
    self._origins.hashes.save()

  def _compared(self, step: Step, only_config: bool = False) -> Record | None:
    """The record of a stage that was begun; None where it begins anew, having left nothing to go on from.

    Raises:
      ConfigError: naming what has changed, and what to do.
    """
    name, done = step.stage.name, is_done(step)
    record = read_record(step.stage)
    if not done and not has_left(step.stage):
      return None
    if record is None and last_checkpoint(step.stage.directory / "checkpoints"):
      raise ConfigError(
        f"stage {name!r} in {step.stage.root} was begun by version 0.2 or earlier, which did not record from what: "
        f"finish it with that version, or --redo {name} deletes it and begins anew"
      )
    if record is None:
      raise ConfigError(
        f"{step.stage.directory} holds files of a stage that was begun, and nothing says from what: --redo {name} "
        "deletes it and begins anew"
      )
    if what := changed_config(step, record):
      raise ConfigError(
        f"stage {name!r} in {step.stage.root} was made with another config ({what}). Choose another --workdir, or make "
        f"it anew with --redo {name}, which deletes it{_also(self._dependants(name))}"
      )
    if only_config or "inputs" not in record:  # versions before 0.3 recorded nothing to compare
      return record
    changed = self._origins.changed_inputs(step, record) + self._origins.changed_code(step, record)
    changes = [f"{listed(changed)} since stage {name!r} began"] if changed else []
    changes += self._origins.changed_results(step, record)
    if not done:
      changes += self._changed_package(step, record)
    return self._resolved(step, record, changes)

  def _resolved(self, step: Step, record: Record, changes: list[str]) -> Record:
    """The record with the changes accepted. Raises ConfigError where they are not."""
    name = step.stage.name
    if not changes:
      return record
    if not self._accept:
      raise ConfigError(f"{'; '.join(changes)}. {self._advice(name)}")
    self._news.append(f"{name}: accepted that {'; '.join(changes)}")
    now = self._origins.now(step)
    if is_done(step):  # it was made by the package of then
      now |= {"package": record["package"], "files": self._origins.files(step.stage.directory, record)}
    return {**record, **now, "accepted": [*record.get("accepted", ()), *changes]}

  def _changed_package(self, step: Step, record: Record) -> list[str]:
    changed = self._origins.changed_package(step, record)
    return [f"rlhf_jax has changed since stage {step.stage.name!r} began ({few(changed)})"] if changed else []

  def _goes_on(self, step: Step, record: Record) -> str:
    """Why a finished stage is to train on; "" where it is done.

    Raises:
      ConfigError: stages were made from what it is now, or this package has changed since.
    """
    why = self._asked_for_more(step) or self._damage(step, record)
    changed = self._changed_package(step, record) if why else []
    if changed and not self._accept:
      raise ConfigError(f"{step.stage.name}: {why}; but {changed[0]}. {self._advice(step.stage.name)}")
    if changed:
      record["package"] = self._origins.code[step.stage.name].package
      record["accepted"] = [*record.get("accepted", ()), *changed]
    return why

  def _asked_for_more(self, step: Step) -> str:
    name, field = step.stage.name, steps_field(step.config)
    before = config_then(step.stage).get(field) if field else None
    if not field or before == step.given[field]:
      return ""
    others = [other for other in self._dependants(name) if other not in self._redone]
    if others and not self._accept:
      raise ConfigError(
        f"stage {name!r} is to go on from {before} to {step.given[field]} steps, and {few(others)} read from it: make "
        f"them anew with --redo {','.join(others)}, or keep them with --accept-changes"
      )
    return f"goes on from {before} to {step.given[field]} steps"

  def _damage(self, step: Step, record: Record) -> str:
    checkpoints = step.stage.directory / "checkpoints"
    last = (record["step"], record["checkpoint"]) if "step" in record else last_checkpoint(checkpoints)
    if last is None:
      return ""
    where = checkpoints / str(last[0])
    try:
      if self._origins.hashes.verified(where, lambda: verify_checkpoint(checkpoints, last[0])) == last[1]:
        return ""
      return f"{where} is not the checkpoint that the stage ended with; it trains on from the newest that is whole"
    except CheckpointError as error:
      return f"{error}; it trains on from the newest that is whole"

  def _tell_news(self) -> None:
    for line in self._news:
      console.print(line, markup=False)
    self._news = []

  def _tell_what_stays(self, reopened: Collection[str]) -> None:
    """Lines on the finished stages that an earlier version made, on those that this package's code did not, and on
    files of theirs that have changed and that no stage reads."""
    done = {name: record for name, record in self._begun.items() if is_done(self._steps[name]) and name not in reopened}
    for name, record in done.items():
      shown = self._origins.files(self._steps[name].stage.directory, record, "shown")
      if changed := differences(record.get("shown", {}), shown):
        told = f"{listed([(f'{name}/{file}', how) for file, how in changed])} since the stage ended"
        console.print(f"{told}; no stage reads that, and --accept-changes takes note of it", markup=False)
      if self._accept and "shown" in record:
        record["shown"] = shown
    first = [name for name, record in done.items() if "inputs" not in record]
    if first:
      console.print(f"{few(first)}: done by an earlier version, which recorded no files to compare", markup=False)
    modules: dict[str, list[str]] = {}
    for name, record in done.items():
      for file in self._origins.changed_package(self._steps[name], record):
        modules.setdefault(file, []).append(name)
    if modules:
      names = [name for name in done if any(name in stages for stages in modules.values())]
      told = f"rlhf_jax has changed ({few(list(modules))}) since {few(names)} began: what is done stays so"
      console.print(told, markup=False)

  def _write(self, stage: Stage, record: Record, reopened: str = "") -> None:
    """Writes a record where it has changed; that of a stage that goes on becomes the record of one that was begun."""
    path = stage.directory / (DONE if (stage.directory / DONE).exists() else STARTED)
    if reopened:
      console.print(f"{stage.name}: {reopened}", markup=False)
      record = {key: value for key, value in record.items() if key not in RESULT}
      write_json(stage.directory / STARTED, record)
      path.unlink()
    else:
      if record != read_json(path):
        write_json(path, record)
      if path.name == DONE:  # a process that was killed as it marked the stage done has left the other
        (stage.directory / STARTED).unlink(missing_ok=True)
    self._begun[stage.name] = record

  def _closure(self, names: Iterable[str]) -> list[str]:
    """The stages and those that depend on them, in the order of the config."""
    return with_dependants(names, self._steps.values())

  def _dependants(self, name: str) -> list[str]:
    """The stages that were begun and depend on a stage."""
    return [other for other in self._closure([name]) if other != name and self._was_begun(other)]

  def _was_begun(self, name: str) -> bool:
    stage = self._steps[name].stage
    return any((stage.directory / file).exists() for file in (DONE, STARTED)) or has_left(stage)

  def _advice(self, name: str) -> str:
    deleted = f"--redo {name}, which deletes it{_also(self._dependants(name))}"
    return f"Run anew from there with {deleted}, or keep what is there with --accept-changes"


def _also(dependants: Sequence[str]) -> str:
  return f" and what depends on it ({few(dependants)})" if dependants else ""
