"""Supervised fine-tuning on demonstrations (InstructGPT, arXiv 2203.02155, section 3.5).

Loss: -log p(token | what precedes it) on the tokens of the response and on its <eos>, never on the prompt or on
padding; PAD is not EOS, so the model learns to stop. Every response token of the batch weighs the same.
"""

from __future__ import annotations

import dataclasses

from rlhf_jax import data
from rlhf_jax.data.mixture import Mixture
from rlhf_jax.objectives import lm_loss
from rlhf_jax.reduce import token_weights, weighted_sum
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import (
  Lora,
  Optimizer,
  adapt,
  identity,
  init_state,
  jit,
  load_demonstrations,
  load_policy,
  make_optimizer,
  make_update,
  open_workspace,
  run_steps,
)
from rlhf_jax.types import Batch, Mean


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  init: the stage to start from. demonstrations: a file of rows (see `rlhf_jax.data.read_demonstrations`), or a mixture
  of sources that are read as they are needed (`data.mixture.Mixture`). eval_fraction: share of the prompts held out.
  length: tokens of a row, into which as many demonstrations are packed as fit, and of the longest demonstration; longer
  ones are skipped and counted. batch_size: rows. num_epochs: passes over the file, or over the examples of all sources,
  each up to its cap.
  """

  algorithm: str
  init: StageName
  demonstrations: str | Mixture
  eval_fraction: float
  num_epochs: int
  batch_size: int
  length: int
  optimizer: Optimizer
  evaluate_every: int
  checkpoint_every: int
  lora: Lora | None = None


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
  feed = load_demonstrations(
    config.demonstrations,
    stage,
    tokenizer,
    length=config.length,
    batch_size=config.batch_size,
    num_epochs=config.num_epochs,
    eval_fraction=config.eval_fraction,
  )
  num_steps = max(int(config.num_epochs * feed.num_rows) // config.batch_size, 1)
  loss_fn = make_loss(model.apply)
  optimizer = make_optimizer(config.optimizer, num_steps)
  update = make_update(loss_fn, optimizer, stage.transport)
  loss_of = jit(loss_fn)

  def evaluate(state):
    total = Mean(0.0, 0.0)
    count = len(feed.held_out["tokens"])
    for start in range(0, count, config.batch_size):
      batch = Batch(**data.take(feed.held_out, range(start, min(start + config.batch_size, count))))
      total += Mean(loss_of(state.params, batch, batch.mask.astype("float32"))[0], batch.mask.sum())
    return {"loss": total}

  def step(state, index):
    batch, position = feed.take(state.extra, index)
    state, metrics = update(state, batch, token_weights(batch.mask))
    return state.replace(extra=position), metrics

  params = load_policy(stage, config.init, model, tokenizer)
  run_steps(
    stage,
    init_state(adapt(config.lora, stage, params), optimizer, feed.start),
    step,
    num_steps,
    identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every,
    evaluate=evaluate,
    evaluate_every=config.evaluate_every,
  )
  feed.report()
