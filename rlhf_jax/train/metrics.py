"""Metrics as numbers, and the files of JSON rows with a step each: metrics.jsonl, speed.jsonl, samples.jsonl.

A number that is not finite stands there as a text, "nan", "inf" or "-inf", so that every row is JSON. A row is appended
by one write of whole lines. What a crash or a fault of the disk has left is repaired and named: a last line that was
cut short is dropped, a line in the middle that is no row is kept in FILE.damaged.jsonl.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rlhf_jax.train.processes import host, leader
from rlhf_jax.train.progress import console
from rlhf_jax.types import Max, Mean
from rlhf_jax.writing import named_errors, write_bytes

Metric = Mean | Max | float
Row = dict[str, Any]
NOT_FINITE = ("nan", "inf", "-inf")  # numbers that a row holds as texts


def to_floats(metrics: Mapping[str, Metric]) -> dict[str, float]:
  """The metrics as floats, Means divided; all are fetched together, and this waits for the device."""
  fetched = host(dict(metrics))
  return {name: value.compute() if isinstance(value, Mean | Max) else float(value) for name, value in fetched.items()}


def send_to_host(metrics: Mapping[str, Metric]) -> None:
  """Starts the copies to the host that `to_floats` then waits for."""
  for leaf in jax.tree.leaves(dict(metrics)):
    if isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
      leaf.copy_to_host_async()


def spelled(value: Any) -> Any:
  """A float that is not finite as a text, which JSON has no number for; any other value as it is."""
  return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class Rows(NamedTuple):
  """The lines of a file of rows."""

  rows: list[tuple[bytes, Row]]
  """Lines that hold a row with a whole number "step", without their line feed, and what they hold."""
  damaged: list[tuple[int, bytes]]
  """Numbers (from 1) of the lines that hold no row, and these lines; blank lines are in neither list."""
  cut: bool
  """Whether the last line was cut short: it holds no row and has no line feed."""


def read_lines(path: Path) -> Rows:
  """The lines of a file of rows; none where there is no file."""
  rows, damaged = [], []
  text = path.read_bytes() if path.exists() else b""
  lines = text.split(b"\n")  # not splitlines, which also cuts at U+2028
  for number, line in enumerate(lines, start=1):
    row = _row(line)
    if row is not None:
      rows.append((line, row))
    elif line.strip():
      damaged.append((number, line))
  cut = bool(damaged) and damaged[-1][0] == len(lines)
  return Rows(rows, damaged[:-1] if cut else damaged, cut)


def read_metrics(path: str | Path) -> list[dict[str, float]]:
  """The rows of a metrics.jsonl; [] where there is no file. Lines that hold no row are left out, and named."""
  path = Path(path)
  found = read_lines(path)
  if found.damaged or found.cut:
    console.print(f"{path}: {_damage(found)} left out", markup=False)
  return [
    {name: float(value) if value in NOT_FINITE else value for name, value in row.items()} for _, row in found.rows
  ]


class RowFile:
  """A file of rows that is appended to, each with its "step"; rows after `start_step`, of an interrupted run, go.

  What is repaired is printed, with the path. Of the processes of a job the leader alone has a file.
  """

  def __init__(self, path: Path, start_step: int, *, every_step: bool = False, digest: str | None = None):
    """every_step: whether each step has a row, so that a missing one is named. digest: that of the rows up to
    `start_step` when they were written, so that others in their place are named; None where it is not known."""
    self._path, self._hash = path, hashlib.sha256()
    self._file: io.FileIO | None = None
    if leader():
      self._open(start_step, every_step, digest)

  def _open(self, start_step: int, every_step: bool, digest: str | None) -> None:
    path = self._path
    path.parent.mkdir(parents=True, exist_ok=True)
    found = read_lines(path)
    if found.damaged:
      aside = path.with_name(f"{path.stem}.damaged{path.suffix}")
      before = aside.read_bytes() if aside.exists() else b""
      write_bytes(aside, before + b"".join(line + b"\n" for _, line in found.damaged))
      console.print(f"{path}: {_damage(found._replace(cut=False))} moved to {aside.name}", markup=False)
    if found.cut:
      console.print(f"{path}: the last line was cut short and is dropped", markup=False)
    kept = [(line, row["step"]) for line, row in found.rows if row["step"] <= start_step]
    missing = sorted({*range(1, start_step + 1)} - {step for _, step in kept}) if every_step else []
    if missing:
      console.print(f"{path}: {_steps(missing)} {'have no row' if missing[1:] else 'has no row'}", markup=False)
    content = b"".join(line + b"\n" for line, _ in kept)
    self._hash.update(content)
    if digest not in (None, self.digest()):
      console.print(f"{path}: the rows up to step {start_step} are not those that were written", markup=False)
    write_bytes(path, content)
    self._file = path.open("ab", buffering=0)

  def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends the rows by one write, so that a reader sees whole lines only."""
    rows = [{name: spelled(value) for name, value in row.items()} for row in rows]
    content = b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for row in rows)
    if self._file:
      with named_errors(self._path):
        self._file.write(content)
    self._hash.update(content)

  def digest(self) -> str:
    """The SHA-256 of all rows so far."""
    return self._hash.hexdigest()

  def sync(self) -> None:
    """Returns when the rows are on the disk."""
    if self._file:
      with named_errors(self._path):
        os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file."""
    if self._file:
      self._file.close()


def _row(line: bytes) -> Row | None:
  try:
    row = json.loads(line)
  except (ValueError, RecursionError):
    return None
  return row if isinstance(row, dict) and type(row.get("step")) is int else None


def _damage(found: Rows) -> str:
  """The lines that hold no row, in words that "left out" or "moved" may follow."""
  numbers = [str(number) for number, _ in found.damaged]
  words = [
    f"line {', '.join(numbers[:5])}{', ...' if numbers[5:] else ''}, which hold{'s' * (len(numbers) == 1)} no row"
  ]
  cut = ["the last line, which was cut short"] if found.cut else []
  return ", and ".join([*(words if numbers else []), *cut]) + ("," if numbers or cut else "")


def _steps(steps: list[int]) -> str:
  """Step numbers in words: "step 3", "2 steps from 3 to 4"."""
  return f"{len(steps)} steps from {steps[0]} to {steps[-1]}" if steps[1:] else f"step {steps[0]}"
