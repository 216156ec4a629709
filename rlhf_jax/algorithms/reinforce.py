"""REINFORCE with a choice of baseline, under a KL penalty (Williams 1992; Ahmadian et al. 2024, arXiv 2402.14740).

The return of a response is its score less kl_coef times its sequence KL to the reference, and the gradient is that of
E[(return - baseline) * log p(response)], one update per rollout, on-policy: no ratio and no clipping. Baselines:

  none            0: unbiased, with the largest variance
  moving_mean     an exponential mean of earlier returns (Williams 1992); it starts at the mean score of the first batch
  leave_one_out   the mean return of the other responses to the same prompt (RLOO)
  greedy          the score of the likeliest response to the prompt (ReMax, Li et al. 2023, arXiv 2310.10505), which is
                  decoded and scored beside each rollout and read by nothing else
  value           a learned V(s_t) of the reward-to-go, for each token (REINFORCE with a critic, lam = 1)
  optimal_token   for each token the group's mean reward-to-go, weighted for the least variance (OTB, arXiv 2602.07078)

DEVIATIONS from the RLOO paper: the loss is a mean over sequences of their token sums, as in the equation. From ReMax:
the KL is that of the whole response and not of the tokens from t on, which has the same mean. Adam, schedule and EOS
handling are those of ppo.py, which lists the N implementation details; whitening, epochs and clipping are PPO's alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import (
  discounted_returns,
  kl_estimate,
  leave_one_out,
  logprobs_and_entropy,
  optimal_token_baseline,
  reinforce_objective,
  shaped_rewards,
  truncated_logits,
  value_loss,
)
from rlhf_jax.positions import only
from rlhf_jax.ranges import NonNegativeFloat, Share
from rlhf_jax.reduce import per_token, weighted_sum
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
  by_rows,
  exactly,
  experience_metrics,
  frozen,
  group_advantages,
  identity,
  init_state,
  load_policy,
  make_energies,
  make_environment,
  make_greedy_scores,
  make_logprobs,
  make_optimizer,
  make_update,
  open_ptx,
  open_workspace,
  policy_metrics,
  run_epochs,
  run_steps,
  with_critic,
  with_logprobs,
  with_ptx,
)
from rlhf_jax.types import Experience, Mean, Rollout, TrainState

Baseline = Literal["none", "moving_mean", "leave_one_out", "greedy", "value", "optimal_token"]
OF_GROUPS = ("leave_one_out", "optimal_token")


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
  advantages: ArrayFunction = dataclasses.field(default=ArrayFunction(), kw_only=True)
  """Function `(returns[N, K]) -> f32[N, K]` in the place of a baseline, which is then "none"; a parameter `lengths` of
  it gets the numbers of tokens f32[N, K]."""
  ptx: Ptx | None = dataclasses.field(default=None, kw_only=True)
  """Settings of text whose language-model loss is added (PPO-ptx, `rlhf_jax.train.ptx`); None for none."""

  def __post_init__(self):
    if self.baseline in OF_GROUPS and self.environment.samples_per_prompt < 2:
      raise ValueError(f"baseline {self.baseline!r} needs environment.samples_per_prompt >= 2")
    if self.baseline == "greedy" and self.environment.max_refills:
      raise ValueError("baseline='greedy' answers the prompts that a step draws first: set environment.max_refills=0")
    if self.advantages.function and self.baseline != "none":
      raise ValueError(f"advantages.function stands in the place of baseline={self.baseline!r}: set baseline='none'")


def make_loss(apply: Callable, *, value_coef: float, entropy_coef: float, temperature: float = 1.0) -> LossFn:
  """The REINFORCE objective, and the value error where the experience has returns.

  apply(params, tokens[B, T]) -> (logits[B, T, V], values[B, T] or None); weights f32[B, T].
  """

  def loss_fn(params, batch: Experience, weights):
    logits, values = apply(params, batch.tokens, **only(batch.at))
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
  rollout: Rollout, logp_ref: jax.Array, values: jax.Array | None, scores: jax.Array, given: jax.Array, *,
  kl_coef: NonNegativeFloat, baseline: Baseline, samples_per_prompt: int,
  advantages_of: Callable[..., jax.Array] | None = None, token_scores: jax.Array | None = None,
) -> tuple[Experience, Metrics]:  # fmt: skip
  """Advantages f32[B, T] of a rollout, and metrics. Pure.

  logp_ref, the reference's log-probs, is f32[B, T]; values f32[B, T], those of the critic for the baseline value, the
  energies of the tokens for optimal_token, else None; scores f32[B]; given a scalar, the moving mean, or f32[B], the
  scores of greedy responses. advantages_of: a function of the returns f32[N, K] in the place of the baseline.
  token_scores f32[B, T] is the part of the scores on single tokens, which the baselines of tokens tell from the rest.
  """
  mask = rollout.mask
  kl = kl_estimate(rollout.logp, logp_ref, kind="k1", mask=mask)  # [B, T]
  sequence_kl = jnp.sum(kl, axis=1)
  returns = scores - kl_coef * sequence_kl  # [B]
  to_go = discounted_returns(shaped_rewards(scores, kl, mask, coef=kl_coef, token_scores=token_scores), mask)  # [B, T]
  critic = {}
  if baseline == "value":
    assert values is not None, "the value baseline needs values"
    advantages, critic = to_go - values, {"values": values, "returns": to_go}
  elif baseline == "optimal_token":
    assert values is not None, "the baseline optimal_token needs energies"
    groups = [x.reshape(-1, samples_per_prompt, x.shape[-1]) for x in (to_go, values, mask)]
    advantages = optimal_token_baseline(*groups).reshape(mask.shape)
  elif baseline == "leave_one_out" or advantages_of:
    advantages = group_advantages(advantages_of or leave_one_out, returns, mask, samples_per_prompt)
  else:
    advantages = per_token(returns - (given if baseline in ("moving_mean", "greedy") else 0.0), mask)
  experience = rollout.experience(advantages, logp_ref=logp_ref, scores=scores, **critic)
  return experience, {
    "kl/reference": Mean(sequence_kl, jnp.ones_like(sequence_kl)),
    "kl/coef": Mean(jnp.asarray(kl_coef), jnp.ones(())),
    "reward/return": Mean(returns, jnp.ones_like(returns)),
    **experience_metrics(experience),
  }


def mean_of_sums(mask: jax.Array) -> jax.Array:
  """mask[B, T] -> f32[B, T] by which a loss is the mean over sequences of the sums over their tokens."""
  return mask / len(mask)


def build(config: Config, model: LanguageModel, transport: Transport, num_updates: int) -> Functions:
  """(optimizer, update, experience_of): the compiled functions of a run of num_updates."""
  temperature = config.environment.sampling.temperature
  with_value = config.baseline == "value"

  def apply(params, tokens, at=None):
    values = model.value(params["value"], tokens, at=at) if with_value else None
    return model.apply(params["policy"], tokens, at=at), values

  loss_fn = make_loss(apply, value_coef=config.value_coef, entropy_coef=config.entropy_coef, temperature=temperature)
  optimizer = make_optimizer(config.optimizer, num_updates)
  update = make_update(with_ptx(config.ptx, loss_fn, model.apply), optimizer, transport)

  logprobs = make_logprobs(model.apply, temperature, transport)
  values_of = by_rows(lambda params, tokens, at=None: model.value(params, tokens, at=at), transport)
  energies_of = make_energies(model.apply, temperature, transport)
  samples = config.environment.samples_per_prompt
  settings: dict[str, Any] = dict(kl_coef=config.kl_coef, baseline=config.baseline, samples_per_prompt=samples)
  if config.advantages.function:
    settings["advantages_of"] = array_function(config.advantages, leave_one_out)

  @exactly
  def experience_of(params, reference, sampled, scores, given, order, token_scores=None):
    def make(rollout, logp_ref):
      of_tokens = energies_of(params["policy"], rollout, order=order) if config.baseline == "optimal_token" else None
      values = values_of(params["value"], rollout.tokens, rollout.at, order=order) if with_value else of_tokens
      return make_experience(rollout, logp_ref, values, scores, given, token_scores=token_scores, **settings)

    return with_logprobs(config.environment, logprobs, params["policy"], reference, sampled, order, make)

  return optimizer, update, experience_of


def run(config: Config, stage: Stage) -> None:
  """Optimises the policy of `init` for num_steps updates."""
  tokenizer, model = open_workspace(stage)
  episodes = make_environment(config.environment, stage, model, tokenizer)
  reference = frozen(model, load_policy(stage, config.init, model, tokenizer), config.environment.frozen_dtype)
  watch = Watch(config.watch, stage, model, tokenizer, episodes, reference)
  greedy = make_greedy_scores(config.environment, stage, model, tokenizer) if config.baseline == "greedy" else None
  size = config.environment.batch_size * config.environment.samples_per_prompt
  mixed = open_ptx(config.ptx, stage, model, tokenizer, episodes=size, updates=1)

  def initial():
    policy = load_policy(stage, config.init, model, tokenizer)
    if config.baseline == "value":
      return with_critic(policy, stage, model, tokenizer, shared_trunk=False)
    return {"policy": policy}

  optimizer, update, experience_of = build(config, model, stage.transport, config.num_steps)

  def step(state: TrainState, index: int):
    batch = episodes(state.params["policy"], index)
    moving = state.extra["moving_mean"]  # NaN until there is a batch to start from
    moving = jnp.where(jnp.isnan(moving), jnp.mean(batch.scores), moving)
    given, more = greedy(state.params["policy"], index) if greedy else (moving, {})

    def experience_from(state, rollout, order):
      return experience_of(state.params, reference, rollout, batch.scores, given, order, batch.token_scores)

    state, experience, metrics = run_epochs(
      mixed(update, index), state, batch.rollout, experience_from, mean_of_sums, seed=(stage.stage_seed, index),
      transport=stage.transport,
    )  # fmt: skip
    metrics = watch.record(index, batch, experience, state, metrics, kl_coef=config.kl_coef)
    returns = metrics["reward/return"].sum().values
    moving = config.moving_decay * moving + (1 - config.moving_decay) * returns / len(batch.scores)
    return state.replace(extra={"moving_mean": moving}), {**batch.metrics, **more, **metrics}

  extra = {"moving_mean": jnp.asarray(jnp.nan, jnp.float32)}
  run_steps(
    stage, init_state(adapt(config.lora, stage, initial()), optimizer, extra), step, config.num_steps,
    identity=identity(stage, model, tokenizer), checkpoint_every=config.checkpoint_every, loop=config.loop,
    **watch.hooks,
  )  # fmt: skip
