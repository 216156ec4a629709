"""Supervised fine-tuning on demonstrations (InstructGPT, arXiv 2203.02155, section 3.5).

Loss: -log p(token | all tokens before it) on the tokens of the response and on its <eos>, never on the prompt or on
padding; PAD is not EOS, so the model learns to stop. Every response token of the batch weighs the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.mixture import Mixture
from rlhf_jax.objectives import lm_loss
from rlhf_jax.reduce import token_weights, weighted_sum
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import (
  Lora,
  LossFn,
  Optimizer,
  adapt,
  check_length,
  identity,
  init_state,
  jit,
  load_policy,
  make_optimizer,
  make_update,
  open_workspace,
  run_steps,
)
from rlhf_jax.train.batches import load_demonstrations
from rlhf_jax.train.heldout import pooled_metrics
from rlhf_jax.types import Batch, Mean, TrainState


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of supervised fine-tuning."""

  algorithm: str
  """Module that carries out the stage."""
  init: StageName
  """Stage whose model is the start."""
  demonstrations: str | Mixture
  """File of rows (see `rlhf_jax.data.read_demonstrations`), or mixture of sources (see `rlhf_jax.data.mixture`)."""
  eval_fraction: float
  """Share of the prompts held out for evaluation, between 0 and 1."""
  num_epochs: int
  """Number of passes over the file, or over the examples of all sources of the mixture, each up to its cap."""
  batch_size: int
  """Number of packed rows in an optimiser step."""
  length: int
  """Number of tokens in a row, which holds as many demonstrations as fit; a longer demonstration is skipped and
  counted."""
  optimizer: Optimizer
  """Settings of the optimiser."""
  evaluate_every: int
  """Number of steps between evaluations; 0 evaluates at the end only."""
  checkpoint_every: int
  """Number of steps between checkpoints; there is always one at the end."""
  lora: Lora | None = None
  """Settings of the adapters that are trained; None trains all parameters."""


def make_loss(apply: Callable) -> LossFn:
  """The LM loss of `apply(params, tokens[B, T], segments[B, T]) -> logits[B, T, V]`; weights f32[B, T], per token."""

  def loss_fn(params, batch: Batch, weights):
    logits = apply(params, batch.tokens, batch.segments)
    error = lm_loss(logits, batch.tokens, mask=batch.mask)  # [B, T]
    return weighted_sum(error, weights), {}

  return loss_fn


def run(config: Config, stage: Stage) -> None:
  """Trains on the demonstrations for num_epochs."""
  tokenizer, model = open_workspace(stage)
  check_length(model, config.length)
  batches = load_demonstrations(
    config.demonstrations,
    stage,
    tokenizer,
    length=config.length,
    batch_size=config.batch_size,
    num_epochs=config.num_epochs,
    eval_fraction=config.eval_fraction,
  )
  num_steps = max(int(config.num_epochs * batches.num_rows) // config.batch_size, 1)
  loss_fn = make_loss(model.apply)
  optimizer = make_optimizer(config.optimizer, num_steps)
  update, measure = make_update(loss_fn, optimizer, stage.transport), jit(loss_fn)

  def evaluate(state: TrainState):
    def measured(rows, present):
      batch = Batch(**data.take(batches.held_out, rows))
      tokens = (batch.mask & present[:, None]).astype(np.float32)
      return {"loss": Mean(measure(state.params, batch, tokens)[0], tokens.sum())}

    return pooled_metrics(measured, len(batches.held_out["tokens"]), config.batch_size)

  def step(state: TrainState, index: int):
    batch, position = batches.take(state.extra, index)
    state, metrics = update(state, batch, token_weights(batch.mask))
    return state.replace(extra=position), metrics

  params = load_policy(stage, config.init, model, tokenizer)
  run_steps(
    stage,
    init_state(adapt(config.lora, stage, params), optimizer, batches.start),
    step,
    num_steps,
    identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every,
    evaluate=evaluate,
    evaluate_every=config.evaluate_every,
  )
  batches.report()
