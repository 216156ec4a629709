"""Ranges of numbers as marks in the types of a config: `num_steps: PositiveInt`, `Annotated[float, Between(0, 1)]`.

`rlhf_jax.settings.parse` refuses a value outside the range of its type; the tables of settings show the range. A
number without a mark may have any value, but for NaN and the infinities.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated


@dataclasses.dataclass(frozen=True)
class Range:
  """The numbers between two bounds, each of which belongs to the range or not."""

  low: float
  """Lower bound; -inf for none."""
  high: float = math.inf
  """Upper bound; inf for none."""
  with_low: bool = True
  """Whether the lower bound is in the range."""
  with_high: bool = True
  """Whether the upper bound is in the range."""
  also: float | None = None
  """Number outside of the bounds that is allowed too; None for none."""

  def __contains__(self, value: float) -> bool:
    if value == self.also:
      return True
    above = value >= self.low if self.with_low else value > self.low
    return above and (value <= self.high if self.with_high else value < self.high)

  def __str__(self) -> str:
    """The range in words: "at least 1", "above 0", "between 0 and 1", "at least 0 and below 1", "at least 1, or -1"."""
    if self.with_low and self.with_high and math.isfinite(self.low) and math.isfinite(self.high):
      return f"between {self.low:g} and {self.high:g}"
    low = f"{'at least' if self.with_low else 'above'} {self.low:g}" if math.isfinite(self.low) else ""
    high = f"{'at most' if self.with_high else 'below'} {self.high:g}" if math.isfinite(self.high) else ""
    bounds = " and ".join(bound for bound in (low, high) if bound)
    return bounds if self.also is None else f"{bounds}, or {self.also:g}"


def AtLeast(low: float) -> Range:
  """The numbers from `low` on."""
  return Range(low)


def Above(low: float) -> Range:
  """The numbers above `low`."""
  return Range(low, with_low=False)


def Between(low: float, high: float) -> Range:
  """The numbers from `low` to `high`, both included."""
  return Range(low, high)


NEUTRAL = "neutral"  # mark of a field that cannot change a result, as in Annotated[int, NEUTRAL]
EVALUATION = "evaluation"  # mark of a field of held-out evaluation, neutral unless the result is chosen by it
STEPS = "steps"  # mark of the field that says for how many steps a stage trains
PositiveInt = Annotated[int, AtLeast(1)]
NonNegativeInt = Annotated[int, AtLeast(0)]
PositiveFloat = Annotated[float, Above(0)]
NonNegativeFloat = Annotated[float, AtLeast(0)]
Share = Annotated[float, Between(0, 1)]
ShareBelowOne = Annotated[float, Range(0, 1, with_high=False)]
PositiveShare = Annotated[float, Range(0, 1, with_low=False)]
