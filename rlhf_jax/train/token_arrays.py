"""STAGE/samples/STEP.npz: what single tokens of a step's first responses were worth, for views token by token.

Each array is [rows, T] and aligned with `tokens` as everywhere (`rlhf_jax.types`). Beside `tokens` and `mask` an array
means something where the mask is on, on the tokens of the responses, their ends included. "Before" and "after" are the
policies before and after all updates of the step; every log-prob is in nats, at the sampling temperature and over the
tokens that sampling could draw (those of the reference over all).

  tokens      i32   prompts and responses
  mask        bool  on for the tokens of the response
  logp        f32   log-probs of the policy before, from which the ratios of the updates start
  logp_ref    f32   log-probs of the reference
  logp_after  f32   log-probs of the policy after, by one more forward of these rows; exp(logp_after - logp) is the
                    ratio that the updates of the step have led to
  entropy     f32   entropy of the policy after at each token, in nats, by the same forward
  rewards     f32   rewards before any whitening: the score on the last token, or on the tokens that it is given on,
                    less kl_coef * (logp - logp_ref) where the penalty is part of the reward
  advantages  f32   what the updates weigh each token by
  values      f32   values of the critic before: of the state in which the token was drawn
  returns     f32   targets of the critic
  clipped     bool  whether the clip leaves the token without a gradient at that ratio

values and returns are there with a critic alone, clipped where the algorithm clips ratios by its own objective.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from rlhf_jax.objectives import (
  kl_estimate,
  logprobs_and_entropy,
  ppo_policy_objective,
  sequence_ratio_objective,
  shaped_rewards,
  truncated_logits,
)
from rlhf_jax.positions import only
from rlhf_jax.reduce import per_token
from rlhf_jax.stage import Transport
from rlhf_jax.train.mesh import make_mesh
from rlhf_jax.train.rows import by_rows
from rlhf_jax.types import Array, Experience

Clip = float | tuple[float, float]
# What is clipped: the ratio of each token, their geometric mean over the response, or their product over it.
Ratio = Literal["token", "sequence", "product"]

EXACT = {"xla_allow_excess_precision": False}  # as of `rlhf_jax.train.exactly`, by which the other log-probs are made
# Optimising a program that runs a few times takes a CPU longer than the program itself: half of the time to compile it.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def make_token_arrays(
  apply: Callable[..., Any],
  temperature: float,
  transport: Transport,
  *,
  num: int,
  clip: Clip | None = None,
  ratio: Ratio = "token",
) -> Callable[..., dict[str, jax.Array]]:
  """`arrays(policy, episodes, experience, kl_coef) -> {name: array[num, T]}`, those of the module's head, compiled.

  policy: parameters after the updates; episodes: (the `Rollout` before it was packed, scores f32[B], token_scores
  f32[B, T] or None); kl_coef: coefficient of the penalty in the reward, 0 where there is none.

  Args:
    apply: the function (params, tokens) -> logits, as `make_logprobs` has it.
    num: number of rows, from the first on, at most B.
    clip: half-width of the interval that the algorithm clips its ratio to, or its two distances from 1; None for none.
  """

  def of_rows(params, tokens, mask, at, support):
    logits = truncated_logits(apply(params, tokens, **only(at)) / temperature, support)
    return logprobs_and_entropy(logits, tokens, mask=mask)

  read = by_rows(of_rows, transport)

  def token_arrays(policy, episodes, experience, kl_coef):
    (rollout, scores, token_scores), rows = jax.tree.map(lambda x: jnp.asarray(x)[:num], (episodes, experience))
    logp_after, entropy = read(policy, rollout.tokens, rollout.mask, rollout.at, rollout.support)
    kl = kl_estimate(rows.logp, rows.logp_ref, kind="k1", mask=rows.mask)
    rewards = shaped_rewards(scores, kl, rows.mask, coef=kl_coef, token_scores=token_scores)
    names = ("tokens", "mask", "logp", "logp_ref", "advantages", "values", "returns")
    found = {name: getattr(rows, name) for name in names if getattr(rows, name) is not None}
    found |= dict(logp_after=logp_after, entropy=entropy, rewards=rewards)
    return found if clip is None else {**found, "clipped": clip_active(logp_after, rows, clip, ratio)}

  on_cpu = make_mesh(transport).devices.flat[0].platform == "cpu"
  compiled = jax.jit(token_arrays, compiler_options={**EXACT, **(QUICK if on_cpu else {})})

  def arrays(policy, episodes, experience, kl_coef):
    # Packings are of all rows, and of another shape at times, which would be another program.
    return compiled(policy, episodes, experience.replace(at=None, support=None), kl_coef)

  return arrays


def clip_active(logp: Array, batch: Experience, clip: Clip, ratio: Ratio) -> jax.Array:
  """Whether the clipped surrogate has no gradient at each token: bool[B, T], off outside of the mask.

  logp: f32[B, T] of the policy that learns. A ratio of the whole response has the advantage of its first place.
  """
  old, advantages, mask = batch.logp, batch.advantages, jnp.asarray(batch.mask)
  if ratio == "token":
    _, clipped = ppo_policy_objective(logp, old, advantages, clip=clip, mask=mask)
  elif ratio == "sequence":
    _, clipped = sequence_ratio_objective(logp, old, advantages[:, 0], mask, clip=clip)
  else:
    log_p, log_p_old = (jnp.sum(x, axis=1, where=mask) for x in (logp, old))  # [B]
    clipped = per_token(ppo_policy_objective(log_p, log_p_old, advantages[:, 0], clip=clip)[1], mask)
  return mask & (clipped > 0)
