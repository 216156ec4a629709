"""The log of a stage: metrics.jsonl, speed.jsonl and samples.jsonl, and the writers of `config.writers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_jax.stage import Stage
from rlhf_jax.train.metrics import RowFile
from rlhf_jax.train.processes import leader
from rlhf_jax.train.writers import open_writers


class StageLog:
  """The log of a stage that continues behind `start_step`; rows of later steps, of an interrupted run, are dropped."""

  def __init__(self, stage: Stage, start_step: int, digests: Mapping[str, str] | None = None):
    """digests: what `digests` returned when `start_step` was the last step; None where that is not known."""
    known = digests or {}
    path = stage.directory / "metrics.jsonl"
    self._metrics = RowFile(path, start_step, every_step=True, digest=known.get(path.name))
    self._speed = RowFile(stage.directory / "speed.jsonl", start_step, every_step=True)
    path = stage.directory / "samples.jsonl"
    self._start, self._samples_path = start_step, path
    there = path.exists() or path.name in known
    self._samples = RowFile(path, start_step, digest=known.get(path.name)) if there else None
    self._writers = open_writers(stage, start_step) if leader() else []

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes the metrics of one step."""
    self._metrics.append([{"step": step, **metrics}])
    for writer in self._writers:
      writer.write(step, metrics)

  def write_speed(self, step: int, row: Mapping[str, float]) -> None:
    """Writes how fast one step was; the writers get it under "speed/"."""
    self._speed.append([{"step": step, **row}])
    for writer in self._writers:
      writer.write(step, {f"speed/{name}": value for name, value in row.items()})

  def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows with a step each to samples.jsonl."""
    self._samples = self._samples or RowFile(self._samples_path, self._start)
    self._samples.append(rows)

  def text(self, step: int, name: str, text: str) -> None:
    """Gives a text in Markdown to the writers."""
    for writer in self._writers:
      writer.text(step, name, text)

  def sync(self) -> None:
    """Returns when the rows are on the disk; call it before a checkpoint counts on them."""
    for file in self._files():
      file.sync()

  def digests(self) -> dict[str, str]:
    """{name of the file: SHA-256 of its rows} of the rows so far; those of speed.jsonl no run repeats."""
    samples = {self._samples_path.name: self._samples.digest()} if self._samples else {}
    return {"metrics.jsonl": self._metrics.digest(), **samples}

  def close(self) -> None:
    """Closes files and writers."""
    for file in self._files():
      file.close()
    for writer in self._writers:
      writer.close()

  def _files(self) -> list[RowFile]:
    return [self._metrics, self._speed, *([self._samples] if self._samples else [])]
