"""Pretraining: next-token prediction on plain text (Radford et al. 2019).

Loss: the mean over all tokens of the batch of -log p(token | what precedes it in its row). Rows are consecutive cuts
of the text, each behind <bos>; the text carries no <eos>, which the model first meets in fine-tuning.
"""

from __future__ import annotations

import dataclasses

import jax

from rlhf_jax.data.mixture import Mixture
from rlhf_jax.objectives import lm_loss
from rlhf_jax.reduce import token_weights, weighted_sum
from rlhf_jax.stage import Stage
from rlhf_jax.train import (
  Optimizer,
  identity,
  init_state,
  jit,
  load_texts,
  make_optimizer,
  make_update,
  open_workspace,
  run_steps,
  stage_key,
)
from rlhf_jax.types import Batch, Mean


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  text, eval_text: files of plain text, or of rows whose dialogues are used; where eval_text is "", eval_rows rows of
  `text` are held out. text may also be a mixture (`data.mixture.Mixture`) of texts and demonstrations; then eval_text
  is needed. length: tokens in a row. z_loss: weight of log(Z)^2 (arXiv 2204.02311, section 5).
  """

  algorithm: str
  text: str | Mixture
  eval_text: str
  eval_rows: int
  num_steps: int
  batch_size: int
  length: int
  z_loss: float
  optimizer: Optimizer
  evaluate_every: int
  checkpoint_every: int


def make_loss(apply, *, z_loss: float):
  """The LM loss of `apply(params, tokens, segments) -> logits`, weighted per token."""

  def loss_fn(params, batch: Batch, weights):
    logits = apply(params, batch.tokens, batch.segments)
    error = lm_loss(logits, batch.tokens, z_loss=z_loss, mask=batch.mask)  # [B, T]
    return weighted_sum(error, weights), {}

  return loss_fn


def run(config: Config, stage: Stage) -> None:
  """Trains from random parameters."""
  tokenizer, model = open_workspace(stage)
  if config.length > model.config.max_length:
    raise ValueError(f"length={config.length} exceeds model.max_length={model.config.max_length}")
  feed = load_texts(
    config.text,
    stage,
    tokenizer,
    eval_text=config.eval_text,
    eval_rows=config.eval_rows,
    length=config.length,
    batch_size=config.batch_size,
    num_steps=config.num_steps,
  )
  loss_fn = make_loss(model.apply, z_loss=config.z_loss)
  optimizer = make_optimizer(config.optimizer, config.num_steps)
  update = make_update(loss_fn, optimizer, stage.transport)
  held_out = Batch(**feed.held_out)

  @jit
  def evaluate(params):
    loss, _ = make_loss(model.apply, z_loss=0.0)(params, held_out, token_weights(held_out.mask))
    return {"loss": Mean(loss, jax.numpy.ones(()))}

  def step(state, index):
    batch, position = feed.take(state.extra, index)
    state, metrics = update(state, batch, token_weights(batch.mask))
    return state.replace(extra=position), metrics

  run_steps(
    stage,
    init_state(model.init(stage_key(stage)), optimizer, feed.start),
    step,
    config.num_steps,
    identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every,
    evaluate=lambda state: evaluate(state.params),
    evaluate_every=config.evaluate_every,
  )
  feed.report()
