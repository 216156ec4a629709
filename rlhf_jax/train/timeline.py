"""Where the seconds of a stage go: compilation, steps, evaluation, checkpoints, and all else, which is data.

Every second of a stage belongs to one part, so that the parts add up to the stage:

  compile     tracing, lowering and compiling, or reading a program from disk, while the stage waits for it
  steps       optimiser steps, or rollouts with their updates, from the first to the last
  evaluation  held-out evaluation, and a stage that does nothing else
  checkpoint  saving, as long as it keeps the next step from starting
  data        all else: reading, making and tokenising data, opening models

Programs that a thread beside the stage compiles do not count, as nobody waits for them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from jax import monitoring

PARTS = ("compile", "data", "steps", "evaluation", "checkpoint")
_COMPILING = (
  "/jax/core/compile/jaxpr_trace_duration",
  "/jax/core/compile/jaxpr_to_mlir_module_duration",
  "/jax/core/compile/backend_compile_duration",
)


class Timeline:
  """The seconds of a stage by part, from when it is made."""

  def __init__(self) -> None:
    self._seconds = dict.fromkeys(PARTS, 0.0)
    self._part = "data"
    self._last = time.perf_counter()

  def enter(self, part: str) -> str:
    """Gives the seconds from here on to `part`; returns the part that had them."""
    now = time.perf_counter()
    self._seconds[self._part] += now - self._last
    before, self._part, self._last = self._part, part, now
    return before

  def compiled(self, seconds: float) -> None:
    """Gives seconds that lie in the present part to compilation."""
    self._seconds["compile"] += seconds
    self._seconds[self._part] -= seconds

  def seconds(self) -> dict[str, float]:
    """{part: seconds so far, to a tenth}, without parts that took none."""
    self.enter(self._part)
    rounded = {part: round(seconds, 1) for part, seconds in self._seconds.items()}
    return {part: seconds for part, seconds in rounded.items() if seconds > 0}


_current: list[Timeline] = []  # of the stage that runs


@contextlib.contextmanager
def timeline() -> Iterator[Timeline]:
  """The timeline of a stage, to which `counted_as` and all compilation in this thread belong meanwhile."""
  found, thread = Timeline(), threading.get_ident()

  def listen(name: str, seconds: float, **_: object) -> None:
    if name in _COMPILING and threading.get_ident() == thread:
      found.compiled(seconds)

  _current.append(found)
  monitoring.register_event_duration_secs_listener(listen)
  try:
    yield found
  finally:
    monitoring.unregister_event_duration_listener(listen)
    _current.remove(found)


@contextlib.contextmanager
def counted_as(part: str) -> Iterator[None]:
  """Gives the seconds within, or those of a function that it decorates, to a part of the stage that runs."""
  if not _current:
    yield
    return
  running = _current[-1]
  before = running.enter(part)
  try:
    yield
  finally:
    running.enter(before)
