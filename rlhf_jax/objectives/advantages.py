"""From the rewards of K responses to one prompt to advantages: the baselines that are subtracted, and scales.

What they return is an argument `advantages` of the objectives, which stop its gradient. Of a baseline that an action
has no part in the policy gradient keeps its mean; `experiments/exact_gradients` lists those of which that does not
hold.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.reduce import Scalar, check_shapes, float32, select

__all__ = ["group_centre", "group_normalize", "leave_one_out", "optimal_baseline", "optimal_token_baseline"]


def leave_one_out(rewards: Num[ArrayLike, "*b k"]) -> Float32[jax.Array, "*b k"]:
  """RLOO: `r_i - sum_{j != i} r_j / (K - 1)`, a reward less the mean of the group's other rewards (arXiv:2402.14740).

  Args: rewards[..., K], K responses to one prompt. Returns: f32[..., K].
  Raises ValueError for K = 1, where there is no other reward: an advantage of 0 would silently train nothing, and the
  reward itself would be another estimator.

  >>> [round(x, 4) for x in leave_one_out(jnp.array([1, 2, 3, 6])).tolist()]
  [-2.6667, -1.3333, 0.0, 4.0]
  """
  size = jnp.shape(rewards)[-1]
  if size < 2:
    raise ValueError(f"leave_one_out needs at least 2 responses to each prompt, got rewards[..., {size}]")
  return _centred(rewards) * (size / (size - 1))


def group_normalize(
  rewards: Num[ArrayLike, "*b k"], *, eps: Scalar = 1e-6, ddof: int = 0
) -> Float32[jax.Array, "*b k"]:
  """GRPO: `(r - mean) / (std + eps)` within each group (arXiv:2402.03300, section 4.1.2).

  A group of one response, or of equal rewards, gives exactly 0.

  Args: rewards[..., K], K responses to one prompt; ddof, 0 or 1, of the standard deviation (numpy's default is 0,
    torch's is 1). Returns: f32[..., K].

  >>> [round(x, 3) for x in group_normalize(jnp.array([1, 2, 3, 6])).tolist()]
  [-1.069, -0.535, 0.0, 1.604]
  """
  centred = _centred(rewards)
  variance = jnp.sum(jnp.square(centred), axis=-1, keepdims=True) / max(centred.shape[-1] - ddof, 1)
  # sqrt has an infinite slope at 0, and 0 * inf would be NaN in a gradient.
  std = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)
  return centred / (std + eps)


def group_centre(rewards: Num[ArrayLike, "*b k"]) -> Float32[jax.Array, "*b k"]:
  """Dr. GRPO: `r - mean(r)` within each group (arXiv:2503.20783).

  The mean contains the response's own reward, so that the gradient is (K - 1) / K of that of `leave_one_out`.

  Args: rewards[..., K], K responses to one prompt. Returns: f32[..., K].

  >>> print(group_centre(jnp.array([1, 2, 3, 6])))
  [-2. -1.  0.  3.]
  """
  return _centred(rewards)


def optimal_baseline(rewards: Num[ArrayLike, "*b k"], lengths: Num[ArrayLike, "*b k"]) -> Float32[jax.Array, "*b k"]:
  """OPO: `r_i - sum_j l_j r_j / sum_j l_j`, less the mean weighted by length (arXiv:2505.23585).

  The baseline of least variance is weighted by the squared norm of a response's gradient, for which its number of
  tokens stands in. It contains the response's own reward: the gradient is scaled down, and turned where lengths differ.

  Args: rewards[..., K], K responses to one prompt; lengths[..., K], their numbers of tokens. Returns: f32[..., K]; the
    rewards less their mean where no response has a token.

  >>> print(optimal_baseline(jnp.array([1, 2, 3]), jnp.array([2, 1, 1])))
  [-0.75  0.25  1.25]
  """
  check_shapes("optimal_baseline", {"rewards": rewards, "lengths": lengths})
  return _weighted_centred(rewards, lengths)


def optimal_token_baseline(
  returns: Num[ArrayLike, "*b k t"], energies: Num[ArrayLike, "*b k t"], mask: Shaped[ArrayLike, "*b k t"]
) -> Float32[jax.Array, "*b k t"]:
  """OTB: `G_t - sum_j W_t,j G_t,j / sum_j W_t,j` at each place t of a group's responses (arXiv:2602.07078).

  `W_t = sum_{s <= t} energies_s` is the energy that a response has gathered up to t, the squared norm of its gradient
  so far, and stands in for the weight of the baseline of least variance. As in `optimal_baseline` the response's own
  return is part of its baseline.

  Args: returns[..., K, T], the rewards to go of K responses to one prompt, whose first tokens all stand at one index;
    energies[..., K, T], the squared norm of each token's score (`score_energy`); mask[..., K, T].
  Returns: f32[..., K, T], 0 outside the mask; responses that have ended by t are no part of the baseline there.

  >>> returns, energies = jnp.array([[2.0, 2.0], [0.0, 0.0]]), jnp.array([[1.0, 2.0], [3.0, 0.0]])
  >>> print(optimal_token_baseline(returns, energies, jnp.ones((2, 2))))
  [[ 1.5  1. ]
   [-0.5 -1. ]]
  """
  check_shapes("optimal_token_baseline", {"returns": returns, "energies": energies, "mask": mask})
  gathered = select(jnp.cumsum(select(energies, mask), axis=-1), mask)
  placed = jnp.swapaxes(
    _weighted_centred(*(jnp.swapaxes(x, -1, -2) for x in (select(returns, mask), gathered))), -1, -2
  )
  return select(placed, mask)


def _centred(rewards: ArrayLike) -> jax.Array:
  # The mean is taken about the first reward, so that equal rewards give exactly 0: the rounding of a plain mean leaves
  # a remainder, which the division by std + eps would scale up.
  rewards = float32(rewards)
  rewards = rewards - rewards[..., :1]
  return rewards - jnp.mean(rewards, axis=-1, keepdims=True)


def _weighted_centred(rewards: ArrayLike, weights: ArrayLike) -> jax.Array:
  """rewards[..., K] less their mean by weights[..., K]; about the first reward, as in `_centred`."""
  weights = float32(weights)
  total = jnp.sum(weights, axis=-1, keepdims=True)
  shares = jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), 1.0 / weights.shape[-1])
  rewards = float32(rewards)
  rewards = rewards - rewards[..., :1]
  return rewards - jnp.sum(shares * rewards, axis=-1, keepdims=True)
