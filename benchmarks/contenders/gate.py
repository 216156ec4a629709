"""The gate in a contender's process: it takes as many steps as the driver asks for, and tells what they took.

A program is "python -m contenders.MODULE WORK MODE". A batch of steps is told by a line of `MARK` and a JSON object on
standard output; what libraries print there otherwise is of no interest.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

STARTED = "CONTENDER_STARTED"  # environment variable: the time of time.time() at which the process was started
MARK = "GATE "
THREADS = "CONTENDER_THREADS"  # environment variable: the number of threads that the contender may use


class Gate:
  """Counts steps, and waits for the driver where as many are done as it asked for; the first batch is one step."""

  def __init__(self, finish: Callable[[], Any] = lambda: None):
    """finish: the function that returns when all work of the steps so far is done; where that was earlier, the time of
    perf_counter at which it was."""
    self._finish, self._left = finish, 1
    self._started = float(os.environ.get(STARTED, time.time()))
    self._begin()

  def step(self, **facts: Any) -> None:
    """Says that a step is done; facts: numbers that tell whether its work is that of the other contenders, or functions
    that fetch them, which are called where the gate waits."""
    for name, value in facts.items():
      self._facts.setdefault(name, []).append(value)
    self._left -= 1
    if self._left == 0:
      self._wait()

  def _begin(self) -> None:
    self._facts = {}
    self._cpu, self._wall = time.process_time(), time.perf_counter()

  def _wait(self) -> None:
    end = self._finish() or time.perf_counter()
    cpu = time.process_time() - self._cpu
    found = {
      "wall": end - self._wall,
      "cpu": cpu,
      "since_start": time.time() - self._started - (time.perf_counter() - end),
      "process_cpu": time.process_time(),
      "facts": {name: [_number(value) for value in values] for name, values in self._facts.items()},
    }
    print(f"\n{MARK}{json.dumps(found)}", flush=True)  # on a line of its own, whatever a library has begun
    asked = sys.stdin.readline().strip()
    if not asked:
      os._exit(0)  # the libraries' threads and files are of no interest
    self._left = int(asked)
    self._begin()


def threads() -> int:
  """The number of threads that this contender may use."""
  return int(os.environ.get(THREADS, len(os.sched_getaffinity(0))))


def idle(seconds: float = 0.1, poll: float = 0.01) -> float:
  """Waits until this process has used no processor for `seconds`; returns the time, of perf_counter, when that began.

  For libraries whose threads work on while the next batch is asked for.
  """
  busy, cpu = time.perf_counter(), time.process_time()
  while time.perf_counter() - busy < seconds:
    time.sleep(poll)
    now = time.process_time()
    if now - cpu > poll / 10:
      busy = time.perf_counter()
    cpu = now
  return busy


def _number(value: Any) -> float | list[float] | None:
  value = value() if callable(value) else value
  if value is None:
    return None
  return [float(x) for x in value] if isinstance(value, (list, tuple)) else float(value)
