"""Online DPO: the policy's own responses, judged by the reward and learnt from as pairs (Guo et al. 2024, 2402.04792).

Each step samples K responses to each prompt (the paper's K is 2), scores them by the reward of the environment, and
takes one update on a loss of the pairs, the response with the greater score being the chosen one. `loss` is any of
dpo.py's (the paper has dpo, ipo and hinge) but kto, whose z is of mismatched pairs. There is no KL penalty beside the
loss: its beta holds the policy near the reference.

What it converges to depends on the judge. A judge that draws its preferences by Bradley-Terry on r, such as a score
with Gumbel noise, leads dpo to p_ref exp(r / beta) / Z, the optimum of RLHF. Scores without noise are a judge that is
always sure: then a margin grows as long as it is trained, however small the difference in score is; ipo stops it.

DEVIATIONS. The judge is the reward, where the paper asks a language model. With K > 2 all untied pairs of a prompt are
learnt from, and share its weight. Equal scores are no pair; a step without a pair makes no update. Log-probs are at the
sampling temperature. Adam, schedule and EOS handling are those of ppo.py.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import kl_estimate, logprobs_and_entropy, truncated_logits
from rlhf_jax.positions import only
from rlhf_jax.reduce import per_token, weighted_sum
from rlhf_jax.stage import Stage, Transport
from rlhf_jax.train import (
  Functions,
  LossFn,
  Metrics,
  PolicyConfig,
  Watch,
  adapt,
  exactly,
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
  with_logprobs,
)
from rlhf_jax.train.comparisons import pair_weights
from rlhf_jax.train.epochs import packed
from rlhf_jax.train.mesh import sent
from rlhf_jax.train.pair_losses import Loss, pair_loss, sign_of
from rlhf_jax.train.processes import host
from rlhf_jax.types import Array, Experience, Mean, Rollout, TrainState


@dataclasses.dataclass(frozen=True)
class Config(PolicyConfig):
  """Settings of online DPO, beside those of every `PolicyConfig`; environment.samples_per_prompt is K."""

  loss: Loss
  """Loss of a pair and its settings."""

  def __post_init__(self):
    samples = self.environment.samples_per_prompt
    if samples < 2:
      raise ValueError(f"environment.samples_per_prompt={samples} must be >= 2: a response alone is no pair")
    if self.loss.name == "kto":
      raise ValueError("loss.name='kto' needs mismatched pairs of prompt and response: 'apo_zero' is kto with z = 0")
    if self.loss.weighting != "none":
      raise ValueError(f"loss.weighting={self.loss.weighting!r} is for pairs of others: here the policy writes them")


def make_loss(apply: Callable, settings: Loss, *, temperature: float = 1.0) -> LossFn:
  """The loss of every pair of groups; `apply(params, tokens[B, T]) -> logits[B, T, V]`.

  The batch is an `Experience` of `grouped` arrays [N, K, T]; weights f32[N, K, K] are above 0 where response i was
  preferred to j.
  """
  loss_of = pair_loss(settings)

  def loss_fn(params, batch: Experience, weights):
    rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)  # [N K, T]
    logits = truncated_logits(apply(params, rows.tokens, **only(rows.at)) / temperature, rows.support)
    token_logp, entropy = logprobs_and_entropy(logits, rows.tokens, mask=rows.mask)
    logp = jnp.sum(token_logp, axis=1).reshape(batch.mask.shape[:2])  # [N, K]
    assert batch.logp_ref is not None, "the experience has no log-probs of the reference"
    ref_logp = jnp.sum(batch.logp_ref, axis=-1, where=batch.mask)
    lengths = jnp.maximum(jnp.sum(batch.mask, axis=-1), 1) if settings.known.of_means else 1
    given, ref_logp = logp / lengths, ref_logp / lengths
    score = given if settings.known.reference_free else given - ref_logp
    gap = score[:, :, None] - score[:, None, :]  # [N, K, K], nats
    pairs = (weights > 0).astype(jnp.float32)
    loss = loss_of(given, ref_logp, jnp.zeros(len(logp)), pairs)  # [N, K, K]
    metrics = {
      "accuracy": Mean((sign_of(gap) + 1) / 2, pairs),
      "margin": Mean(settings.beta * gap, pairs),
      **policy_metrics(token_logp, rows.logp, entropy, rows.mask, rows.mask.astype(jnp.float32)),
    }
    return weighted_sum(loss, weights), metrics

  return loss_fn


def make_experience(
  rollout: Rollout, logp_ref: jax.Array, scores: jax.Array, *, samples_per_prompt: int
) -> tuple[Experience, Metrics]:
  """Experience [B, T] from scores f32[B] and the reference's log-probs f32[B, T]. Pure.

  The advantage of every token of a response, which is logged and not learnt from, is the share of the other responses
  to its prompt that it beats, less the share that beats it.
  """
  groups = scores.reshape(-1, samples_per_prompt)
  wins = jnp.sum(jnp.sign(groups[:, :, None] - groups[:, None, :]), axis=-1) / (samples_per_prompt - 1)  # [N, K]
  advantages = jnp.where(rollout.mask, per_token(wins.ravel(), rollout.mask), 0.0)
  experience = rollout.experience(advantages, logp_ref=logp_ref, scores=scores)
  sequence_kl = jnp.sum(kl_estimate(rollout.logp, logp_ref, kind="k1", mask=rollout.mask), axis=1)  # [B]
  return experience, {"kl/reference": Mean(sequence_kl, jnp.ones_like(sequence_kl)), **experience_metrics(experience)}


def grouped(experience: Experience, samples_per_prompt: int) -> Experience:
  """The arrays [B, ...] as [N, K, ...], N prompts with K responses each."""
  return jax.tree.map(lambda x: x.reshape(-1, samples_per_prompt, *x.shape[1:]), experience)


def preferences(scores: Array, samples_per_prompt: int) -> np.ndarray:
  """Weights f32[N, K, K] of the pairs from scores f32[B], as `pair_weights` has them; all 0 where all scores tie."""
  groups = np.asarray(scores).reshape(-1, samples_per_prompt)
  return pair_weights((groups[:, None, :] > groups[:, :, None]).sum(axis=-1))  # a rank is the number of better ones


def build(config: Config, model: LanguageModel, transport: Transport, num_updates: int) -> Functions:
  """(optimizer, update, experience_of): the compiled functions of a run of num_updates."""
  temperature, samples = config.environment.sampling.temperature, config.environment.samples_per_prompt
  optimizer = make_optimizer(config.optimizer, num_updates)
  update = make_update(make_loss(model.apply, config.loss, temperature=temperature), optimizer, transport)
  logprobs = make_logprobs(model.apply, temperature, transport)

  @exactly
  def experience_of(params, reference, sampled, scores, order):
    make = functools.partial(make_experience, scores=scores, samples_per_prompt=samples)
    return with_logprobs(config.environment, logprobs, params, reference, sampled, order, make)

  return optimizer, update, experience_of


def run(config: Config, stage: Stage) -> None:
  """Optimises the policy of `init` for num_steps updates."""
  tokenizer, model = open_workspace(stage)
  episodes = make_environment(config.environment, stage, model, tokenizer)
  reference = frozen(model, load_policy(stage, config.init, model, tokenizer), config.environment.frozen_dtype)
  watch = Watch(config.watch, stage, model, tokenizer, episodes, reference)
  optimizer, update, experience_of = build(config, model, stage.transport, config.num_steps)
  samples = config.environment.samples_per_prompt
  group = jax.jit(grouped, static_argnums=1)

  def step(state: TrainState, index: int):
    batch = episodes(state.params, index)
    start, order = time.perf_counter(), np.arange(len(batch.scores), dtype=np.int32)[None]
    (at,), full = packed(batch.rollout, [order], stage.transport, samples)
    with sent():
      rollout = batch.rollout.replace(at=at)
      experience, metrics = experience_of(state.params, reference, rollout, batch.scores, order)
    weights = preferences(host(batch.scores), samples)
    part: Metrics = {}
    if weights.any():
      state, part = update(state, group(experience, samples), weights)
    counts = {**learner_counts(experience, start), **full}
    counts = watch.record(index, batch, experience, state, counts)
    return state, {**batch.metrics, **part, **metrics, **counts}

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
