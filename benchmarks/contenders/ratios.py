"""Ratios in results of `benchmarks/peers.py`: seconds of a peer over ours in each round, with median and quartiles."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from contenders.comparisons import COMPARISONS, OURS, START_GOALS, Goal

Results = Mapping[str, Mapping[str, Any]]


class Spread(NamedTuple):
  """A median with the quartiles around it."""

  median: float
  low: float
  high: float

  @classmethod
  def of(cls, values: Sequence[float]) -> Spread:
    """The spread of some values."""
    if len(values) == 1:
      return cls(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return cls(median, low, high)


class Ratio(NamedTuple):
  """How many times the seconds of `ours` a peer takes, on one clock."""

  part: str
  """Key of the part in the results."""
  ours: str
  peer: str
  clock: str
  """"cpu" on one core, "wall" on more; of starts, the state of the cache."""
  seconds: tuple[float, float]
  """Medians of ours and of the peer."""
  spread: Spread
  goal: float
  """Factor to reach; 0 for none."""

  @property
  def name(self) -> str:
    """What tells this ratio from others."""
    return f"{self.part}: {self.peer} over {self.ours}, {self.clock}"


def of_part(name: str, cores: int, contenders: Mapping[str, Any]) -> list[Ratio]:
  """The ratios of a part, of those contenders that ran."""
  key = f"{name}, {cores}"
  if name == "starts":
    return [ratio for algorithm, found in contenders.items() for ratio in _of_start(key, algorithm, found)]
  clock = "cpu" if cores == 1 else "wall"
  pairs = ((goal, contenders.get(goal.ours, {}), contenders.get(goal.peer, {})) for goal in COMPARISONS[name].goals)
  return [
    _ratio(key, goal, clock, ours[clock], theirs[clock])
    for goal, ours, theirs in pairs
    if not ("error" in ours or "error" in theirs) and ours and theirs
  ]


def of_results(found: Results) -> Iterator[Ratio]:
  """The ratios of all parts."""
  for key, part in found.items():
    name, _, cores = key.rpartition(", ")
    yield from of_part(name, int(cores), part["contenders"])


def _of_start(key: str, algorithm: str, found: Mapping[str, Any]) -> list[Ratio]:
  ours = found[OURS]
  (peer, theirs), *_ = ((name, result) for name, result in found.items() if name != OURS)
  if "error" in ours or "error" in theirs:
    return []
  return [
    _ratio(f"{key}, {algorithm}", Goal(peer, goal), state, ours[state], theirs["warm"])
    for state, goal in START_GOALS.items()
  ]


def _ratio(part: str, goal: Goal, clock: str, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
  spread = Spread.of([peer / own for own, peer in zip(ours, theirs, strict=False)])
  seconds = statistics.median(ours), statistics.median(theirs)
  return Ratio(part, goal.ours, goal.peer, clock, seconds, spread, goal.factor)
