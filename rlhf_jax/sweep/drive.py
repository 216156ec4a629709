"""Brings the units of a sweep to an end: starts what may start, tries again what failed, shows where all of it stands.

All that is known of a unit stands in its run directory, so that a sweep may be killed and started anew, and several
sweeps may work on one directory: a run has one owner.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.live import Live
from rich.table import Table

from rlhf_jax.sweep import attempts
from rlhf_jax.sweep.attempts import State
from rlhf_jax.sweep.engines import Engine
from rlhf_jax.sweep.units import Unit
from rlhf_jax.train.progress import console
from rlhf_jax.train.signals import stop_on_signal

POLL_SECONDS = 0.5
QUIET_SECONDS = 30.0  # between two lines on what runs, where the output is not a terminal
STOP_SECONDS = 120.0  # that running units get to save and end after a signal
NOT_BEGUN = "its process ended before it could record that it began"
ENDED = ("done", "failed", "blocked", "pruned")


class SweepStopped(KeyboardInterrupt):
  """Signal `number` stopped the sweep, after what ran has saved."""

  def __init__(self, number: int) -> None:
    super().__init__("the sweep was stopped")
    self.number = number


def drive(
  units: Sequence[Unit], root: Path, engine: Engine, retries: int, watch: Callable[[str], None] = lambda name: None
) -> dict[str, State]:
  """Carries out all units, and returns where each stands then: done, failed, blocked or pruned.

  retries: how often a unit that failed is tried again. watch: called with the name of each unit that runs, now and
  then.

  Raises:
    SweepStopped: on a signal.
  """
  since = time.time()
  starts = Counter[str]()
  show = _Show()
  with stop_on_signal() as signalled, show:
    while True:
      states = _states(units, root, retries, since, starts, engine.alive())
      show.update(states, root)
      if signalled():
        _stop(engine)
        raise SweepStopped(signalled())
      if all(state.status in ENDED for state in states.values()):
        return states
      for name in [name for name, state in states.items() if state.status == "running"]:
        watch(name)
      ready = [unit for unit in units if states[unit.name].status == "waiting" and _is_ready(unit, states)]
      chosen = ready[: engine.room()]
      if chosen:
        engine.start(chosen)
        starts.update(unit.name for unit in chosen)
      time.sleep(POLL_SECONDS)


def _states(
  units: Sequence[Unit], root: Path, retries: int, since: float, starts: Mapping[str, int], alive: set[str]
) -> dict[str, State]:
  found: dict[str, State] = {}
  for unit in units:
    state = State("running") if unit.name in alive else attempts.state(unit, root, retries, since)
    if state.status == "waiting" and starts.get(unit.name, 0) > attempts.count(root / unit.name, since) + retries:
      state = State("failed", NOT_BEGUN)
    broken = [name for name in unit.after if found[name].status in ("failed", "blocked")]
    found[unit.name] = State("blocked", broken[0]) if broken and state.status == "waiting" else state
  return found


def _is_ready(unit: Unit, states: Mapping[str, State]) -> bool:
  return all(states[name].status == "done" for name in unit.after)


def _stop(engine: Engine) -> None:
  engine.stop()
  end = time.monotonic() + STOP_SECONDS
  while engine.alive() and time.monotonic() < end:
    time.sleep(0.2)


class _Show:
  """A table on a terminal; elsewhere a line for each change, and now and then one for each unit that runs."""

  def __init__(self) -> None:
    self._before: dict[str, State] = {}
    self._last = time.monotonic()
    self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None

  def __enter__(self) -> _Show:
    if self._live:
      self._live.start()
    return self

  def __exit__(self, *exception: object) -> None:
    if self._live:
      self._live.stop()

  def update(self, states: dict[str, State], root: Path) -> None:
    """Shows where the units stand."""
    if self._live:
      self._live.update(_table(states, root))
      return
    for name, state in states.items():
      before = self._before.get(name)
      if before == state or (before is None and state.status == "waiting"):
        continue
      log = f"; its log is {root / name / attempts.LOG}" if state.status in ("failed", "waiting") else ""
      more = f": {state.error}{log}" if state.error else ""
      console.print(f"{name}: {state.status}{more}  ({_counts(states)})", markup=False)
    if time.monotonic() - self._last > QUIET_SECONDS:
      self._last = time.monotonic()
      for name in [name for name, state in states.items() if state.status == "running"]:
        console.print(f"{name}: {attempts.progress(root / name) or 'starting'}", markup=False)
    self._before = states


def _table(states: Mapping[str, State], root: Path) -> Table:
  """The units that have not ended as wanted, with their progress; the others are counted."""
  table = Table("run", "state", "progress", title=_counts(states), title_justify="left", box=None)
  shown = [name for name, state in states.items() if state.status in ("running", "failed")]
  for name in shown[: max(4, console.height - 6)]:
    state = states[name]
    table.add_row(name, state.status, state.error or attempts.progress(root / name) or "starting")
  return table


def _counts(states: Mapping[str, State]) -> str:
  counts = Counter(state.status for state in states.values())
  return ", ".join(
    f"{counts[status]} {status}" for status in ("done", "running", "waiting", *ENDED[1:]) if counts[status]
  )
