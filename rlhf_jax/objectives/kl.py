"""KL divergence from a reference policy: estimates, the exact value, a reward, and an adaptive coefficient.

The right estimator for tokens sampled from the policy itself:

  - As a reward (subtracted from the score, reaching the policy through its advantages): k1. It is unbiased, and so is
    the policy gradient of the penalised reward. k3 has the same mean and less variance as a figure; as a reward it is
    biased, since its own change with the policy is left out.
  - As a loss (differentiated directly): k2, although its value is biased. Of each token, its gradient `d * grad logp`
    has as its mean the gradient of the KL of each state that was visited, with the states held fixed; that is not the
    gradient of the response's KL, to which a token also contributes by the states that it leads to. Of log-probs
    summed over the response it is: `kl_estimate(sum of logp, sum of logp_ref, kind="k2")`, with more variance.
  - Never k1 as a loss: its gradient is `grad logp`, whose mean is 0, so it only adds noise.
  - k3 as a loss (GRPO) is biased: the mean of its gradient is that of KL(reference || policy), the reverse direction.
    k3+ has k3's value, unbiased and never negative, and k2's gradient.

`experiments/exact_gradients` lists each beside the exact gradient.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.reduce import Scalar, check_shapes, float32, per_token, select, select_rows

__all__ = ["adaptive_kl_coef", "kl_estimate", "kl_exact", "shaped_rewards"]

LOGP_FLOOR = -1e9  # nats; below any sequence's log-prob, and its square fits in float32
MAX_LOG_RATIO = 40.0  # nats; squares of exp(40) = 2.4e17 still sum in float32, so that a global-norm clip can act


def kl_estimate(
  logp: Scalar | Num[ArrayLike, "*b"],
  logp_ref: Scalar | Num[ArrayLike, "*b"],
  *,
  kind: str = "k1",
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """Per-token estimate of KL(policy || reference) from a token the policy sampled, in nats.

  With `d = logp - logp_ref`: k1 = d; k2 = d^2 / 2; k3 = exp(-d) - 1 + d (Schulman 2020, "Approximating KL
  divergence", http://joschu.net/blog/kl-approx.html). E[k1] = E[k3] = KL; k2 is biased in value, k3 is never
  negative. k3+ is k3 in value and k2 in gradient (straight-through). abs = |d| tells how far apart two policies are,
  whatever the sign; it is biased, and for monitoring. Differentiable in logp: the head of this module says which kind
  is right as a reward and which as a loss. No gradient flows into logp_ref. `exp(-d)` is capped at exp(40) in value and
  slope; its slope is not cut off.

  Args: logp, logp_ref, mask: [...]. Returns: f32[...]. Raises ValueError for an unknown kind.

  >>> round(float(kl_estimate(jnp.log(0.5), jnp.log(0.25), kind="k3")), 4)
  0.1931
  """
  check_shapes("kl_estimate", {"logp": logp, "logp_ref": logp_ref, "mask": mask})
  d = log_ratio(logp, logp_ref, mask)
  if kind == "k1":
    return d
  if kind == "k2":
    return 0.5 * jnp.square(d)
  if kind == "k3":
    return _k3(d)
  if kind == "k3+":
    k2 = 0.5 * jnp.square(d)
    return k2 + jax.lax.stop_gradient(_k3(d) - k2)
  if kind == "abs":
    return jnp.abs(d)
  raise ValueError(f'kl_estimate: kind must be "k1", "k2", "k3", "k3+" or "abs", got {kind!r}')


def _k3(d: jax.Array) -> jax.Array:
  return jnp.expm1(cap_log_ratio(-d)) + d


def kl_exact(
  logits: Num[ArrayLike, "*b v"], logits_ref: Num[ArrayLike, "*b v"], *, mask: Shaped[ArrayLike, "*b"] | None = None
) -> Float32[jax.Array, "*b"]:
  """`sum_v p_v (log p_v - log q_v)`, p = softmax(logits) and q = softmax(logits_ref), in nats.

  The divergence of Kullback and Leibler (1951), over the whole vocabulary. No gradient flows into logits_ref. A token
  of probability 0 under p adds 0; a token of probability 0 under q alone adds about `1e9 p_v` rather than infinity, so
  that sums and gradients stay finite.

  Args: logits[..., V]; logits_ref[..., V]; mask[...]. Returns: f32[...].

  >>> policy, reference = jnp.array([0.5, 0.3, 0.2]), jnp.array([0.4, 0.4, 0.2])
  >>> round(float(kl_exact(jnp.log(policy), jnp.log(reference))), 4)
  0.0253
  """
  check_shapes("kl_exact", {"logits": logits, "logits_ref": logits_ref}, {"mask": mask})
  logp = jax.nn.log_softmax(select_rows(logits, mask), axis=-1)  # [..., V]
  logp_ref = jax.nn.log_softmax(select_rows(logits_ref, mask), axis=-1)
  return jnp.sum(jnp.exp(logp) * log_ratio(logp, logp_ref), axis=-1)


def shaped_rewards(
  scores: Scalar | Num[ArrayLike, "*b"],
  kl: Scalar | Num[ArrayLike, "*b t"],
  mask: Shaped[ArrayLike, "*b t"],
  *,
  coef: Scalar,
  token_scores: Num[ArrayLike, "*b t"] | None = None,
) -> Float32[jax.Array, "*b t"]:
  """`-coef * kl[t]` on every token of the mask, plus the score on its last token, once (arXiv:1909.08593, eq. 2).

  A part of the score that is given on single tokens stands on these, and only the rest of the score on the last one:
  with token_scores [0, 3, 0, 0] the example below is [0, 2.875, -2.125, 0].
  A sequence without a token has no place for its score: its rewards are all 0.

  Args: scores[...], one for each sequence; kl[..., T], signed per-token estimates (k1), in nats; mask[..., T]; coef, a
  scalar in units of score per nat; token_scores[..., T], the part of the scores on single tokens, None for none.
  Returns: f32[..., T].

  >>> print(shaped_rewards(jnp.array(1), jnp.full(4, 0.5), jnp.array([0, 1, 1, 0]), coef=0.25))
  [ 0.    -0.125  0.875  0.   ]
  """
  check_shapes("shaped_rewards", {"kl": kl, "mask": mask, "token_scores": token_scores}, {"scores": scores})
  if token_scores is not None:
    given = select(token_scores, mask)
    return given + shaped_rewards(float32(scores) - jnp.sum(given, axis=-1), kl, mask, coef=coef)
  mask, coef = jnp.asarray(mask) != 0, float32(coef)
  after = jnp.flip(jnp.cumsum(jnp.flip(mask, -1), axis=-1), -1)  # tokens of the mask from t on: 1 at the last
  last = mask & (after == 1)
  return -coef * select(kl, mask) + select(per_token(scores, last), last)


def adaptive_kl_coef(
  coef: Scalar, kl: Scalar, num_samples: Scalar, *, target: Scalar, horizon: Scalar
) -> Float32[jax.Array, ""]:
  """`coef * (1 + clip(kl / target - 1, -0.2, 0.2) * num_samples / horizon)` (arXiv:1909.08593, section 2.2).

  Args: coef, the coefficient so far; kl and target, the mean over sequences of the KL *summed* over a sequence's
  tokens, in nats, by the estimate that is penalised; num_samples, the number of sequences since the last call; horizon,
  in sequences. Returns: f32[], never below 0: for more than 5 horizons at once the formula alone makes the penalty a
  reward.

  >>> round(float(adaptive_kl_coef(0.15, 12.0, 512, target=6.0, horizon=10_000.0)), 6)
  0.151536
  """
  error = jnp.clip(float32(kl) / target - 1.0, -0.2, 0.2)
  return jnp.maximum(float32(coef) * (1.0 + error * float32(num_samples) / horizon), 0.0)


def floor_logp(logp: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
  """Log-probs f32[...] no lower than LOGP_FLOOR: with -inf, a token ruled out, differences and 0 * -inf would be NaN.

  The gradient is 0 below LOGP_FLOOR only, and finite logits give no such log-prob.
  """
  return jnp.maximum(select(logp, mask), LOGP_FLOOR)


def log_ratio(logp: ArrayLike, logp_ref: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
  """`logp - stop_gradient(logp_ref)` in float32, finite for log-probs of -inf; 0 where the mask is off."""
  return floor_logp(logp, mask) - jax.lax.stop_gradient(floor_logp(logp_ref, mask))


def cap_log_ratio(x: jax.Array) -> jax.Array:
  """`min(x, MAX_LOG_RATIO)` in value with slope 1 everywhere, as an argument of exp.

  A plain minimum would cut off the gradient where the policies are furthest apart.
  """
  return jnp.where(x > MAX_LOG_RATIO, MAX_LOG_RATIO + (x - jax.lax.stop_gradient(x)), x)
