"""REINFORCE++: PPO without a critic, its advantages normalised over the batch (Hu et al. 2025, arXiv 2501.03262).

The advantage of a token is its reward to go, the score less kl_coef times the KL (k1) of it and of all tokens behind
it, whitened over all response tokens of the rollout: mean 0 and standard deviation 1. The objective is PPO's clipped
surrogate, a mean over tokens. Unlike those of GRPO, the statistics are not of the few responses to one prompt.

  baseline  none: as above; one response to a prompt is enough. group: REINFORCE++-baseline, with several responses. The
            mean score of the group is subtracted first, and the KL (k2) is a term of the loss, with kl_coef.

DEVIATIONS: no discount. The KL as a loss is that of each token (see `rlhf_jax.objectives.kl`). Adam, schedule and EOS
handling are those of ppo.py.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import (
  discounted_returns,
  group_centre,
  kl_estimate,
  logprobs_and_entropy,
  ppo_policy_objective,
  shaped_rewards,
  truncated_logits,
)
from rlhf_jax.positions import only
from rlhf_jax.ranges import NonNegativeFloat, PositiveInt
from rlhf_jax.reduce import token_weights, weighted_sum, whiten
from rlhf_jax.stage import Stage, Transport
from rlhf_jax.train import (
  ArrayFunction,
  Functions,
  LossFn,
  Metrics,
  PolicyConfig,
  Ptx,
  Watch,
  adapt,
  check_minibatches,
  exactly,
  experience_metrics,
  frozen,
  group_advantages,
  identity,
  init_state,
  load_policy,
  make_environment,
  make_logprobs,
  make_optimizer,
  make_update,
  open_ptx,
  open_workspace,
  policy_metrics,
  policy_objective,
  run_epochs,
  run_steps,
  with_logprobs,
  with_ptx,
)
from rlhf_jax.types import Experience, Mean, Rollout, TrainState

Baseline = Literal["none", "group"]


@dataclasses.dataclass(frozen=True)
class Config(PolicyConfig):
  """Settings of REINFORCE++, beside those of every `PolicyConfig`."""

  baseline: Baseline
  """Baseline that is subtracted before the advantages are normalised, as listed at the head of the module."""
  kl_coef: NonNegativeFloat
  """Coefficient of the KL, in units of reward per nat, or of advantage per nat as a loss; 0 for none."""
  clip: tuple[NonNegativeFloat, NonNegativeFloat]
  """Distances (low, high) from 1 of the interval that the probability ratio is clipped to; (0.2, 0.2) in the paper."""
  epochs: PositiveInt
  """Number of passes over each rollout."""
  minibatches: PositiveInt
  """Number of updates in each pass; it divides the episodes of a step."""
  objective: ArrayFunction = dataclasses.field(default=ArrayFunction(), kw_only=True)
  """Function `(logp[B, T], batch)` in the place of the clipped surrogate (see `rlhf_jax.train.policy_objective`)."""
  ptx: Ptx | None = dataclasses.field(default=None, kw_only=True)
  """Settings of text whose language-model loss is added (PPO-ptx, `rlhf_jax.train.ptx`); None for none."""

  def __post_init__(self):
    samples = self.environment.samples_per_prompt
    if self.baseline == "group" and samples < 2:
      raise ValueError(f"baseline='group' needs environment.samples_per_prompt >= 2, not {samples}")
    check_minibatches(self.minibatches, self.environment.batch_size * samples)


def make_loss(
  apply: Callable,
  *,
  clip: tuple[float, float],
  kl_coef: float = 0.0,
  temperature: float = 1.0,
  objective: ArrayFunction | None = None,
) -> LossFn:
  """The clipped surrogate and kl_coef times the KL (k2) of each token; `apply(params, tokens[B, T]) -> logits`."""
  gain_of = policy_objective(objective, functools.partial(ppo_policy_objective, clip=clip))

  def loss_fn(params, batch: Experience, weights):
    logits = truncated_logits(apply(params, batch.tokens, **only(batch.at)) / temperature, batch.support)
    logp, entropy = logprobs_and_entropy(logits, batch.tokens, mask=batch.mask)
    gain, clipped = gain_of(logp, batch)
    assert batch.logp_ref is not None, "an experience of REINFORCE++ has the reference's log-probs"
    kl = kl_estimate(logp, batch.logp_ref, kind="k2", mask=batch.mask)  # [B, T]
    metrics = policy_metrics(logp, batch.logp, entropy, batch.mask, weights, clipped)
    return weighted_sum(kl_coef * kl - gain, weights), {**metrics, "kl/loss": Mean(kl, weights)}

  return loss_fn


def make_experience(
  rollout: Rollout,
  logp_ref: jax.Array,
  scores: jax.Array,
  *,
  kl_coef: float,
  baseline: Baseline,
  samples_per_prompt: int,
) -> tuple[Experience, Metrics]:
  """Advantages f32[B, T], whitened over the rollout, from scores f32[B] and logp_ref f32[B, T]. Pure."""
  mask = rollout.mask
  kl = kl_estimate(rollout.logp, logp_ref, kind="k1", mask=mask)  # [B, T]
  if baseline == "group":
    advantages = group_advantages(group_centre, scores, mask, samples_per_prompt)
  else:
    advantages = discounted_returns(shaped_rewards(scores, kl, mask, coef=kl_coef), mask)
  sequence_kl = jnp.sum(kl, axis=1)
  experience = rollout.experience(whiten(advantages, mask), logp_ref=logp_ref, scores=scores)
  return experience, {
    "kl/reference": Mean(sequence_kl, jnp.ones_like(sequence_kl)),
    "kl/coef": Mean(jnp.asarray(kl_coef), jnp.ones(())),
    **experience_metrics(experience),
  }


def build(config: Config, model: LanguageModel, transport: Transport, num_updates: int) -> Functions:
  """(optimizer, update, experience_of): the compiled functions of a run of num_updates."""
  temperature, samples = config.environment.sampling.temperature, config.environment.samples_per_prompt
  in_loss = config.kl_coef if config.baseline == "group" else 0.0
  loss_fn = make_loss(
    model.apply, clip=config.clip, kl_coef=in_loss, temperature=temperature, objective=config.objective
  )
  optimizer = make_optimizer(config.optimizer, num_updates)
  update = make_update(with_ptx(config.ptx, loss_fn, model.apply), optimizer, transport)
  logprobs = make_logprobs(model.apply, temperature, transport)

  settings: dict[str, Any] = dict(kl_coef=config.kl_coef, baseline=config.baseline, samples_per_prompt=samples)

  @exactly
  def experience_of(params, reference, sampled, scores, order):
    make = functools.partial(make_experience, scores=scores, **settings)
    return with_logprobs(config.environment, logprobs, params, reference, sampled, order, make)

  return optimizer, update, experience_of


def run(config: Config, stage: Stage) -> None:
  """Optimises the policy of `init` for num_steps rollouts."""
  tokenizer, model = open_workspace(stage)
  episodes = make_environment(config.environment, stage, model, tokenizer)
  reference = frozen(model, load_policy(stage, config.init, model, tokenizer), config.environment.frozen_dtype)
  clip = None if config.objective.function else config.clip
  watch = Watch(config.watch, stage, model, tokenizer, episodes, reference, clip=clip)
  each, size = config.epochs * config.minibatches, config.environment.batch_size * config.environment.samples_per_prompt
  mixed = open_ptx(config.ptx, stage, model, tokenizer, episodes=size // config.minibatches, updates=each)
  optimizer, update, experience_of = build(config, model, stage.transport, config.num_steps * each)

  def step(state: TrainState, index: int):
    batch = episodes(state.params, index)

    def experience_from(state, rollout, order):
      return experience_of(state.params, reference, rollout, batch.scores, order)

    state, experience, metrics = run_epochs(
      mixed(update, index), state, batch.rollout, experience_from, token_weights, epochs=config.epochs,
      minibatches=config.minibatches, seed=(stage.stage_seed, index), transport=stage.transport,
    )  # fmt: skip
    in_reward = config.kl_coef if config.baseline == "none" else 0.0
    metrics = watch.record(index, batch, experience, state, metrics, kl_coef=in_reward)
    return state, {**batch.metrics, **metrics}

  run_steps(
    stage, init_state(adapt(config.lora, stage, load_policy(stage, config.init, model, tokenizer)), optimizer), step,
    config.num_steps, identity=identity(stage, model, tokenizer), checkpoint_every=config.checkpoint_every,
    loop=config.loop, **watch.hooks,
  )  # fmt: skip
