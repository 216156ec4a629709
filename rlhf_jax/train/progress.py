"""The progress of a stage, as a person sees it: the step, the time left, and the numbers that matter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rlhf_jax.train.processes import leader


class _Console(Console):
  """The processes of a job print the same at the same time: the leader speaks."""

  def print(self, *objects: Any, **settings: Any) -> None:
    if leader():
      super().print(*objects, **settings)


console = _Console(soft_wrap=True, highlight=False)
SHOWN = ("loss", "eval/loss", "accuracy", "eval/accuracy", "reward/proxy", "reward/gold", "kl/reference")
QUIET_SECONDS = 10.0  # between two lines where the output is not a terminal


def report_skips(where: str, skips: Mapping[str, int], total: int) -> None:
  """Prints how many rows of `total` were left out, for each reason; nothing is dropped silently."""
  for reason, count in sorted(skips.items()):
    console.print(f"{where}: skipped {count} of {total} rows: {reason}", markup=False)


def report_notes(where: str, notes: Mapping[str, int], total: int) -> None:
  """Prints for how many rows of `total`, which are kept, each note holds."""
  for note, count in sorted(notes.items()):
    console.print(f"{where}: of {count} of {total} rows, {note}", markup=False)


class StageProgress:
  """A bar on a terminal; elsewhere (a log file, CI) a line every few seconds. Use it as a context manager.

  The time left is measured from the end of the first step, because that step compiles the stage's programs.
  """

  def __init__(self, name: str, total: int, done: int = 0) -> None:
    self._name, self._total, self._done = name, total, done
    self._start = self._last_line = time.monotonic()
    self._first: tuple[int, float] | None = None  # steps done at the end of the first step, and the time then
    self._bar: Progress | None = None
    if console.is_terminal and leader():
      columns = (
        TextColumn("{task.description:>14}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),  # its speed is taken between updates, the first of which ends the first step
        TextColumn("{task.fields[numbers]}"),
      )
      self._bar = Progress(*columns, console=console, speed_estimate_period=600.0)
      self._task = self._bar.add_task(name, total=total, completed=done, numbers="compiling")

  def __enter__(self) -> StageProgress:
    if self._bar:
      self._bar.start()
    else:
      self._line(self._done, "compiling")
    return self

  def __exit__(self, *exception: object) -> None:
    if self._bar:
      self._bar.stop()

  def update(self, done: int, metrics: Mapping[str, float]) -> None:
    """Shows that `done` of the steps are done; `metrics` are the latest step's."""
    numbers = "  ".join(f"{name} {metrics[name]:.3f}" for name in SHOWN if name in metrics)
    if self._bar:
      self._bar.update(self._task, completed=done, numbers=numbers)
      return
    now = time.monotonic()
    first, then = self._first = self._first or (done, now)
    if now - self._last_line > QUIET_SECONDS or done == self._total:
      self._last_line = now
      if done > first or done == self._total:
        left = (now - then) / max(done - first, 1) * (self._total - done)
        self._line(done, f"{left:.0f} s left", numbers)
      else:
        self._line(done, f"compiled and took the first step in {now - self._start:.0f} s", numbers)

  def _line(self, done: int, *words: str) -> None:
    console.print("  ".join((f"{self._name:>14} {done}/{self._total}", *words)), markup=False)
