"""Signals that ask a run to stop: what runs is finished and saved, and the process ends with status 128 + number.

A signal that is ignored when the process starts (SIGHUP under nohup, SIGINT in a background job) stays ignored. SIGTERM
that comes twice within `ECHO_SECONDS` is one signal: SLURM sends it so to a job that it preempts without grace.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from rlhf_jax.calls import SIGNALS
from rlhf_jax.train.processes import highest

Handler = Callable[[int, FrameType | None], Any]
ECHO_SECONDS = 2.0
_AGAIN_SECONDS = 0.01  # after which a signal whose exception was dropped is sent again
_terminated = [-math.inf]  # when SIGTERM came last, echoes aside


class Interrupted(Exception):
  """The stage stopped on signal `number`, after saving what the same call continues from."""

  def __init__(self, message: str, number: int) -> None:
    super().__init__(message)
    self.number = number


class Stopped(KeyboardInterrupt):
  """Signal `number` ended the process at once, as SIGINT does by a KeyboardInterrupt."""

  def __init__(self, number: int) -> None:
    super().__init__(signal.Signals(number).name)
    self.number = number


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[], int]]:
  """Yields a function that returns the number of the signal that has come, 0 before one has.

  The processes of a job call it together and get the same answer: a signal of any of them stops all.
  A second signal of the same number acts as it would without this context. Outside the main thread no signal is
  caught, and the function returns 0.
  """
  received = [0]

  def remember(number: int, frame: FrameType | None) -> None:
    if _is_echo(number):
      return
    received[0] = number
    signal.signal(number, previous[number])

  with _handled_by(remember) as previous:
    yield lambda: highest(received[0])


@contextlib.contextmanager
def exit_on_signal() -> Iterator[None]:
  """Within it every signal raises Stopped in the main thread, so that files in writing and locks are cleared away."""
  before = sys.unraisablehook

  def leave(number: int, frame: FrameType | None) -> None:
    if not _is_echo(number):
      raise Stopped(number)

  def again(dropped: sys.UnraisableHookArgs) -> None:
    if isinstance(dropped.exc_value, Stopped):
      _terminated[0] = -math.inf
      threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), dropped.exc_value.number)).start()
    else:
      before(dropped)

  with _handled_by(leave):
    sys.unraisablehook = again  # what is raised while garbage is collected is dropped: the signal comes once more
    try:
      yield
    finally:
      sys.unraisablehook = before


def _is_echo(number: int) -> bool:
  """Whether a signal that comes now is SIGTERM for the second time; notes when it came."""
  if number != signal.SIGTERM:
    return False
  now = time.monotonic()
  if now - _terminated[0] < ECHO_SECONDS:
    return True
  _terminated[0] = now
  return False


@contextlib.contextmanager
def _handled_by(handler: Handler) -> Iterator[dict[int, Any]]:
  """Yields {number: handler before}."""
  previous: dict[int, Any] = {}
  _terminated[0] = -math.inf
  with contextlib.suppress(ValueError):  # signal.signal raises it outside the main thread
    for number in SIGNALS:
      if signal.getsignal(number) is not signal.SIG_IGN:
        previous[number] = signal.signal(number, handler)
  try:
    yield previous
  finally:
    for caught, before in previous.items():
      signal.signal(caught, before)
