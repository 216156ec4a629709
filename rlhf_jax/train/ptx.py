"""A mix of pretraining in the loss of reinforcement learning: PPO-ptx (InstructGPT, arXiv 2203.02155, eq. 2).

Each update adds `coef` times the language-model loss of rows of text to the loss of its episodes, in one gradient. The
rows of an update are a function of the stage's seed and the number of the update.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.data.sources import Source
from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import lm_loss
from rlhf_jax.ranges import NonNegativeFloat, PositiveInt
from rlhf_jax.reduce import token_weights, weighted_sum
from rlhf_jax.stage import RowLength, Stage, TextFile
from rlhf_jax.train.update import LossFn, Metrics, Update
from rlhf_jax.train.workspace import check_length, policy_of
from rlhf_jax.types import Array, Batch, Experience, Mean, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ptx:
  """Settings of the text whose language-model loss is part of the loss of reinforcement learning."""

  text: TextFile | Source
  """File of plain text, or of rows {text} or dialogues, or a source of them, read at once."""
  coef: NonNegativeFloat
  """Weight of the loss of the text, a mean over its tokens, in units of advantage per nat; 27.8 in InstructGPT."""
  rows: PositiveInt = 1
  """Number of rows of text for each episode of an update; 8 in InstructGPT."""
  length: RowLength = 0
  """Number of tokens in a row of text."""


def with_ptx(settings: Ptx | None, loss_fn: LossFn, apply: Callable[..., Any]) -> LossFn:
  """`loss(params, (batch, texts), (weights, text_weights))`, the loss of both; `loss_fn` itself without settings.

  texts is a `Batch` of [B, rows, length] and text_weights f32[B, rows, length], B the rows of the batch; the weights
  sum to one over the whole batch. apply(params, tokens, segments) -> logits, of the parameters of the policy.
  """
  if settings is None:
    return loss_fn
  coef = settings.coef

  def mixed(params, batch: tuple[Experience, Batch], weights):
    (episodes, texts), (shares, text_shares) = batch, weights
    loss, metrics = loss_fn(params, episodes, shares)
    texts, text_shares = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), (texts, text_shares))
    logits = apply(policy_of(params), texts.tokens, texts.segments)
    error = lm_loss(logits, texts.tokens, mask=texts.mask)  # [B * rows, length]
    return loss + coef * weighted_sum(error, text_shares), {**metrics, "ptx/loss": Mean(error, text_shares)}

  return mixed


class MixedUpdate:
  """An update whose every call is given the next rows of text beside its episodes."""

  def __init__(self, update: Update, texts: Callable[[int], tuple[Batch, Array]], first: int) -> None:
    """update: that of `with_ptx`. texts: the rows of text and their weights by the number of the call; first: the
    number of the first call."""
    self._update, self._texts, self._next = update, texts, first

  def __call__(self, state: TrainState, experience: Experience, weights: Array) -> tuple[TrainState, Metrics]:
    """The state after one step, and its metrics."""
    texts, shares = self._texts(self._next)
    self._next += 1
    return self._update(state, (experience, texts), (weights, shares))


def open_ptx(
  settings: Ptx | None, stage: Stage, model: LanguageModel, tokenizer: data.Tokenizer, *, episodes: int, updates: int
) -> Callable[[Update, int], Update]:
  """`mixed(update, index)`: the update of step `index` with the rows of text that it reads added to each of its calls.

  update is that of `with_ptx`. episodes: those of an update; updates: those of a step. Without settings the update is
  given back as it is.

  Raises:
    data.DataError: the text cannot be read, or is empty.
    ConfigError: the rows are longer than the model.
  """
  if settings is None:
    return lambda update, index: update
  from rlhf_jax.train.batches import load_texts  # read by no run without a text

  check_length(model, settings.length)
  batches = load_texts(
    settings.text, stage, tokenizer, eval_text="", eval_rows=0, length=settings.length,
    batch_size=episodes * settings.rows, num_steps=updates,
  )  # fmt: skip
  per_episode = settings.rows

  def texts(number: int) -> tuple[Batch, Array]:
    batch, _ = batches.take((), number)
    rows = jax.tree.map(lambda x: x.reshape(-1, per_episode, x.shape[-1]), batch)
    return rows, np.asarray(token_weights(rows.mask))

  return lambda update, index: MixedUpdate(update, texts, index * updates)
