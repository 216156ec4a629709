"""The directory of a stage as the pipeline sees it: its records, the files that it has left, and what differs.

done.json stands there once the stage has run to its end, started.json from its beginning until then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.data.files import DataError, read_json
from rlhf_jax.pipeline.old_names import current_names
from rlhf_jax.pipeline.plan import Step
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import Stage
from rlhf_jax.train.checkpoint import last_checkpoint

Record = dict[str, Any]

DONE, STARTED = "done.json", "started.json"
RESULT = (
  "step",
  "checkpoint",
  "files",
  "shown",
  "seconds",
  "timeline",
  "command",
)  # keys of done.json beside those of started.json
# What a stage that begins anew writes anew.
_OWN = {DONE, STARTED, "config.json", "metrics.jsonl", "speed.jsonl", "samples.jsonl", "traceback.txt"}


def is_done(step: Step) -> bool:
  """Whether the stage has run to its end."""
  return (step.stage.directory / DONE).exists()


def read_record(stage: Stage) -> Record | None:
  """done.json, else started.json, else None. Raises ConfigError where it was cut."""
  for file in (DONE, STARTED):
    if (stage.directory / file).exists():
      try:
        found = read_json(stage.directory / file)
        if not isinstance(found, dict) or "fingerprint" not in found:
          raise DataError(f"{stage.directory / file} is no record of a stage: it has no fingerprint")
        return found
      except DataError as error:
        raise _unreadable(error, stage) from error
  return None


def _unreadable(error: DataError, stage: Stage) -> ConfigError:
  return ConfigError(f"{error}; or make stage {stage.name!r} anew with --redo {stage.name}")


def done_record(directory: Path) -> Record:
  """The done.json of a stage's directory; {} where the stage is not done."""
  path = directory / DONE
  return read_json(path) if path.exists() else {}


def config_then(stage: Stage) -> Mapping[str, Any]:
  """The config that a stage was begun with. Raises ConfigError where it was cut."""
  try:
    return current_names(read_json(stage.directory / "config.json"))
  except DataError as error:
    raise _unreadable(error, stage) from error


def written_files(step: Step) -> list[str]:
  """The files that others may read: those that the stage's module declares, or all where it declares none and has no
  checkpoints."""
  directory = step.stage.directory
  declared = getattr(step.module, "WRITES", None)
  if declared is None and not (directory / "checkpoints").is_dir():
    declared = sorted(path.name for path in directory.iterdir() if path.is_file() and path.name not in _OWN)
  return [name for name in declared or () if (directory / name).is_file()]


def shown_files(step: Step, written: Collection[str]) -> list[str]:
  """The files of a stage that no other reads, such as metrics.jsonl; without checkpoints and the files of writers."""
  found = []
  for directory, inner, files in os.walk(step.stage.directory):
    inner[:] = sorted(name for name in inner if name not in ("checkpoints", "tensorboard", "wandb"))
    names = (os.path.relpath(Path(directory) / file, step.stage.directory) for file in sorted(files) if file[0] != ".")
    found += [name for name in names if name not in (DONE, STARTED, *written)]
  return found


def has_left(stage: Stage) -> bool:
  """Whether a stage that was begun has left anything that it might go on from."""
  if last_checkpoint(stage.directory / "checkpoints"):
    return True
  for directory, inner, files in os.walk(stage.directory):
    inner[:] = [name for name in inner if name not in ("checkpoints", "tensorboard", "samples")]
    for file in files:
      if file not in _OWN and not file.startswith(".") and (Path(directory) / file).stat().st_size:
        return True
  return False


def remove(directory: Path) -> None:
  """Deletes a stage's directory; stages that runs of a sweep share are links, and not theirs to delete."""
  if directory.is_dir() and not directory.is_symlink():
    shutil.rmtree(directory)


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, str]]:
  """(name, "has changed" | "is gone" | "is new") of what differs between two tables of digests."""
  how = {name: "is gone" if name not in now else "is new" if name not in before else "has changed"
         for name in sorted({*before, *now})}  # fmt: skip
  return [(name, text) for name, text in how.items() if before.get(name) != now.get(name)]


def listed(changes: Sequence[tuple[str, str]]) -> str:
  """ "a.jsonl and b.py have changed and c.jsonl is gone"."""
  groups: dict[str, list[str]] = {}
  for name, how in changes:
    groups.setdefault(how, []).append(name)
  several = {"has changed": "have changed", "is gone": "are gone", "is new": "are new"}
  return " and ".join(f"{few(names)} {how if len(names) == 1 else several[how]}" for how, names in groups.items())


def few(names: Sequence[str]) -> str:
  """ "a, b and c", or "a, b, c and 4 more"."""
  shown = [*names] if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
  return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
