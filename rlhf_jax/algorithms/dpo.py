"""Direct preference optimisation: a policy trained on comparisons, without a reward model and without sampling.

With d = log p(response) - log p_ref(response), h = d(chosen) - d(rejected) and l(x) = -log sigmoid(x), by `loss.name`:

  dpo           l(beta h) (Rafailov et al. 2023, arXiv 2305.18290, eq. 7). Where the labels follow Bradley-Terry its
                optimum is that of RLHF, p_ref exp(r / beta) / Z. `label_smoothing`: conservative DPO.
  robust        dpo without the bias of flipped labels, a share `label_smoothing` of all (arXiv 2403.00409)
  sigmoid_norm  dpo on means over the tokens of a response, in the place of sums
  ipo           (h - 1 / (2 beta))^2: h stops at a margin, also where all labels agree (arXiv 2310.12036)
  hinge         max(0, 1 - beta h) (SLiC, arXiv 2305.10425; with a reference as in arXiv 2309.06657)
  exo_pair      the reverse of the KL that dpo minimises between labels and policy (arXiv 2402.00856)
  discopop      a mixture of l(beta h) and exp(-beta h), found by a language model (arXiv 2406.08414); `temperature`
  aot, aot_unpaired  dpo on sorted margins, or sorted rewards, of the batch (arXiv 2406.05882)
  kto           each response alone is a gain or a loss relative to the KL z (arXiv 2402.01306); `desirable_weight`,
                `undesirable_weight`: the paper's lambdas. kto.py needs no pairs.
  bco_pair      l(beta d) of the chosen plus l(-beta d) of the rejected response (arXiv 2404.04656, without its shift)
  nca_pair      l(beta d) of the chosen, and half of l(-beta d) of both (arXiv 2402.05369)
  apo_zero, apo_down  the chosen response becomes likelier, or less likely, the rejected less so (arXiv 2408.06266)
  sppo_hard     d goes to 1 / (2 beta) for the chosen and to -1 / (2 beta) for the rejected response (arXiv 2405.00675)
  orpo          the NLL of the chosen response plus beta times a log odds ratio; no reference (arXiv 2403.07691)
  simpo         mean log-probs, a `margin`, no reference (arXiv 2405.14734)
  own           `function`: four arrays of log-probs of all pairs -> their losses, as `rlhf_jax.objectives.dpo_loss` is

`rlhf_jax.objectives` has each with its equation, and says where a loss is biased or odd. `loss.weighting="wpo"` weighs
a pair by how likely the policy writes its two responses (WPO, arXiv 2406.11827).

DEVIATIONS. A ranked group of K responses is one element of a batch, as in reward_model.py: K forwards serve its
K (K - 1) / 2 untied pairs, which share the group's weight; K = 2 is the papers' pair, which KTO takes as a desirable
and an undesirable response. z is estimated on mismatched pairs, as in the paper: each prompt with the first response of
the next group that has another prompt. Taking that group from the file, not from the batch, lets us compute the
reference's log-probs once. z is a mean over the whole batch. What aot sorts are the pairs that a device computes at
once, those of a microbatch. Log-probs are at temperature 1: sums over a response's tokens and its <eos> (IPO is often
run on means, a different loss), for sigmoid_norm, orpo and simpo means.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlhf_jax import data
from rlhf_jax.models import LanguageModel
from rlhf_jax.positions import positions_of
from rlhf_jax.ranges import EVALUATION, NEUTRAL, NonNegativeInt, PositiveInt, Share
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
from rlhf_jax.train.comparisons import ComparisonSet, load_comparisons, pair_weights
from rlhf_jax.train.heldout import pooled_metrics
from rlhf_jax.train.pair_losses import Loss, pair_loss, sign_of
from rlhf_jax.train.response_logprobs import (
  logprobs_and_wpo_weights,
  logprobs_in_batches,
  mismatched_rows,
  response_logprobs,
)
from rlhf_jax.train.row_sources import ComparisonRows
from rlhf_jax.types import Array, Mean, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of direct preference optimisation."""

  algorithm: str
  """Module that carries out the stage."""
  init: StageName
  """Stage whose policy is the start and the reference."""
  comparisons: ComparisonRows
  """File of rows with ranked responses (see `rlhf_jax.data.read_comparisons`)."""
  eval_fraction: Share
  """Share of the prompts held out for evaluation, between 0 and 1; 0 for no evaluation."""
  num_epochs: PositiveInt
  """Number of passes over the training groups."""
  batch_size: PositiveInt
  """Number of groups in an optimiser step."""
  length: RowLength = 0
  """Number of tokens of prompt and response; a group with a longer response is skipped and counted."""
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
class Groups:
  """tokens: i32[N, K, T], K responses to each prompt. mask: bool[N, K, T], True on the response and its <eos>.

  ref_logp: f32[N, K], the reference's log-probs of the responses. kl: f32[N], KTO's z in every row, 0 for other losses.
  at: i32[N, K, M], the positions of the mask; None for a forward of all T.
  """

  tokens: Array
  mask: Array
  ref_logp: Array
  kl: Array
  at: Array | None = None


def make_loss(apply: Callable, settings: Loss) -> LossFn:
  """The loss of every pair of `Groups`; weights f32[N, K, K] are above 0 where response i was preferred to j."""
  loss_of = pair_loss(settings)

  def loss_fn(params, batch: Groups, weights):
    if settings.weighting == "wpo":
      logp, wpo = logprobs_and_wpo_weights(apply, params, batch.tokens, batch.mask, batch.at)  # [N, K]
    else:
      logp, wpo = response_logprobs(apply, params, batch.tokens, batch.mask, batch.at), None  # [N, K]
    lengths = jnp.maximum(jnp.sum(batch.mask, axis=-1), 1) if settings.known.of_means else 1
    given, ref_logp = logp / lengths, batch.ref_logp / lengths
    score = given if settings.known.reference_free else given - ref_logp
    gap = score[:, :, None] - score[:, None, :]  # [N, K, K], nats
    pairs = (weights > 0).astype(jnp.float32)
    loss = loss_of(given, ref_logp, batch.kl, pairs)  # [N, K, K]
    loss = loss if wpo is None else loss * wpo[:, :, None] * wpo[:, None, :]
    metrics = {
      "accuracy": Mean((sign_of(gap) + 1) / 2, pairs),
      "margin": Mean(settings.beta * gap, pairs),
      "reward/chosen": Mean(settings.beta * jnp.broadcast_to(score[:, :, None], gap.shape), pairs),
      "reward/rejected": Mean(settings.beta * jnp.broadcast_to(score[:, None, :], gap.shape), pairs),
      "kl/forward": Mean(batch.ref_logp - logp, jnp.any(batch.mask, axis=-1).astype(jnp.float32)),
    }
    if settings.name == "kto":
      metrics["kl/mismatch"] = Mean(batch.kl, jnp.any(batch.mask, axis=(1, 2)).astype(jnp.float32))
    return weighted_sum(loss, weights), metrics

  return loss_fn


def build(config: Config, model: LanguageModel, transport: Transport, num_steps: int) -> Functions:
  """(optimizer, update, measure): the compiled functions of a run of num_steps."""
  return make_functions(make_loss(model.apply, config.loss), config.optimizer, num_steps, transport)


def run(config: Config, stage: Stage) -> None:
  """Trains on the comparisons for num_epochs."""
  tokenizer, model = open_workspace(stage)
  check_length(model, config.length)
  logprobs = by_rows(lambda *rows: response_logprobs(model.apply, *rows), stage.transport)
  splits = load_comparisons(config.comparisons, stage, tokenizer, config.length, config.eval_fraction)
  reference = load_policy(stage, config.init, model, tokenizer)
  train, held_out = (_rows(config, tokenizer, jax.jit(logprobs), reference, split) for split in splits)
  del reference  # its log-probs are all that is read of it
  num_steps = max(config.num_epochs * len(train["tokens"]) // config.batch_size, 1)
  optimizer, update, measure = build(config, model, stage.transport, num_steps)

  @jax.jit
  def mismatch_kl(params, tokens, mask, at, ref_logp):
    return masked_mean(logprobs(params, tokens, mask, at) - ref_logp, jnp.any(mask, axis=-1))

  def batch_of(params, rows, indices, present):
    chosen = data.take(rows, indices)
    chosen |= {key: array & present[:, None, None] for key, array in chosen.items() if key in ("mask", "other_mask")}
    keys = ("tokens", "mask", "at", "ref_logp") if config.loss.name == "kto" else ()
    other = [chosen[f"other_{key}"] for key in keys]
    kl = np.full(len(indices), mismatch_kl(params, *other) if other else 0.0, np.float32)
    ranks = np.where(present[:, None], chosen["ranks"], -1)
    return Groups(chosen["tokens"], chosen["mask"], chosen["ref_logp"], kl, chosen["at"]), pair_weights(ranks)

  def step(state: TrainState, index: int):
    indices = data.batch_indices(len(train["tokens"]), config.batch_size, index, stage.stage_seed)
    state, metrics = update(state, *batch_of(state.params, train, indices, np.ones(len(indices), bool)))
    return state, {**metrics, "tokens/trained": count_tokens(train["mask"][indices])}

  def evaluate(state: TrainState):
    def measured(rows, present):
      batch, weights = batch_of(state.params, held_out, rows, present)
      groups, metrics = (weights > 0).any(axis=(1, 2)).sum(), measure(state.params, batch, weights)
      return {**metrics, "loss": Mean(groups * metrics["loss"].values, groups)}

    return pooled_metrics(measured, len(held_out["tokens"]), config.batch_size)

  run_steps(
    stage, init_state(adapt(config.lora, stage, load_policy(stage, config.init, model, tokenizer)), optimizer), step,
    num_steps, identity=identity(stage, model, tokenizer), checkpoint_every=config.checkpoint_every, loop=config.loop,
    evaluate=evaluate if len(held_out["tokens"]) else None, evaluate_every=config.evaluate_every,
  )  # fmt: skip


def _rows(config: Config, tokenizer, logprobs, reference, split: ComparisonSet) -> dict[str, np.ndarray]:
  """Arrays of the groups: tokens, mask, ranks, ref_logp; for KTO also those of the mismatched pairs, as other_*."""
  rows = dict(split.rows)
  tokens, mask, at = (rows[key] for key in ("tokens", "mask", "at"))
  rows["ref_logp"] = logprobs_in_batches(logprobs, reference, tokens, mask, at, config.batch_size)
  if config.loss.name == "kto":
    prompts, firsts = [group.prompt for group in split.groups], [group.responses[0] for group in split.groups]
    tokens, mask = (x[:, None] for x in mismatched_rows(tokenizer, prompts, firsts, config.length))
    at = positions_of(mask)
    rows |= {"other_tokens": tokens, "other_mask": mask, "other_at": at}
    rows["other_ref_logp"] = logprobs_in_batches(logprobs, reference, tokens, mask, at, config.batch_size)
  return rows
