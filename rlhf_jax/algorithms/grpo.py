"""GRPO: PPO without a critic; its baseline is the group of responses to a prompt (Shao et al. 2024, arXiv 2402.03300).

The advantage of a response, on all its tokens, is its score standardised within its group; the objective is PPO's
clipped surrogate less kl_coef times the KL to the reference, which is a term of the loss and not of the reward (eq. 3).
The variants are options:

  normalize_std  True: (r - mean) / std. False: r - mean, so that small differences within a group are not magnified
                 (Dr. GRPO, arXiv 2503.20783).
  weights        sequence: every response weighs the same, 1 / |o| for each of its tokens, as published. token: every
                 token of the batch weighs the same (DAPO, arXiv 2503.14476). constant: every token weighs
                 1 / max_new_tokens, so that length is neither punished nor rewarded (Dr. GRPO).
  clip           (low, high), the distances from 1. Equal: PPO and GRPO. high > low: DAPO's clip-higher.
  ratio          token: a ratio for each token. sequence: the geometric mean over the response, for all its tokens
                 (GSPO, arXiv 2507.18071, with weights "sequence" and a clip near (3e-4, 4e-4)).
  kl_kind        k3: the paper's estimator; as a loss its gradient is that of the reverse KL(reference || policy). k2:
                 on-policy, the gradient of KL(policy || reference) at each token. k3+: k3's value with k2's
                 gradient. With truncated sampling not k3.

DEVIATIONS: the reference stays the policy of `init` (the paper renews it in its iterative form), and the score of a
response is one number (outcome supervision). The standard deviation has ddof 0; ddof and epsilon change advantages by a
factor only. A group whose scores are all equal contributes only its KL: it is neither drawn again nor left out of the
weights, as in DAPO. Adam, schedule and EOS handling are those of ppo.py.
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
  group_centre,
  group_normalize,
  kl_estimate,
  logprobs_and_entropy,
  ppo_policy_objective,
  sequence_ratio_objective,
  truncated_logits,
)
from rlhf_jax.positions import only
from rlhf_jax.ranges import NonNegativeFloat, PositiveInt
from rlhf_jax.reduce import constant_weights, sequence_weights, token_weights, weighted_sum
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
  policy_objective,
  run_epochs,
  run_steps,
  with_logprobs,
  with_ptx,
)
from rlhf_jax.types import Experience, Mean, Rollout, TrainState


@dataclasses.dataclass(frozen=True)
class Config(PolicyConfig):
  """Settings of GRPO, beside those of every `PolicyConfig`; environment.samples_per_prompt is the paper's G.

  The head of the module describes the variants.
  """

  normalize_std: bool
  """Switch for dividing advantages by the standard deviation of their group."""
  weights: Literal["sequence", "token", "constant"]
  """Weights of tokens in the loss: equal for each response, equal for each token, or constant."""
  clip: tuple[NonNegativeFloat, NonNegativeFloat]
  """Distances below and above 1 that the probability ratio is clipped to."""
  ratio: Literal["token", "sequence"]
  """Ratio of probabilities: one for each token, or their geometric mean over the response."""
  kl_coef: NonNegativeFloat
  """Coefficient of the KL term in the loss, in units of advantage per nat; 0 for none."""
  kl_kind: Literal["k2", "k3", "k3+"]
  """Estimator of the KL term."""
  epochs: PositiveInt
  """Number of passes over each rollout, the paper's mu."""
  minibatches: PositiveInt
  """Number of updates in each pass; it divides the episodes of a step."""
  objective: ArrayFunction = dataclasses.field(default=ArrayFunction(), kw_only=True)
  """Function `(logp[B, T], batch)` in the place of the clipped surrogate (see `rlhf_jax.train.policy_objective`)."""
  advantages: ArrayFunction = dataclasses.field(default=ArrayFunction(), kw_only=True)
  """Function `(scores[N, K]) -> f32[N, K]` in the place of the standardised scores; a parameter `lengths` of it gets
  the numbers of tokens f32[N, K]."""
  ptx: Ptx | None = dataclasses.field(default=None, kw_only=True)
  """Settings of text whose language-model loss is added (PPO-ptx, `rlhf_jax.train.ptx`); None for none."""

  def __post_init__(self):
    samples = self.environment.samples_per_prompt
    if samples < 2:
      raise ValueError(f"environment.samples_per_prompt={samples} must be >= 2: a group of one has nothing to compare")
    check_minibatches(self.minibatches, self.environment.batch_size * samples)
    if self.environment.importance and self.environment.importance.level == "token" and self.ratio == "sequence":
      raise ValueError("importance.level='token' weighs tokens, and ratio='sequence' has one for each response")
    if self.kl_kind == "k3" and self.kl_coef > 0 and self.environment.sampling.truncates:
      raise ValueError(
        "kl_kind='k3' is biased where sampling.top_k, top_p or min_p truncate: its mean lacks the reference's "
        "probability of the tokens that are never drawn. Set kl_kind='k2', or sample from the whole softmax"
      )


def make_loss(
  apply: Callable,
  *,
  clip: tuple[float, float],
  ratio: str,
  kl_coef: float,
  kl_kind: str,
  temperature: float = 1.0,
  objective: ArrayFunction | None = None,
) -> LossFn:
  """The clipped surrogate and the KL of each token; `apply(params, tokens[B, T]) -> logits`, weights f32[B, T]."""

  def of_sequence(logp, logp_old, advantages, *, mask):
    return sequence_ratio_objective(logp, logp_old, advantages[:, 0], mask, clip=clip)

  of_token = functools.partial(ppo_policy_objective, clip=clip)
  gain_of = policy_objective(objective, of_sequence if ratio == "sequence" else of_token)

  def loss_fn(params, batch: Experience, weights):
    logits = truncated_logits(apply(params, batch.tokens, **only(batch.at)) / temperature, batch.support)
    logp, entropy = logprobs_and_entropy(logits, batch.tokens, mask=batch.mask)
    gain, clipped = gain_of(logp, batch)
    assert batch.logp_ref is not None, "an experience of GRPO has the reference's log-probs"
    kl = kl_estimate(logp, batch.logp_ref, kind=kl_kind, mask=batch.mask)  # [B, T]
    tokens = batch.mask.astype(jnp.float32)
    return weighted_sum(kl_coef * kl - gain, weights), {
      **policy_metrics(logp, batch.logp, entropy, batch.mask, tokens, clipped),
      "kl/loss": Mean(kl, tokens),
    }

  return loss_fn


def make_experience(
  rollout: Rollout,
  logp_ref: jax.Array,
  scores: jax.Array,
  *,
  samples_per_prompt: int,
  advantages_of: Callable[..., jax.Array] = group_normalize,
) -> tuple[Experience, Metrics]:
  """Advantages f32[B, T], constant along each row, from scores f32[B] and the reference's log-probs f32[B, T]. Pure."""
  mask = rollout.mask
  advantages = group_advantages(advantages_of, scores, mask, samples_per_prompt)
  sequence_kl = jnp.sum(kl_estimate(rollout.logp, logp_ref, kind="k1", mask=mask), axis=1)  # [B]
  experience = rollout.experience(advantages, logp_ref=logp_ref, scores=scores)
  return experience, {
    "kl/reference": Mean(sequence_kl, jnp.ones_like(sequence_kl)),
    **experience_metrics(experience),
  }


def token_shares(kind: str, max_new_tokens: int) -> Callable[[jax.Array], jax.Array]:
  """`weights(mask[B, T]) -> f32[B, T]` of the variant `kind`."""
  if kind == "constant":
    return functools.partial(constant_weights, length=max_new_tokens)
  return {"sequence": sequence_weights, "token": token_weights}[kind]


def build(config: Config, model: LanguageModel, transport: Transport, num_updates: int) -> Functions:
  """(optimizer, update, experience_of): the compiled functions of a run of num_updates."""
  sampling = config.environment.sampling
  loss_fn = make_loss(
    model.apply,
    clip=config.clip,
    ratio=config.ratio,
    kl_coef=config.kl_coef,
    kl_kind=config.kl_kind,
    temperature=sampling.temperature,
    objective=config.objective,
  )
  optimizer = make_optimizer(config.optimizer, num_updates)
  update = make_update(with_ptx(config.ptx, loss_fn, model.apply), optimizer, transport)

  logprobs = make_logprobs(model.apply, sampling.temperature, transport)
  advantages_of = array_function(config.advantages, group_normalize if config.normalize_std else group_centre)

  @exactly
  def experience_of(params, reference, sampled, scores, order):
    settings: dict[str, Any] = dict(
      samples_per_prompt=config.environment.samples_per_prompt, advantages_of=advantages_of
    )
    make = functools.partial(make_experience, scores=scores, **settings)
    return with_logprobs(config.environment, logprobs, params, reference, sampled, order, make)

  return optimizer, update, experience_of


def run(config: Config, stage: Stage) -> None:
  """Optimises the policy of `init` for num_steps rollouts."""
  tokenizer, model = open_workspace(stage)
  sampling = config.environment.sampling
  episodes = make_environment(config.environment, stage, model, tokenizer)
  reference = frozen(model, load_policy(stage, config.init, model, tokenizer), config.environment.frozen_dtype)
  clip = None if config.objective.function else config.clip
  watch = Watch(config.watch, stage, model, tokenizer, episodes, reference, clip=clip, ratio=config.ratio)
  each, size = config.epochs * config.minibatches, config.environment.batch_size * config.environment.samples_per_prompt
  mixed = open_ptx(config.ptx, stage, model, tokenizer, episodes=size // config.minibatches, updates=each)
  optimizer, update, experience_of = build(config, model, stage.transport, config.num_steps * each)
  shares = token_shares(config.weights, sampling.max_new_tokens)

  def step(state: TrainState, index: int):
    batch = episodes(state.params, index)
    state, experience, metrics = run_epochs(
      mixed(update, index),
      state,
      batch.rollout,
      lambda state, rollout, order: experience_of(state.params, reference, rollout, batch.scores, order),
      shares,
      epochs=config.epochs,
      minibatches=config.minibatches,
      seed=(stage.stage_seed, index),
      transport=stage.transport,
    )
    metrics = watch.record(index, batch, experience, state, metrics)
    return state, {**batch.metrics, **metrics, "kl/coef": config.kl_coef}

  run_steps(
    stage, init_state(adapt(config.lora, stage, load_policy(stage, config.init, model, tokenizer)), optimizer), step,
    config.num_steps, identity=identity(stage, model, tokenizer), checkpoint_every=config.checkpoint_every,
    loop=config.loop, **watch.hooks,
  )  # fmt: skip
