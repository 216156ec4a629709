"""Policy-gradient objectives, to be maximised, and the baselines that turn rewards into advantages.

The baselines return what `advantages` expects; the objectives stop its gradient.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.objectives.kl import cap_log_ratio, floor_logp, log_ratio
from rlhf_jax.reduce import Scalar, check_shapes, float32, masked_mean, per_token, select

__all__ = [
  "group_normalize",
  "importance_weights",
  "leave_one_out",
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
  return _clipped_surrogate(ratio, select(advantages, mask), clip)


def importance_weights(
  logp: Scalar | Num[ArrayLike, "*b"],
  logp_sampled: Scalar | Num[ArrayLike, "*b"],
  *,
  cap: Scalar,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`min(exp(logp - logp_sampled), cap)`, truncated importance sampling (Ionides 2008).

  A sampler computes other log-probs than the trainer of the same parameters, by rounding or in another dtype.
  Advantages times these weights have the trainer's expectation, but for what the cap takes off, which bounds their
  variance (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"). No gradient
  flows through them.

  Args: logp, of the trainer, logp_sampled, mask: [...], of tokens, or summed over responses, whose weight is then the
    product over their tokens. cap: the largest weight. Returns: f32[...].

  >>> weights = importance_weights(jnp.log(jnp.array([0.5, 0.9])), jnp.log(jnp.array([0.4, 0.3])), cap=2.0)
  >>> [round(x, 4) for x in weights.tolist()]
  [1.25, 2.0]
  """
  check_shapes("importance_weights", {"logp": logp, "logp_sampled": logp_sampled, "mask": mask})
  ratio = jnp.exp(cap_log_ratio(log_ratio(logp, logp_sampled, mask)))
  return jax.lax.stop_gradient(select(jnp.minimum(ratio, float32(cap)), mask))


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
  objective, clipped = _clipped_surrogate(jnp.exp(cap_log_ratio(log_ratios)), advantages, clip)
  return select(per_token(objective, mask), mask), select(per_token(clipped, mask), mask)


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


def _centred(rewards: ArrayLike) -> jax.Array:
  # The mean is taken about the first reward, so that equal rewards give exactly 0: the rounding of a plain mean leaves
  # a remainder, which the division by std + eps would scale up.
  rewards = float32(rewards)
  rewards = rewards - rewards[..., :1]
  return rewards - jnp.mean(rewards, axis=-1, keepdims=True)


def _clipped_surrogate(ratio: jax.Array, advantages: jax.Array, clip: Clip) -> tuple[jax.Array, jax.Array]:
  low, high = clip if isinstance(clip, tuple | list) else (clip, clip)
  advantages = jax.lax.stop_gradient(advantages)
  bound = jnp.where(advantages > 0, 1.0 + high, 1.0 - low)
  clipped = ((advantages > 0) & (ratio > bound)) | ((advantages < 0) & (ratio < bound))
  return jnp.where(clipped, bound, ratio) * advantages, clipped.astype(jnp.float32)
