"""A reward model that is a linear head on fixed features, as a convex problem: preferences by Newton, ratings exactly.

A model's trunk stays as it is (`rlhf_jax.train.features` gives its features), so that a head takes a second and
hundreds of replicates take minutes. The weights of a head have independent normal priors of mean 0, which presumes
features of about one scale (see `spreads`). NumPy and SciPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

ITERATIONS = 100
TOLERANCE = 1e-6  # change of a weight at which Newton's iterations end

Head = TypeVar("Head")


class RatingHead(NamedTuple):
  """A head that predicts ratings."""

  weights: np.ndarray
  """Weights of the features, f64[D]."""
  intercept: float
  """Rating of a text whose features are 0."""

  def predict(self, features: np.ndarray) -> np.ndarray:
    """The ratings f64[N] of texts with these features f64[N, D]."""
    return np.asarray(features @ self.weights + self.intercept)


def spreads(features: np.ndarray) -> np.ndarray:
  """The standard deviation f64[D] of each feature of f[N, D], to divide it by; 1 for one that is constant."""
  found = np.asarray(features, np.float64).std(axis=0)
  return np.where(found > 0, found, 1.0)


def fit_preferences(differences: np.ndarray, weights: ArrayLike, prior_sd: float) -> np.ndarray:
  """The weights f64[D] of a head under the Bradley-Terry model, the maximum of their posterior, by Newton's method.

  They minimise sum(weights * -log sigmoid(differences @ head)) + |head|^2 / (2 prior_sd^2).

  Args:
    differences: features of the preferred response less those of the response it was preferred to, f64[P, D].
    weights: f64[P], at least 0, such as 1 for each judgement; a scalar for all of them.
    prior_sd: standard deviation of the prior of each weight of the head, in logits per unit of its feature.
  """
  x = np.asarray(differences, np.float64)
  share = np.broadcast_to(np.asarray(weights, np.float64), len(x))

  def derivatives(head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wrong = _wrong(x @ head)
    return x.T @ (share * wrong), (x * (share * wrong * (1 - wrong))[:, None]).T @ x

  return _newton(derivatives, x.shape[1], prior_sd)


def fit_item_preferences(
  features: np.ndarray, better: np.ndarray, worse: np.ndarray, weights: ArrayLike, prior_sd: float
) -> np.ndarray:
  """`fit_preferences` of features[better] - features[worse], for few items in many preferences.

  The curvature is that of the items' features around the Laplacian matrix of the graph of preferences, so that its cost
  grows with the number of items and not with that of preferences.

  Args:
    features: those of M items, f64[M, D].
    better: places i64[P] of the preferred items.
    worse: places i64[P] of the items that they were preferred to.
    weights: as in `fit_preferences`, f64[P] or a scalar; prior_sd too.
  """
  items, places = np.unique(np.concatenate([better, worse]), return_inverse=True)
  better, worse = np.split(places, 2)
  x, num = np.asarray(features, np.float64)[items], len(items)
  share = np.broadcast_to(np.asarray(weights, np.float64), len(better))

  def derivatives(head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores = x @ head
    wrong = _wrong(scores[better] - scores[worse])
    pull, doubt = share * wrong, share * wrong * (1 - wrong)
    slope = x.T @ (np.bincount(better, pull, num) - np.bincount(worse, pull, num))
    degrees = np.bincount(better, doubt, num) + np.bincount(worse, doubt, num)
    one_way = scipy.sparse.coo_array((doubt, (better, worse)), shape=(num, num)).tocsr()
    return slope, x.T @ (degrees[:, None] * x - (one_way + one_way.T) @ x)

  return _newton(derivatives, x.shape[1], prior_sd)


def _wrong(margins: np.ndarray) -> np.ndarray:
  """Probabilities of the preferences that were not stated, where those that were have these log-odds."""
  return 0.5 * (1 - np.tanh(0.5 * margins))


def _newton(
  derivatives: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], num: int, prior_sd: float
) -> np.ndarray:
  """The maximum f64[num] of a posterior with the normal prior of standard deviation prior_sd.

  derivatives: head -> (slope f64[num] of the log-likelihood, its negative curvature f64[num, num]).
  """
  head, precision = np.zeros(num), 1 / prior_sd**2
  for _ in range(ITERATIONS):
    slope, curvature = derivatives(head)
    curvature[np.diag_indices_from(curvature)] += precision
    step = np.linalg.solve(curvature, slope - precision * head)
    head += step / max(1.0, np.abs(step).max())  # far from the maximum a whole step may lead away from it
    if np.abs(step).max() < TOLERANCE:
      break
  return head


def preference_losses(head: np.ndarray, differences: np.ndarray) -> np.ndarray:
  """-log sigmoid(differences @ head) of each preference, f64[P], in nats; differences as in `fit_preferences`."""
  return np.logaddexp(0.0, -(differences @ head))


def fit_ratings(features: np.ndarray, ratings: ArrayLike, weights: ArrayLike, prior_sd: float) -> RatingHead:
  """The head of a linear model of ratings with an intercept that has no prior: ridge regression.

  It minimises sum(weights * (features @ head + intercept - ratings)^2) / 2 + |head|^2 / (2 prior_sd^2), which is the
  maximum of the posterior where a rating of weight 1 has normal noise of variance 1.

  Args:
    features: f64[N, D].
    ratings: f64[N].
    weights: f64[N], at least 0, such as the number of people whose mean a rating is; a scalar for all of them.
    prior_sd: standard deviation of the prior of each weight of the head, in ratings per unit of its feature.
  """
  x, y = np.asarray(features, np.float64), np.asarray(ratings, np.float64)
  share = np.broadcast_to(np.asarray(weights, np.float64), len(x))
  centre, mean = share @ x / share.sum(), float(share @ y / share.sum())
  x, y = x - centre, y - mean
  weighted = x * share[:, None]
  head = np.linalg.solve(weighted.T @ x + np.eye(x.shape[1]) / prior_sd**2, weighted.T @ y)
  return RatingHead(head, mean - float(centre @ head))


def choose_prior(
  fit: Callable[[np.ndarray, float], Head],
  losses: Callable[[Head, np.ndarray], np.ndarray],
  groups: ArrayLike,
  priors: Sequence[float],
  folds: int = 5,
  seed: int = 0,
) -> float:
  """The prior_sd whose heads have the least mean loss on folds that they are not fitted on; the first of equals.

  Args:
    fit: the function (rows i64[M], prior_sd) -> head fitted on these rows.
    losses: the function (head, rows i64[M]) -> the losses f64[M] of these rows.
    groups: [N], equal for rows that stay in one fold, such as those of a prompt.
    priors: standard deviations to choose from.
    folds: number of folds, over which groups are dealt at random.

  Raises:
    ValueError: there are fewer groups than folds.
  """
  _, numbers = np.unique(np.asarray(groups), return_inverse=True)
  count = int(numbers.max(initial=-1)) + 1
  if count < folds:
    raise ValueError(f"{count} groups cannot be dealt over {folds} folds")
  fold = (np.random.default_rng(seed).permutation(count) % folds)[numbers.ravel()]
  parts = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(folds)]
  totals = [sum(losses(fit(rows, sd), held_out).sum() for rows, held_out in parts) for sd in priors]
  return priors[int(np.argmin(totals))]
