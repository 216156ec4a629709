"""The best of n responses by a score, from N >= n that were sampled once: its expected rewards and its KL; NumPy only.

Every subset of n of the N samples is a draw of best-of-n, and the mean over all of them is unbiased (Nakano et al.
2021, arXiv 2112.09332, appendix I; Gao et al. 2022, arXiv 2210.10760). Among samples of equal score each is the best as
often as the others.
"""

import numpy as np
from numpy.typing import ArrayLike

from rlhf_jax.intervals import finite


def best_of_n_weights(scores: ArrayLike, n: int) -> np.ndarray:
  """The chance of each sample to be the best of n drawn without replacement: f64[..., N], which sum to 1 over N.

  scores: f[..., N]. Without ties that of the i-th lowest of N scores is C(i - 1, n - 1) / C(N, n). A mean of any values
  with these weights is their unbiased mean under best-of-n. Raises ValueError where n is not between 1 and N, or a
  score is not finite.
  """
  values = _checked(scores, n)
  total = values.shape[-1]
  log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])

  def chance_up_to(count: np.ndarray) -> np.ndarray:
    """C(count, n) / C(N, n): the chance that all n are among the `count` lowest."""
    rest = np.maximum(count - n, 0)
    log = log_factorial[count] - log_factorial[rest] - log_factorial[total] + log_factorial[total - n]
    return np.where(count >= n, np.exp(log), 0.0)

  below, equal = _places(values)
  return (chance_up_to(below + equal) - chance_up_to(below)) / equal


def best_of_n_kl(scores: ArrayLike, n: int) -> np.ndarray:
  """KL of best-of-n to the policy that N samples were drawn from, in nats: f64[...].

  scores: f[..., N]. With ties it is below `best_of_n_kl_bound`: responses of equal score keep their proportions, so
  that the KL is that of the distributions of scores. The share F(s) of the samples has a score up to s, and the share
  F(s)^n of the best of n. The shares are those among the N samples, an estimate that is a little too low where n is
  near N. Raises ValueError as `best_of_n_weights`.
  """
  values = _checked(scores, n)
  total = values.shape[-1]
  below, equal = _places(values)
  chance = ((below + equal) / total) ** n - (below / total) ** n  # of a sample's score, [..., N]
  ratio = chance * total / equal
  logs = np.log(np.where(ratio > 0, ratio, 1.0))  # a chance below the smallest float adds nothing
  return (chance / equal * logs).sum(axis=-1)


def best_of_n_kl_bound(n: ArrayLike) -> np.ndarray:
  """log n - (n - 1) / n nats, the KL of best-of-n to the policy where no two responses tie, else an upper bound.

  n: number or numbers of at least 1. See Beirami et al. 2024 (arXiv 2401.01879).
  """
  count = np.asarray(n, np.float64)
  return np.log(count) - (count - 1) / count


def _checked(scores: ArrayLike, n: int) -> np.ndarray:
  values = finite(scores, "scores")
  if values.ndim < 1 or not 1 <= n <= values.shape[-1]:
    raise ValueError(f"n={n} must be between 1 and the number of samples, of scores of shape {values.shape}")
  return values


def _places(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(number of lower values, number of equal values with the value itself) of each value among N: i64[..., N]."""
  rows = values.reshape(-1, values.shape[-1])
  ordered = np.sort(rows, axis=1)
  below, up_to = (
    np.array([np.searchsorted(line, row, side) for line, row in zip(ordered, rows, strict=True)])
    for side in ("left", "right")
  )
  return below.reshape(values.shape), (up_to - below).reshape(values.shape)
