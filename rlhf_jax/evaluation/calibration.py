"""Calibration of a reward model: the probabilities of preferences that it predicts, against outcomes.

By Bradley-Terry a reward model predicts that response i is preferred to response j with probability sigmoid(r_i - r_j).
The rewards are those that it was trained with: a stage that normalises its scores records their deviation before
(`rlhf_jax.train.score_scale`), by which differences of scores are multiplied. A temperature T divides them.

A pair is counted once, with the response of the higher score first, so that probabilities lie between 0.5 and 1. Its
outcome is 1 where the first response is the better one, 0 where it is not, or the share of labels that prefer it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlhf_jax.evaluation.statistics import calibration, clustered_share

BINS = 20  # of equal width between 0 and 1, of which pairs fill those above 0.5
TEMPERATURES = (1e-3, 1e3)  # range of a fitted temperature


def pair_calibration(
  leads: np.ndarray, shares: np.ndarray, prompts: Sequence[int] | np.ndarray, temperature: float = 1.0
) -> dict[str, Any]:
  """Calibration of P pairs, as a mapping for a result file.

  leads: f[P], r_i - r_j on the scale of training. shares: f[P], share of labels that prefer i, or 1 where i is better
  and 0 where j is. prompts: i[P], number of the prompt of each pair, over which the intervals are. temperature: T.

  {"error": expected calibration error (Guo et al. 1706.04599), "log_loss": mean log loss in nats, "temperature": the
  temperature of least log loss on these pairs, relative to `leads`, "num": P, "bins": [{"confidence": mean probability,
  "frequency": share of outcomes with its interval}]} without empty bins. Without pairs "num" alone.
  """
  if not len(leads):
    return {"num": 0}
  ahead = np.abs(leads)
  won = np.where(leads > 0, shares, np.where(leads < 0, 1 - np.asarray(shares), 0.5))
  predicted = _sigmoid(ahead / temperature)
  found = calibration(predicted, won, BINS)
  _, group = np.unique(np.asarray(prompts), return_inverse=True)
  place = np.minimum((predicted * BINS).astype(int), BINS - 1)
  bins = []
  for number in np.flatnonzero(found.counts):
    mine = place == number
    sums, sizes = np.bincount(group[mine], won[mine]), np.bincount(group[mine])
    bins.append({"confidence": float(found.confidence[number]), "frequency": clustered_share(sums, sizes)._asdict()})
  return {
    "error": found.error,
    "log_loss": log_loss(ahead / temperature, won),
    "temperature": fit_temperature(ahead, won),
    "num": len(ahead),
    "bins": bins,
  }


def log_loss(leads: np.ndarray, shares: np.ndarray) -> float:
  """Mean over pairs of -y log p - (1 - y) log(1 - p) in nats, with p = sigmoid(leads) and y = shares, f[P] each."""
  x, y = np.asarray(leads, np.float64), np.asarray(shares, np.float64)
  return float((np.logaddexp(0.0, -x) + (1 - y) * x).mean())


def fit_temperature(leads: np.ndarray, shares: np.ndarray) -> float:
  """The temperature T, within `TEMPERATURES`, at which sigmoid(leads / T) has the least `log_loss` (Guo et al., 4.2).

  The loss is convex in 1 / T, and its slope is found to be 0 by bisection. A limit of the range is returned where the
  loss falls up to there: the lower one where every outcome is as predicted.
  """
  x, y = np.asarray(leads, np.float64), np.asarray(shares, np.float64)
  low, high = (np.log(1 / limit) for limit in reversed(TEMPERATURES))
  for _ in range(60):
    middle = (low + high) / 2
    slope = (x * (_sigmoid(np.exp(middle) * x) - y)).mean()
    low, high = (low, middle) if slope > 0 else (middle, high)
  return float(np.exp(-(low + high) / 2))


def _sigmoid(x: np.ndarray) -> np.ndarray:
  return 0.5 * (1 + np.tanh(0.5 * np.asarray(x)))  # never overflows


def answer_calibration(
  scores: np.ndarray, gold: np.ndarray, labels: Mapping[str, np.ndarray], distinct: np.ndarray, scale: float
) -> dict[str, Any]:
  """`pair_calibration` on the pairs of K answers to each of N prompts, by outcome.

  scores, gold: f[N, K]. labels: {name: f[N, K, K]}, shares of labels that prefer answer i to j. distinct: bool[N, K],
  False for a text that stands before among the answers. scale: factor from scores to rewards. {"scale": scale, "gold":
  of the pairs of different gold reward, name of labels: of all pairs of different texts}.
  """
  first, second = np.triu_indices(scores.shape[1], 1)
  lead = scale * (scores[:, first] - scores[:, second]).astype(np.float64)  # [N, P]
  gap = gold[:, first] - gold[:, second]
  prompt = np.broadcast_to(np.arange(len(scores))[:, None], lead.shape)
  different = distinct[:, first] & distinct[:, second]
  ordered = different & (gap != 0)
  found = {"gold": pair_calibration(lead[ordered], (gap > 0)[ordered].astype(np.float64), prompt[ordered])}
  for name, shares in labels.items():
    found[name] = pair_calibration(lead[different], shares[:, first, second][different], prompt[different])
  return {"scale": scale, **found}


def distinct_texts(rows: Sequence[Sequence[str]]) -> np.ndarray:
  """bool[N, K] of N rows of K texts: False for a text that stands before in its row."""
  return np.array([[text not in texts[:place] for place, text in enumerate(texts)] for texts in rows])
