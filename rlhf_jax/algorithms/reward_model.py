"""The reward model: Bradley-Terry on comparisons (Stiennon et al. 2020; InstructGPT, arXiv 2203.02155, eq. 1).

Loss: -log sigmoid(r(chosen) - r(rejected)), and for K ranked responses its mean over all untied pairs, with all of a
prompt's pairs in one batch element. The score is read at the last token of the response, its <eos> where it has one.

From the N implementation details of RLHF with PPO: the head starts with standard deviation 1/sqrt(d + 1) and bias 0;
after training, the scores are shifted and scaled to mean 0 and standard deviation 1 over responses that the `init`
policy samples (the shift and scale are folded into the head). InstructGPT instead shifts so that demonstrations score
0. One epoch is the default everywhere, since reward models overfit soon.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from rlhf_jax import data
from rlhf_jax.objectives import pairwise_ranking_loss
from rlhf_jax.reduce import weighted_sum
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import (
  Lora,
  Optimizer,
  Sampling,
  adapt,
  group_weights,
  identity,
  init_state,
  jit,
  load_comparisons,
  load_policy,
  load_prompts,
  make_optimizer,
  make_sampler,
  make_update,
  model_scorer,
  normalize_head,
  open_workspace,
  ordered_pairs,
  run_steps,
  stage_key,
)
from rlhf_jax.types import Mean, Preferences


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  init: the stage to start from, whose policy also gives the responses the scores are normalised on. comparisons: a file
  of rows (see `rlhf_jax.data.read_comparisons`). eval_fraction: share of the prompts held out. length: tokens of prompt
  and response; groups with a longer one are skipped. normalize_prompts: a file of prompts; normalize_count of them.
  """

  algorithm: str
  init: StageName
  comparisons: str
  eval_fraction: float
  num_epochs: int
  batch_size: int
  length: int
  optimizer: Optimizer
  normalize_prompts: str
  normalize_count: int
  sampling: Sampling
  evaluate_every: int
  checkpoint_every: int
  lora: Lora | None = None


def make_loss(score):
  """The pairwise ranking loss of `score(params, tokens[M, T], mask[M, T]) -> f32[M]`; weights are per group [N]."""

  def loss_fn(params, batch: Preferences, weights):
    groups, responses, length = batch.tokens.shape
    flat = (groups * responses, length)
    rewards = score(params, batch.tokens.reshape(flat), batch.mask.reshape(flat)).reshape(groups, responses)
    loss = pairwise_ranking_loss(rewards, batch.ranks)  # [N]
    correct, pairs = ordered_pairs(rewards, batch.ranks)
    return weighted_sum(loss, weights), {"accuracy": Mean(correct, pairs.astype(jnp.float32))}

  return loss_fn


def run(config: Config, stage: Stage) -> None:
  """Trains on the comparisons, then normalises."""
  tokenizer, model = open_workspace(stage)
  if config.length > model.config.max_length:
    raise ValueError(f"length={config.length} exceeds model.max_length={model.config.max_length}")
  splits = load_comparisons(stage.path(config.comparisons), tokenizer, config.length, config.eval_fraction, stage.seed)
  train, held_out = (split.rows for split in splits)
  num_rows = len(train["tokens"])
  num_steps = max(config.num_epochs * num_rows // config.batch_size, 1)
  loss_fn = make_loss(model.score)
  optimizer = make_optimizer(config.optimizer, num_steps)
  update = make_update(loss_fn, optimizer, stage.transport)
  measure = jit(loss_fn)
  policy = load_policy(stage, config.init, model, tokenizer)

  def step(state, index):
    rows = data.batch_indices(num_rows, config.batch_size, index, stage.stage_seed)
    batch = data.take(train, rows)
    state, metrics = update(state, Preferences(**batch), group_weights(batch["ranks"]))
    if index + 1 == num_steps:  # inside the last step, so that a checkpoint of the last step is always normalised
      state = state.replace(params=normalize(state.params))
    return state, metrics

  def evaluate(state):
    total = {}
    for start in range(0, len(held_out["tokens"]), config.batch_size):
      rows = np.arange(start, start + config.batch_size)  # one shape for every batch; what is beyond the end is absent
      batch = data.take(held_out, rows % len(held_out["tokens"]))
      batch["ranks"] = np.where(rows[:, None] < len(held_out["tokens"]), batch["ranks"], -1)
      counted = (group_weights(batch["ranks"]) > 0).astype(np.float32)
      loss, metrics = measure(state.params, Preferences(**batch), counted)
      part = {"loss": Mean(loss, counted.sum()), **{name: metric.sum() for name, metric in metrics.items()}}
      total = {name: total[name] + part[name] for name in part} if total else part
    return total

  prompts = load_prompts(stage.path(config.normalize_prompts), tokenizer, config.sampling.max_prompt_tokens)
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)

  def normalize(params):
    _, chosen = prompts.take(np.arange(config.normalize_count) % len(prompts.texts))
    rollout, _ = sample(policy, chosen, stage_key(stage))
    return normalize_head(params, model_scorer(model, params)(rollout, (), ()))

  params = model.init_head(stage_key(stage), policy)
  run_steps(
    stage,
    init_state(adapt(config.lora, stage, params), optimizer),
    step,
    num_steps,
    identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every,
    evaluate=evaluate,
    evaluate_every=config.evaluate_every,
  )
