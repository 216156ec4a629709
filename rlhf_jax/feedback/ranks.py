"""Rankings as integers: 0 is the best response, equal ranks tie, -1 is absent."""

from __future__ import annotations

import numpy as np


def dense_ranks(scores: np.ndarray) -> np.ndarray:
  """f[N, K] -> i64[N, K]: 0 for the highest score of a row, equal scores tie, -1 where the score is NaN."""
  ranks = np.full(scores.shape, -1, np.int64)
  for row, ranked in zip(scores, ranks, strict=True):
    present = ~np.isnan(row)
    ranked[present] = np.unique(-row[present], return_inverse=True)[1]
  return ranks


def ranked_pairs(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Every two ranked responses of each row of i64[N, K], row by row: (row, first, second), each i64[P].

  The responses of a pair are in the row's own order, first < second, whichever ranks higher.
  """
  first, second = np.triu_indices(ranks.shape[1], 1)
  row, pair = np.nonzero((ranks[:, first] >= 0) & (ranks[:, second] >= 0))
  return row, first[pair], second[pair]


def pair_outcomes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """f64[P]: 1, 0.5 or 0 where the first rank i64[P] is better than, equal to or worse than the second.

  NaN where a response of the pair is absent.
  """
  return np.where((first >= 0) & (second >= 0), 0.5 + 0.5 * np.sign(second - first), np.nan)
