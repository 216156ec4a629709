"""Policy-gradient objectives, to be maximised: REINFORCE, PPO's and GSPO's. `surrogates` has their variants.

`advantages` are those of `rlhf_jax.objectives.advantages`, or of `gae`; the objectives stop their gradient.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.objectives.kl import cap_log_ratio, floor_logp, log_ratio
from rlhf_jax.reduce import Scalar, check_shapes, masked_mean, per_token, select

__all__ = [
  "ppo_policy_objective",
  "reinforce_objective",
  "sequence_ratio_objective",
]

Clip = Scalar | tuple[Scalar, Scalar]


def reinforce_objective(
  logp: Scalar | Num[ArrayLike, "*b"],
  advantages: Scalar | Num[ArrayLike, "*b"],
  *,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`logp * A`, whose gradient has the policy gradient as its mean (Williams 1992).

  Args: logp, advantages, mask: [...], per token or per sequence. Returns: f32[...].

  >>> print(reinforce_objective(jnp.array([-1.0, -2.0]), jnp.array([0.5, -1.0])))
  [-0.5  2. ]
  """
  check_shapes("reinforce_objective", {"logp": logp, "advantages": advantages, "mask": mask})
  return floor_logp(logp, mask) * jax.lax.stop_gradient(select(advantages, mask))


def ppo_policy_objective(
  logp: Scalar | Num[ArrayLike, "*b"],
  logp_old: Scalar | Num[ArrayLike, "*b"],
  advantages: Scalar | Num[ArrayLike, "*b"],
  *,
  clip: Clip,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> tuple[Float32[jax.Array, "*b"], Float32[jax.Array, "*b"]]:
  """PPO's clipped surrogate, `min(ratio A, clip(ratio, 1 - low, 1 + high) A)` (arXiv:1707.06347, eq. 7).

  `ratio = exp(logp - logp_old)`, capped at exp(40) in value and slope; its slope is not cut off.

  Args: logp, logp_old, advantages, mask: [...]. clip: the half-width of the interval around 1, or its two distances
    from 1, (low, high), as in DAPO's clip-higher (arXiv:2503.14476).
  Returns: the objective f32[...], and f32[...] that is 1 where the clipped term is the smaller one (no gradient flows
    there) and 0 elsewhere.

  >>> logp, logp_old, advantages = jnp.log(jnp.array([1.5, 1.5])), jnp.zeros(2), jnp.array([1, -1])
  >>> objective, clipped = ppo_policy_objective(logp, logp_old, advantages, clip=0.25)
  >>> [round(x, 4) for x in objective.tolist()], clipped.tolist()
  ([1.25, -1.5], [1.0, 0.0])
  """
  arrays = {"logp": logp, "logp_old": logp_old, "advantages": advantages, "mask": mask}
  check_shapes("ppo_policy_objective", arrays)
  ratio = jnp.exp(cap_log_ratio(log_ratio(logp, logp_old, mask)))
  return clipped_surrogate(ratio, select(advantages, mask), clip)


def sequence_ratio_objective(
  logp: Scalar | Num[ArrayLike, "*b t"],
  logp_old: Scalar | Num[ArrayLike, "*b t"],
  advantages: Scalar | Num[ArrayLike, "*b"],
  mask: Shaped[ArrayLike, "*b t"],
  *,
  clip: Clip,
) -> tuple[Float32[jax.Array, "*b t"], Float32[jax.Array, "*b t"]]:
  """GSPO's surrogate with one ratio per sequence, `exp(mean_t(logp - logp_old))` (arXiv:2507.18071, eq. 5 and 7).

  Every token of a sequence carries the sequence's objective, so that `reduce.sequence_weights` gives the paper's
  mean over sequences.

  Args: logp[..., T], logp_old[..., T], mask[..., T]; advantages[...], one per sequence; clip as in PPO (the paper
    uses (3e-4, 4e-4)).
  Returns: the objective f32[..., T] and the clipped indicator f32[..., T], 0 outside the mask.

  >>> logp, advantages, mask = jnp.array([[0.3, 0.1, 9.0]]), jnp.array([1.0]), jnp.array([[1, 1, 0]])
  >>> objective, clipped = sequence_ratio_objective(logp, jnp.zeros((1, 3)), advantages, mask, clip=0.125)
  >>> print(objective, clipped)
  [[1.125 1.125 0.   ]] [[1. 1. 0.]]
  """
  arrays = {"logp": logp, "logp_old": logp_old, "mask": mask}
  check_shapes("sequence_ratio_objective", arrays, {"advantages": advantages})
  mask = jnp.asarray(mask) != 0
  log_ratios = masked_mean(log_ratio(logp, logp_old, mask), mask, axis=-1)  # [...]
  advantages = select(advantages, jnp.any(mask, axis=-1))
  objective, clipped = clipped_surrogate(jnp.exp(cap_log_ratio(log_ratios)), advantages, clip)
  return select(per_token(objective, mask), mask), select(per_token(clipped, mask), mask)


def clipped_surrogate(ratio: jax.Array, advantages: jax.Array, clip: Clip) -> tuple[jax.Array, jax.Array]:
  """`(min(ratio A, clip(ratio) A), clipped)`, each like ratio; no gradient flows into advantages, which are like it."""
  low, high = clip if isinstance(clip, tuple | list) else (clip, clip)
  advantages = jax.lax.stop_gradient(advantages)
  bound = jnp.where(advantages > 0, 1.0 + high, 1.0 - low)
  clipped = ((advantages > 0) & (ratio > bound)) | ((advantages < 0) & (ratio < bound))
  return jnp.where(clipped, bound, ratio) * advantages, clipped.astype(jnp.float32)
