"""PPO against a reward model under a KL penalty (Schulman et al. 2017, arXiv 1707.06347; Ziegler et al. 2019, arXiv
1909.08593; Stiennon et al. 2020, arXiv 2009.01325).

Each step samples a batch of responses, scores them, and takes `epochs` passes of `minibatches` clipped updates. The
reward of a token is -kl_coef * (log p_policy - log p_reference), and the score is added on the last token.

The N implementation details of RLHF with PPO (and N+, arXiv 2403.17031), each as it is here:
 1. reward head and value head start with std 1/sqrt(d + 1) and bias 0, rewards have mean 0 and std 1 on the
    reference's samples (reward_model.py); the value function starts from `value_init`, as a rule the reward model,
    which already predicts the score of the last token.
 2. log-probs are taken at the sampling temperature, of policy and reference alike; there is no dropout anywhere.
 3. PAD is distinct from EOS. DEVIATION: sequences are padded on the right only, so no position ids need mending.
 4. The response ends at EOS, which is in the mask, and has the score; without EOS the score is `missing_eos_score`
    (the EOS trick, -1). DEVIATION: there is no other truncation token, and rejection sampling until it appears is
    not done.
 5. Rewards are whitened without shifting their mean (`whiten_rewards`), advantages with (`whiten_advantages`), both
    with ddof 0, over all response tokens of the whole rollout, not of a minibatch.
 6. The value loss is clipped as the policy's is, with the factor 1/2; both are masked alike.
 7. The KL coefficient is adapted where `kl_target` is above 0 (in the paper coefficient 0.15, target 6, horizon 1e4),
    by the penalised KL, summed over a sequence.
 8. The learning rate falls linearly to 0 (optimizer.decay); Adam's eps is 1e-5, of either kind (tensorflow_eps).
 9. DEVIATION: policy and value function are two trees by default as in the paper, or one trunk with a head
    (`shared_trunk`), which halves the arithmetic. DEVIATION: discount 1 and lam 0.95 are the paper's; the minibatch
    mean is over tokens, and the gradient norm is clipped.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import (
  adaptive_kl_coef,
  gae,
  kl_estimate,
  length_adaptive_lambda,
  logprobs_and_entropy,
  ppo_policy_objective,
  shaped_rewards,
  truncated_logits,
  value_loss,
)
from rlhf_jax.positions import only
from rlhf_jax.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Share
from rlhf_jax.reduce import token_weights, weighted_sum, whiten
from rlhf_jax.stage import Stage, StageName, Transport
from rlhf_jax.train import (
  ArrayFunction,
  Functions,
  LossFn,
  Metrics,
  PolicyConfig,
  Ptx,
  Watch,
  adapt,
  by_rows,
  check_minibatches,
  exactly,
  experience_metrics,
  frozen,
  identity,
  init_state,
  load_policy,
  make_environment,
  make_logprobs,
  make_optimizer,
  make_update,
  open_ptx,
  open_workspace,
  policy_and_value,
  policy_metrics,
  policy_objective,
  run_epochs,
  run_steps,
  with_critic,
  with_logprobs,
  with_ptx,
)
from rlhf_jax.types import Experience, Mean, Rollout, TrainState


@dataclasses.dataclass(frozen=True)
class Config(PolicyConfig):
  """Settings of PPO, beside those of every `PolicyConfig`."""

  kl_coef: NonNegativeFloat
  """Coefficient of the KL penalty, in units of reward per nat; 0 for no penalty."""
  kl_target: NonNegativeFloat
  """KL of a sequence, in nats, that the coefficient is adapted to; 0 keeps the coefficient fixed."""
  kl_horizon: PositiveFloat
  """Number of episodes over which the coefficient adapts; larger is slower."""
  discount: Share
  """Discount of rewards per token, between 0 and 1; 1 for none."""
  lam: Share
  """Lambda of generalised advantage estimation, between 0 (one-step) and 1 (Monte Carlo)."""
  lam_alpha: NonNegativeFloat = dataclasses.field(default=0.0, kw_only=True)
  """Factor of the length-adaptive lambda 1 - 1 / (lam_alpha * tokens) in the place of `lam` (VAPO, arXiv 2504.05118,
  with 0.05); 0 keeps `lam`."""
  clip: NonNegativeFloat
  """Half-width of the interval around 1 that the probability ratio is clipped to; 0.2 in the paper."""
  value_clip: NonNegativeFloat
  """Half-width of the interval around the old value that the new value is clipped to, in units of reward."""
  value_coef: NonNegativeFloat
  """Weight of the value error in the loss."""
  entropy_coef: NonNegativeFloat
  """Weight of the entropy bonus in the loss, in units of advantage per nat; 0 for none."""
  epochs: PositiveInt
  """Number of passes over each rollout."""
  minibatches: PositiveInt
  """Number of updates in each pass; it divides the episodes of a step."""
  whiten_rewards: bool
  """Switch for scaling the rewards of a rollout to variance 1, their mean kept."""
  whiten_advantages: bool
  """Switch for scaling the advantages of a rollout to mean 0 and variance 1."""
  shared_trunk: bool
  """Switch for one tree of parameters: True makes the value function a head of the policy, False a model of its own."""
  value_init: StageName
  """Stage whose parameters the value function starts from; "" starts from the policy's with a fresh head."""
  objective: ArrayFunction = dataclasses.field(default=ArrayFunction(), kw_only=True)
  """Function `(logp[B, T], batch)` in the place of the clipped surrogate (see `rlhf_jax.train.policy_objective`)."""
  ptx: Ptx | None = dataclasses.field(default=None, kw_only=True)
  """Settings of text whose language-model loss is added (PPO-ptx); None for none."""

  def __post_init__(self):
    check_minibatches(self.minibatches, self.environment.batch_size * self.environment.samples_per_prompt)


def make_loss(
  apply: Callable, *, clip: float, value_clip: float, value_coef: float, entropy_coef: float, temperature: float = 1.0,
  objective: ArrayFunction | None = None,
) -> LossFn:  # fmt: skip
  """The clipped surrogate, the clipped value error and an entropy bonus (arXiv 1707.06347, eq. 7 and 9).

  apply(params, tokens[B, T]) -> (logits[B, T, V], values[B, T]); weights f32[B, T].
  """
  gain_of = policy_objective(objective, functools.partial(ppo_policy_objective, clip=clip))

  def loss_fn(params, batch: Experience, weights):
    logits, values = apply(params, batch.tokens, **only(batch.at))
    logits = truncated_logits(logits / temperature, batch.support)
    logp, entropy = logprobs_and_entropy(logits, batch.tokens, mask=batch.mask)
    gain, clipped = gain_of(logp, batch)
    assert batch.values is not None and batch.returns is not None, "an experience of PPO has values and returns"
    value_error = value_loss(values, batch.values, batch.returns, clip=value_clip, mask=batch.mask)
    loss = weighted_sum(-gain + value_coef * value_error - entropy_coef * entropy, weights)
    metrics = policy_metrics(logp, batch.logp, entropy, batch.mask, weights, clipped)
    return loss, {**metrics, "value/loss": Mean(value_error, weights)}

  return loss_fn


def make_experience(
  rollout: Rollout, logp_ref: jax.Array, values: jax.Array, scores: jax.Array, kl_coef: jax.Array, config: Config,
  token_scores: jax.Array | None = None,
) -> tuple[Experience, Metrics]:  # fmt: skip
  """Advantages and returns of a rollout, and metrics; whitens over the whole rollout.

  logp_ref (of the reference), values and token_scores (see `shaped_rewards`) are f32[B, T]; scores f32[B].
  """
  mask, kl = rollout.mask, kl_estimate(rollout.logp, logp_ref, kind="k1", mask=rollout.mask)  # [B, T]
  rewards = shaped_rewards(scores, kl, mask, coef=kl_coef, token_scores=token_scores)
  if config.whiten_rewards:
    rewards = whiten(rewards, mask, shift_mean=False)
  lam = length_adaptive_lambda(mask, alpha=config.lam_alpha) if config.lam_alpha else config.lam
  advantages = gae(rewards, values, mask, discount=config.discount, lam=lam)
  returns = advantages + jnp.where(mask, values, 0.0)
  if config.whiten_advantages:
    advantages = whiten(advantages, mask)
  sequence_kl = jnp.sum(kl, axis=1)
  recorded = dict(values=values, returns=returns, logp_ref=logp_ref, scores=scores)
  experience = rollout.experience(advantages, **recorded)
  return experience, {
    "kl/reference": Mean(sequence_kl, jnp.ones_like(sequence_kl)),
    "kl/coef": Mean(kl_coef, jnp.ones(())),
    **experience_metrics(experience),
  }


def build(config: Config, model: LanguageModel, transport: Transport, num_updates: int) -> Functions:
  """(optimizer, update, experience_of): the compiled functions of a run of num_updates."""
  temperature = config.environment.sampling.temperature
  apply, values_of = policy_and_value(model, config.shared_trunk)
  loss_fn = make_loss(
    apply, clip=config.clip, value_clip=config.value_clip, value_coef=config.value_coef,
    entropy_coef=config.entropy_coef, temperature=temperature, objective=config.objective,
  )  # fmt: skip
  optimizer = make_optimizer(config.optimizer, num_updates)
  update = make_update(with_ptx(config.ptx, loss_fn, model.apply), optimizer, transport)
  logprobs = make_logprobs(model.apply, temperature, transport)
  values_of = by_rows(values_of, transport)

  @exactly
  def experience_of(params, reference, sampled, scores, kl_coef, order, token_scores=None):
    def make(rollout, logp_ref):
      values = values_of(params, rollout.tokens, rollout.at, order=order)
      return make_experience(rollout, logp_ref, values, scores, kl_coef, config, token_scores)

    return with_logprobs(config.environment, logprobs, params["policy"], reference, sampled, order, make)

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

  @jax.jit
  def next_kl_coef(kl_coef, sequence_kl: Mean):
    kl, settings = sequence_kl.sum(), {"target": config.kl_target, "horizon": config.kl_horizon}
    return adaptive_kl_coef(kl_coef, kl.values / kl.weights, len(sequence_kl.values), **settings)

  def step(state: TrainState, index: int):
    batch = episodes(state.params["policy"], index)

    def experience_from(state, rollout, order):
      given = state.params, reference, rollout, batch.scores, state.extra["kl_coef"]
      return experience_of(*given, order, batch.token_scores)

    state, experience, metrics = run_epochs(
      mixed(update, index), state, batch.rollout, experience_from, token_weights, epochs=config.epochs,
      minibatches=config.minibatches, seed=(stage.stage_seed, index), transport=stage.transport,
    )  # fmt: skip
    metrics = watch.record(index, batch, experience, state, metrics, kl_coef=state.extra["kl_coef"])
    if config.kl_target > 0:
      state = state.replace(extra={"kl_coef": next_kl_coef(state.extra["kl_coef"], metrics["kl/reference"])})
    return state, {**batch.metrics, **metrics}

  def initial():
    policy = load_policy(stage, config.init, model, tokenizer)
    return with_critic(policy, stage, model, tokenizer, shared_trunk=config.shared_trunk, init=config.value_init)

  extra = {"kl_coef": jnp.asarray(config.kl_coef, jnp.float32)}
  run_steps(
    stage, init_state(adapt(config.lora, stage, initial()), optimizer, extra), step, config.num_steps,
    identity=identity(stage, model, tokenizer), checkpoint_every=config.checkpoint_every, loop=config.loop,
    **watch.hooks,
  )  # fmt: skip
