"""RLOO: REINFORCE with a leave-one-out baseline, the whole response being one action (Kool et al. 2019; Ahmadian et al.
2024, arXiv 2402.14740).

Each prompt has K responses. The return of a response is its score less kl_coef times its sequence KL to the reference;
its advantage is that return less the mean return of the K - 1 other responses. The objective is ratio * advantage with
one ratio for the whole sequence, p(response) / p_old(response), the product over its tokens. On-policy the ratio is 1,
and the gradient is that of the paper, advantage * grad log p(response).

reinforce.py with baseline leave_one_out takes one update per rollout, with the same gradient. Here a rollout serves
`epochs` passes of `minibatches` updates. The ratio corrects for the probability of the response, where PPO's ratios
correct for that of each token; a product over more tokens leaves [1 - clip, 1 + clip] sooner, so clip must be wider
than PPO's.

DEVIATIONS: the paper takes one update per rollout and no clip (epochs = minibatches = 1); several epochs and the clip
are as in TRL's RLOOTrainer. Adam, schedule and EOS handling are those of ppo.py.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import kl_estimate, leave_one_out, logprobs_and_entropy, ppo_policy_objective, truncated_logits
from rlhf_jax.positions import only
from rlhf_jax.ranges import NonNegativeFloat, PositiveInt
from rlhf_jax.reduce import weighted_sum
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
  array_function,
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
  run_epochs,
  run_steps,
  with_logprobs,
  with_ptx,
)
from rlhf_jax.types import Experience, Mean, Rollout, TrainState


@dataclasses.dataclass(frozen=True)
class Config(PolicyConfig):
  """Settings of RLOO, beside those of every `PolicyConfig`; environment.samples_per_prompt is the paper's K."""

  kl_coef: NonNegativeFloat
  """Coefficient of the KL penalty, in units of reward per nat; 0 for no penalty."""
  clip: NonNegativeFloat
  """Half-width of the interval around 1 that the probability ratio of a whole sequence is clipped to."""
  epochs: PositiveInt
  """Number of passes over each rollout."""
  minibatches: PositiveInt
  """Number of updates in each pass; it divides the episodes of a step."""
  advantages: ArrayFunction = dataclasses.field(default=ArrayFunction(), kw_only=True)
  """Function `(returns[N, K]) -> f32[N, K]` in the place of `leave_one_out`; a parameter `lengths` of it gets the
  numbers of tokens f32[N, K]."""
  ptx: Ptx | None = dataclasses.field(default=None, kw_only=True)
  """Settings of text whose language-model loss is added (PPO-ptx, `rlhf_jax.train.ptx`); None for none."""

  def __post_init__(self):
    samples = self.environment.samples_per_prompt
    if samples < 2:
      raise ValueError(f"environment.samples_per_prompt={samples} must be >= 2: there is nothing to leave one out of")
    check_minibatches(self.minibatches, self.environment.batch_size * samples)
    if self.environment.importance and self.environment.importance.level == "token":
      raise ValueError("importance.level='token' weighs tokens, and the action of RLOO is the whole response")


def make_loss(apply: Callable, *, clip: float, temperature: float = 1.0) -> LossFn:
  """The clipped surrogate of whole sequences; `apply(params, tokens[B, T]) -> logits[B, T, V]`, weights[B]."""

  def loss_fn(params, batch: Experience, weights):
    logits = truncated_logits(apply(params, batch.tokens, **only(batch.at)) / temperature, batch.support)
    logp, entropy = logprobs_and_entropy(logits, batch.tokens, mask=batch.mask)
    log_p, log_p_old = jnp.sum(logp, axis=1), jnp.sum(batch.logp, axis=1, where=batch.mask)  # [B]
    objective, clipped = ppo_policy_objective(log_p, log_p_old, batch.advantages[:, 0], clip=clip)
    metrics = policy_metrics(logp, batch.logp, entropy, batch.mask, batch.mask.astype(jnp.float32))
    return weighted_sum(-objective, weights), {**metrics, "policy/clip_fraction": Mean(clipped, weights)}

  return loss_fn


def make_experience(
  rollout: Rollout,
  logp_ref: jax.Array,
  scores: jax.Array,
  *,
  kl_coef: float,
  samples_per_prompt: int,
  advantages_of: Callable[..., jax.Array] = leave_one_out,
) -> tuple[Experience, Metrics]:
  """Advantages f32[B, T], constant along each row, from scores f32[B] and the reference's log-probs f32[B, T]. Pure."""
  mask = rollout.mask
  sequence_kl = jnp.sum(kl_estimate(rollout.logp, logp_ref, kind="k1", mask=mask), axis=1)  # [B]
  returns = scores - kl_coef * sequence_kl
  advantages = group_advantages(advantages_of, returns, mask, samples_per_prompt)
  ones = jnp.ones_like(returns)
  experience = rollout.experience(advantages, logp_ref=logp_ref, scores=scores)
  return experience, {
    "kl/reference": Mean(sequence_kl, ones),
    "kl/coef": Mean(jnp.asarray(kl_coef), jnp.ones(())),
    "reward/return": Mean(returns, ones),
    **experience_metrics(experience),
  }


def sequence_mean(mask: jax.Array) -> jax.Array:
  """mask[B, T] -> f32[B], which sums to one: every response weighs the same, whatever its length."""
  return jnp.full(len(mask), 1.0 / len(mask))


def build(config: Config, model: LanguageModel, transport: Transport, num_updates: int) -> Functions:
  """(optimizer, update, experience_of): the compiled functions of a run of num_updates."""
  temperature = config.environment.sampling.temperature
  loss_fn = make_loss(model.apply, clip=config.clip, temperature=temperature)
  optimizer = make_optimizer(config.optimizer, num_updates)
  update = make_update(with_ptx(config.ptx, loss_fn, model.apply), optimizer, transport)

  logprobs = make_logprobs(model.apply, temperature, transport)
  advantages_of = array_function(config.advantages, leave_one_out)

  @exactly
  def experience_of(params, reference, sampled, scores, order):
    settings: dict[str, Any] = dict(
      samples_per_prompt=config.environment.samples_per_prompt, advantages_of=advantages_of
    )
    make = functools.partial(make_experience, scores=scores, kl_coef=config.kl_coef, **settings)
    return with_logprobs(config.environment, logprobs, params, reference, sampled, order, make)

  return optimizer, update, experience_of


def run(config: Config, stage: Stage) -> None:
  """Optimises the policy of `init` for num_steps rollouts."""
  tokenizer, model = open_workspace(stage)
  episodes = make_environment(config.environment, stage, model, tokenizer)
  reference = frozen(model, load_policy(stage, config.init, model, tokenizer), config.environment.frozen_dtype)
  watch = Watch(config.watch, stage, model, tokenizer, episodes, reference, clip=config.clip, ratio="product")
  each, size = config.epochs * config.minibatches, config.environment.batch_size * config.environment.samples_per_prompt
  mixed = open_ptx(config.ptx, stage, model, tokenizer, episodes=size // config.minibatches, updates=each)
  optimizer, update, experience_of = build(config, model, stage.transport, config.num_steps * each)

  def step(state: TrainState, index: int):
    batch = episodes(state.params, index)
    state, experience, metrics = run_epochs(
      mixed(update, index),
      state,
      batch.rollout,
      lambda state, rollout, order: experience_of(state.params, reference, rollout, batch.scores, order),
      sequence_mean,
      epochs=config.epochs,
      minibatches=config.minibatches,
      seed=(stage.stage_seed, index),
      transport=stage.transport,
    )
    metrics = watch.record(index, batch, experience, state, metrics, kl_coef=config.kl_coef)
    return state, {**batch.metrics, **metrics}

  run_steps(
    stage,
    init_state(adapt(config.lora, stage, load_policy(stage, config.init, model, tokenizer)), optimizer),
    step,
    config.num_steps,
    identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every,
    loop=config.loop,
    **watch.hooks,
  )
