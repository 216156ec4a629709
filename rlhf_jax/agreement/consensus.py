"""One ranking of each item from the judgements of many: majority, Dawid-Skene, and a noisy Bradley-Terry model.

Each of the three first decides every pair of responses: the first is better, the second is, or they tie. A response
ranks by the mean of its won (1), tied (1/2) and lost (0) pairs (Copeland 1951), which for decisions that make up a
ranking with ties is that ranking. A tie that was decided is therefore a tie in the ranks of two responses, and in those
of more unless other pairs tell the two apart. Whatever the method, the ranks of an item that a final judgement settles
are those of that judgement. Models are fitted, and scores computed, without final judgements.

Dawid-Skene is written out here because crowd-kit, a library that has it, requires transformers and nltk; the tests
compare with it where it is installed.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.optimize

from rlhf_jax.agreement.tables import Pairs, Table
from rlhf_jax.feedback.ranks import dense_ranks, pair_outcomes, ranked_pairs

SCORE_SD = 2.0  # standard deviation of the prior of scores, in logits at a reliability of 1
RELIABILITY_SD = 1.0  # standard deviation of the prior of reliabilities, whose mean is 1
HABIT_SD = 1.0  # standard deviation of the priors of position and length, in logits
GOLD_RELIABILITY = 3.0  # reliability that gold ranks count with


@dataclasses.dataclass(frozen=True)
class Consensus:
  """A ranking of each item."""

  scores: np.ndarray
  """Scores of the responses by the annotators, higher is better within an item: f64[M, K], NaN where nobody judged."""
  ranks: np.ndarray
  """Ranks by the final judgement of an item, or else by the decisions on the pairs: i64[M, K], 0 is the best, equal
  ranks tie, -1 where nobody judged."""


@dataclasses.dataclass(frozen=True)
class DawidSkene(Consensus):
  """The consensus of Dawid and Skene, with its confusion matrices of the annotators."""

  posterior: np.ndarray
  """Probabilities that the second response of a pair is better, that they are equal, that the first is better:
  f64[U, 3]."""
  confusion: np.ndarray
  """P(label | truth) as [annotator, truth, label]: f64[A, 3, 3]."""


@dataclasses.dataclass(frozen=True)
class NoisyBradleyTerry(Consensus):
  """The consensus of the noisy Bradley-Terry model, with its parameters of the annotators."""

  reliability: np.ndarray
  """Logits for a score difference of 1: f64[A]; 0 for an annotator who guesses, negative for an annotator who
  prefers the worse response."""
  position: np.ndarray
  """Logits for each place by which a response is shown earlier: f64[A]."""
  length: np.ndarray
  """Logits for each word by which a response is longer: f64[A]."""


def majority(table: Table, pairs: Pairs) -> Consensus:
  """The label with most votes on each pair, a tie where none leads. A response scores the mean of its decided pairs."""
  scores = _mean_wins(table, pairs, leading_outcome(count_labels(pairs)))
  return Consensus(scores, _ranked(table, scores))


def count_labels(pairs: Pairs, weight: np.ndarray | None = None) -> np.ndarray:
  """f64[U, 3]: the number of votes for each label of a unit, or their weight f64[P]; worse, tie, better."""
  counts = np.zeros((pairs.num_units, 3))
  np.add.at(counts, (pairs.unit, np.round(2 * pairs.outcome).astype(np.int64)), 1.0 if weight is None else weight)
  return counts


def leading_outcome(support: np.ndarray) -> np.ndarray:
  """f64[U, 3], support for worse, tie and better -> f64[U]: 0, 0.5 or 1 for the label with most; 0.5 where none leads.

  Supports that differ by rounding alone are equal.
  """
  worse, tie, better = support.T
  slack = 1e-9 * np.maximum(support.sum(1), 1.0)
  first, second = better > np.maximum(worse, tie) + slack, worse > np.maximum(better, tie) + slack
  return np.where(first, 1.0, np.where(second, 0.0, 0.5))


def dawid_skene(
  table: Table, pairs: Pairs, *, smoothing: float = 0.5, max_steps: int = 200, tolerance: float = 1e-6
) -> DawidSkene:
  """Dawid and Skene (1979) on the pairs: EM for the truth of each pair and a confusion matrix of each annotator.

  Each pair is used in both orientations, so that nothing depends on which response is stored first. The truth of gold
  pairs is known. `smoothing` is added to every count of the confusion matrices and of the classes, and a second time to
  the diagonals: without it an annotator with a single label would be estimated to guess. 0 is the paper's maximum
  likelihood. A response scores its mean probability of being better; a pair is decided by its most probable label, and
  is a tie where no label leads. EM stops as `expectation_maximisation` does.
  """
  num, num_units = len(table.annotators), pairs.num_units
  labels = np.round(2 * pairs.outcome).astype(np.int64)
  known = np.full(num_units, -1)
  is_gold = ~np.isnan(pairs.gold)
  known[pairs.unit[is_gold]] = np.round(2 * pairs.gold[is_gold])
  posterior, confusion = expectation_maximisation(
    np.concatenate([labels, 2 - labels]),
    np.concatenate([pairs.annotator] * 2),
    np.concatenate([pairs.unit, pairs.unit + num_units]),
    (num, 2 * num_units, 3),
    known=np.concatenate([known, np.where(known < 0, -1, 2 - known)]),
    smoothing=smoothing * (1 + np.eye(3)),
    max_steps=max_steps,
    tolerance=tolerance,
  )
  posterior = posterior[:num_units]
  scores = _mean_wins(table, pairs, posterior @ np.array([0.0, 0.5, 1.0]))
  ranks = _ranked(table, _mean_wins(table, pairs, leading_outcome(posterior)))
  return DawidSkene(scores, ranks, posterior, confusion)


def expectation_maximisation(
  labels: np.ndarray,
  annotators: np.ndarray,
  units: np.ndarray,
  shape: tuple[int, int, int],
  *,
  known: np.ndarray | None = None,
  smoothing: float | np.ndarray = 0.0,
  max_steps: int = 200,
  tolerance: float = 1e-6,
) -> tuple[np.ndarray, np.ndarray]:
  """Dawid-Skene on L labels, i64[L] below C, with the annotator and the unit of each, i64[L]; shape is (A, U, C).

  known: the truth of units, i64[U], -1 unknown. smoothing: pseudo-counts, [C, C] or a number for all. EM starts at the
  shares of the votes and stops when no posterior changes by `tolerance` or more, or after `max_steps`.

  Returns:
    (posterior f64[U, C], confusion f64[A, C, C] as [annotator, truth, label]).
  """
  num_annotators, num_units, num_classes = shape
  known = np.full(num_units, -1) if known is None else known
  votes = np.zeros((num_units, num_classes))
  np.add.at(votes, (units, labels), 1.0)

  def clamp(weights: np.ndarray) -> np.ndarray:
    total = weights.sum(1, keepdims=True)
    posterior = np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / num_classes)
    posterior[known >= 0] = np.eye(num_classes)[known[known >= 0]]
    return posterior

  posterior, confusion = clamp(votes), np.zeros((num_annotators, num_classes, num_classes))
  for _ in range(max_steps):
    counts = np.zeros((num_annotators, num_classes, num_classes)) + smoothing
    np.add.at(counts.swapaxes(1, 2), (annotators, labels), posterior[units])
    total = counts.sum(2, keepdims=True)
    confusion = np.where(total > 0, counts / np.where(total > 0, total, 1), 1 / num_classes)
    prior = posterior.sum(0) + np.min(smoothing)
    logs = np.tile(np.log(np.maximum(prior / prior.sum(), 1e-300)), (num_units, 1))  # [U, C]
    np.add.at(logs, units, np.log(np.maximum(confusion[annotators, :, labels], 1e-300)))
    new = clamp(np.exp(logs - logs.max(1, keepdims=True)))
    moved, posterior = np.abs(new - posterior).max(initial=0.0), new
    if moved < tolerance:
      break
  return posterior, confusion


def noisy_bradley_terry(
  table: Table, pairs: Pairs, *, start: NoisyBradleyTerry | None = None, exclude: Sequence[int] | np.ndarray = ()
) -> NoisyBradleyTerry:
  """Bradley-Terry with parameters of each annotator, in the spirit of CrowdBT (Chen et al., 2013), as MAP by L-BFGS.

    P(a puts i before j) = sigmoid(reliability_a (s_i - s_j) + position_a (places earlier) + length_a (words longer))

  The reliability takes the place of CrowdBT's probability eta_a of an honest answer: 0 for an annotator who guesses, as
  eta = 1/2, and negative for an annotator who prefers the worse response, as eta = 0. Unlike eta, it makes clear pairs
  easier than close pairs. Priors identify the model: s ~ N(0, 2^2) in each item fixes scale and origin, reliability
  ~ N(1, 1) fixes the sign (most annotators mean well), position and length (for a typical word difference, the root
  mean square) ~ N(0, 1). Gold ranks count as one more annotator, of reliability 3. The pairs of a ranking of K weigh
  2 / K each; a tie counts half for either order.

  A tie draws the scores together, but scores that are fitted hardly ever come out equal. A pair is therefore decided as
  a tie where that label has at least as much support as each order: an annotator's vote counts by reliability, 0 where
  that is negative, and the gold ranks by theirs. Otherwise the scores decide.

  start: a model to begin the search from. exclude: indices of annotators whose judgements are left out, and whose
  reliability is then the prior's 1.
  """
  num, size = len(table.annotators), max(table.ranks.shape[1], 1)
  chosen = pairs.where(~np.isin(pairs.annotator, exclude))
  data = _with_gold(table, chosen)
  scale = _word_scale(pairs)
  num_scores = len(table.items) * size
  prior = np.concatenate([np.zeros(num_scores), np.ones(num), np.zeros(2 * num)])
  precision = np.repeat(np.array([SCORE_SD, RELIABILITY_SD, HABIT_SD]) ** -2.0, [num_scores, num, 2 * num])
  first, second = data["item"] * size + data["first"], data["item"] * size + data["second"]
  who, outcome, weight = data["annotator"], data["outcome"], data["share"]
  earlier, longer = data["earlier"], data["longer"] / scale

  def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
    scores, reliability, position, length = np.split(theta, np.cumsum([num_scores, num, num]))
    norm = np.sqrt(np.mean(reliability**2))
    reliability = reliability / norm
    alpha = np.append(reliability, GOLD_RELIABILITY)[who]
    gap = scores[first] - scores[second]
    logits = alpha * gap + np.append(position, 0.0)[who] * earlier + np.append(length, 0.0)[who] * longer
    error = weight * (0.5 * (1 + np.tanh(0.5 * logits)) - outcome)
    value = weight @ (np.logaddexp(0.0, logits) - outcome * logits) + 0.5 * precision @ (theta - prior) ** 2
    by_person = [np.bincount(who, error * x, num + 1)[:num] for x in (gap, earlier, longer)]
    by_person[0] = (by_person[0] - reliability * np.mean(by_person[0] * reliability)) / norm  # through the norm
    by_score = np.bincount(first, error * alpha, num_scores) - np.bincount(second, error * alpha, num_scores)
    return value, np.concatenate([by_score, *by_person]) + precision * (theta - prior)

  begin = prior
  if start is not None:
    begin = np.concatenate(
      [np.nan_to_num(start.scores).ravel(), start.reliability, start.position, start.length * scale]
    )
  result = scipy.optimize.minimize(
    objective, begin, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-9, "gtol": 1e-4}
  )
  scores, reliability, position, length = np.split(result.x, np.cumsum([num_scores, num, num]))
  reliability /= np.sqrt(np.mean(reliability**2))
  judged = np.zeros(num_scores, bool)
  judged[first], judged[second] = True, True
  scores = np.where(judged, scores, np.nan).reshape(len(table.items), size)
  ranks = _ranks_with_ties(table, data, scores, np.append(reliability, GOLD_RELIABILITY))
  return NoisyBradleyTerry(scores, ranks, reliability, position, length / scale)


def annotator_weights(table: Table, model: NoisyBradleyTerry) -> dict[str, float]:
  """Weight of each annotator's judgements in the loss of a reward model; the mean over all judgements is 1.

  Weights are proportional to the reliability, and 0 where it is negative. For small score differences the mean of a
  label is reliability * difference / 4 and its variance is the same for all annotators, so that these weights give the
  linear estimate of least variance. The labels of an annotator of negative reliability are not reversed: such an
  annotator has more likely misunderstood the guidelines than meant the opposite.
  """
  weights = np.maximum(model.reliability, 0.0)
  counts = np.bincount(table.annotator, minlength=len(weights))
  mean = counts @ weights / max(counts.sum(), 1)
  return dict(zip(table.annotators, (weights / mean if mean > 0 else weights).tolist(), strict=True))


def _ranks_with_ties(
  table: Table, data: dict[str, np.ndarray], scores: np.ndarray, reliability: np.ndarray
) -> np.ndarray:
  """The ranks i64[M, K] of the noisy Bradley-Terry model; data: of `_with_gold`, reliability: f64[A + 1], gold last."""
  size = scores.shape[1]
  key = (data["item"] * size + data["first"]) * size + data["second"]
  _, where, unit = np.unique(key, return_index=True, return_inverse=True)
  item, first, second = (data[name][where] for name in ("item", "first", "second"))
  support = np.zeros((len(where), 3))
  labels = np.round(2 * data["outcome"]).astype(np.int64)
  np.add.at(support, (unit, labels), np.maximum(reliability, 0.0)[data["annotator"]])
  order = np.maximum(support[:, 0], support[:, 2])
  tied = (support[:, 1] > 0) & (support[:, 1] >= order - 1e-9 * support.sum(1))
  gap = np.round(scores[item, first] - scores[item, second], 6)
  return _ranked(table, _copeland(table, item, first, second, np.where(tied, 0.5, 0.5 + 0.5 * np.sign(gap))))


def _with_gold(table: Table, pairs: Pairs) -> dict[str, np.ndarray]:
  """The pairs of the annotators, and those of the gold ranks as of an annotator with the index A."""
  names = ("annotator", "item", "first", "second", "outcome", "earlier", "longer", "share")
  own = {name: np.nan_to_num(getattr(pairs, name)) if name == "earlier" else getattr(pairs, name) for name in names}
  item, first, second = ranked_pairs(table.gold)
  order = np.lexsort((item, second, first))
  item, first, second = item[order], first[order], second[order]
  zero = np.zeros(len(item))
  gold = {
    "annotator": np.full(len(item), len(table.annotators)),
    "item": item,
    "first": first,
    "second": second,
    "outcome": pair_outcomes(table.gold[item, first], table.gold[item, second]),
    "earlier": zero,
    "longer": zero,
    "share": 2 / (table.gold[item] >= 0).sum(1),
  }
  return {name: np.concatenate([own[name], gold[name]]) for name in names}


def _word_scale(pairs: Pairs) -> float:
  spread = float(np.sqrt(np.mean(pairs.longer**2))) if pairs.longer.size else 0.0
  return spread or 1.0


def _mean_wins(table: Table, pairs: Pairs, first_wins: np.ndarray) -> np.ndarray:
  """The mean outcome of a response over its judged pairs, f64[M, K], from the outcomes of the units, f64[U]."""
  units, where = np.unique(pairs.unit, return_index=True)
  return _copeland(table, pairs.item[where], pairs.first[where], pairs.second[where], first_wins[units])


def _copeland(table: Table, item: np.ndarray, first: np.ndarray, second: np.ndarray, wins: np.ndarray) -> np.ndarray:
  """The mean outcome of a response over U different pairs (item, first, second), each i64[U]: f64[M, K], NaN without.

  wins: outcomes of the pairs for their first response, f64[U].
  """
  total, count = np.zeros(table.num_words.shape), np.zeros(table.num_words.shape)
  for column, outcome in ((first, wins), (second, 1 - wins)):
    np.add.at(total, (item, column), outcome)
    np.add.at(count, (item, column), 1)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _ranked(table: Table, scores: np.ndarray) -> np.ndarray:
  """The ranks of the scores f64[M, K], and of the final judgement where there is one: i64[M, K]."""
  return np.where((table.final >= 0).any(axis=1, keepdims=True), table.final, dense_ranks(np.round(scores, 9)))
