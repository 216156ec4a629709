"""What became of a unit: attempts.jsonl in its run directory, a line when an attempt begins and one when it ends."""

from __future__ import annotations

import json
import os
import re
import socket
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_jax.pipeline.owner import job_id, owned
from rlhf_jax.sweep.units import Unit
from rlhf_jax.writing import named_errors

FILE, LOG = "attempts.jsonl", "log.txt"
KILLED = "it ended without a word (killed, or out of memory)"
_PROGRESS = re.compile(r"^\s*(\S+) (\d+)/(\d+)  (.*)$")


class State(NamedTuple):
  """Where a unit stands."""

  status: str
  """One of "done", "running", "failed", "waiting", "blocked" and "pruned"."""
  error: str = ""
  """Last error of a unit that has failed, or the unit that it is blocked by."""


def begin(directory: Path) -> str:
  """Records that an attempt begins, under the lock of the run directory; returns its id."""
  attempt = uuid.uuid4().hex
  host, process = socket.gethostname(), os.getpid()
  _append(directory, {"attempt": attempt, "begun": time.time(), "host": host, "process": process, "job": job_id()})
  return attempt


def end(directory: Path, attempt: str, status: str, error: str = "") -> None:
  """Records how an attempt has ended. status: "done", "failed" or "interrupted"."""
  _append(directory, {"attempt": attempt, "ended": time.time(), "status": status, "error": error})


def prune(directory: Path, why: str) -> None:
  """Records that a unit is given up for good; the engine is to stop it."""
  _append(directory, {"attempt": uuid.uuid4().hex, "pruned": why})


def state(unit: Unit, root: Path, retries: int, since: float = 0.0) -> State:
  """Where a unit stands, from its files. since: time in seconds since the epoch from which on failures count."""
  directory = root / unit.name
  if unit.is_done(root):
    return State("done")
  rows = _rows(directory)
  given_up = [row["pruned"] for row in rows if "pruned" in row]
  if given_up and not owned(directory):
    return State("pruned", given_up[-1])
  if owned(directory):
    return State("running")
  errors = _errors(rows, since)
  return State("failed", errors[-1]) if len(errors) > retries else State("waiting", errors[-1] if errors else "")


def _errors(rows: list[dict[str, Any]], since: float) -> list[str]:
  """The errors of the attempts that failed; one that began and neither ended nor is at work was killed."""
  ends = {row["attempt"]: row for row in rows if "ended" in row}
  found = []
  for row in rows:
    if "begun" in row:
      last = ends.get(row["attempt"], {"status": "failed", "error": KILLED, "ended": row["begun"]})
      if last["status"] == "failed" and last["ended"] >= since:
        found.append(last["error"])
  return found


def count(directory: Path, since: float) -> int:
  """The number of attempts that have begun at a time of `since`, in seconds since the epoch, or later."""
  return sum(row.get("begun", 0.0) >= since for row in _rows(directory))


def progress(directory: Path) -> str:
  """The last line of progress in the log of a unit, as "ppo 12/32  40 s left  reward/proxy 0.21"; "" without one."""
  try:
    with open(directory / LOG, "rb") as file:
      file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
      lines = file.read().decode(errors="replace").splitlines()
  except OSError:
    return ""
  return next((line.strip() for line in reversed(lines) if _PROGRESS.match(line)), "")


def _rows(directory: Path) -> list[dict[str, Any]]:
  try:
    lines = (directory / FILE).read_text().splitlines()
  except FileNotFoundError:
    return []
  found = []
  for line in lines:
    try:
      found.append(json.loads(line))
    except ValueError:  # half a line of a process that was killed
      continue
  return found


def _append(directory: Path, record: dict[str, Any]) -> None:
  with named_errors(directory / FILE), open(directory / FILE, "a", encoding="utf-8") as file:
    file.write(json.dumps(record) + "\n")
