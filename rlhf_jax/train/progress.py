"""What a person sees while a stage runs: where it is, how long is left, and the numbers that matter."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rlhf_jax.population import speaks


class _Console(Console):
  """Members of a population say the same at the same time: one of them is heard."""

  def print(self, *objects, **settings) -> None:
    if speaks():
      super().print(*objects, **settings)


console = _Console(soft_wrap=True, highlight=False)
SHOWN = ("loss", "eval/loss", "accuracy", "eval/accuracy", "reward/proxy", "reward/gold", "kl/reference")
QUIET_SECONDS = 10.0  # between two lines where the output is not a terminal


def report_skips(where: str, skips: Mapping[str, int], total: int) -> None:
  """Says what was left out and why; nothing is dropped silently."""
  for reason, count in sorted(skips.items()):
    console.print(f"{where}: skipped {count} of {total} rows: {reason}", markup=False)


class StageProgress:
  """A bar on a terminal; elsewhere (a log file, CI) a line every few seconds. Use it as a context manager."""

  def __init__(self, name: str, total: int, done: int = 0):
    self._name, self._total, self._first = name, total, done
    self._start = self._last_line = time.monotonic()
    self._bar = None
    if console.is_terminal and speaks():
      columns = (
        TextColumn("{task.description:>14}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
      )
      self._bar = Progress(*columns, console=console)
      self._task = self._bar.add_task(name, total=total, completed=done, numbers="compiling")

  def __enter__(self) -> StageProgress:
    if self._bar:
      self._bar.start()
    return self

  def __exit__(self, *exception) -> None:
    if self._bar:
      self._bar.stop()

  def update(self, done: int, metrics: Mapping[str, float]) -> None:
    """`done` steps are behind us; `metrics` are the latest step's."""
    numbers = "  ".join(f"{name} {metrics[name]:.3f}" for name in SHOWN if name in metrics)
    if self._bar:
      self._bar.update(self._task, completed=done, numbers=numbers)
      return
    now = time.monotonic()
    if now - self._last_line > QUIET_SECONDS or done == self._total:
      self._last_line = now
      left = (now - self._start) / max(done - self._first, 1) * (self._total - done)
      console.print(f"{self._name:>14} {done}/{self._total}  {left:.0f} s left  {numbers}", markup=False)
