"""One order from many: majority, Dawid-Skene, and a noisy Bradley-Terry model.

Dawid-Skene is written out here because the library that has it, crowd-kit, requires transformers, nltk and pyarrow;
the tests compare with it where it is installed.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.optimize

from rlhf_jax.agreement.tables import Pairs, Table
from rlhf_jax.feedback.ranks import dense_ranks

SCORE_SD = 2.0  # logits at a reliability of 1
RELIABILITY_SD = 1.0
HABIT_SD = 1.0
GOLD_RELIABILITY = 3.0


@dataclasses.dataclass(frozen=True)
class Consensus:
  """scores: f64[M, K], higher is better within an item, NaN where nobody judged. ranks: i64[M, K], -1 there."""

  scores: np.ndarray
  ranks: np.ndarray


@dataclasses.dataclass(frozen=True)
class DawidSkene(Consensus):
  """posterior: f64[U, 3], that the second response of a pair is better, equal, the first. confusion: f64[A, 3, 3],
  P(label | truth) as [annotator, truth, label]."""

  posterior: np.ndarray
  confusion: np.ndarray


@dataclasses.dataclass(frozen=True)
class NoisyBradleyTerry(Consensus):
  """reliability: f64[A], logits for a score difference of 1; 0 is one who guesses, below 0 one who prefers the worse.
  position: f64[A], logits for each place that a response stands earlier. length: f64[A], logits a word."""

  reliability: np.ndarray
  position: np.ndarray
  length: np.ndarray


def majority(table: Table, pairs: Pairs) -> Consensus:
  """The majority of each pair; a response scores its mean of won (1) and tied (1/2) pairs (Copeland)."""
  votes = np.bincount(pairs.unit, 2 * pairs.outcome - 1, pairs.num_units)  # [U]
  return _consensus(_mean_wins(table, pairs, 0.5 + 0.5 * np.sign(votes)))


def dawid_skene(
  table: Table, pairs: Pairs, *, smoothing: float = 0.5, max_steps: int = 200, tolerance: float = 1e-6
) -> DawidSkene:
  """Dawid and Skene (1979) on the pairs: EM for the truth of each pair and a confusion matrix of each annotator.

  Each pair is seen in both orientations, so that nothing depends on which response is stored first. Gold pairs
  have their truth. `smoothing` is added to every count of the confusion matrices and of the classes, and once more
  to the diagonals (most people mean well; without that an annotator with one label would count as one who
  guesses); 0 is the paper's maximum likelihood. A response scores its mean probability of being better.
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
  return DawidSkene(scores, dense_ranks(np.round(scores, 9)), posterior, confusion)


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
  """Dawid-Skene on labels i64[L] below C by annotator i64[L] of unit i64[L]; shape is (A, U, C).

  Starts at the shares of the votes. `known`: i64[U], the truth, -1 unknown. `smoothing`: pseudo-counts,
  [C, C] or one for all. Stops when no posterior moves by more
  than `tolerance`. Returns (posterior f64[U, C], confusion f64[A, C, C] as [annotator, truth, label]).
  """
  num_annotators, num_units, num_classes = shape
  known = np.full(num_units, -1) if known is None else known
  votes = np.zeros((num_units, num_classes))
  np.add.at(votes, (units, labels), 1.0)

  def clamp(weights):
    total = weights.sum(1, keepdims=True)
    posterior = np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / num_classes)
    posterior[known >= 0] = np.eye(num_classes)[known[known >= 0]]
    return posterior

  posterior, confusion = clamp(votes), np.zeros((num_annotators, num_classes, num_classes))
  for _ in range(max_steps):
    counts = np.zeros((num_annotators, num_classes, num_classes)) + smoothing
    np.add.at(counts, (annotators, slice(None), labels), posterior[units])
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
  table: Table, pairs: Pairs, *, start: NoisyBradleyTerry | None = None, exclude: Sequence[int] = ()
) -> NoisyBradleyTerry:
  """Bradley-Terry with annotators who differ, in the spirit of CrowdBT (Chen et al., 2013), as MAP by L-BFGS.

    P(a puts i before j) = sigmoid(reliability_a (s_i - s_j) + position_a (places earlier) + length_a (words longer))

  A temperature per annotator takes the place of CrowdBT's probability eta_a of an honest answer: 0 is one who guesses
  and a negative one prefers the worse, as eta of 1/2 and 0 do; but unlike a flip that is equally likely for all pairs
  it lets clear pairs be easier than close ones. Priors identify it: s ~ N(0, 2^2) in each item fixes scale and origin,
  reliability ~ N(1, 1) fixes the sign (most people mean well), position and length (in standard deviations of the
  word differences) ~ N(0, 1). Gold ranks count as one more annotator whose reliability is 3. The pairs of a
  ranking of K weigh 2 / K each; a tie is half of either order.

  `exclude` leaves out the judgements of these annotators, whose reliability is then the prior's 1; `start` is where to
  begin.
  """
  num, size = len(table.annotators), max(table.ranks.shape[1], 1)
  chosen = pairs.where(~np.isin(pairs.annotator, exclude))
  data = _with_gold(table, chosen)
  scale = _word_scale(pairs)
  num_scores = len(table.items) * size
  prior = np.concatenate([np.zeros(num_scores), np.ones(num), np.zeros(2 * num)])
  precision = np.repeat(
    np.array([SCORE_SD, RELIABILITY_SD, HABIT_SD]) ** -2.0, [num_scores, num, 2 * num]
  )  # fmt: skip
  first, second = data["item"] * size + data["first"], data["item"] * size + data["second"]
  who, outcome, weight = data["annotator"], data["outcome"], data["share"]
  earlier, longer = data["earlier"], data["longer"] / scale

  def objective(theta):
    scores, reliability, position, length = np.split(theta, np.cumsum([num_scores, num, num]))
    size = np.sqrt(np.mean(reliability**2))
    reliability = reliability / size
    alpha = np.append(reliability, GOLD_RELIABILITY)[who]
    gap = scores[first] - scores[second]
    logits = alpha * gap + np.append(position, 0.0)[who] * earlier + np.append(length, 0.0)[who] * longer
    error = weight * (0.5 * (1 + np.tanh(0.5 * logits)) - outcome)
    value = weight @ (np.logaddexp(0.0, logits) - outcome * logits) + 0.5 * precision @ (theta - prior) ** 2
    by_person = [np.bincount(who, error * x, num + 1)[:num] for x in (gap, earlier, longer)]
    by_person[0] = (by_person[0] - reliability * np.mean(by_person[0] * reliability)) / size  # of the normalisation
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
  return NoisyBradleyTerry(scores, dense_ranks(np.round(scores, 6)), reliability, position, length / scale)


def annotator_weights(table: Table, model: NoisyBradleyTerry) -> dict[str, float]:
  """How much each annotator's judgements should weigh in a reward model's loss; judgements weigh 1 on average.

  In proportion to the reliability, and 0 where that is negative. For small score differences the mean of a label is
  reliability * difference / 4 while its variance does not depend on the annotator, so these are the weights
  of the least-variance linear estimate. A negative annotator's labels are not turned round: they are evidence of
  something misunderstood, not of the opposite.
  """
  weights = np.maximum(model.reliability, 0.0)
  counts = np.bincount(table.annotator, minlength=len(weights))
  mean = counts @ weights / max(counts.sum(), 1)
  return dict(zip(table.annotators, (weights / mean if mean > 0 else weights).tolist(), strict=True))


def _with_gold(table: Table, pairs: Pairs) -> dict[str, np.ndarray]:
  """The pairs of the annotators and, as annotator number A, those of the gold ranks of judged items."""
  names = ("annotator", "item", "first", "second", "outcome", "earlier", "longer", "share")
  own = {name: np.nan_to_num(getattr(pairs, name)) if name == "earlier" else getattr(pairs, name) for name in names}
  has_gold = np.flatnonzero((table.gold >= 0).any(1))
  size = (table.gold[has_gold] >= 0).sum(1)
  rows = []
  for i, j in zip(*np.triu_indices(table.gold.shape[1], 1), strict=True):
    ranks = table.gold[has_gold]
    both = (ranks[:, i] >= 0) & (ranks[:, j] >= 0)
    outcome = 0.5 + 0.5 * np.sign(ranks[both, j] - ranks[both, i])
    zero = np.zeros(both.sum())
    person = np.full(both.sum(), len(table.annotators))
    columns = (person, has_gold[both], zero + i, zero + j, outcome, zero, zero, 2 / size[both])
    rows.append(dict(zip(names, columns, strict=True)))
  joined = {name: np.concatenate([own[name], *(row[name] for row in rows)]) for name in names}
  return {name: x.astype(np.int64) if name in names[:4] else x for name, x in joined.items()}


def _word_scale(pairs: Pairs) -> float:
  spread = float(np.sqrt(np.mean(pairs.longer**2))) if pairs.longer.size else 0.0
  return spread or 1.0


def _mean_wins(table: Table, pairs: Pairs, first_wins: np.ndarray) -> np.ndarray:
  """f64[U] -> f64[M, K]: the mean over the pairs of a response that were judged."""
  units, where = np.unique(pairs.unit, return_index=True)
  total, count = np.zeros(table.num_words.shape), np.zeros(table.num_words.shape)
  for column, wins in ((pairs.first, first_wins), (pairs.second, 1 - first_wins)):
    np.add.at(total, (pairs.item[where], column[where]), wins[units])
    np.add.at(count, (pairs.item[where], column[where]), 1)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _consensus(scores: np.ndarray) -> Consensus:
  return Consensus(scores, dense_ranks(np.round(scores, 9)))
