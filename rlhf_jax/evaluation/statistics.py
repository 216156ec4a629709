"""Means, shares and accuracies of an evaluation, each with a 95 % interval; on NumPy arrays.

Two rules hold throughout. Pairs stay pairs: models answer the same prompts, so a win rate counts prompts. Dependent
observations do not count as independent: the K (K - 1) / 2 pairs of a ranked group share their responses, so an
accuracy over pairs gets its interval from the spread between groups. The interval of a share keeps a width where all
outcomes agree.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rlhf_jax.intervals import (
  Interval,
  finite,
  nothing,
  t_quantile,
  wilson_bounds,
)
from rlhf_jax.reduce import ordered_pairs


class Calibration(NamedTuple):
  """Predicted probabilities against outcomes, in B bins of equal width."""

  confidence: np.ndarray
  """Mean probability in each bin, f64[B], NaN where the bin is empty."""
  frequency: np.ndarray
  """Share of positive outcomes in each bin, f64[B], NaN where the bin is empty."""
  counts: np.ndarray
  """Number of outcomes in each bin, i64[B]."""
  error: float
  """Expected calibration error: mean gap between confidence and frequency over the outcomes."""


def pooled_interval(intervals: Sequence[Interval]) -> Interval:
  """Mean of independent samples taken together: means weighted by `num`, half widths added in quadrature."""
  weights = np.array([interval.num for interval in intervals], np.float64)
  if weights.sum() == 0:
    return nothing()
  weights /= weights.sum()
  mean = float(sum(weight * interval.mean for weight, interval in zip(weights, intervals, strict=True)))
  halves = np.array([(interval.high - interval.low) / 2 for interval in intervals])
  half = float(np.sqrt(((weights * halves) ** 2).sum()))
  return Interval(mean, mean - half, mean + half, sum(interval.num for interval in intervals))


def weighted_share(shares: Sequence[Interval], weights: Sequence[float]) -> Interval:
  """Mean of independent shares with these weights, at least 0 and not all 0.

  The squared distances from the mean to either bound are those of the shares, weighted and added (Zou and Donner 2008),
  so that the interval stays inside [0, 1]. `num` is the number of all observations.
  """
  share = np.asarray(weights, np.float64) / np.sum(weights)
  mean, low, high = (np.array([getattr(each, name) for each in shares]) for name in ("mean", "low", "high"))
  middle = float(share @ mean)
  below, above = (float(np.sqrt((share**2) @ (bound - mean) ** 2)) for bound in (low, high))
  return Interval(middle, max(middle - below, 0.0), min(middle + above, 1.0), sum(each.num for each in shares))


def ratio_interval(totals: ArrayLike, weights: ArrayLike, level: float = 0.95) -> Interval:
  """sum(totals) / sum(weights) over G independent groups, with the t interval of the linearised ratio.

  For example the mean loss per token over windows of different lengths. totals, weights: f[G]. `num` is G; the interval
  is unbounded for one group. Raises ValueError where the shapes differ or a value is not finite.
  """
  sums, sizes = finite(totals, "totals"), finite(weights, "weights")
  if sums.shape != sizes.shape or sums.ndim != 1:
    raise ValueError(f"totals {sums.shape} and weights {sizes.shape} must both be [G]")
  groups = len(sums)
  if groups == 0 or sizes.sum() == 0:
    return nothing()
  ratio = float(sums.sum() / sizes.sum())
  if groups == 1:
    return Interval(ratio, -np.inf, np.inf, 1)
  variance = groups / (groups - 1) * ((sums - ratio * sizes) ** 2).sum() / sizes.sum() ** 2
  half = t_quantile((1 + level) / 2, groups - 1) * float(np.sqrt(variance))
  return Interval(ratio, ratio - half, ratio + half, groups)


def pair_accuracy(scores: ArrayLike, gold: ArrayLike, *, min_gap: float = 0.0) -> Interval:
  """Share of the pairs of a group, with gold rewards more than `min_gap` apart, that the scores order like gold.

  scores: f[N, K], N groups of K responses. gold: f[N, K], NaN for an absent response. Equal scores count half. `num` is
  the number of pairs; the interval clusters by group. Raises ValueError where a response that is present has no finite
  score.
  """
  given, reward = _groups(scores, gold, "gold")
  if np.isinf(reward).any():
    raise ValueError("gold must be finite, or NaN for an absent response")
  present = ~np.isnan(reward)
  filled = np.where(present, reward, 0.0)
  gap = filled[:, :, None] - filled[:, None, :]  # [N, K, K]
  return _clustered_share(given, (gap > min_gap) & present[:, :, None] & present[:, None, :], present)


def ranking_accuracy(scores: ArrayLike, ranks: ArrayLike, gold: ArrayLike | None = None) -> Interval:
  """Share of the pairs of different rank that the scores order like the ranks: `pair_accuracy` against labels.

  scores: f[N, K]. ranks: i[N, K], 0 the best, -1 absent. gold: f[N, K], gold rewards. Tied ranks make no pair, nor do
  equal gold rewards where they are given; equal scores count half. On noisy labels even the gold reward stays below 1:
  its accuracy on them, with itself as `gold`, is the ceiling.
  """
  given, places = _groups(scores, ranks, "ranks")
  better = ordered_pairs(places)
  if gold is not None:
    reward = _groups(scores, gold, "gold")[1]
    better &= reward[:, :, None] != reward[:, None, :]
  return _clustered_share(given, better, places >= 0)


def clustered_share(correct: ArrayLike, pairs: ArrayLike) -> Interval:
  """sum(correct) / sum(pairs), a share over G independent groups with Wilson's interval for the spread between them.

  correct: f[G], between 0 and pairs. pairs: f[G], number of observations of each group. The variance is that of the
  linearised ratio; Wilson's interval takes the effective sample size p (1 - p) / variance and t with groups - 1 degrees
  of freedom (Korn and Graubard 1998). The effective size is at most the number of observations, and the number of
  groups where all of them agree. `num` is the number of observations.
  """
  right, sizes = finite(correct, "correct"), finite(pairs, "pairs")
  right, sizes = right[sizes > 0], sizes[sizes > 0]
  num, groups = int(sizes.sum()), len(sizes)
  if num == 0:
    return nothing()
  share = float(right.sum() / num)
  if groups == 1:
    return Interval(share, 0.0, 1.0, num)  # the spread between groups is unknown from a single group
  variance = groups / (groups - 1) * ((right - share * sizes) ** 2).sum() / num**2
  if share in (0.0, 1.0):
    effective = float(groups)
  else:
    effective = min(share * (1 - share) / variance, num) if variance > 0 else num
  return Interval(share, *wilson_bounds(share, effective, t_quantile(0.975, groups - 1)), num)


def interquartile_mean(x: ArrayLike) -> float:
  """Mean of the middle half of n values, floor(n / 4) values cut at each end; NaN without values.

  The aggregate over seeds of Agarwal et al. (2108.13264).
  """
  values = finite(x, "x").reshape(1, -1)
  return float(_middle(values)[0]) if values.size else float("nan")


def interquartile_interval(
  scores: ArrayLike, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(interquartile mean, low, high), each f64[...], of scores f[R, K, ...] of R runs in each of K settings.

  The bounds are percentiles of a bootstrap stratified by setting (Agarwal et al. 2108.13264, section 4.1): the runs of
  each setting are drawn anew, with replacement. The bounds of a single run are NaN. Raises ValueError where there is no
  run, or a score is not finite.
  """
  values = finite(scores, "scores")
  if values.ndim < 2 or not values.shape[0] * values.shape[1]:
    raise ValueError(f"scores must be [R, K, ...] with at least one run of a setting; got {values.shape}")
  runs, settings = values.shape[:2]
  rows = np.random.default_rng(seed).integers(runs, size=(resamples, runs, settings))
  drawn = _middle(values[rows, np.arange(settings)].reshape(resamples, runs * settings, *values.shape[2:]))
  low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
  unknown = np.full_like(low, np.nan)
  mean = _middle(values.reshape(1, runs * settings, *values.shape[2:]))[0]
  return (mean, low, high) if runs > 1 else (mean, unknown, unknown)


def _middle(x: np.ndarray) -> np.ndarray:
  """Means over N of x[B, N, ...] without the floor(N / 4) lowest and the floor(N / 4) highest values: [B, ...]."""
  cut = x.shape[1] // 4
  return np.sort(x, axis=1)[:, cut : x.shape[1] - cut].mean(axis=1)


def calibration(probabilities: ArrayLike, outcomes: ArrayLike, bins: int = 10) -> Calibration:
  """Reliability of probabilities f[N] in [0, 1] against outcomes[N] of 0 or 1, in `bins` equal bins.

  The expected calibration error (Guo et al. 1706.04599) weights the gaps by count; it is NaN without outcomes. Raises
  ValueError where the shapes differ, or a value is not finite or lies outside [0, 1].
  """
  predicted, observed = finite(probabilities, "probabilities"), finite(outcomes, "outcomes")
  if predicted.shape != observed.shape or predicted.ndim != 1:
    raise ValueError(f"probabilities {predicted.shape} and outcomes {observed.shape} must both be [N]")
  if ((predicted < 0) | (predicted > 1)).any():
    raise ValueError("probabilities must lie in [0, 1]")
  index = np.minimum((predicted * bins).astype(int), bins - 1)  # 1.0 belongs to the last bin
  counts = np.bincount(index, minlength=bins)
  filled = np.where(counts > 0, counts, np.nan)
  confidence = np.bincount(index, predicted, bins) / filled
  frequency = np.bincount(index, observed, bins) / filled
  gaps = np.nan_to_num(np.abs(confidence - frequency))
  error = float((gaps * counts).sum() / counts.sum()) if counts.sum() else float("nan")
  return Calibration(confidence, frequency, counts, error)


def _clustered_share(scores: np.ndarray, better: np.ndarray, present: np.ndarray) -> Interval:
  """Share of the pairs better[N, K, K] (i should be above j) that scores[N, K] order so, clustered by group."""
  if not np.isfinite(scores[present]).all():
    raise ValueError(f"scores must be finite; {int((~np.isfinite(scores[present])).sum())} are not")
  above = (scores[:, :, None] > scores[:, None, :]) + 0.5 * (scores[:, :, None] == scores[:, None, :])
  return clustered_share(np.where(better, above, 0.0).sum((1, 2)), better.sum((1, 2)))


def _groups(scores: ArrayLike, labels: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
  given, expected = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
  if given.shape != expected.shape or given.ndim != 2:
    raise ValueError(f"scores and {name} must both be [N, K]; got {given.shape} and {expected.shape}")
  return given, expected
