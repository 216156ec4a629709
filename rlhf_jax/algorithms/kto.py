"""KTO and its relatives: a policy from single responses with a label, good or bad, without pairs and without sampling.

With s = 1 for a desirable response and -1 for another, and d = log p(response) - log p_ref(response), the loss of a
response is, times `desirable_weight` or `undesirable_weight`,

  kto       1 - sigmoid(s beta (d - z)), z an estimate of KL(policy || reference), at least 0 (Ethayarajh et al. 2024,
            arXiv 2402.01306, eq. 7; the weights are its lambdas)
  bco       -log sigmoid(s (beta d - delta)), delta half the sum of the mean beta d of desirable and of undesirable
            responses (Jung et al. 2024, arXiv 2404.04656)
  apo_zero  1 - sigmoid(s beta d), which is kto with z = 0 (D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7)

z and delta are computed for a whole batch before its update, without gradient. The KTO paper advises weights with which
the total weight of desirable responses is 1 to 4/3 times that of the undesirable ones.

Rows are {prompt, response, label}; of comparisons the best responses are desirable and the worst are not.

DEVIATIONS. z is the mean of d over mismatched pairs, as in the paper: the prompts of the batch, each with the next
response of the file that answers another prompt. Taking it from the file, not from the batch, lets the reference's
log-probs be computed once. BCO's delta is of the batch, where the paper has a running mean, and a kind of response that
a batch lacks counts as 0 in it; its reweighing of undesirable prompts is left out. Log-probs are sums over a response's
tokens and its <eos>, at temperature 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlhf_jax import data
from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import bco_loss, kto_loss
from rlhf_jax.positions import positions_of
from rlhf_jax.ranges import (
  EVALUATION,
  NEUTRAL,
  NonNegativeFloat,
  NonNegativeInt,
  PositiveFloat,
  PositiveInt,
  Share,
)
from rlhf_jax.reduce import masked_mean, weighted_sum
from rlhf_jax.stage import RowLength, Stage, StageName, Transport
from rlhf_jax.train import (
  Functions,
  Loop,
  Lora,
  LossFn,
  Optimizer,
  adapt,
  by_rows,
  check_length,
  count_tokens,
  identity,
  init_state,
  load_policy,
  make_functions,
  open_workspace,
  run_steps,
)
from rlhf_jax.train.heldout import pooled_metrics
from rlhf_jax.train.labelled import LabelledSet, load_labelled
from rlhf_jax.train.pair_losses import sign_of
from rlhf_jax.train.response_logprobs import logprobs_in_batches, mismatched_rows, response_logprobs
from rlhf_jax.train.row_sources import UnpairedRows
from rlhf_jax.types import Array, Mean, TrainState

LEVELS = {"kto": "kl/mismatch", "bco": "reward/shift"}  # what the metric of z and of delta is called


@dataclasses.dataclass(frozen=True)
class Loss:
  """Settings of the loss."""

  name: Literal["kto", "bco", "apo_zero"]
  """Name of the loss, as listed at the head of `rlhf_jax.algorithms.kto`."""
  beta: PositiveFloat
  """Coefficient of the KL to the reference, in units of reward per nat."""
  desirable_weight: NonNegativeFloat = 1.0
  """Weight of desirable responses."""
  undesirable_weight: NonNegativeFloat = 1.0
  """Weight of undesirable responses."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of learning from single responses."""

  algorithm: str
  """Module that carries out the stage."""
  init: StageName
  """Stage whose policy is the start and the reference."""
  labelled: UnpairedRows
  """File of rows with a response and its label (see `rlhf_jax.data.read_unpaired`)."""
  eval_fraction: Share
  """Share of the prompts held out for evaluation, between 0 and 1; 0 for no evaluation."""
  num_epochs: PositiveInt
  """Number of passes over the training responses."""
  batch_size: PositiveInt
  """Number of responses in an optimiser step; z is noisy below 8 or so."""
  length: RowLength = 0
  """Number of tokens of prompt and response; a longer response is skipped and counted."""
  loss: Loss
  """Loss and its settings."""
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
class Labelled:
  """tokens: i32[N, T]. mask: bool[N, T], True on the response and its <eos>. desirable: bool[N].

  ref_logp: f32[N], the reference's log-probs of the responses. baseline: f32[N], z in nats (kto) or delta in units of
  reward (bco), the same in every row; 0 for apo_zero. at: i32[N, M],
  the positions of the mask (see `rlhf_jax.positions`), or None.
  """

  tokens: Array
  mask: Array
  desirable: Array
  ref_logp: Array
  baseline: Array
  at: Array | None = None


def make_loss(apply: Callable, settings: Loss) -> LossFn:
  """The loss of `Labelled` responses; weights f32[N]."""
  beta = settings.beta

  def loss_fn(params, batch: Labelled, weights):
    logp = response_logprobs(apply, params, batch.tokens, batch.mask, batch.at)  # [N]
    arguments = (logp, batch.ref_logp, batch.desirable, batch.baseline)
    losses = (bco_loss if settings.name == "bco" else kto_loss)(*arguments, beta=beta, mask=weights > 0)
    losses *= jnp.where(batch.desirable, settings.desirable_weight, settings.undesirable_weight)
    reward = beta * (logp - batch.ref_logp)
    gap = reward / beta - (batch.baseline / beta if settings.name == "bco" else jnp.maximum(batch.baseline, 0))  # nats
    side = jnp.where(batch.desirable, 1, -1) * sign_of(gap)
    counted = (weights > 0).astype(jnp.float32)
    good, bad = counted * batch.desirable, counted * ~batch.desirable
    metrics = {
      "accuracy": Mean((side + 1) / 2, counted),
      "reward/desirable": Mean(reward, good),
      "reward/undesirable": Mean(reward, bad),
      "kl/forward": Mean(batch.ref_logp - logp, counted),
    }
    if settings.name in LEVELS:
      metrics[LEVELS[settings.name]] = Mean(batch.baseline, counted)
    return weighted_sum(losses, weights), metrics

  return loss_fn


def make_baseline(logprobs: Callable, settings: Loss) -> Callable[..., jax.Array]:
  """`baseline(params, tokens, mask, at, ref_logp, desirable) -> f32[]`: z (kto) or delta (bco), from N rows.

  logprobs(params, tokens, mask, at) -> f32[N]; tokens, mask[N, T]; at[N, M]; ref_logp f32[N]; desirable bool[N].
  """

  @jax.jit
  def baseline(params, tokens, mask, at, ref_logp, desirable):
    gap, present = logprobs(params, tokens, mask, at) - ref_logp, jnp.any(mask, axis=-1)
    if settings.name == "kto":
      return masked_mean(gap, present)
    good, bad = (masked_mean(gap, present & kind) for kind in (desirable, ~desirable))
    return 0.5 * settings.beta * (good + bad)

  return baseline


def build(config: Config, model: LanguageModel, transport: Transport, num_steps: int) -> Functions:
  """(optimizer, update, measure): the compiled functions of a run of num_steps."""
  return make_functions(make_loss(model.apply, config.loss), config.optimizer, num_steps, transport)


def run(config: Config, stage: Stage) -> None:
  """Trains on the labelled responses for num_epochs."""
  tokenizer, model = open_workspace(stage)
  check_length(model, config.length)
  logprobs = by_rows(lambda *rows: response_logprobs(model.apply, *rows), stage.transport)
  splits = load_labelled(config.labelled, stage, tokenizer, config.length, config.eval_fraction)
  reference = load_policy(stage, config.init, model, tokenizer)
  train, held_out = (_rows(config, tokenizer, jax.jit(logprobs), reference, split) for split in splits)
  del reference  # its log-probs are all that is read of it
  num_steps = max(config.num_epochs * len(train["tokens"]) // config.batch_size, 1)
  optimizer, update, measure = build(config, model, stage.transport, num_steps)
  baseline, source = make_baseline(logprobs, config.loss), "other_" if config.loss.name == "kto" else ""

  def batch_of(params, rows: Mapping[str, np.ndarray], indices, present):
    chosen = data.take(rows, indices)
    chosen |= {key: array & present[:, None] for key, array in chosen.items() if key in ("mask", "other_mask")}
    read = [chosen[f"{source}{key}"] for key in ("tokens", "mask", "at", "ref_logp")]
    level = 0.0 if config.loss.name == "apo_zero" else baseline(params, *read, chosen["desirable"])
    arrays = {key: chosen[key] for key in ("tokens", "mask", "at", "desirable", "ref_logp")}
    weights = (present / max(present.sum(), 1)).astype(np.float32)
    return Labelled(**arrays, baseline=np.full(len(indices), level, np.float32)), weights

  def step(state: TrainState, index: int):
    indices = data.batch_indices(len(train["tokens"]), config.batch_size, index, stage.stage_seed)
    state, metrics = update(state, *batch_of(state.params, train, indices, np.ones(len(indices), bool)))
    return state, {
      **_known(metrics, train["desirable"][indices]),
      "tokens/trained": count_tokens(train["mask"][indices]),
    }

  def evaluate(state: TrainState):
    def measured(rows, present):
      metrics = measure(state.params, *batch_of(state.params, held_out, rows, present))
      return {**metrics, "loss": Mean(present.sum() * metrics["loss"].values, present.sum())}

    return _known(pooled_metrics(measured, len(held_out["tokens"]), config.batch_size), held_out["desirable"])

  run_steps(
    stage, init_state(adapt(config.lora, stage, load_policy(stage, config.init, model, tokenizer)), optimizer), step,
    num_steps, identity=identity(stage, model, tokenizer), checkpoint_every=config.checkpoint_every, loop=config.loop,
    evaluate=evaluate if len(held_out["tokens"]) else None, evaluate_every=config.evaluate_every,
  )  # fmt: skip


def _known(metrics: Mapping, desirable: np.ndarray) -> dict:
  """The metrics without those of a kind of response of which there is none."""
  absent = {"reward/desirable": not desirable.any(), "reward/undesirable": bool(desirable.all())}
  return {name: metric for name, metric in metrics.items() if not absent.get(name)}


def _rows(config: Config, tokenizer, logprobs, reference, split: LabelledSet) -> dict[str, np.ndarray]:
  """Arrays of the responses: tokens, mask, desirable, ref_logp; for KTO those of the mismatched pairs, as other_*."""
  rows = dict(split.rows)
  tokens, mask, at = (rows[key] for key in ("tokens", "mask", "at"))
  rows["ref_logp"] = logprobs_in_batches(logprobs, reference, tokens, mask, at, config.batch_size)
  if config.loss.name == "kto":
    prompts, responses = [x.prompt for x in split.responses], [x.response for x in split.responses]
    tokens, mask = mismatched_rows(tokenizer, prompts, responses, config.length)
    at = positions_of(mask)
    rows |= {"other_tokens": tokens, "other_mask": mask, "other_at": at}
    rows["other_ref_logp"] = logprobs_in_batches(logprobs, reference, tokens, mask, at, config.batch_size)
  return rows
