"""Distillation: a student learns the whole distribution of a teacher at each token of its own responses (Agarwal et al.
2023, arXiv 2306.13649, "GKD").

A step with the student's data samples responses to prompts from the student; another reads demonstrations. On each
token of a response the loss is the generalised Jensen-Shannon divergence of student and teacher (eq. 1), a mean over
tokens; no gradient flows through the sampling. student_share is the paper's lambda: 1 is on-policy distillation, 0 the
supervised kind. beta 0 is the forward KL(teacher || student), which covers all that the teacher does; beta 1 the
reverse KL, which avoids what the teacher does not do.

DEVIATIONS: whether a step is of the student's data is drawn for each step, as in the paper's algorithm 1, and log-probs
are taken at the sampling temperature, of student and teacher alike. All models of a run have one architecture, so that
the teacher is as large as the student.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.data.sources import Source
from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import generalized_jsd_loss, kl_exact, token_entropy
from rlhf_jax.ranges import NEUTRAL, STEPS, PositiveInt, Share
from rlhf_jax.reduce import token_weights, weighted_sum
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import DemonstrationFile, RowLength, Stage, StageName, Transport
from rlhf_jax.train import (
  Functions,
  Loop,
  Lora,
  LossFn,
  Optimizer,
  Sampling,
  adapt,
  by_rows,
  check_length,
  count_tokens,
  frozen,
  identity,
  init_state,
  load_policy,
  load_prompts,
  make_optimizer,
  make_sampler,
  make_update,
  open_workspace,
  run_steps,
  stage_key,
)
from rlhf_jax.train.batches import load_demonstrations
from rlhf_jax.train.row_sources import PromptRows
from rlhf_jax.types import Array, Batch, Mean, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of distillation."""

  algorithm: str
  """Module that carries out the stage."""
  init: StageName
  """Stage whose policy the student starts from."""
  teacher: StageName
  """Stage whose policy is the teacher."""
  prompts: PromptRows
  """File of prompts that the student answers."""
  demonstrations: DemonstrationFile | Source = ""
  """File of rows (see `rlhf_jax.data.read_demonstrations`) or source of them, read in the steps that are not of the
  student's data; "" where student_share is 1."""
  student_share: Share
  """Share of the steps that learn from the student's own responses, between 0 and 1; the paper's lambda."""
  beta: Share
  """Interpolation of the divergence, between 0, the forward KL, and 1, the reverse KL."""
  num_steps: Annotated[PositiveInt, STEPS]
  """Number of optimiser steps."""
  batch_size: PositiveInt
  """Number of responses, or of packed rows of demonstrations, in a step."""
  sampling: Sampling
  """Settings of sampling the student's responses; log-probs are taken at its temperature."""
  length: RowLength = 0
  """Number of tokens in a row of demonstrations."""
  optimizer: Optimizer
  """Settings of the optimiser."""
  checkpoint_every: Annotated[PositiveInt, NEUTRAL]
  """Number of steps between checkpoints; there is always one at the end."""
  loop: Loop = Loop()
  """Settings of checkpoints, of an early end and of numbers that are not finite."""
  lora: Lora | None = None
  """Settings of the adapters that are trained; None trains all parameters."""

  def __post_init__(self):
    if self.student_share < 1 and not self.demonstrations:
      raise ValueError(f"student_share={self.student_share} reads demonstrations in other steps: name their file")
    if self.sampling.temperature == 0:
      raise ValueError("sampling.temperature=0 divides the logits of both models: set it above 0")


class Taught(NamedTuple):
  """A batch with what the teacher says of it."""

  batch: Batch
  """Sequences, with the mask of the tokens that are learnt."""
  logits: Array
  """f32[B, T, V], of the teacher."""


def make_loss(apply: Callable, *, beta: float, temperature: float = 1.0) -> LossFn:
  """The divergence; `apply(params, tokens[B, T], segments) -> logits[B, T, V]`, weights f32[B, T]."""

  def loss_fn(params, taught: Taught, weights):
    batch = taught.batch
    student = apply(params, batch.tokens, batch.segments) / temperature
    teacher = taught.logits / temperature
    loss = generalized_jsd_loss(student, teacher, beta=beta, mask=batch.mask)  # [B, T]
    metrics = {
      "kl/teacher": kl_exact(student, teacher, mask=batch.mask),
      "policy/entropy": token_entropy(student, mask=batch.mask),
    }
    return weighted_sum(loss, weights), {
      name: Mean(jax.lax.stop_gradient(values), weights) for name, values in metrics.items()
    }

  return loss_fn


def build(config: Config, model: LanguageModel, transport: Transport, num_steps: int) -> Functions:
  """(optimizer, update, logits_of): the compiled functions of a run of num_steps."""
  loss_fn = make_loss(model.apply, beta=config.beta, temperature=config.sampling.temperature)
  optimizer = make_optimizer(config.optimizer, num_steps)
  return optimizer, make_update(loss_fn, optimizer, transport), jax.jit(by_rows(model.apply, transport))


def run(config: Config, stage: Stage) -> None:
  """Trains the student of `init` for num_steps."""
  if stage.transport.logits_chunk:
    raise ConfigError(f"config.transport.logits_chunk: stage {stage.name!r} compares whole distributions; set it to 0")
  tokenizer, model = open_workspace(stage)
  check_length(model, config.length)
  prompts = load_prompts(config.prompts, stage, tokenizer, config.sampling.max_prompt_tokens)
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)
  rows: Any = None
  if config.student_share < 1:
    rows = load_demonstrations(
      config.demonstrations, stage, tokenizer, length=config.length, batch_size=config.batch_size, num_epochs=1,
      eval_fraction=0.0,
    )  # fmt: skip
  teacher = frozen(model, load_policy(stage, config.teacher, model, tokenizer))
  optimizer, update, logits_of = build(config, model, stage.transport, config.num_steps)

  def batch_of(params, index: int) -> tuple[Batch, float]:
    """The batch of step `index`, and 1 where it is of the student's data."""
    if rows and np.random.default_rng((stage.stage_seed, index)).random() >= config.student_share:
      return rows.take((), index)[0], 0.0
    chosen = data.batch_indices(len(prompts.texts), config.batch_size, index, stage.stage_seed)
    rollout, _ = sample(params, prompts.take(chosen)[1], jax.random.fold_in(stage_key(stage), index))
    return Batch(rollout.tokens, rollout.mask), 1.0

  def step(state: TrainState, index: int):
    batch, own = batch_of(state.params, index)
    taught = Taught(batch, logits_of(teacher, batch.tokens, batch.segments))
    state, metrics = update(state, taught, token_weights(batch.mask))
    return state, {**metrics, "student_share": own, "tokens/trained": count_tokens(batch.mask)}

  run_steps(
    stage, init_state(adapt(config.lora, stage, load_policy(stage, config.init, model, tokenizer)), optimizer), step,
    config.num_steps, identity=identity(stage, model, tokenizer), checkpoint_every=config.checkpoint_every,
    loop=config.loop,
  )  # fmt: skip
