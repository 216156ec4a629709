"""Weights of tokens that another program drew than the one that trains: its probabilities differ by rounding, or more.

`ratio = exp(logp - logp_sampler)`, of the same parameters by two programs, or of a policy that has moved on. A weight
is the ratio itself where it lies between two bounds and 0 elsewhere, so that what the two disagree on teaches nothing.
The objective of a token is multiplied by its weight, of which no gradient flows.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.objectives.kl import cap_log_ratio, log_ratio
from rlhf_jax.reduce import Scalar, check_shapes, masked_mean, masked_sum, per_token, select

__all__ = ["masked_sequence_ratios", "masked_token_ratios"]


def masked_token_ratios(
  logp: Scalar | Num[ArrayLike, "*b"],
  logp_sampler: Scalar | Num[ArrayLike, "*b"],
  *,
  low: Scalar = 0.5,
  high: Scalar = 5.0,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """IcePop: the ratio of a token where `low <= ratio <= high`, else 0 (arXiv:2510.18855).

  The mean over the sampler's tokens of weight times f is the policy's mean of f over the tokens that are kept.

  Args: logp, logp_sampler, mask: [...], log-probs in nats by the program that trains and by the one that drew.
  Returns: f32[...], 0 outside the mask.

  >>> print(masked_token_ratios(jnp.log(jnp.array([0.5, 0.9, 0.1])), jnp.log(jnp.array([0.4, 0.1, 0.4]))))
  [1.25 0.   0.  ]
  """
  check_shapes("masked_token_ratios", {"logp": logp, "logp_sampler": logp_sampler, "mask": mask})
  return select(_kept(log_ratio(logp, logp_sampler, mask), low, high), mask)


def masked_sequence_ratios(
  logp: Scalar | Num[ArrayLike, "*b t"],
  logp_sampler: Scalar | Num[ArrayLike, "*b t"],
  mask: Shaped[ArrayLike, "*b t"],
  *,
  low: Scalar = 0.0,
  high: Scalar = 2.0,
  geometric: bool = False,
) -> Float32[jax.Array, "*b t"]:
  """MIS: the ratio of a whole sequence on each of its tokens where `low <= ratio <= high`, else 0.

  Sequence-level masked importance sampling (Liu et al. 2025, "When Speed Kills Stability"): the ratio is the product
  over the sequence. With `geometric` it is the geometric mean, whose bounds hold for any length, and which keeps or
  drops sequences without being their probabilities' ratio: the weight is then 1 or 0.

  Args: logp[..., T], logp_sampler[..., T], mask[..., T]. Returns: f32[..., T], 0 outside the mask.

  >>> logp, mask = jnp.log(jnp.array([[0.5, 0.6], [0.9, 0.9]])), jnp.ones((2, 2))
  >>> print(masked_sequence_ratios(logp, jnp.log(jnp.full((2, 2), 0.5)), mask))
  [[1.2 1.2]
   [0.  0. ]]
  """
  check_shapes("masked_sequence_ratios", {"logp": logp, "logp_sampler": logp_sampler, "mask": mask})
  ratios = log_ratio(logp, logp_sampler, mask)
  kept = _kept((masked_mean if geometric else masked_sum)(ratios, mask, axis=-1), low, high)  # [...]
  return select(per_token((kept > 0).astype(jnp.float32) if geometric else kept, ratios), mask)


def _kept(log_ratios: jax.Array, low: Scalar, high: Scalar) -> jax.Array:
  ratio = jnp.exp(cap_log_ratio(jax.lax.stop_gradient(log_ratios)))
  return jnp.where((ratio >= low) & (ratio <= high), ratio, 0.0)
