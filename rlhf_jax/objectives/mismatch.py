"""Weights of tokens that another program drew than the one that trains: its probabilities differ by rounding, or more.

`ratio = exp(logp - logp_sampler)`, of the same parameters by two programs, or of a policy that has moved on. A weight
is the ratio itself up to a cap, or where it lies between two bounds and 0 elsewhere, so that what the two disagree on
teaches nothing.
The objective of a token is multiplied by its weight, of which no gradient flows.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.objectives.kl import cap_log_ratio, log_ratio
from rlhf_jax.reduce import Scalar, check_shapes, masked_mean, masked_sum, per_token, select

__all__ = ["importance_weights", "masked_sequence_ratios", "masked_token_ratios"]


def importance_weights(
  logp: Scalar | Num[ArrayLike, "*b"],
  logp_sampler: Scalar | Num[ArrayLike, "*b"],
  *,
  cap: Scalar,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`min(exp(logp - logp_sampler), cap)`, truncated importance sampling (Ionides 2008).

  A sampler computes other log-probs than the trainer of the same parameters, by rounding or in another dtype.
  Advantages times these weights have the trainer's expectation, but for what the cap takes off, which bounds their
  variance (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"). No gradient
  flows through them.

  Args: logp, of the trainer, logp_sampler, mask: [...], of tokens, or summed over responses, whose weight is then the
    product over their tokens. cap: the largest weight. Returns: f32[...].

  >>> weights = importance_weights(jnp.log(jnp.array([0.5, 0.9])), jnp.log(jnp.array([0.4, 0.3])), cap=2.0)
  >>> [round(x, 4) for x in weights.tolist()]
  [1.25, 2.0]
  """
  check_shapes("importance_weights", {"logp": logp, "logp_sampler": logp_sampler, "mask": mask})
  ratio = jnp.exp(cap_log_ratio(log_ratio(logp, logp_sampler, mask)))
  return jax.lax.stop_gradient(select(jnp.minimum(ratio, cap), mask))


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
