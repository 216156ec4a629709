"""Supervised fine-tuning on demonstrations (InstructGPT, arXiv 2203.02155, section 3.5).

Loss: -log p(token | all tokens before it) on the tokens of the response and on its <eos>, never on the prompt or on
padding; PAD is not EOS, so the model learns to stop. Every response token of the batch weighs the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.mixture import Mixture
from rlhf_jax.data.sources import Source
from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import lm_loss
from rlhf_jax.positions import only
from rlhf_jax.ranges import EVALUATION, NEUTRAL, NonNegativeInt, PositiveInt, Share
from rlhf_jax.reduce import token_weights, weighted_sum
from rlhf_jax.stage import DemonstrationFile, RowLength, Stage, StageName, Transport
from rlhf_jax.train import (
  Functions,
  Loop,
  Lora,
  LossFn,
  Optimizer,
  adapt,
  check_length,
  count_tokens,
  identity,
  init_state,
  load_policy,
  make_functions,
  open_workspace,
  run_steps,
)
from rlhf_jax.train.batches import load_demonstrations
from rlhf_jax.train.heldout import pooled_metrics
from rlhf_jax.types import Batch, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of supervised fine-tuning."""

  algorithm: str
  """Module that carries out the stage."""
  init: StageName
  """Stage whose model is the start."""
  demonstrations: DemonstrationFile | Source | Mixture
  """File of rows (see `rlhf_jax.data.read_demonstrations`) or source of them, read at once; or mixture of sources, read
  as they are needed (see `rlhf_jax.data.mixture`)."""
  eval_fraction: Share
  """Share of the prompts held out for evaluation, between 0 and 1; 0 for no evaluation."""
  num_epochs: PositiveInt
  """Number of passes over the file, or over the examples of all sources of the mixture, each up to its cap."""
  batch_size: PositiveInt
  """Number of packed rows in an optimiser step."""
  length: RowLength = 0
  """Number of tokens in a row, which holds as many demonstrations as fit; a longer demonstration is skipped and
  counted."""
  optimizer: Optimizer
  """Settings of the optimiser."""
  evaluate_every: Annotated[NonNegativeInt, EVALUATION]
  """Number of steps between evaluations; 0 evaluates at the end only."""
  checkpoint_every: Annotated[PositiveInt, NEUTRAL]
  """Number of steps between checkpoints; there is always one at the end."""
  loop: Loop = Loop()
  """Settings of checkpoints, of an early end and of numbers that are not finite."""
  lora: Lora | None = None
  """Settings of the adapters that are trained; None trains all parameters."""


def make_loss(apply: Callable) -> LossFn:
  """The LM loss of `apply(params, tokens[B, T], segments[B, T]) -> logits[B, T, V]`; weights f32[B, T], per token.

  Where the batch has `at`, `apply` gets it by name (see `rlhf_jax.positions`).
  """

  def loss_fn(params, batch: Batch, weights):
    logits = apply(params, batch.tokens, batch.segments, **only(batch.at))
    error = lm_loss(logits, batch.tokens, mask=batch.mask)  # [B, T]
    return weighted_sum(error, weights), {}

  return loss_fn


def build(config: Config, model: LanguageModel, transport: Transport, num_steps: int) -> Functions:
  """(optimizer, update, measure): the compiled functions of a run of num_steps."""
  return make_functions(make_loss(model.apply), config.optimizer, num_steps, transport)


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
  optimizer, update, measure = build(config, model, stage.transport, num_steps)

  def evaluate(state: TrainState):
    def measured(rows, present):
      batch = Batch(**data.take(batches.held_out, rows))
      tokens = (batch.mask & present[:, None]).astype(np.float32)
      return measure(state.params, batch, tokens)

    return pooled_metrics(measured, len(batches.held_out["tokens"]), config.batch_size)

  def step(state: TrainState, index: int):
    batch, position = batches.take(state.extra, index)
    state, metrics = update(state, batch, token_weights(batch.mask))
    return state.replace(extra=position), {**metrics, "tokens/trained": count_tokens(batch.mask)}

  run_steps(
    stage,
    init_state(adapt(config.lora, stage, load_policy(stage, config.init, model, tokenizer)), optimizer, batches.start),
    step,
    num_steps,
    identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every,
    loop=config.loop,
    evaluate=evaluate if len(batches.held_out["tokens"]) else None,
    evaluate_every=config.evaluate_every,
  )
  batches.report()
