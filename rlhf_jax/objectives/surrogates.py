"""Variants of PPO's surrogate, to be maximised, each with the ratio `exp(logp - logp_old)` of every token.

At a ratio of 1 each has the value and the gradient of PPO's; they differ in what they do with a token that has moved.
Each is an argument of a config as it stands:

  config.ppo.objective = dict(function="rlhf_jax.objectives:dual_clip_objective", arguments=dict(clip=0.2, bound=3.0))
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.objectives.kl import cap_log_ratio, log_ratio
from rlhf_jax.objectives.policy import Clip, clipped_surrogate
from rlhf_jax.reduce import Scalar, check_shapes, masked_mean, per_token, select

__all__ = [
  "cispo_objective",
  "clip_cov_objective",
  "dual_clip_objective",
  "gspo_token_objective",
  "kl_cov_objective",
  "sapo_objective",
]


def dual_clip_objective(
  logp: Scalar | Num[ArrayLike, "*b"],
  logp_old: Scalar | Num[ArrayLike, "*b"],
  advantages: Scalar | Num[ArrayLike, "*b"],
  *,
  clip: Clip,
  bound: Scalar = 3.0,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> tuple[Float32[jax.Array, "*b"], Float32[jax.Array, "*b"]]:
  """PPO's surrogate, which for A < 0 is no lower than `bound * A` (arXiv:1912.09729).

  PPO's own has no bound there: a token that was rare when it was sampled, and has become likely, outweighs a batch.

  Args: logp, logp_old, advantages, clip, mask: as in `ppo_policy_objective`. bound: a ratio above 1 + high.
  Returns: the objective f32[...], and f32[...] that is 1 where no gradient flows.

  >>> logp, advantages = jnp.log(jnp.array([5.0, 1.5, 5.0])), jnp.array([-1.0, -1.0, 1.0])
  >>> objective, clipped = dual_clip_objective(logp, jnp.zeros(3), advantages, clip=0.25, bound=3.0)
  >>> [round(x, 4) for x in objective.tolist()], clipped.tolist()
  ([-3.0, -1.5, 1.25], [1.0, 0.0, 1.0])
  """
  ratio, advantages = _inputs("dual_clip_objective", logp, logp_old, advantages, mask)
  objective, clipped = clipped_surrogate(ratio, advantages, clip)
  far = (advantages < 0) & (ratio > bound)
  return jnp.where(far, bound * advantages, objective), jnp.where(far, 1.0, clipped)


def cispo_objective(
  logp: Scalar | Num[ArrayLike, "*b"],
  logp_old: Scalar | Num[ArrayLike, "*b"],
  advantages: Scalar | Num[ArrayLike, "*b"],
  *,
  clip: Clip,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> tuple[Float32[jax.Array, "*b"], Float32[jax.Array, "*b"]]:
  """CISPO: `clip(ratio, 1 - low, 1 + high) A logp` with the clipped ratio held fixed (arXiv:2506.13585).

  A weight is clipped and not a gradient: every token goes on learning. The paper sets no lower bound, low = 1.

  Args: logp, logp_old, advantages, mask: [...]. clip: as in `ppo_policy_objective`.
  Returns: the objective f32[...], whose value is no measure of progress, and f32[...] that is 1 where the ratio was
    cut.

  >>> objective = lambda logp: cispo_objective(logp, jnp.zeros(2), jnp.array([2.0, -1.0]), clip=(1.0, 0.5))[0].sum()
  >>> [round(x, 4) for x in jax.grad(objective)(jnp.log(jnp.array([4.0, 0.5]))).tolist()]
  [3.0, -0.5]
  """
  ratio, advantages = _inputs("cispo_objective", logp, logp_old, advantages, mask)
  low, high = clip if isinstance(clip, tuple | list) else (clip, clip)
  weight = jax.lax.stop_gradient(jnp.clip(ratio, 1.0 - low, 1.0 + high))
  floored = log_ratio(logp, 0.0, mask)
  return weight * advantages * floored, (weight != ratio).astype(jnp.float32)


def sapo_objective(
  logp: Scalar | Num[ArrayLike, "*b"],
  logp_old: Scalar | Num[ArrayLike, "*b"],
  advantages: Scalar | Num[ArrayLike, "*b"],
  *,
  temperatures: tuple[Scalar, Scalar] = (1.0, 1.05),
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """SAPO: `4 / tau sigmoid(tau (ratio - 1)) A`, a soft gate in the place of a clip (arXiv:2511.20347).

  The slope falls off smoothly on both sides of a ratio of 1, where it is A.

  Args: logp, logp_old, advantages, mask: [...]. temperatures: tau of tokens with A > 0, and of others; the larger tau,
    the narrower the gate. Returns: f32[...].

  >>> round(float(sapo_objective(jnp.log(2.0), 0.0, 1.0)), 4)
  2.9242
  """
  ratio, advantages = _inputs("sapo_objective", logp, logp_old, advantages, mask)
  positive, negative = temperatures
  tau = jnp.where(advantages > 0, positive, negative)
  return 4.0 / tau * jax.nn.sigmoid(tau * (ratio - 1.0)) * advantages


def gspo_token_objective(
  logp: Scalar | Num[ArrayLike, "*b t"],
  logp_old: Scalar | Num[ArrayLike, "*b t"],
  advantages: Scalar | Num[ArrayLike, "*b t"],
  mask: Shaped[ArrayLike, "*b t"],
  *,
  clip: Clip,
) -> tuple[Float32[jax.Array, "*b t"], Float32[jax.Array, "*b t"]]:
  """GSPO-token: the sequence's ratio in value and the token's in slope (arXiv:2507.18071, eq. 13 and 14).

  `ratio_t = stop_gradient(s) exp(logp_t) / stop_gradient(exp(logp_t))` with s the ratio of `sequence_ratio_objective`.
  For advantages that are constant along a sequence, value and gradient under `reduce.sequence_weights` are GSPO's own.

  Args: logp[..., T], logp_old[..., T], advantages[..., T], mask[..., T]; clip as in `ppo_policy_objective`.
  Returns: the objective f32[..., T] and f32[..., T] that is 1 where no gradient flows, both 0 outside the mask.

  >>> logp, advantages = jnp.array([[0.3, 0.1, 9.0]]), jnp.array([[1.0, -1.0, 1.0]])
  >>> objective, clipped = gspo_token_objective(logp, jnp.zeros((1, 3)), advantages, jnp.array([[1, 1, 0]]), clip=0.125)
  >>> [round(x, 4) for x in objective[0].tolist()], clipped.tolist()
  ([1.125, -1.2214, 0.0], [[1.0, 0.0, 0.0]])
  """
  check_shapes("gspo_token_objective", {"logp": logp, "logp_old": logp_old, "advantages": advantages, "mask": mask})
  ratios = log_ratio(logp, logp_old, mask)
  of_sequence = per_token(masked_mean(ratios, mask, axis=-1), ratios)  # [..., T]
  ratio = jnp.exp(cap_log_ratio(jax.lax.stop_gradient(of_sequence - ratios) + ratios))
  objective, clipped = clipped_surrogate(ratio, select(advantages, mask), clip)
  return select(objective, mask), select(clipped, mask)


def clip_cov_objective(
  logp: Scalar | Num[ArrayLike, "*b"],
  logp_old: Scalar | Num[ArrayLike, "*b"],
  advantages: Scalar | Num[ArrayLike, "*b"],
  *,
  clip: Clip,
  share: Scalar = 2e-4,
  low: Scalar = 1.0,
  high: Scalar = 5.0,
  seed: int = 0,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> tuple[Float32[jax.Array, "*b"], Float32[jax.Array, "*b"]]:
  """Clip-Cov: PPO's surrogate, less the gradient of a few tokens of high covariance (arXiv:2505.22617).

  The entropy falls with the covariance of log-prob and advantage, which few tokens carry: of those with
  `(logp - mean(logp)) (A - mean(A))` between low and high, means over all tokens at hand, `share` of all tokens are
  drawn without regard to what they are. Their value stays and their gradient is cut off.

  Args: logp, logp_old, advantages, clip, mask: as in `ppo_policy_objective`. share: of all tokens, between 0 and 1;
    low, high: bounds of the covariance, in nats times units of the advantage. seed: of the draw, which is one of the
    tokens' places in the batch; an algorithm shuffles its rows at each update.
  Returns: the objective f32[...], and f32[...] that is 1 where no gradient flows.

  >>> logp, advantages = jnp.array([-1.0, -3.0]), jnp.array([2.0, -2.0])
  >>> clip_cov_objective(logp, logp, advantages, clip=0.2, share=0.5)[1].tolist().count(1.0)
  1
  """
  ratio, advantages = _inputs("clip_cov_objective", logp, logp_old, advantages, mask)
  objective, clipped = clipped_surrogate(ratio, advantages, clip)
  covariance, on = _covariance(logp, advantages, ratio, mask)
  eligible = on & (covariance >= low) & (covariance <= high) & (clipped == 0)
  draw = jnp.where(eligible, jax.random.uniform(jax.random.key(seed), ratio.shape, minval=1e-6), 0.0)
  chosen = eligible & _largest(draw, share, on)
  return jnp.where(chosen, jax.lax.stop_gradient(objective), objective), jnp.where(chosen, 1.0, clipped)


def kl_cov_objective(
  logp: Scalar | Num[ArrayLike, "*b"],
  logp_old: Scalar | Num[ArrayLike, "*b"],
  advantages: Scalar | Num[ArrayLike, "*b"],
  *,
  share: Scalar = 2e-4,
  coef: Scalar = 1.0,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> tuple[Float32[jax.Array, "*b"], Float32[jax.Array, "*b"]]:
  """KL-Cov: `ratio A`, less `coef` times a KL on the tokens of highest covariance (arXiv:2505.22617).

  They are a `share` of all tokens, those whose covariance (see `clip_cov_objective`) is largest. The KL is
  the k3 estimate of KL(old || policy), `ratio - 1 - log(ratio)`, as the tokens are the old policy's; the authors' code
  has `|log(ratio)|`.

  Args: logp, logp_old, advantages, mask: [...]. share: of all tokens, between 0 and 1; at least one is chosen. coef:
    units of advantage per nat. Returns: the objective f32[...], and f32[...] that is 1 on the chosen tokens.

  >>> logp, advantages = jnp.array([-1.0, -3.0, -2.0]), jnp.array([2.0, -1.0, -1.0])
  >>> objective, chosen = kl_cov_objective(logp, logp - jnp.log(2.0), advantages, share=0.3)
  >>> [round(x, 4) for x in objective.tolist()], chosen.tolist()
  ([3.6931, -2.0, -2.0], [1.0, 0.0, 0.0])
  """
  ratio, advantages = _inputs("kl_cov_objective", logp, logp_old, advantages, mask)
  covariance, on = _covariance(logp, advantages, ratio, mask)
  chosen = _largest(jnp.where(on, covariance, -jnp.inf), share, on)
  kl = ratio - 1.0 - log_ratio(logp, logp_old, mask)
  return ratio * advantages - jnp.where(chosen, coef * kl, 0.0), chosen.astype(jnp.float32)


def _inputs(
  function: str, logp: ArrayLike, logp_old: ArrayLike, advantages: ArrayLike, mask: ArrayLike | None
) -> tuple[jax.Array, jax.Array]:
  """(ratio, advantages), each f32[...]; no gradient flows into advantages."""
  check_shapes(function, {"logp": logp, "logp_old": logp_old, "advantages": advantages, "mask": mask})
  ratio = jnp.exp(cap_log_ratio(log_ratio(logp, logp_old, mask)))
  return ratio, jax.lax.stop_gradient(jnp.broadcast_to(select(advantages, mask), ratio.shape))


def _covariance(
  logp: ArrayLike, advantages: jax.Array, ratio: jax.Array, mask: ArrayLike | None
) -> tuple[jax.Array, jax.Array]:
  """Each token's part in the covariance of log-prob and advantage, f32[...], and bool[...], the tokens that count."""
  on = jnp.broadcast_to(jnp.asarray(True if mask is None else mask) != 0, ratio.shape)
  logp = jnp.broadcast_to(jax.lax.stop_gradient(log_ratio(logp, 0.0, mask)), ratio.shape)
  return (logp - masked_mean(logp, on)) * (advantages - masked_mean(advantages, on)), on


def _largest(x: jax.Array, share: Scalar, on: jax.Array) -> jax.Array:
  """bool[...], on the `share` of the tokens `on` at which x is largest, at least one; equal ones are all chosen."""
  count = jnp.sum(on, dtype=jnp.int32)
  rank = jnp.clip((share * count).astype(jnp.int32), 1, jnp.maximum(count, 1)) - 1
  return on & (x >= jnp.sort(x.ravel(), descending=True)[rank])
