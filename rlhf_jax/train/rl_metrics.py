"""Metrics that every algorithm of reinforcement learning reports, on arrays inside a compiled function."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rlhf_jax.objectives import kl_estimate
from rlhf_jax.objectives.kl import cap_log_ratio, log_ratio
from rlhf_jax.reduce import masked_moments
from rlhf_jax.train.update import Metrics
from rlhf_jax.types import Array, Experience, Max, Mean


def experience_metrics(experience: Experience) -> Metrics:
  """Metrics of a whole rollout before its updates; the experience has the reference's log-probs.

  kl/k2 and kl/k3 are estimates of the KL to the reference beside kl/reference (k1), summed over a response, in nats.
  advantage/mean and advantage/std are over the tokens that are learnt from. With a critic there are value/mean and
  value/explained_variance.
  """
  mask = experience.mask
  assert experience.logp_ref is not None, "the experience has no log-probs of the reference"
  mean, variance = masked_moments(experience.advantages, mask)
  metrics: Metrics = {"advantage/mean": _one(mean), "advantage/std": _one(jnp.sqrt(variance))}
  for kind in ("k2", "k3"):
    kl = jnp.sum(kl_estimate(experience.logp, experience.logp_ref, kind=kind, mask=mask), axis=1)  # [B]
    metrics[f"kl/{kind}"] = Mean(kl, jnp.ones_like(kl))
  if experience.values is not None and experience.returns is not None:
    metrics["value/mean"] = Mean(experience.values, mask.astype(jnp.float32))
    metrics["value/explained_variance"] = _one(explained_variance(experience.values, experience.returns, mask))
  return metrics


def explained_variance(values: Array, returns: Array, mask: Array) -> jax.Array:
  """1 - Var(returns - values) / Var(returns) where mask[...] is on: f32[], 0 where the returns do not vary.

  1 is a critic that knows the returns, 0 one that knows no more than a constant, below 0 one that adds variance.
  """
  _, total = masked_moments(returns, mask)
  _, rest = masked_moments(returns - values, mask)
  return jnp.where(total > 0, 1.0 - rest / jnp.where(total > 0, total, 1.0), 0.0)


def policy_metrics(
  logp: Array,
  logp_old: Array,
  entropy: Array,
  mask: Array,
  weights: Array,
  clipped: Array | None = None,
) -> Metrics:
  """Metrics of the policy in an update, per token; logp (of the policy), logp_old, entropy, mask, weights: [B, T].

  policy/approx_kl is the k3 estimate of KL(policy that sampled || policy), in nats; policy/ratio_mean and
  policy/ratio_max are of p / p_old. clipped: 1 where no gradient flows, with the shape and weights of the caller's
  choice; None where nothing is clipped. With them are `gap_metrics` of logp and logp_old, which before the first update
  tell the trainer from the sampler, if logp_old is the sampler's.
  """
  ratio = jnp.exp(cap_log_ratio(log_ratio(logp, logp_old, mask)))
  metrics: Metrics = {
    "policy/approx_kl": Mean(kl_estimate(logp_old, logp, kind="k3", mask=mask), weights),
    "policy/entropy": Mean(entropy, weights),
    "policy/ratio_mean": Mean(ratio, weights),
    "policy/ratio_max": Max(jnp.where(jnp.asarray(mask) != 0, ratio, 0.0)),
  }
  if clipped is not None:
    metrics["policy/clip_fraction"] = Mean(clipped, weights)
  return jax.lax.stop_gradient({**metrics, **gap_metrics(logp, logp_old, mask)})


GAP = ("sampling/logp_gap", "sampling/logp_gap_max", "sampling/logp_equal")


def gap_metrics(logp: Array, logp_sampled: Array, mask: Array) -> Metrics:
  """How far the log-probs of a trainer are from those of a sampler, over the tokens of the mask; all are [B, T].

  sampling/logp_gap is the mean of their absolute difference and sampling/logp_gap_max the largest, in nats;
  sampling/logp_equal is the share of tokens at which they are equal to the last bit.
  """
  on, weights = jnp.asarray(mask) != 0, jnp.asarray(mask).astype(jnp.float32)
  gap = kl_estimate(logp, logp_sampled, kind="abs", mask=on)
  equal = (jnp.asarray(logp) == jnp.asarray(logp_sampled)).astype(jnp.float32)
  return {
    "sampling/logp_gap": Mean(gap, weights),
    "sampling/logp_gap_max": Max(gap),
    "sampling/logp_equal": Mean(equal, weights),
  }


def _one(value: jax.Array) -> Mean:
  return Mean(value, jnp.ones(()))
