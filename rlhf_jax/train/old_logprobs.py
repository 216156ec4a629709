"""The log-probs of the policy that sampled, from which ratios and the KL penalty start.

A sampler rounds differently from a trainer: it reads tokens one by one, with a cache, from weights in the dtype of the
computation; in bfloat16 their log-probs differ by up to hundredths of a nat. So `environment.logp="trainer"` computes
them anew, by a forward pass with the bits of the update's own: the rows of the same minibatches, in the same order, cut
over devices and microbatches alike, compiled by `exactly`. Before the first update each ratio is then 1 and the
approximate KL 0, and a policy that is its reference has a KL of 0. Each run measures it: policy/first_gap_max.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlhf_jax.objectives import importance_weights, masked_sequence_ratios, masked_token_ratios
from rlhf_jax.reduce import masked_sum, per_token
from rlhf_jax.train.environment import Environment, ImportanceWeights
from rlhf_jax.train.rl_metrics import gap_metrics
from rlhf_jax.train.update import Metrics
from rlhf_jax.types import Array, Experience, Mean, Params, Rollout


def with_logprobs(
  settings: Environment,
  logprobs: Callable[..., jax.Array],
  policy: Params,
  reference: Params,
  sampled: Rollout,
  order: jax.Array,
  make: Callable[[Rollout, jax.Array], tuple[Experience, Metrics]],
) -> tuple[Experience, Metrics]:
  """The experience of a rollout with the log-probs that settings.logp asks for, weighed by settings.importance.

  Args:
    logprobs: the function of `make_logprobs`, which reads policy and reference alike.
    sampled: the rollout with the log-probs that the sampler recorded.
    order: i32[minibatches, rows], the first pass of the updates.
    make: the function (rollout, log-probs f32[B, T] of the reference) -> (experience, metrics).

  Returns:
    The experience, and its metrics with `gap_metrics`, where the log-probs are computed anew, and
    sampling/importance_weight, the mean of the weights, where there are some.
  """
  read = sampled.tokens, sampled.mask, sampled.at
  rollout, metrics = sampled, {}
  if settings.logp == "trainer":
    logp = logprobs(policy, *read, sampled.support, order)
    rollout, metrics = sampled.replace(logp=logp), gap_metrics(logp, sampled.logp, sampled.mask)
  experience, found = make(rollout, logprobs(reference, *read, order=order))
  if settings.importance:
    weights = _weights(settings.importance, rollout.logp, sampled.logp, sampled.mask)
    experience = experience.replace(advantages=experience.advantages * weights)
    metrics["sampling/importance_weight"] = Mean(weights, sampled.mask.astype(jnp.float32))
  return experience, {**found, **metrics}


def _weights(settings: ImportanceWeights, logp: Array, sampled: Array, mask: Array) -> jax.Array:
  """The weights f32[B, T] of tokens, or of the responses they are in."""
  low, high = settings.low, settings.cap
  if settings.level == "token":
    if settings.above == "0":
      return masked_token_ratios(logp, sampled, low=low, high=high, mask=mask)
    return importance_weights(logp, sampled, cap=high, mask=mask)
  if settings.above == "0":
    return masked_sequence_ratios(logp, sampled, mask, low=low, high=high)
  sums = (masked_sum(x, mask, axis=1) for x in (logp, sampled))
  return per_token(importance_weights(*sums, cap=high), mask)
