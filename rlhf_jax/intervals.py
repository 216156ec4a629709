"""Intervals of means and shares, for annotators, evaluation, training and readers of results; NumPy only."""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Interval(NamedTuple):
  """A mean with its confidence interval, NaN without observations."""

  mean: float
  """Mean, or share between 0 and 1."""
  low: float
  """Lower limit, -inf where it is unknown."""
  high: float
  """Upper limit, inf where it is unknown."""
  num: int
  """Number of observations."""

  def disjoint(self, other: "Interval") -> bool:
    """Whether the two intervals do not overlap, a stricter condition than a significant difference."""
    return self.high < other.low or other.high < self.low


def wilson_bounds(share: float, num: float, quantile: float) -> tuple[float, float]:
  """(low, high) of a share of `num` observations: the p with |share - p| = quantile * sqrt(p (1 - p) / num).

  Both lie inside [0, 1], with share between them (Wilson 1927). num need not be whole: dependent observations have an
  effective number. quantile: a quantile of the standard normal or of Student's t, 1.96 for a 95 % interval.
  """
  square = quantile**2 / num
  centre = (share + square / 2) / (1 + square)
  half = np.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
  # Rounding must not put a share of exactly 0 or 1 outside its own interval.
  return float(min(max(centre - half, 0.0), share)), float(max(min(centre + half, 1.0), share))


def mean_interval(x: ArrayLike, level: float = 0.95) -> Interval:
  """Mean of x (any shape, taken flat) with Student's t interval, which is unbounded for a single value.

  Raises ValueError where a value is not finite.
  """
  values = finite(x, "x").ravel()
  if values.size == 0:
    return nothing()
  mean = float(values.mean())
  if values.size == 1:
    return Interval(mean, -np.inf, np.inf, 1)
  half = t_quantile((1 + level) / 2, values.size - 1) * float(values.std(ddof=1)) / np.sqrt(values.size)
  return Interval(mean, float(mean - half), float(mean + half), values.size)


def wilson_interval(successes: float, num: int) -> Interval:
  """Share of successes with Wilson's 95 % score interval (1927), which stays inside [0, 1]."""
  if not 0 <= successes <= num:
    raise ValueError(f"successes must lie between 0 and num = {num}, got {successes}")
  if num == 0:
    return nothing()
  share = float(successes / num)
  return Interval(share, *wilson_bounds(share, num, normal_quantile(0.975)), int(num))


def win_rate(a: ArrayLike, b: ArrayLike) -> Interval:
  """Share of prompts where a[N] > b[N], plus half the ties: a and b score two answers to the same N prompts.

  The 95 % interval is that of Agresti and Min (2005) for a difference of matched proportions: the normal interval after
  adding half a prompt to each of the four outcomes. Ties narrow it; a width remains where all prompts agree. Raises
  ValueError where the shapes differ or a value is not finite.
  """
  first, second = finite(a, "a"), finite(b, "b")
  if first.shape != second.shape or first.ndim != 1:
    raise ValueError(f"a and b must both be [N], paired by prompt; got {first.shape} and {second.shape}")
  if first.size == 0:
    return nothing()
  wins, losses = np.count_nonzero(first > second), np.count_nonzero(first < second)
  num = first.size + 2
  won, lost = (wins + 0.5) / num, (losses + 0.5) / num
  half = normal_quantile(0.975) * np.sqrt((won + lost - (won - lost) ** 2) / num)
  low, high = 0.5 + (won - lost - half) / 2, 0.5 + (won - lost + half) / 2
  rate = float(0.5 + (wins - losses) / (2 * first.size))
  return Interval(rate, float(max(low, 0.0)), float(min(high, 1.0)), first.size)


def normal_quantile(probability: float) -> float:
  """Quantile of the standard normal distribution."""
  return NormalDist().inv_cdf(probability)


def t_quantile(probability: float, df: int) -> float:
  """Quantile of Student's t for probabilities above 1/2. At t = sqrt(df) tan(a) its density is ~ cos(a)^(df - 1)."""
  angles = np.linspace(0.0, min(np.pi / 2, 12 / np.sqrt(df)), 20_001)
  density = np.cos(angles) ** (df - 1)
  area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
  return float(np.sqrt(df) * np.tan(np.interp(2 * probability - 1, area / area[-1], angles)))


def finite(x: ArrayLike, name: str) -> np.ndarray:
  """`x` as f64; `name` names it in the error. Raises ValueError where a value is not finite."""
  values = np.asarray(x, np.float64)
  if not np.isfinite(values).all():
    raise ValueError(f"{name} must be finite; {int((~np.isfinite(values)).sum())} of {values.size} values are not")
  return values


def nothing() -> Interval:
  """The interval without observations."""
  return Interval(float("nan"), float("nan"), float("nan"), 0)
