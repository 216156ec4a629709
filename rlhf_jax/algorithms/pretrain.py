"""Pretraining: next-token prediction on plain text (Radford et al. 2019).

Loss: the mean over all tokens of the batch of -log p(token | all tokens before it in its row). Rows are consecutive
pieces of the text, each behind <bos>; the text holds no <eos>, which the model first sees in fine-tuning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated

import numpy as np

from rlhf_jax.data.mixture import Mixture
from rlhf_jax.data.sources import Source
from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import lm_loss
from rlhf_jax.ranges import EVALUATION, NEUTRAL, STEPS, NonNegativeFloat, NonNegativeInt, PositiveInt
from rlhf_jax.reduce import token_weights, weighted_sum
from rlhf_jax.stage import RowLength, Stage, TextFile, Transport
from rlhf_jax.train import (
  Functions,
  Loop,
  LossFn,
  Optimizer,
  check_length,
  count_tokens,
  identity,
  init_state,
  make_measure,
  make_optimizer,
  make_update,
  open_workspace,
  run_steps,
  stage_key,
)
from rlhf_jax.train.batches import load_texts
from rlhf_jax.train.row_sources import TextRows
from rlhf_jax.types import Batch, Mean, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of pretraining."""

  algorithm: str
  """Module that carries out the stage."""
  text: TextFile | Source | Mixture
  """File of plain text, or of rows {text} or dialogues, or a source of them, read at once; or mixture of texts and
  demonstrations, read as they are needed (see `rlhf_jax.data.mixture`), which needs an `eval_text`."""
  eval_text: TextRows
  """File of the held-out text; "" holds out the last rows of `text`."""
  eval_rows: NonNegativeInt
  """Number of rows held out for evaluation; 0 for no evaluation."""
  num_steps: Annotated[PositiveInt, STEPS]
  """Number of optimiser steps."""
  batch_size: PositiveInt
  """Number of rows in an optimiser step."""
  length: RowLength = 0
  """Number of tokens in a row."""
  z_loss: NonNegativeFloat
  """Weight of the penalty log(Z)^2, Z the normaliser of the softmax (arXiv 2204.02311, section 5); 0 for none."""
  optimizer: Optimizer
  """Settings of the optimiser."""
  evaluate_every: Annotated[NonNegativeInt, EVALUATION]
  """Number of steps between evaluations; 0 evaluates at the end only."""
  checkpoint_every: Annotated[PositiveInt, NEUTRAL]
  """Number of steps between checkpoints; there is always one at the end."""
  loop: Loop = Loop()
  """Settings of checkpoints, of an early end and of numbers that are not finite."""

  def __post_init__(self) -> None:
    if isinstance(self.text, Mixture) and not self.eval_text:
      raise ValueError("text is a mixture, so eval_text must name its own rows")


def make_loss(apply: Callable, *, z_loss: float) -> LossFn:
  """The LM loss of `apply(params, tokens[B, T], segments[B, T]) -> logits[B, T, V]`; weights f32[B, T], per token."""

  def loss_fn(params, batch: Batch, weights):
    logits = apply(params, batch.tokens, batch.segments)
    error = lm_loss(logits, batch.tokens, z_loss=z_loss, mask=batch.mask)  # [B, T]
    return weighted_sum(error, weights), {}

  return loss_fn


def build(config: Config, model: LanguageModel, transport: Transport, num_steps: int) -> Functions:
  """(optimizer, update, measure): the compiled functions of a run of num_steps."""
  loss_fn = make_loss(model.apply, z_loss=config.z_loss)
  optimizer = make_optimizer(config.optimizer, num_steps)
  update = make_update(loss_fn, optimizer, transport)
  return optimizer, update, make_measure(make_loss(model.apply, z_loss=0.0), transport)


def run(config: Config, stage: Stage) -> None:
  """Trains from random parameters."""
  tokenizer, model = open_workspace(stage)
  check_length(model, config.length)
  batches = load_texts(
    config.text,
    stage,
    tokenizer,
    eval_text=config.eval_text,
    eval_rows=config.eval_rows,
    length=config.length,
    batch_size=config.batch_size,
    num_steps=config.num_steps,
  )
  optimizer, update, measure = build(config, model, stage.transport, config.num_steps)
  held_out = Batch(**batches.held_out)

  def evaluate(state: TrainState):
    found = measure(state.params, held_out, token_weights(held_out.mask))
    return {"loss": Mean(found["loss"].values, np.ones(()))}

  def step(state: TrainState, index: int):
    batch, position = batches.take(state.extra, index)
    state, metrics = update(state, batch, token_weights(batch.mask))
    return state.replace(extra=position), {**metrics, "tokens/trained": count_tokens(batch.mask)}

  run_steps(
    stage,
    init_state(model.init(stage_key(stage)), optimizer, batches.start),
    step,
    config.num_steps,
    identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every,
    loop=config.loop,
    evaluate=evaluate if len(held_out.tokens) else None,
    evaluate_every=config.evaluate_every,
  )
  batches.report()
