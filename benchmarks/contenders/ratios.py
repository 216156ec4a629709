"""Ratios in results of `benchmarks/peers.py`: seconds of a peer over ours in each round, with median and quartiles."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from contenders.comparisons import COMPARISONS, OURS, START_GOALS, STARTS, Goal

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
  ran = {label: result for label, result in contenders.items() if "error" not in result}
  if name in STARTS:
    goals = [
      (Goal(peer, goal), state, "warm") for peer in STARTS[name] if peer != OURS for state, goal in START_GOALS.items()
    ]
  else:
    clock = "cpu" if cores == 1 else "wall"
    goals = [(goal, clock, clock) for goal in COMPARISONS[name].goals]
  return [
    _ratio(f"{name}, {cores}", goal, clock, ran[goal.ours][clock], ran[goal.peer][theirs])
    for goal, clock, theirs in goals
    if goal.ours in ran and goal.peer in ran
  ]


def of_results(found: Results) -> Iterator[Ratio]:
  """The ratios of all parts."""
  for key, part in found.items():
    name, _, cores = key.rpartition(", ")
    yield from of_part(name, int(cores), part["contenders"])


def _ratio(part: str, goal: Goal, clock: str, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
  spread = Spread.of([peer / own for own, peer in zip(ours, theirs, strict=False)])
  seconds = statistics.median(ours), statistics.median(theirs)
  return Ratio(part, goal.ours, goal.peer, clock, seconds, spread, goal.factor)
