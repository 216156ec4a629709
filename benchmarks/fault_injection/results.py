"""What a stage has written, in a form that is equal for two runs that are: without times, places and process ids."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from fault_injection.attempts import in_child

# Copies for a viewer, what was set aside, and what belongs to a process and not to a result.
IGNORED = re.compile(r"(^|/)(tensorboard|owner|lock)|\.tmp|\.damaged|(^|/)\.|-(wal|shm)$")
RECORDS = ("done.json", "started.json")  # say how a result was made


def digest(stage: Path) -> dict[str, str]:
  """{file: digest of what it says} of a stage's directory; the arrays of its last checkpoint are "checkpoint"."""
  found = {}
  for path in sorted(stage.rglob("*")):
    name = str(path.relative_to(stage))
    if path.is_dir() or IGNORED.search(name) or name.startswith("checkpoints/"):
      continue
    found[name] = hashlib.sha256(_meaning(path)).hexdigest()[:16]
  if (stage / "checkpoints").exists():
    found["checkpoint"] = _of_checkpoint(stage / "checkpoints")
  return found


def _meaning(path: Path) -> bytes:
  try:
    if path.name in RECORDS:
      json.loads(path.read_text())
      return b"a record"
    if path.name == "speed.jsonl":  # seconds and memory; the row of a step comes after its checkpoint, and may be lost
      return b"rows" if all(json.loads(line)["step"] for line in path.read_text().splitlines()) else b"others"
    if path.suffix == ".db":
      return _of_database(path)
  except (ValueError, TypeError, KeyError, sqlite3.Error):
    return b"damaged " + path.read_bytes()
  return path.read_bytes()


def _of_database(path: Path) -> bytes:
  """The rows of every table, without times."""
  with tempfile.TemporaryDirectory() as folder:  # reading may write: it moves rows out of the file beside it
    for part in path.parent.glob(f"{path.name}*"):
      shutil.copy(part, folder)
    with contextlib.closing(sqlite3.connect(Path(folder) / path.name)) as store:
      if store.execute("PRAGMA integrity_check").fetchone() != ("ok",):
        raise ValueError("damaged")
      lines = list(store.iterdump())
  return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)?|\b1[6-9]\d{8}(\.\d+)?\b", "TIME", "\n".join(lines)).encode()


def _of_checkpoint(directory: Path) -> str:
  """The digest of the arrays of the last checkpoint, or the error of reading it."""
  answer = directory.parent / ".digest"
  pid = in_child(lambda: _read_checkpoint(directory, answer), directory, [Path(os.devnull)] * 2)
  os.waitpid(pid, 0)
  text = answer.read_text() if answer.exists() else "unreadable"
  answer.unlink(missing_ok=True)
  return text


def _read_checkpoint(directory: Path, answer: Path) -> int:
  """Writes the digest of all arrays of the checkpoint that the stage ended with."""
  import numpy as np

  from rlhf_jax.train import stored_arrays

  try:
    step = stored_arrays.stored_steps(directory)[-1]
    done = directory.parent / "done.json"
    if done.exists() and json.loads(done.read_text()).get("step", step) != step:
      raise ValueError(f"done.json names another step than {step}")
    whole = hashlib.sha256(str(step).encode())
    record = stored_arrays.read_record(directory / str(step))
    for tree in stored_arrays.TREES:
      arrays = stored_arrays.read(directory / str(step), tree, record[tree])
      for path, array in sorted(arrays.items()):
        whole.update(f"{path} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    answer.write_text(whole.hexdigest()[:16])
  except Exception as error:  # every error means that the checkpoint is not what it should be
    answer.write_text(f"{type(error).__name__}: {error}")
  return 0


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
  """The names whose digests differ, or that only one side has."""
  return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
