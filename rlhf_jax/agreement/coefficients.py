"""Coefficients of agreement on plain arrays, each with its edges: what is undefined says why."""

import warnings
from typing import NamedTuple

import numpy as np
import scipy.stats

LEVEL = 0.95


class Estimate(NamedTuple):
  """A value with its confidence limits from `num` observations (judgements, pairs or units, as its function says).

  `undefined` says why there is no value; value, low and high are None then, low and high also where no interval exists.
  """

  value: float | None
  low: float | None = None
  high: float | None = None
  num: int = 0
  undefined: str = ""

  def text(self, percent: bool = False) -> str:
    if self.value is None:
      return f"undefined: {self.undefined}"
    form = (lambda x: f"{100 * x:.0f} %") if percent else (lambda x: f"{x:.2f}")
    interval = "" if self.low is None else f" [{form(self.low)}, {form(self.high)}]"
    return (form(self.value) + interval).replace("-", "−")


def undefined(reason: str, num: int = 0) -> Estimate:
  """An estimate without a value, which says why there is none; num: the observations there were."""
  return Estimate(None, num=num, undefined=reason)


def wilson(successes: float, num: float, level: float = LEVEL) -> Estimate:
  """A share with Wilson's interval (1927)."""
  from statsmodels.stats.proportion import proportion_confint

  if num <= 0:
    return undefined("nothing was compared")
  low, high = proportion_confint(successes, num, alpha=1 - level, method="wilson")
  return Estimate(successes / num, float(low), float(high), int(num))


def clustered_wilson(agree: np.ndarray, cluster: np.ndarray, level: float = LEVEL) -> Estimate:
  """Wilson's interval for the mean of agree f64[P], where the values of one cluster i64[P] are not independent.

  The six pairs of a ranking of four are not six observations: the interval is taken at P divided by the design effect
  (Kish 1965), the ratio of the variance of the mean between clusters to that of independent pairs, kept between
  1 and the mean cluster size. Where all agree, or none does, each cluster counts once.
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
  """Cohen's kappa (1960) of two raters from their counts [C, C], with its 95 % interval.

  Undefined where both gave one and the same answer throughout: chance alone agrees then.
  """
  from statsmodels.stats.inter_rater import cohens_kappa

  table = np.asarray(table, np.float64)
  num = table.sum()
  if num == 0:
    return undefined("they judged nothing in common")
  if table.sum(0) @ table.sum(1) == num**2:
    return undefined("both gave one and the same answer throughout", int(num))
  with warnings.catch_warnings(), np.errstate(all="ignore"):
    warnings.simplefilter("ignore")  # the interval of a perfect kappa divides by zero; it is left out below
    result = cohens_kappa(table)
  limits = (float(result.kappa_low), float(result.kappa_upp))
  if not np.isfinite(limits).all():
    return Estimate(float(result.kappa), num=int(num))
  return Estimate(float(result.kappa), *limits, int(num))


def fleiss_kappa(counts: np.ndarray) -> Estimate:
  """Fleiss' kappa (1971) from counts [U, C] of the answers to U units by equally many raters; `num` is U.

  Raises ValueError where the units have different numbers of raters.
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
    return undefined("all gave one and the same answer throughout", len(counts))
  return Estimate(float(inter_rater.fleiss_kappa(counts)), num=len(counts))


def krippendorff_alpha(values: np.ndarray, level: str) -> Estimate:
  """Krippendorff's alpha of values f64[A, U], NaN missing; level is "nominal", "ordinal" or "interval".

  `num` is the number of units that two raters or more have valued.
  """
  import krippendorff

  values = np.asarray(values, np.float64)
  shared = (~np.isnan(values)).sum(0) >= 2 if values.size else np.zeros(0, bool)
  if not shared.any():
    return undefined("no unit has two raters")
  used = values[:, shared]
  if len(np.unique(used[~np.isnan(used)])) < 2:
    return undefined("all gave one and the same answer throughout", int(shared.sum()))
  return Estimate(float(krippendorff.alpha(reliability_data=used, level_of_measurement=level)), num=int(shared.sum()))


def rank_correlations(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Spearman's rho and Kendall's tau-b of ranks i64[N, K] with ranks i64[N, K], row by row: two f64[N].

  Responses that either leaves out (-1) do not count. NaN where fewer than two remain or one side ties them all.
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
