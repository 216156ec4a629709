"""Coefficients of agreement on plain arrays. A coefficient without a value says why it is undefined."""

import warnings
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats

from rlhf_jax.intervals import wilson_bounds

LEVEL = 0.95  # level of confidence intervals


class Estimate(NamedTuple):
  """A value with its confidence interval, or the reason why there is no value."""

  value: float | None
  """Value; None where it is undefined."""
  low: float | None = None
  """Lower confidence limit; None without a value or an interval."""
  high: float | None = None
  """Upper confidence limit; None without a value or an interval."""
  num: int = 0
  """Number of observations: judgements, pairs, units or items, as the function that estimates says."""
  undefined: str = ""
  """Reason why there is no value; "" where there is one."""

  def text(self, percent: bool = False) -> str:
    """The value and its interval, or the reason why there is none, for a person to read."""
    if self.value is None:
      return f"undefined: {self.undefined}"
    form = (lambda x: f"{100 * x:.0f} %") if percent else (lambda x: f"{x:.2f}")
    interval = "" if self.low is None else f" [{form(self.low)}, {form(self.high)}]"
    return (form(self.value) + interval).replace("-", "−")


def undefined(reason: str, num: int = 0) -> Estimate:
  """An estimate without a value, for a reason. num: number of observations."""
  return Estimate(None, num=num, undefined=reason)


def wilson(successes: float, num: float, level: float = LEVEL) -> Estimate:
  """The share of successes with Wilson's interval (1927)."""
  if num <= 0:
    return undefined("nothing was compared")
  share = successes / num
  return Estimate(share, *wilson_bounds(share, num, float(scipy.stats.norm.ppf(0.5 + 0.5 * level))), int(num))


def clustered_wilson(agree: np.ndarray, cluster: np.ndarray, level: float = LEVEL) -> Estimate:
  """The mean of agree f64[P], with Wilson's interval for values that depend on each other within a cluster i64[P].

  The six pairs of a ranking of four, say, are not six independent observations. The interval is that of P divided by
  the design effect (Kish 1965) observations. The design effect is the variance of the mean as the clusters show it,
  over its variance if all pairs were independent; it is kept between 1 and the mean cluster size. Where all values are
  1, or all 0, it is the mean cluster size, so that each cluster counts once.
  """
  num = len(agree)
  if not num:
    return undefined("nothing was compared")
  share = float(np.mean(agree))
  _, number = np.unique(cluster, return_inverse=True)
  clusters = number.max() + 1
  largest = num / clusters
  effect = largest
  if 0 < share < 1 and clusters > 1:
    residual = np.bincount(number, agree - share)
    variance = clusters / (clusters - 1) * (residual @ residual) / num**2
    effect = min(max(variance * num / (share * (1 - share)), 1.0), largest)
  estimate = wilson(share * num / effect, num / effect, level)
  return estimate._replace(value=share, num=num)


def cohen_kappa(table: np.ndarray) -> Estimate:
  """Cohen's kappa (1960) of two raters, with its 95 % interval, from the counts [C, C] of their pairs of answers.

  It is undefined where both raters gave the same answer to everything, as they would then agree by chance alone.
  """
  from statsmodels.stats.inter_rater import cohens_kappa

  table = np.asarray(table, np.float64)
  num = table.sum()
  if num == 0:
    return undefined("they judged nothing in common")
  if table.sum(0) @ table.sum(1) == num**2:
    return undefined("both gave the same answer to everything", int(num))
  with warnings.catch_warnings(), np.errstate(all="ignore"):
    warnings.simplefilter("ignore")  # a perfect kappa's interval divides by zero, and is left out below
    result = cohens_kappa(table)
  limits = (float(result.kappa_low), float(result.kappa_upp))
  if not np.isfinite(limits).all():
    return Estimate(float(result.kappa), num=int(num))
  return Estimate(float(result.kappa), *limits, int(num))


def fleiss_kappa(counts: np.ndarray) -> Estimate:
  """Fleiss' kappa (1971) from the counts [U, C] of the answers to U units; `num` is U.

  Raises:
    ValueError: the units have different numbers of raters.
  """
  from statsmodels.stats import inter_rater

  counts = np.asarray(counts)
  if not len(counts):
    return undefined("no unit has two raters")
  raters = np.unique(counts.sum(1))
  if len(raters) > 1:
    raise ValueError(f"Fleiss' kappa needs equally many raters for every unit, not {raters.min()} to {raters.max()}")
  if raters[0] < 2:
    return undefined("no unit has two raters", len(counts))
  if (counts.sum(0) > 0).sum() < 2:
    return undefined("all gave the same answer to everything", len(counts))
  return Estimate(float(inter_rater.fleiss_kappa(counts)), num=len(counts))


def krippendorff_alpha(values: np.ndarray, level: Literal["nominal", "ordinal", "interval"]) -> Estimate:
  """Krippendorff's alpha of the values f64[A, U] that A raters gave to U units, NaN for none, on a scale of `level`.

  `num` is the number of units with values by two raters or more.
  """
  import krippendorff

  values = np.asarray(values, np.float64)
  shared = (~np.isnan(values)).sum(0) >= 2 if values.size else np.zeros(0, bool)
  if not shared.any():
    return undefined("no unit has two raters")
  used = values[:, shared]
  if len(np.unique(used[~np.isnan(used)])) < 2:
    return undefined("all gave the same answer to everything", int(shared.sum()))
  return Estimate(float(krippendorff.alpha(reliability_data=used, level_of_measurement=level)), num=int(shared.sum()))


def rank_correlations(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Spearman's rho and Kendall's tau-b between the rows of two arrays of ranks i64[N, K]: two f64[N].

  A response that is absent (-1) on either side is left out. NaN where fewer than two responses remain, or where one
  side ties them all.
  """
  both = (first >= 0) & (second >= 0)
  a, b = (np.where(both, x, np.nan).astype(np.float64) for x in (first, second))
  rho = _correlation(*(scipy.stats.rankdata(x, axis=1, nan_policy="omit") for x in (a, b)))
  i, j = np.triu_indices(a.shape[1], 1)
  tau = _correlation(np.sign(a[:, i] - a[:, j]), np.sign(b[:, i] - b[:, j]), center=False)
  return rho, tau


def _correlation(a: np.ndarray, b: np.ndarray, center: bool = True) -> np.ndarray:
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # rows without a value are NaN, as documented
    if center:
      a, b = a - np.nanmean(a, 1, keepdims=True), b - np.nanmean(b, 1, keepdims=True)
    norm = np.sqrt(np.nansum(a * a, 1) * np.nansum(b * b, 1))
    return np.where(norm > 0, np.nansum(a * b, 1) / np.where(norm > 0, norm, 1), np.nan)
