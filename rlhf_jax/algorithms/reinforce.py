"""REINFORCE with a choice of baseline, under a KL penalty (Williams 1992; Ahmadian et al. 2024, arXiv 2402.14740).

The return of a response is its score less kl_coef times its sequence KL to the reference, and the gradient is that of
E[(return - baseline) * log p(response)], one update per rollout, on-policy: no ratio and no clipping. Baselines:

  none           0: unbiased, with the largest variance
  moving_mean    an exponential mean of earlier returns (Williams 1992); it starts at the mean score of the first batch
  leave_one_out  the mean return of the other responses to the same prompt (RLOO)
  value          a learned V(s_t) of the reward-to-go, for each token (REINFORCE with a critic, lam = 1)

DEVIATIONS from the RLOO paper: the loss is a mean over sequences of their token sums, as in the equation. Adam,
schedule and EOS handling are those of ppo.py, where the N implementation details are listed; the details on whitening,
several epochs and clipping are PPO's and have no counterpart here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from rlhf_jax.models import LanguageModel, only_scored
from rlhf_jax.objectives import (
  discounted_returns,
  kl_estimate,
  leave_one_out,
  logprobs_and_entropy,
  reinforce_objective,
  shaped_rewards,
  truncated_logits,
  value_loss,
)
from rlhf_jax.ranges import NonNegativeFloat, Share
from rlhf_jax.reduce import per_token, weighted_sum
from rlhf_jax.stage import Stage, Transport
from rlhf_jax.train import (
  Functions,
  LossFn,
  Metrics,
  PolicyConfig,
  Watch,
  adapt,
  by_rows,
  experience_metrics,
  frozen,
  identity,
  init_state,
  learner_counts,
  load_policy,
  make_environment,
  make_logprobs,
  make_optimizer,
  make_update,
  open_workspace,
  policy_metrics,
  run_steps,
  stage_key,
)
from rlhf_jax.types import Experience, Mean, Rollout, TrainState

Baseline = Literal["none", "moving_mean", "leave_one_out", "value"]


@dataclasses.dataclass(frozen=True)
class Config(PolicyConfig):
  """Settings of REINFORCE, beside those of every `PolicyConfig`."""

  baseline: Baseline
  """Baseline that is subtracted from the return, as listed at the head of the module."""
  moving_decay: Share
  """Decay of the moving mean per step, between 0 and 1; only the baseline moving_mean uses it."""
  kl_coef: NonNegativeFloat
  """Coefficient of the KL penalty, in units of reward per nat; 0 for no penalty."""
  value_coef: NonNegativeFloat
  """Weight of the value error in the loss; only the baseline value uses it."""
  entropy_coef: NonNegativeFloat
  """Weight of the entropy bonus in the loss, in units of advantage per nat; 0 for none."""

  def __post_init__(self):
    if self.baseline == "leave_one_out" and self.environment.samples_per_prompt < 2:
      raise ValueError("baseline 'leave_one_out' needs environment.samples_per_prompt >= 2")


def make_loss(apply: Callable, *, value_coef: float, entropy_coef: float, temperature: float = 1.0) -> LossFn:
  """The REINFORCE objective, and the value error where the experience has returns.

  apply(params, tokens[B, T]) -> (logits[B, T, V], values[B, T] or None); weights f32[B, T].
  """

  def loss_fn(params, batch: Experience, weights):
    logits, values = apply(params, batch.tokens)
    logits = truncated_logits(logits / temperature, batch.support)
    logp, entropy = logprobs_and_entropy(logits, batch.tokens, mask=batch.mask)
    per_token = -reinforce_objective(logp, batch.advantages, mask=batch.mask) - entropy_coef * entropy
    metrics = policy_metrics(logp, batch.logp, entropy, batch.mask, batch.mask.astype(jnp.float32))
    if batch.values is not None and batch.returns is not None:
      value_error = value_loss(values, batch.values, batch.returns, mask=batch.mask)
      per_token += value_coef * value_error
      metrics["value/loss"] = Mean(value_error, weights)
    return weighted_sum(per_token, weights), metrics

  return loss_fn


def make_experience(
  rollout: Rollout,
  logp_ref: jax.Array,
  values: jax.Array | None,
  scores: jax.Array,
  moving_mean: jax.Array,
  *,
  kl_coef: NonNegativeFloat,
  baseline: Baseline,
  samples_per_prompt: int,
  token_scores: jax.Array | None = None,
) -> tuple[Experience, Metrics]:
  """Advantages f32[B, T] of a rollout, and metrics. Pure.

  logp_ref, the reference's log-probs, is f32[B, T]; values f32[B, T], for the value baseline only; scores f32[B];
  moving_mean a scalar; token_scores f32[B, T], the part of the scores on single tokens, which the value baseline alone
  tells from the rest: the other baselines are of whole responses.
  """
  mask = rollout.mask
  kl = kl_estimate(rollout.logp, logp_ref, kind="k1", mask=mask)  # [B, T]
  sequence_kl = jnp.sum(kl, axis=1)
  returns = scores - kl_coef * sequence_kl  # [B]
  to_go = None
  if baseline == "value":
    assert values is not None, "the value baseline needs values"
    to_go = discounted_returns(shaped_rewards(scores, kl, mask, coef=kl_coef, token_scores=token_scores), mask)
    advantages = to_go - values  # [B, T]
  elif baseline == "leave_one_out":
    advantages = per_token(leave_one_out(returns.reshape(-1, samples_per_prompt)).ravel(), mask)
  else:
    advantages = per_token(returns - (moving_mean if baseline == "moving_mean" else 0.0), mask)
  critic = {} if to_go is None else {"values": values, "returns": to_go}
  recorded = dict(logp_ref=logp_ref, support=rollout.support, scores=scores, finished=rollout.finished)
  experience = Experience(rollout.tokens, mask, rollout.logp, advantages, **critic, **recorded)
  return experience, {
    "kl/reference": Mean(sequence_kl, jnp.ones_like(sequence_kl)),
    "kl/coef": Mean(jnp.asarray(kl_coef), jnp.ones(())),
    "reward/return": Mean(returns, jnp.ones_like(returns)),
    **experience_metrics(experience),
  }


def build(config: Config, model: LanguageModel, transport: Transport, num_updates: int) -> Functions:
  """(optimizer, update, experience_of): the compiled functions of a run of num_updates."""
  temperature = config.environment.sampling.temperature
  with_value = config.baseline == "value"

  def apply(params, tokens):
    return model.apply(params["policy"], tokens), (model.value(params["value"], tokens) if with_value else None)

  loss_fn = make_loss(apply, value_coef=config.value_coef, entropy_coef=config.entropy_coef, temperature=temperature)
  optimizer = make_optimizer(config.optimizer, num_updates)
  update = make_update(loss_fn, optimizer, transport)

  logprobs = make_logprobs(model.apply, temperature, transport)
  values_of = by_rows(model.value, transport)

  @jax.jit
  def experience_of(params, reference, rollout, scores, moving_mean, token_scores=None):
    logp_ref = logprobs(reference, rollout.tokens, rollout.mask)
    values = values_of(params["value"], rollout.tokens) if with_value else None
    return make_experience(
      rollout,
      logp_ref,
      values,
      scores,
      moving_mean,
      kl_coef=config.kl_coef,
      baseline=config.baseline,
      samples_per_prompt=config.environment.samples_per_prompt,
      token_scores=token_scores,
    )

  return optimizer, update, experience_of


def run(config: Config, stage: Stage) -> None:
  """Optimises the policy of `init` for num_steps updates."""
  tokenizer, model = open_workspace(stage)
  episodes = make_environment(config.environment, stage, model, tokenizer)
  reference = frozen(model, load_policy(stage, config.init, model, tokenizer))
  watch = Watch(config.watch, stage, model, tokenizer, episodes, reference)

  def initial():
    policy = load_policy(stage, config.init, model, tokenizer)
    return {"policy": policy} | (
      {"value": only_scored(model.init_head(stage_key(stage), policy))} if config.baseline == "value" else {}
    )

  optimizer, update, experience_of = build(config, model, stage.transport, config.num_steps)

  def step(state: TrainState, index: int):
    batch = episodes(state.params["policy"], index)
    moving = state.extra["moving_mean"]  # NaN until there is a batch to start from
    moving = jnp.where(jnp.isnan(moving), jnp.mean(batch.scores), moving)
    experience, metrics = experience_of(
      state.params, reference, batch.rollout, batch.scores, moving, batch.token_scores
    )
    weights = experience.mask / len(batch.scores)  # a mean over sequences of their token sums
    start = time.perf_counter()
    state, part = update(state, experience, weights)
    counts = learner_counts(experience, start)
    watch.record(index, batch, experience)
    mean_return = metrics["reward/return"].sum().values / len(batch.scores)
    moving = config.moving_decay * moving + (1 - config.moving_decay) * mean_return
    return state.replace(extra={"moving_mean": moving}), {**batch.metrics, **metrics, **part, **counts}

  run_steps(
    stage,
    init_state(adapt(config.lora, stage, initial()), optimizer, {"moving_mean": jnp.asarray(jnp.nan, jnp.float32)}),
    step,
    config.num_steps,
    identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every,
    loop=config.loop,
    **watch.hooks,
  )
