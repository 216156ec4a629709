"""A process reward model: whether each step of a response is right (Uesato et al. 2022, arXiv 2211.14275; Lightman et
al. 2023, arXiv 2305.20050).

The reward of a step is read at its last token, of the last step at the end of the turn, from a head on the policy of
`init`. It is the log odds that the step is right, and its loss the cross-entropy, -log sigmoid(r) or -log sigmoid(-r);
every labelled step of a batch weighs the same. The steps of a response are its lines. The score of a whole response,
as the reward of a stage of RL reads it, is the reward of its last step.

DEVIATIONS. Lightman et al. have a third label, neutral, and predict the label as a token; here a head predicts one of
two. Their score of a solution is the product of the probabilities of its steps, exp(sum log sigmoid(r)).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlhf_jax import data
from rlhf_jax.models import LanguageModel, only_scored
from rlhf_jax.objectives import correctness_loss
from rlhf_jax.ranges import EVALUATION, NEUTRAL, NonNegativeInt, PositiveInt, Share
from rlhf_jax.reduce import weighted_sum
from rlhf_jax.stage import RowLength, Stage, StageName, Transport
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
  stage_key,
)
from rlhf_jax.train.heldout import pooled_metrics
from rlhf_jax.train.row_sources import StepRows
from rlhf_jax.train.steps import load_steps
from rlhf_jax.types import Array, Mean, Params, TrainState

Value = Callable[[Params, Array], jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of a process reward model."""

  algorithm: str
  """Module that carries out the stage."""
  init: StageName
  """Stage whose policy is the start."""
  steps: StepRows
  """File of rows with responses in steps and their labels (see `rlhf_jax.data.read_steps`)."""
  eval_fraction: Share
  """Share of the prompts held out for evaluation, between 0 and 1; 0 for no evaluation."""
  num_epochs: PositiveInt
  """Number of passes over the training responses."""
  batch_size: PositiveInt
  """Number of responses in an optimiser step."""
  length: RowLength = 0
  """Number of tokens of prompt and response; a longer response is skipped and counted."""
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


@struct.dataclass
class Stepwise:
  """tokens: i32[N, T]. correct: bool[N, T], the label of the step that ends at a token."""

  tokens: Array
  correct: Array


def step_rewards(value: Value, params: Params, tokens: Array) -> jax.Array:
  """The reward f32[N, T] of what stands up to and with each token; `value(params, tokens[N, T]) -> f32[N, T]`.

  The value at index t has seen the tokens before t: a token more at the end makes it the reward at t - 1.
  """
  return value(params, jnp.pad(tokens, ((0, 0), (0, 1))))[:, 1:]


def make_loss(value: Value) -> LossFn:
  """The cross-entropy of the steps of `Stepwise` rows; weights f32[N, T] are above 0 where a step ends."""

  def loss_fn(params, batch: Stepwise, weights):
    rewards = step_rewards(value, params, batch.tokens)  # [N, T]
    ends = (weights > 0).astype(jnp.float32)
    losses = correctness_loss(rewards, batch.correct, mask=ends)
    sides = jnp.where(batch.correct, 1, -1) * jnp.sign(rewards)
    metrics = {
      "accuracy": Mean((sides + 1) / 2, ends),
      "reward/right": Mean(rewards, ends * batch.correct),
      "reward/wrong": Mean(rewards, ends * ~batch.correct),
    }
    return weighted_sum(losses, weights), metrics

  return loss_fn


def build(config: Config, model: LanguageModel, transport: Transport, num_steps: int) -> Functions:
  """(optimizer, update, measure): the compiled functions of a run of num_steps."""
  return make_functions(make_loss(model.value), config.optimizer, num_steps, transport)


def run(config: Config, stage: Stage) -> None:
  """Trains on the labelled steps for num_epochs."""
  tokenizer, model = open_workspace(stage)
  check_length(model, config.length)
  train, held_out = load_steps(config.steps, stage, tokenizer, config.length, config.eval_fraction)
  num_steps = max(config.num_epochs * len(train["tokens"]) // config.batch_size, 1)
  optimizer, update, measure = build(config, model, stage.transport, num_steps)

  def batch_of(rows: Mapping[str, np.ndarray], indices, present):
    chosen = data.take(rows, indices)
    ends = chosen["ends"] & present[:, None]
    return Stepwise(chosen["tokens"], chosen["correct"]), (ends / max(ends.sum(), 1)).astype(np.float32)

  def step(state: TrainState, index: int):
    indices = data.batch_indices(len(train["tokens"]), config.batch_size, index, stage.stage_seed)
    batch, weights = batch_of(train, indices, np.ones(len(indices), bool))
    state, metrics = update(state, batch, weights)
    read = np.flip(np.maximum.accumulate(np.flip(train["ends"][indices], 1), axis=1), 1)  # up to the last step's end
    return state, {**_known(metrics, train, indices), "tokens/trained": count_tokens(read)}

  def evaluate(state: TrainState):
    def measured(rows, present):
      batch, weights = batch_of(held_out, rows, present)
      metrics = measure(state.params, batch, weights)
      return {**metrics, "loss": Mean((weights > 0).sum() * metrics["loss"].values, (weights > 0).sum())}

    pooled = pooled_metrics(measured, len(held_out["tokens"]), config.batch_size)
    return _known(pooled, held_out, np.arange(len(held_out["tokens"])))

  def initial():
    policy = load_policy(stage, config.init, model, tokenizer)
    return adapt(config.lora, stage, only_scored(model.init_head(stage_key(stage), policy)))

  run_steps(
    stage, init_state(initial(), optimizer), step, num_steps, identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every, loop=config.loop, evaluate=evaluate if len(held_out["tokens"]) else None,
    evaluate_every=config.evaluate_every,
  )  # fmt: skip


def _known(metrics: Mapping, rows: Mapping[str, np.ndarray], indices: np.ndarray) -> dict:
  """The metrics without those of a kind of step of which there is none."""
  ends, correct = rows["ends"][indices], rows["correct"][indices]
  absent = {"reward/right": not (ends & correct).any(), "reward/wrong": not (ends & ~correct).any()}
  return {name: metric for name, metric in metrics.items() if not absent.get(name)}
