"""Metrics of a stage, in two forms: `metrics.jsonl` for people and programs, TensorBoard events for browsing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from rlhf_jax.data.files import write_bytes
from rlhf_jax.types import Mean


def to_floats(metrics: Mapping[str, Mean | float]) -> dict[str, float]:
  """The metrics as floats, Means divided; this waits for the device."""
  return {name: value.compute() if isinstance(value, Mean) else float(value) for name, value in metrics.items()}


def read_metrics(path: Path) -> list[dict[str, float]]:
  """The rows of a metrics.jsonl; [] where there is no file. A last line cut short by a crash is left out."""
  if not Path(path).exists():
    return []
  rows = []
  for line in Path(path).read_text().splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return rows


class MetricsWriter:
  """Appends one JSON object for each step; rows after `start_step`, of an interrupted run, are dropped."""

  def __init__(self, directory: Path, start_step: int):
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "metrics.jsonl"
    kept = [row for row in read_metrics(path) if row["step"] <= start_step]
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
    self._file = path.open("a")
    self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=start_step + 1)

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes the metrics of one step."""
    self._file.write(json.dumps({"step": step, **metrics}) + "\n")
    self._file.flush()
    for name, value in metrics.items():
      self._board.add_scalar(name, value, step)

  def close(self) -> None:
    """Closes the file and the events."""
    self._file.close()
    self._board.close()
