"""What an annotator goes by: the quality that others see, the place on the page, or the length.

A logistic regression for each annotator on the pairs they judged,

  logit P(first is put before second) = quality * (s_first - s_second) + position * earlier + length * longer,

where s is the noisy Bradley-Terry consensus of everybody else and of the gold ranks, never of the annotator's own
judgements: who guesses would otherwise agree with themselves.
"""

import dataclasses

import numpy as np

from rlhf_jax.agreement.coefficients import Estimate, clustered_wilson, undefined
from rlhf_jax.agreement.consensus import NoisyBradleyTerry, noisy_bradley_terry
from rlhf_jax.agreement.tables import Pairs, Table

PRIOR_SD = 2.5  # of a slope in logits: keeps a perfectly separable annotator finite (Gelman et al., 2008)
MAX_FITS = 40


@dataclasses.dataclass(frozen=True)
class Habits:
  """slopes, errors: f64[A, 3], the slopes above and their standard errors clustered by item; NaN where undefined.

  The units are a logit of the others' consensus, a place, and a typical word difference of `typical_words`.
  num_items: i64[A], the items behind them.
  """

  slopes: np.ndarray
  errors: np.ndarray
  num_items: np.ndarray
  typical_words: float


def habits(table: Table, pairs: Pairs, model: NoisyBradleyTerry) -> Habits:
  """The habits of every annotator, given the consensus of all as a place to start from.

  The consensus is fitted once without each annotator; with more than 40 of them, once without each of 40 groups.
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

  Maximum a posteriori under N(0, prior_sd^2) by Newton's method; the errors are the sandwich over the clusters
  i64[P] (Liang and Zeger 1986). statsmodels' Logit has the errors but fails on separable data; its penalised fit
  is finite but has no errors.
  """
  slope, precision = np.zeros(x.shape[1]), np.eye(x.shape[1]) / prior_sd**2

  def derivatives(slope):
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
  """Each annotator's share of untied pairs in which the response shown earlier won; one half shows no habit."""
  return _share_won(table, pairs, pairs.earlier, "the order of display is not recorded")


def longer_wins(table: Table, pairs: Pairs) -> list[Estimate]:
  """Each annotator's share of untied pairs of different lengths in which the longer response won.

  One half need not be right: better answers may be longer. Compare annotators with each other.
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
  """Seconds of an annotator's judgements: median and quartiles; pace: the median of the seconds over the median of
  those of the others on the same item (0.5 is twice as fast). None where no time is recorded, or nobody else's."""

  median: float | None
  low: float | None
  high: float | None
  pace: float | None


def timing(table: Table) -> list[Timing]:
  """How long each annotator takes, with the same items as the measure."""
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
    quartiles = np.percentile(seconds, [50, 25, 75]).tolist() if len(seconds) else [None] * 3
    result.append(Timing(*quartiles, float(np.exp(np.median(ratios))) if len(ratios) else None))
  return result
