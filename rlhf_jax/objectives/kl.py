"""KL divergence from a reference policy: estimators, exact, as a reward, and its adaptive coefficient.

Which estimator where, for tokens sampled from the policy itself:

  - As a reward (subtracted from the score, reaching the policy through its advantages): k1. It is unbiased, and so
    is the policy gradient of the penalised reward. k3 has the same mean and less spread.
  - As a loss (differentiated directly): k2. Its gradient, `d * grad logp`, has the exact gradient of
    KL(policy || reference) as its mean, although its value is biased.
  - Never k1 as a loss: its gradient is `grad logp`, whose mean is 0. It does nothing but add noise.
  - k3 as a loss (GRPO) is biased: the mean of its gradient is that of KL(reference || policy), the other direction.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rlhf_jax.reduce import float32, select

__all__ = ["adaptive_kl_coef", "kl_estimate", "kl_exact", "shaped_rewards"]

LOGP_FLOOR = -1e9  # below any sequence's log-prob, and its square fits in float32
MAX_LOG_RATIO = 40.0  # exp(40) = 2.4e17, whose square still sums in float32: a global-norm clip can act on it


def kl_estimate(logp: ArrayLike, logp_ref: ArrayLike, *, kind: str = "k1", mask: ArrayLike | None = None) -> jax.Array:
  """Per-token estimate of KL(policy || reference) from a token the policy sampled, in nats.

  With `d = logp - logp_ref`: k1 = d; k2 = d^2 / 2; k3 = exp(-d) - 1 + d (Schulman 2020, "Approximating KL
  divergence", http://joschu.net/blog/kl-approx.html). E[k1] = E[k3] = KL; k2 is biased in value, k3 is never
  negative. Differentiable in logp: the head of this module says which of them is right as a reward and which as a
  loss. No gradient flows into logp_ref. `exp(-d)` is capped at exp(40) in value and slope; its slope is not cut off.

  Args: logp, logp_ref, mask: [...]. Returns: f32[...]. Raises ValueError for an unknown kind.

  >>> round(float(kl_estimate(jnp.log(0.5), jnp.log(0.25), kind="k3")), 4)
  0.1931
  """
  d = log_ratio(logp, logp_ref, mask)
  if kind == "k1":
    return d
  if kind == "k2":
    return 0.5 * jnp.square(d)
  if kind == "k3":
    return jnp.expm1(cap_log_ratio(-d)) + d
  raise ValueError(f'kl_estimate: kind must be "k1", "k2" or "k3", got {kind!r}')


def kl_exact(logits: ArrayLike, logits_ref: ArrayLike, *, mask: ArrayLike | None = None) -> jax.Array:
  """`sum_v p_v (log p_v - log q_v)`, p = softmax(logits) and q = softmax(logits_ref), in nats.

  The divergence of Kullback and Leibler (1951), over the whole vocabulary. No gradient flows into logits_ref. A token
  of probability 0 under p adds 0; one of probability 0 under q alone adds about `1e9 p_v` rather than infinity, so that
  sums and gradients stay finite.

  Args: logits[..., V]; logits_ref[..., V]; mask[...]. Returns: f32[...].

  >>> policy, reference = jnp.array([0.5, 0.3, 0.2]), jnp.array([0.4, 0.4, 0.2])
  >>> round(float(kl_exact(jnp.log(policy), jnp.log(reference))), 4)
  0.0253
  """
  rows = None if mask is None else jnp.asarray(mask)[..., None]
  logp = jax.nn.log_softmax(select(logits, rows), axis=-1)  # [..., V]
  logp_ref = jax.nn.log_softmax(select(logits_ref, rows), axis=-1)
  return jnp.sum(jnp.exp(logp) * log_ratio(logp, logp_ref), axis=-1)


def shaped_rewards(scores: ArrayLike, kl: ArrayLike, mask: ArrayLike, *, coef: ArrayLike) -> jax.Array:
  """`-coef * kl[t]` on every token of the mask, plus the score on its last token, once (arXiv:1909.08593, eq. 2).

  A sequence without a token has no place for its score: its rewards are all 0.

  Args: scores[...]; kl[..., T], signed per-token estimates (k1), in nats; mask[..., T]; coef, a scalar.
  Returns: f32[..., T].

  >>> print(shaped_rewards(jnp.array(1), jnp.full(4, 0.5), jnp.array([0, 1, 1, 0]), coef=0.25))
  [ 0.    -0.125  0.875  0.   ]
  """
  mask = jnp.asarray(mask) != 0  # [..., T]
  after = jnp.flip(jnp.cumsum(jnp.flip(mask, -1), axis=-1), -1)  # tokens from t on; 1 first holds at the last token
  last = mask & (after == 1)
  return -coef * select(kl, mask) + select(jnp.asarray(scores)[..., None], last)


def adaptive_kl_coef(
  coef: ArrayLike, kl: ArrayLike, num_samples: ArrayLike, *, target: float, horizon: float
) -> jax.Array:
  """`coef * (1 + clip(kl / target - 1, -0.2, 0.2) * num_samples / horizon)` (arXiv:1909.08593, section 2.2).

  Args: kl and target in the same unit, the mean over sequences of the KL *summed* over a sequence's tokens, and of
  the same estimate that is penalised; num_samples, sequences since the last call; horizon, in sequences.
  Returns: f32[].

  >>> round(float(adaptive_kl_coef(0.15, 12.0, 512, target=6.0, horizon=10_000.0)), 6)
  0.151536
  """
  error = jnp.clip(float32(kl) / target - 1.0, -0.2, 0.2)
  return float32(coef) * (1.0 + error * float32(num_samples) / horizon)


def floor_logp(logp: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
  """Float32 log-probs no lower than LOGP_FLOOR: -inf, a token ruled out, would turn differences and 0 * -inf to NaN.

  The gradient ends there only below LOGP_FLOOR, where no finite logit leads.
  """
  return jnp.maximum(select(logp, mask), LOGP_FLOOR)


def log_ratio(logp: ArrayLike, logp_ref: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
  """`logp - stop_gradient(logp_ref)` in float32, finite for log-probs of -inf; 0 where the mask is off."""
  return floor_logp(logp, mask) - jax.lax.stop_gradient(floor_logp(logp_ref, mask))


def cap_log_ratio(x: jax.Array) -> jax.Array:
  """`min(x, MAX_LOG_RATIO)` in value with slope 1 everywhere, to be put into exp.

  A plain minimum would cut the gradient off exactly where policies are furthest apart and it is needed most.
  """
  return jnp.where(x > MAX_LOG_RATIO, MAX_LOG_RATIO + (x - jax.lax.stop_gradient(x)), x)
