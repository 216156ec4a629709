"""Means, shares and accuracies of an evaluation, each with a 95 % interval. NumPy only.

Two habits run through the file. What is paired stays paired: models answer the same prompts, so a win rate
counts prompts. What is dependent is not counted as independent: the K (K - 1) / 2 pairs of one ranked group
share their responses, so an accuracy over pairs gets its interval from the spread between groups. The
interval of a share never collapses to a point because every outcome happened to agree.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
  """A mean with its confidence interval; `num` counts the observations. NaN where there are none."""

  mean: float
  low: float
  high: float
  num: int

  def disjoint(self, other: "Interval") -> bool:
    """Whether the two intervals do not overlap: a stricter test than asking whether the difference is
    significant."""
    return self.high < other.low or other.high < self.low


class Calibration(NamedTuple):
  """Per bin the mean probability, the share of positive outcomes and the count; `error` is the mean gap."""

  confidence: np.ndarray  # [bins], NaN where the bin is empty
  frequency: np.ndarray  # [bins], NaN where the bin is empty
  count: np.ndarray  # [bins]
  error: float


def mean_interval(x, level: float = 0.95) -> Interval:
  """Mean of x (any shape, taken flat) with Student's t interval; unbounded for one value.

  Raises ValueError where a value is not finite.
  """
  x = _finite(x, "x").ravel()
  if x.size == 0:
    return _nothing()
  mean = float(x.mean())
  if x.size == 1:
    return Interval(mean, -np.inf, np.inf, 1)
  half = _t_quantile((1 + level) / 2, x.size - 1) * float(x.std(ddof=1)) / np.sqrt(x.size)
  return Interval(mean, float(mean - half), float(mean + half), x.size)


def pooled_interval(intervals: Sequence[Interval]) -> Interval:
  """Mean of independent samples taken together: means weighted by `num`, half widths added in quadrature."""
  weights = np.array([interval.num for interval in intervals], np.float64)
  if weights.sum() == 0:
    return _nothing()
  weights /= weights.sum()
  mean = float(sum(weight * interval.mean for weight, interval in zip(weights, intervals, strict=True)))
  halves = np.array([(interval.high - interval.low) / 2 for interval in intervals])
  half = float(np.sqrt(((weights * halves) ** 2).sum()))
  return Interval(mean, mean - half, mean + half, sum(interval.num for interval in intervals))


def wilson_interval(successes: float, num: int) -> Interval:
  """Share of successes with Wilson's 95 % score interval (1927), which stays inside [0, 1]."""
  if not 0 <= successes <= num:
    raise ValueError(f"successes must lie between 0 and num = {num}, got {successes}")
  if num == 0:
    return _nothing()
  share = float(successes / num)
  return Interval(share, *_score_bounds(share, num, _normal_quantile(0.975)), int(num))


def ratio_interval(totals, weights, level: float = 0.95) -> Interval:
  """sum(totals) / sum(weights) over independent groups [G], with the t interval of the linearised ratio; unbounded for
  one group.

  Such as the mean loss per token over documents or windows of different lengths. `num` counts the groups. Raises
  ValueError where the shapes differ or a value is not finite.
  """
  totals, weights = _finite(totals, "totals"), _finite(weights, "weights")
  if totals.shape != weights.shape or totals.ndim != 1:
    raise ValueError(f"totals {totals.shape} and weights {weights.shape} must both be [G]")
  groups = len(totals)
  if groups == 0 or weights.sum() == 0:
    return _nothing()
  ratio = float(totals.sum() / weights.sum())
  if groups == 1:
    return Interval(ratio, -np.inf, np.inf, 1)
  variance = groups / (groups - 1) * ((totals - ratio * weights) ** 2).sum() / weights.sum() ** 2
  half = _t_quantile((1 + level) / 2, groups - 1) * float(np.sqrt(variance))
  return Interval(ratio, ratio - half, ratio + half, groups)


def win_rate(a, b) -> Interval:
  """Share of prompts where a[N] > b[N], plus half the ties: a and b score two answers to the same N prompts.

  The 95 % interval is that of Agresti and Min (2005) for a difference of matched proportions: the normal
  interval after adding half a prompt to each of the four outcomes. Ties narrow it, and it keeps a width when
  all prompts agree. Raises ValueError where the shapes differ or a value is not finite.
  """
  a, b = _finite(a, "a"), _finite(b, "b")
  if a.shape != b.shape or a.ndim != 1:
    raise ValueError(f"a and b must both be [N], paired by prompt; got {a.shape} and {b.shape}")
  if a.size == 0:
    return _nothing()
  wins, losses = np.sum(a > b), np.sum(a < b)
  num = a.size + 2
  won, lost = (wins + 0.5) / num, (losses + 0.5) / num
  half = _normal_quantile(0.975) * np.sqrt((won + lost - (won - lost) ** 2) / num)
  low, high = 0.5 + (won - lost - half) / 2, 0.5 + (won - lost + half) / 2
  rate = float(0.5 + (wins - losses) / (2 * a.size))
  return Interval(rate, float(max(low, 0.0)), float(min(high, 1.0)), a.size)


def pair_accuracy(scores, gold, *, min_gap: float = 0.0) -> Interval:
  """Share of the pairs in a group, with gold more than `min_gap` apart, that the scores order like gold.

  scores[N, K], gold[N, K]; NaN in gold marks an absent response. Equal scores count half. `num` is the number
  of pairs; the interval clusters by group. Raises ValueError where a scored response has no finite score.
  """
  scores, gold = _groups(scores, gold, "gold")
  if np.isinf(gold).any():
    raise ValueError("gold must be finite, or NaN for an absent response")
  present = ~np.isnan(gold)
  gap = np.where(present, gold, 0.0)[:, :, None] - np.where(present, gold, 0.0)[:, None, :]  # [N, K, K]
  return _clustered_share(scores, (gap > min_gap) & _both(present), present)


def ranking_accuracy(scores, ranks) -> Interval:
  """Share of the pairs of different rank that the scores order like the ranks: `pair_accuracy` against
  labels.

  scores[N, K], ranks[N, K]: 0 is the best, -1 is absent. Tied ranks are no pair, equal scores count half.
  Against noisy labels even the true reward stays below 1: report the ceiling beside it.
  """
  scores, ranks = _groups(scores, ranks, "ranks")
  present = ranks >= 0
  better = (ranks[:, :, None] < ranks[:, None, :]) & _both(present)  # [N, K, K]
  return _clustered_share(scores, better, present)


def interquartile_mean(x) -> float:
  """Mean of the middle half of x, floor(n / 4) values cut at each end: the aggregate over seeds of Agarwal et
  al. (2108.13264). NaN for empty x."""
  x = np.sort(_finite(x, "x").ravel())
  cut = x.size // 4
  return float(x[cut : x.size - cut].mean()) if x.size else float("nan")


def interquartile_interval(
  scores, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(IQM, low, high), each [...], of scores[R, K, ...]: R runs on each of K tasks, all of them taken together.

  The bounds are percentiles of a bootstrap that is stratified by task (Agarwal et al. 2108.13264, section 4.1): the
  runs of each task are drawn anew, with replacement. One run has no bounds (NaN). Raises ValueError where there is no
  run, or a score is not finite.
  """
  scores = _finite(scores, "scores")
  if scores.ndim < 2 or not scores.shape[0] * scores.shape[1]:
    raise ValueError(f"scores must be [R, K, ...] with at least one run of a task; got {scores.shape}")
  runs, tasks = scores.shape[:2]
  rows = np.random.default_rng(seed).integers(runs, size=(resamples, runs, tasks))
  drawn = _middle(scores[rows, np.arange(tasks)].reshape(resamples, runs * tasks, *scores.shape[2:]))
  low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
  unknown = np.full_like(low, np.nan)
  mean = _middle(scores.reshape(1, runs * tasks, *scores.shape[2:]))[0]
  return (mean, low, high) if runs > 1 else (mean, unknown, unknown)


def _middle(x: np.ndarray) -> np.ndarray:
  """[B, N, ...] -> [B, ...]: means over N without the floor(N / 4) lowest and highest."""
  cut = x.shape[1] // 4
  return np.sort(x, axis=1)[:, cut : x.shape[1] - cut].mean(axis=1)


def calibration(probabilities, outcomes, bins: int = 10) -> Calibration:
  """Reliability of probabilities[N] in [0, 1] against outcomes[N] of 0 or 1, in `bins` equal bins.

  `error` is the expected calibration error (Guo et al. 1706.04599), the gaps weighted by count; NaN for no
  data.
  """
  probabilities, outcomes = _finite(probabilities, "probabilities"), _finite(outcomes, "outcomes")
  if probabilities.shape != outcomes.shape or probabilities.ndim != 1:
    raise ValueError(f"probabilities {probabilities.shape} and outcomes {outcomes.shape} must both be [N]")
  if ((probabilities < 0) | (probabilities > 1)).any():
    raise ValueError("probabilities must lie in [0, 1]")
  index = np.minimum((probabilities * bins).astype(int), bins - 1)  # 1.0 belongs to the last bin
  count = np.bincount(index, minlength=bins)
  filled = np.where(count > 0, count, np.nan)
  confidence = np.bincount(index, probabilities, bins) / filled
  frequency = np.bincount(index, outcomes, bins) / filled
  gaps = np.nan_to_num(np.abs(confidence - frequency))
  error = float((gaps * count).sum() / count.sum()) if count.sum() else float("nan")
  return Calibration(confidence, frequency, count, error)


def _clustered_share(scores, better, present) -> Interval:
  """Share of better[N, K, K] (i should be above j) that scores[N, K] agree with, clustered by group.

  The share is a ratio of sums over groups; its variance is the linearised one of that ratio. Wilson's
  interval then takes the effective sample size p (1 - p) / variance and t with groups - 1 degrees of freedom
  (Korn and Graubard 1998). The effective size is never above the number of pairs, and is the number of groups
  where all pairs agree.
  """
  if not np.isfinite(scores[present]).all():
    raise ValueError(f"scores must be finite; {int((~np.isfinite(scores[present])).sum())} are not")
  above = (scores[:, :, None] > scores[:, None, :]) + 0.5 * (scores[:, :, None] == scores[:, None, :])
  pairs = better.sum((1, 2))  # [N]
  correct = np.where(better, above, 0.0).sum((1, 2))[pairs > 0]
  pairs = pairs[pairs > 0]
  num, groups = int(pairs.sum()), len(pairs)
  if num == 0:
    return _nothing()
  share = float(correct.sum() / num)
  if groups == 1:
    return Interval(share, 0.0, 1.0, num)  # one group says nothing about the spread between groups
  variance = groups / (groups - 1) * ((correct - share * pairs) ** 2).sum() / num**2
  if share in (0.0, 1.0):
    effective = groups
  else:
    effective = min(share * (1 - share) / variance, num) if variance > 0 else num
  return Interval(share, *_score_bounds(share, effective, _t_quantile(0.975, groups - 1)), num)


def _score_bounds(share: float, num: float, quantile: float) -> tuple[float, float]:
  """Wilson's bounds: the p with |share - p| = quantile * sqrt(p (1 - p) / num)."""
  square = quantile**2 / num
  centre = (share + square / 2) / (1 + square)
  half = np.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
  # Rounding must not put a share of exactly 0 or 1 outside its own interval.
  return float(min(max(centre - half, 0.0), share)), float(max(min(centre + half, 1.0), share))


def _normal_quantile(probability: float) -> float:
  return NormalDist().inv_cdf(probability)


def _t_quantile(probability: float, df: int) -> float:
  """Quantile above 1/2 of Student's t. With t = sqrt(df) tan(a), its density is proportional to cos(a)^(df -
  1)."""
  angles = np.linspace(0.0, min(np.pi / 2, 12 / np.sqrt(df)), 20_001)
  density = np.cos(angles) ** (df - 1)
  area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
  return float(np.sqrt(df) * np.tan(np.interp(2 * probability - 1, area / area[-1], angles)))


def _finite(x, name: str) -> np.ndarray:
  x = np.asarray(x, np.float64)
  if not np.isfinite(x).all():
    raise ValueError(f"{name} must be finite; {int((~np.isfinite(x)).sum())} of {x.size} values are not")
  return x


def _groups(scores, labels, name: str) -> tuple[np.ndarray, np.ndarray]:
  scores, labels = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
  if scores.shape != labels.shape or scores.ndim != 2:
    raise ValueError(f"scores and {name} must both be [N, K]; got {scores.shape} and {labels.shape}")
  return scores, labels


def _both(present: np.ndarray) -> np.ndarray:
  return present[:, :, None] & present[:, None, :]  # [N, K, K]


def _nothing() -> Interval:
  return Interval(float("nan"), float("nan"), float("nan"), 0)
