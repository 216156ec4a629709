"""Supervised fine-tuning on demonstrations (InstructGPT, arXiv 2203.02155, section 3.5).

Loss: -log p(token | what precedes it) on the tokens of the response and on its <eos>, never on the prompt or on
padding; PAD is not EOS, so the model learns to stop. Every response token of the batch weighs the same.
"""

from __future__ import annotations

import dataclasses

from rlhf_jax import data
from rlhf_jax.objectives import lm_loss
from rlhf_jax.reduce import token_weights, weighted_sum
from rlhf_jax.stage import Stage
from rlhf_jax.train import (
  Optimizer,
  identity,
  init_state,
  jit,
  load_policy,
  make_optimizer,
  make_update,
  open_workspace,
  report_skips,
  run_steps,
)
from rlhf_jax.types import Batch, Mean


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  init: the stage to start from. demonstrations: a file of rows (see `rlhf_jax.data.read_demonstrations`).
  eval_fraction: share of the prompts held out. length: tokens of a row, into which as many demonstrations are packed as
  fit, and of the longest demonstration; longer ones are skipped and counted. batch_size: rows.
  """

  algorithm: str
  init: str
  demonstrations: str
  eval_fraction: float
  num_epochs: int
  batch_size: int
  length: int
  optimizer: Optimizer
  evaluate_every: int
  checkpoint_every: int


def make_loss(apply):
  """The LM loss on the masked tokens of `apply(params, tokens, segments) -> logits`."""

  def loss_fn(params, batch: Batch, weights):
    logits = apply(params, batch.tokens, batch.segments)
    error = lm_loss(logits, batch.tokens, mask=batch.mask)  # [B, T]
    return weighted_sum(error, weights), {}

  return loss_fn


def run(config: Config, stage: Stage) -> None:
  """Trains on the demonstrations for num_epochs."""
  tokenizer, model = open_workspace(stage)
  if config.length > model.config.max_length:
    raise ValueError(f"length={config.length} exceeds model.max_length={model.config.max_length}")
  path = stage.path(config.demonstrations)
  demonstrations, skips = data.read_demonstrations(path)
  report_skips(str(path), skips, len(demonstrations) + sum(skips.values()))
  train, held_out = (
    _rows(tokenizer, [demonstrations[i] for i in part], config.length, path)
    for part in data.split_prompts([d.prompt for d in demonstrations], config.eval_fraction, stage.seed)
  )
  num_rows = len(train["tokens"])
  num_steps = max(config.num_epochs * num_rows // config.batch_size, 1)
  loss_fn = make_loss(model.apply)
  optimizer = make_optimizer(config.optimizer, num_steps)
  update = make_update(loss_fn, optimizer, stage.transport)
  loss_of = jit(loss_fn)

  def evaluate(state):
    total = Mean(0.0, 0.0)
    for start in range(0, len(held_out["tokens"]), config.batch_size):
      rows = range(start, min(start + config.batch_size, len(held_out["tokens"])))
      batch = Batch(**data.take(held_out, rows))
      total += Mean(loss_of(state.params, batch, batch.mask.astype("float32"))[0], batch.mask.sum())
    return {"loss": total}

  def step(state, index):
    rows = data.batch_indices(num_rows, config.batch_size, index, stage.stage_seed)
    batch = Batch(**data.take(train, rows))
    return update(state, batch, token_weights(batch.mask))

  params = load_policy(stage, config.init, model, tokenizer)
  run_steps(
    stage,
    init_state(params, optimizer),
    step,
    num_steps,
    identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every,
    evaluate=evaluate,
    evaluate_every=config.evaluate_every,
  )


def _rows(tokenizer, demonstrations, length, path):
  rows, skips = data.demonstration_rows(tokenizer, demonstrations, length)
  report_skips(str(path), skips, len(demonstrations))
  if not len(rows["tokens"]):
    raise data.DataError(f"{path}: no demonstration of {len(demonstrations)} fits in length={length} tokens")
  return data.pack_rows(rows, length, tokenizer.pad_id)
