"""Direct preference optimisation: the policy from comparisons, without a reward model and without sampling.

  dpo    -log sigmoid(beta h), h = log(p / p_ref)(chosen) - log(p / p_ref)(rejected) (Rafailov et al. 2023, arXiv
         2305.18290, eq. 7). Where the labels follow Bradley-Terry its optimum is that of RLHF, p_ref exp(r / beta) / Z.
         `label_smoothing`: the share of labels taken to be flipped (conservative DPO).
  ipo    (h - 1 / (2 beta))^2: h stops at a margin, also where all labels agree (Azar et al. 2023, arXiv 2310.12036).
  kto    each response by itself is gained or lost against the KL z (Ethayarajh et al. 2024, arXiv 2402.01306);
         `desirable_weight`, `undesirable_weight`: the paper's lambdas.
  orpo   the NLL of the chosen and beta times an odds ratio; no reference (Hong et al. 2024, arXiv 2403.07691).
  simpo  mean log-probs, a `margin`, no reference (Meng et al. 2024, arXiv 2405.14734).

DEVIATIONS. A ranked group of K responses is one element of a batch, as in reward_model.py: K forwards serve its
K (K - 1) / 2 untied pairs, which share the group's weight; K = 2 is the papers' pair, which KTO takes as a desirable
and an undesirable response. As in the paper z is of responses put under the prompts of others, here of the next group
of the file rather than of the batch, so that the reference's part is computed once, as all of the reference's log-probs
are; it is taken over the whole batch before the update, and is the same however the batch is cut. The log-probs of dpo,
ipo and kto are sums over a response's tokens and its <eos> (IPO is often run on means, which is another loss), those of
orpo and simpo means; all are at temperature 1, whatever the responses were sampled at.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlhf_jax import data
from rlhf_jax.objectives import dpo_loss, ipo_loss, kto_loss, orpo_loss, simpo_loss, token_logprobs
from rlhf_jax.reduce import masked_mean, weighted_sum
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import (
  ComparisonSet,
  Lora,
  Optimizer,
  adapt,
  identity,
  init_state,
  jit,
  load_comparisons,
  load_policy,
  make_optimizer,
  make_update,
  open_workspace,
  pair_weights,
  run_steps,
)
from rlhf_jax.types import Mean

OPTIONS = {
  "dpo": ("label_smoothing",),
  "ipo": (),
  "kto": ("desirable_weight", "undesirable_weight"),
  "orpo": (),
  "simpo": ("margin",),
}
REFERENCE_FREE = ("orpo", "simpo")
TIE = 1e-4  # nats: before the first update policy and reference differ by rounding alone, and the accuracy is 1/2


@dataclasses.dataclass(frozen=True)
class Loss:
  """Which loss, and its settings; the others stay None, and a None of its own is the neutral value.

  beta: dpo and kto: of the KL; ipo: the paper's tau; orpo: the paper's lambda; simpo: the scale of the rewards.
  """

  name: Literal["dpo", "ipo", "kto", "orpo", "simpo"]
  beta: float
  label_smoothing: float | None = None
  desirable_weight: float | None = None
  undesirable_weight: float | None = None
  margin: float | None = None

  def __post_init__(self):
    if self.beta <= 0:
      raise ValueError(f"beta={self.beta} must be above 0")
    for key in {key for keys in OPTIONS.values() for key in keys} - set(OPTIONS[self.name]):
      if getattr(self, key) is not None:
        raise ValueError(f"{key} has no effect on the loss {self.name!r}: leave it out")

  @property
  def options(self) -> dict[str, float]:
    """The keyword arguments of the loss function."""
    keys = ("beta", *OPTIONS[self.name])
    return {key: getattr(self, key) for key in keys if getattr(self, key) is not None}


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  init: the stage whose policy is the start and the reference. comparisons: a file of rows (see
  `rlhf_jax.data.read_comparisons`). eval_fraction: share of the prompts held out. length: tokens of prompt and
  response; groups with a longer one are skipped. batch_size: groups.
  """

  algorithm: str
  init: StageName
  comparisons: str
  eval_fraction: float
  num_epochs: int
  batch_size: int
  length: int
  loss: Loss
  optimizer: Optimizer
  evaluate_every: int
  checkpoint_every: int
  lora: Lora | None = None


@struct.dataclass
class Groups:
  """tokens: i32[N, K, T], K responses to each prompt. mask: bool[N, K, T], True on the response and its <eos>.

  ref_logp: f32[N, K], summed over the response. kl: f32[N], KTO's z in every row, and 0 for the other losses.
  """

  tokens: jax.Array
  mask: jax.Array
  ref_logp: jax.Array
  kl: jax.Array


def response_logprobs(apply, params, tokens, mask) -> jax.Array:
  """log p(response | prompt) of `apply(params, tokens[M, T]) -> logits`; tokens, mask[N, K, T] -> f32[N, K]."""
  flat = tokens.reshape(-1, tokens.shape[-1])
  logp = token_logprobs(apply(params, flat), flat, mask=mask.reshape(flat.shape))
  return jnp.sum(logp, axis=-1).reshape(tokens.shape[:-1])


def make_loss(apply, settings: Loss):
  """The loss of every pair of a group; weights[N, K, K] are above 0 where response i was preferred to j."""

  def loss_fn(params, batch: Groups, weights):
    logp = response_logprobs(apply, params, batch.tokens, batch.mask)  # [N, K]
    is_pair = weights > 0
    if settings.name in REFERENCE_FREE:
      score = logp / jnp.maximum(jnp.sum(batch.mask, axis=-1), 1)
      loss_of = {"orpo": orpo_loss, "simpo": simpo_loss}[settings.name]
      loss = loss_of(score[:, :, None], score[:, None, :], mask=is_pair, **settings.options)
    else:
      loss = _reference_loss(settings, logp, batch, is_pair)  # [N, K, K]
      score = logp - batch.ref_logp
    gap = score[:, :, None] - score[:, None, :]  # [N, K, K], nats
    pairs = is_pair.astype(jnp.float32)
    metrics = {
      "accuracy": Mean((jnp.where(jnp.abs(gap) < TIE, 0.0, jnp.sign(gap)) + 1) / 2, pairs),
      "margin": Mean(settings.beta * gap, pairs),
      "kl/forward": Mean(batch.ref_logp - logp, jnp.any(batch.mask, axis=-1).astype(jnp.float32)),
    }
    if settings.name == "kto":
      metrics["kl/mismatch"] = Mean(batch.kl, jnp.any(batch.mask, axis=(1, 2)).astype(jnp.float32))
    return weighted_sum(loss, weights), metrics

  return loss_fn


def _reference_loss(settings, logp, batch, is_pair):
  chosen, rejected = logp[:, :, None], logp[:, None, :]
  ref_chosen, ref_rejected = batch.ref_logp[:, :, None], batch.ref_logp[:, None, :]
  if settings.name == "kto":
    loss_of = functools.partial(kto_loss, kl=batch.kl[:, None, None], mask=is_pair, **settings.options)
    return 0.5 * (loss_of(chosen, ref_chosen, True) + loss_of(rejected, ref_rejected, False))
  loss_of = {"dpo": dpo_loss, "ipo": ipo_loss}[settings.name]
  return loss_of(chosen, rejected, ref_chosen, ref_rejected, mask=is_pair, **settings.options)


def run(config: Config, stage: Stage) -> None:
  """Trains on the comparisons for num_epochs."""
  tokenizer, model = open_workspace(stage)
  if config.length > model.config.max_length:
    raise ValueError(f"length={config.length} exceeds model.max_length={model.config.max_length}")
  reference = load_policy(stage, config.init, model, tokenizer)
  logprobs = jit(functools.partial(response_logprobs, model.apply))
  splits = load_comparisons(stage.path(config.comparisons), tokenizer, config.length, config.eval_fraction, stage.seed)
  train, held_out = (_rows(config, tokenizer, logprobs, reference, split) for split in splits)
  num_rows = len(train["tokens"])
  num_steps = max(config.num_epochs * num_rows // config.batch_size, 1)
  loss_fn, optimizer = make_loss(model.apply, config.loss), make_optimizer(config.optimizer, num_steps)
  update, measure = make_update(loss_fn, optimizer, stage.transport), jit(loss_fn)

  @jit
  def mismatch_kl(params, tokens, mask, ref_logp):
    return masked_mean(response_logprobs(model.apply, params, tokens, mask) - ref_logp, jnp.any(mask, axis=-1))

  def batch_of(params, rows, indices):  # one shape for every batch: an index beyond the end is an absent group
    chosen, present = data.take(rows, indices % len(rows["tokens"])), indices < len(rows["tokens"])
    chosen |= {key: chosen[key] & present[:, None, None] for key in chosen if key in ("mask", "other_mask")}
    other = [chosen[f"other_{key}"] for key in ("tokens", "mask", "ref_logp")] if config.loss.name == "kto" else []
    kl = np.full(len(indices), mismatch_kl(params, *other) if other else 0.0, np.float32)
    ranks = np.where(present[:, None], chosen["ranks"], -1)
    return Groups(chosen["tokens"], chosen["mask"], chosen["ref_logp"], kl), pair_weights(ranks)

  def step(state, index):
    indices = data.batch_indices(num_rows, config.batch_size, index, stage.stage_seed)
    return update(state, *batch_of(state.params, train, indices))

  def evaluate(state):
    total = {}
    for start in range(0, len(held_out["tokens"]), config.batch_size):
      batch, weights = batch_of(state.params, held_out, np.arange(start, start + config.batch_size))
      groups, (loss, metrics) = (weights > 0).any(axis=(1, 2)).sum(), measure(state.params, batch, weights)
      part = {"loss": Mean(groups * loss, groups), **{name: metric.sum() for name, metric in metrics.items()}}
      total = {name: total[name] + part[name] for name in part} if total else part
    return total

  run_steps(
    stage,
    init_state(adapt(config.lora, stage, reference), optimizer),
    step,
    num_steps,
    identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every,
    evaluate=evaluate,
    evaluate_every=config.evaluate_every,
  )


def _rows(config, tokenizer, logprobs, reference, split: ComparisonSet) -> dict[str, np.ndarray]:
  """tokens, mask, ranks and ref_logp of the groups; for KTO also of each prompt with the next group's response."""
  rows = {**split.rows, "mask": _response_mask(tokenizer, split.groups, split.rows["mask"])}
  rows["ref_logp"] = _in_batches(logprobs, reference, rows["tokens"], rows["mask"], config.batch_size)
  if config.loss.name == "kto":
    following = [*split.groups[1:], split.groups[0]]
    others = [data.Comparison(a.prompt, b.responses[:1], (0,)) for a, b in zip(split.groups, following, strict=True)]
    found, kept, _ = data.comparison_rows(tokenizer, others, config.length)
    tokens, mask = (np.zeros((len(others), 1, config.length), found[key].dtype) for key in ("tokens", "mask"))
    tokens[kept], mask[kept] = found["tokens"], found["mask"]  # what is too long together has no token in z
    mask = _response_mask(tokenizer, others, mask)
    rows |= {"other_tokens": tokens, "other_mask": mask}
    rows["other_ref_logp"] = _in_batches(logprobs, reference, tokens, mask, config.batch_size)
  return rows


def _response_mask(tokenizer, groups, mask):
  """The mask[N, K, T] of all real tokens without those of the prompt."""
  prompts, _, _ = data.prompt_rows(tokenizer, [group.prompt for group in groups], mask.shape[-1])
  return mask & (np.arange(mask.shape[-1]) >= prompts["lengths"][:, None, None])


def _in_batches(logprobs, params, tokens, mask, batch_size):  # all of one shape
  batches = [np.arange(start, start + batch_size) % len(tokens) for start in range(0, len(tokens), batch_size)]
  return np.concatenate([np.asarray(logprobs(params, tokens[rows], mask[rows])) for rows in batches])[: len(tokens)]
