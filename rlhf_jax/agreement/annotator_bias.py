"""Habits of annotators: how far quality, place on the page and length of a response decide, and the time taken.

A logistic regression for each annotator on the pairs they judged,

  logit P(first is put before second) = quality * (s_first - s_second) + position * earlier + length * longer,

where s is the noisy Bradley-Terry consensus of the other annotators and of the gold ranks. With the annotator's own
judgements in it, an annotator who guesses would seem to agree with the consensus.
"""

import dataclasses

import numpy as np

from rlhf_jax.agreement.coefficients import Estimate, clustered_wilson, undefined
from rlhf_jax.agreement.consensus import NoisyBradleyTerry, noisy_bradley_terry
from rlhf_jax.agreement.tables import Pairs, Table

# Standard deviation of a slope's prior, in logits: keeps slopes of separable answers finite (Gelman et al., 2008).
PRIOR_SD = 2.5
MAX_FITS = 40  # fits of the consensus at most, each without some of the annotators


@dataclasses.dataclass(frozen=True)
class Habits:
  """The regressions of all annotators."""

  slopes: np.ndarray
  """Slopes of quality, position and length: f64[A, 3], NaN where undefined; in logits per logit of the
  consensus of all other annotators, per place, and per `typical_words`."""
  errors: np.ndarray
  """Standard errors of the slopes, clustered by item: f64[A, 3], NaN where undefined."""
  num_items: np.ndarray
  """Number of items in the regression: i64[A]."""
  typical_words: float
  """Typical difference in words between two responses, the root mean square over all pairs."""


def habits(table: Table, pairs: Pairs, model: NoisyBradleyTerry) -> Habits:
  """The habits of every annotator. model: the consensus of all, where the search for each consensus below starts.

  The consensus is fitted once without each annotator; with more than 40 annotators, once without each of 40 groups.
  """
  num = len(table.annotators)
  slopes, errors = np.full((num, 3), np.nan), np.full((num, 3), np.nan)
  num_items = np.zeros(num, np.int64)
  typical = float(np.sqrt(np.mean(pairs.longer**2))) if pairs.longer.size else 0.0
  for group in np.array_split(np.arange(num), min(num, MAX_FITS)):
    others = noisy_bradley_terry(table, pairs, start=model, exclude=group)
    for person in group:
      mine = pairs.where(pairs.annotator == person)
      gap = others.scores[mine.item, mine.first] - others.scores[mine.item, mine.second]
      x = np.stack([gap, mine.earlier, mine.longer / (typical or 1.0)], axis=1)  # [P, 3]
      usable = np.isfinite(gap)
      num_items[person] = len(np.unique(mine.item[usable]))
      varies = [column for column in range(3) if np.nan_to_num(x[usable, column]).any()]
      if num_items[person] < 2 or 0 not in varies:
        continue
      x = np.nan_to_num(x[usable][:, varies])
      slope, error = logistic_regression(x, mine.outcome[usable], mine.item[usable])
      slopes[person, varies], errors[person, varies] = slope, error
  return Habits(slopes, errors, num_items, typical)


def logistic_regression(
  x: np.ndarray, y: np.ndarray, cluster: np.ndarray, *, prior_sd: float = PRIOR_SD, max_steps: int = 50
) -> tuple[np.ndarray, np.ndarray]:
  """Slopes f64[D] of y f64[P] in [0, 1] on x f64[P, D] without intercept, and their standard errors f64[D].

  The slopes are the maximum a posteriori under N(0, prior_sd^2), by Newton's method; the errors are the sandwich over
  the clusters i64[P] (Liang and Zeger 1986). In statsmodels, Logit has these errors but fails on separable data, and
  its penalised fit is finite but has no errors.
  """
  slope, precision = np.zeros(x.shape[1]), np.eye(x.shape[1]) / prior_sd**2

  def derivatives(slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chance = 0.5 * (1 + np.tanh(0.5 * (x @ slope)))
    return (y - chance)[:, None] * x, (x * (chance * (1 - chance))[:, None]).T @ x + precision

  for _ in range(max_steps):
    score, information = derivatives(slope)
    step = np.linalg.solve(information, score.sum(0) - precision @ slope)
    slope = slope + step / max(1.0, np.abs(step).max())  # a full Newton step can overshoot where the data separate
    if np.abs(step).max() < 1e-8:
      break
  score, information = derivatives(slope)
  _, number = np.unique(cluster, return_inverse=True)
  num = number.max() + 1
  by_cluster = np.zeros((num, x.shape[1]))
  np.add.at(by_cluster, number, score)
  inverse = np.linalg.inv(information)
  covariance = inverse @ (by_cluster.T @ by_cluster) @ inverse * num / max(num - 1, 1)
  return slope, np.sqrt(np.diag(covariance))


def first_shown_wins(table: Table, pairs: Pairs) -> list[Estimate]:
  """Each annotator's share of untied pairs in which the response shown earlier won; 1/2 without a habit."""
  return _share_won(table, pairs, pairs.earlier, "the order of display is not recorded")


def longer_wins(table: Table, pairs: Pairs) -> list[Estimate]:
  """Each annotator's share of untied pairs of different lengths in which the longer response won.

  Without a habit the share need not be 1/2, as better answers may be longer: compare annotators with each other.
  """
  return _share_won(table, pairs, pairs.longer, "all responses have one length")


def _share_won(table: Table, pairs: Pairs, advantage: np.ndarray, reason: str) -> list[Estimate]:
  used = (np.nan_to_num(advantage) != 0) & (pairs.outcome != 0.5)
  won = (advantage > 0) == (pairs.outcome == 1)
  result = []
  for person in range(len(table.annotators)):
    mine = used & (pairs.annotator == person)
    result.append(clustered_wilson(won[mine], pairs.item[mine]) if mine.any() else undefined(reason))
  return result


@dataclasses.dataclass(frozen=True)
class Timing:
  """The time that an annotator takes for a judgement."""

  median: float | None
  """Median, in seconds; None where no time is recorded."""
  low: float | None
  """Lower quartile, in seconds; None where no time is recorded."""
  high: float | None
  """Upper quartile, in seconds; None where no time is recorded."""
  pace: float | None
  """Median of the ratio of the seconds to the median seconds of other annotators on the same item: 0.5 is twice as
  fast. None where no other annotator's time is recorded."""


def timing(table: Table) -> list[Timing]:
  """The time of each annotator, by itself and in proportion to that of other annotators on the same items."""
  logs = np.log(table.seconds)
  ratio = np.full(len(logs), np.nan)
  order = np.argsort(table.item, kind="stable")
  for rows in np.split(order, np.flatnonzero(np.diff(table.item[order])) + 1):
    for row in rows:
      others = logs[rows[(rows != row) & ~np.isnan(logs[rows])]]
      if len(others):
        ratio[row] = logs[row] - np.median(others)
  result = []
  for person in range(len(table.annotators)):
    seconds, ratios = (x[(table.annotator == person) & ~np.isnan(x)] for x in (table.seconds, ratio))
    pace = float(np.exp(np.median(ratios))) if len(ratios) else None
    median, low, high = np.percentile(seconds, [50, 25, 75]).tolist() if len(seconds) else (None, None, None)
    result.append(Timing(median, low, high, pace))
  return result
