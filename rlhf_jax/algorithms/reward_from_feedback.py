"""A reward model from judgements of any kind: pairs, rankings of K, ratings, or all of them together.

What an annotator says of one item in one go is one element of a batch. Its loss is that of its order, if it has one,

  pairs          -log sigmoid(r_i - r_j - m), the mean over all untied pairs of the K responses (InstructGPT, arXiv
                 2203.02155, eq. 1); m grows with the stated strength of a preference (Llama 2, arXiv 2307.09288, eq. 2)
  plackett_luce  -log P(order), each response in turn the best of those that are left (Luce 1959; Plackett 1975)

and that of its ratings, if it has any: (r - s z)^2, the mean over the responses, with z the rating on the annotator's
own scale and s = `rating_scale` the rewards that a standard deviation of ratings is worth. An element is weighted by
its annotator: who is reliable counts more (see annotators.py). The two losses of a judgement that has both add up.

The head starts and is normalised as in reward_model.py. DEVIATIONS: Llama 2 chooses margins of 0, 1/3, 2/3, 1 or of 0,
1, 2, 3 for four strengths; the records have three.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlhf_jax import data
from rlhf_jax.feedback.records import OPINIONS
from rlhf_jax.objectives import pairwise_ranking_loss, plackett_luce_loss, rating_loss
from rlhf_jax.reduce import masked_mean, weighted_sum
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import (
  Lora,
  Optimizer,
  Sampling,
  adapt,
  identity,
  init_state,
  jit,
  load_policy,
  load_prompts,
  make_optimizer,
  make_sampler,
  make_update,
  model_scorer,
  normalize_head,
  open_workspace,
  ordered_pairs,
  run_steps,
  stage_key,
)
from rlhf_jax.train.judgements import load_judgements, read_weights
from rlhf_jax.types import Mean


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  init: the stage to start from, whose policy also gives the responses the scores are normalised on. feedback: files of
  records (.db, .jsonl, .parquet, or comparisons). kinds: what is learnt from, of "ranks" and "ratings". annotators: a
  file of rows {"annotator", "weight"}, or "" for all alike. ranking: the loss of an order. margins: logits for a
  preference of strength 1, 2 and 3. rating_scale: rewards that a standard deviation of ratings is worth; per_annotator:
  whether ratings are put on each annotator's own scale. eval_fraction: share of the prompts held out. batch_size:
  judgements. length: tokens of prompt and response. normalize_prompts: a file; normalize_count of them.
  """

  algorithm: str
  init: StageName
  feedback: tuple[str, ...]
  kinds: tuple[str, ...]
  annotators: str
  ranking: Literal["pairs", "plackett_luce"]
  margins: tuple[float, ...]
  rating_scale: float
  per_annotator: bool
  eval_fraction: float
  num_epochs: int
  batch_size: int
  length: int
  optimizer: Optimizer
  normalize_prompts: str
  normalize_count: int
  sampling: Sampling
  evaluate_every: int
  checkpoint_every: int
  lora: Lora | None = None

  def __post_init__(self):
    if not self.kinds or set(self.kinds) - set(OPINIONS):
      raise ValueError(f"kinds={self.kinds} must name at least one of {', '.join(OPINIONS)}, and nothing else")
    if len(self.margins) != 3 or min(self.margins) < 0:
      raise ValueError(f"margins={self.margins} must be three numbers >= 0, for the strengths 1, 2 and 3")
    if self.ranking == "plackett_luce" and any(self.margins):
      raise ValueError("margins have no effect on ranking='plackett_luce': set them to 0")


@struct.dataclass
class Judged:
  """tokens i32[N, K, T], mask bool[N, K, T], ranks i32[N, K], ratings f32[N, K], margin f32[N]: see JudgementSet."""

  tokens: jax.Array
  mask: jax.Array
  ranks: jax.Array
  ratings: jax.Array
  margin: jax.Array


def make_loss(score, *, ranking: str, rating_scale: float):
  """The loss of `score(params, tokens[M, T], mask[M, T]) -> f32[M]`; weights {"ranks": f32[N], "ratings": f32[N]}."""

  def loss_fn(params, batch: Judged, weights):
    groups, responses, length = batch.tokens.shape
    flat = (groups * responses, length)
    rewards = score(params, batch.tokens.reshape(flat), batch.mask.reshape(flat)).reshape(groups, responses)
    if ranking == "pairs":
      order = pairwise_ranking_loss(rewards, batch.ranks, margin=batch.margin)  # [N]
    else:
      order = plackett_luce_loss(rewards, batch.ranks)
    rated = ~jnp.isnan(batch.ratings)
    error = rating_loss(rewards, rating_scale * batch.ratings, mask=rated)  # [N, K]
    error = masked_mean(error, rated, axis=-1)
    correct, pairs = ordered_pairs(rewards, batch.ranks)
    loss = weighted_sum(order, weights["ranks"]) + weighted_sum(error, weights["ratings"])
    return loss, {
      "accuracy": Mean(correct, pairs.astype(jnp.float32)),
      "ranks/loss": Mean(order, weights["ranks"]),
      "ratings/loss": Mean(error, weights["ratings"]),
    }

  return loss_fn


def judgement_weights(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The weights of the two losses, each f32[N]: the rows' own, 0 where a row has no untied pair, or no rating."""
  ranked = np.array([len(set(ranks[ranks >= 0])) > 1 for ranks in rows["ranks"]])
  rated = (~np.isnan(rows["ratings"])).any(axis=1)
  return {"ranks": ranked * rows["weight"], "ratings": rated * rows["weight"]}


def sum_to_one(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Weights of a step: both losses together, over the whole batch."""
  total = sum(w.sum() for w in weights.values())
  return {name: (w / max(total, 1e-30)).astype(np.float32) for name, w in weights.items()}


def run(config: Config, stage: Stage) -> None:
  """Trains on the judgements, then normalises."""
  tokenizer, model = open_workspace(stage)
  if config.length > model.config.max_length:
    raise ValueError(f"length={config.length} exceeds model.max_length={model.config.max_length}")
  train, held_out = _load(config, stage, tokenizer)
  num_rows = len(train["tokens"])
  num_steps = max(config.num_epochs * num_rows // config.batch_size, 1)
  loss_fn = make_loss(model.score, ranking=config.ranking, rating_scale=config.rating_scale)
  optimizer = make_optimizer(config.optimizer, num_steps)
  update, measure = make_update(loss_fn, optimizer, stage.transport), jit(loss_fn)
  policy = load_policy(stage, config.init, model, tokenizer)
  prompts = load_prompts(stage.path(config.normalize_prompts), tokenizer, config.sampling.max_prompt_tokens)
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)

  def batch_of(rows, indices):
    chosen = data.take(rows, indices)
    arrays = {field.name: chosen[field.name] for field in dataclasses.fields(Judged)}
    return Judged(**arrays), chosen

  def reported(metrics, weights):
    """Without what no judgement says anything of, such as the accuracy where there are ratings alone."""
    absent = [f"{kind}/loss" for kind, weight in weights.items() if not weight.any()]
    absent += ["accuracy"] * (not weights["ranks"].any())
    return {name: metric for name, metric in metrics.items() if name not in absent}

  def step(state, index):
    batch, chosen = batch_of(train, data.batch_indices(num_rows, config.batch_size, index, stage.stage_seed))
    weights = judgement_weights(chosen)
    state, metrics = update(state, batch, sum_to_one(weights))
    if index + 1 == num_steps:  # inside the last step, so that a checkpoint of the last step is always normalised
      state = state.replace(params=normalize(state.params))
    return state, reported(metrics, weights)

  def evaluate(state):
    total = {}
    for start in range(0, len(held_out["tokens"]), config.batch_size):
      rows = np.arange(start, start + config.batch_size)  # one shape for every batch; what is beyond the end weighs 0
      batch, chosen = batch_of(held_out, rows % len(held_out["tokens"]))
      beyond = rows >= len(held_out["tokens"])
      chosen["weight"] = np.where(beyond, 0, chosen["weight"])
      batch = batch.replace(ranks=np.where(beyond[:, None], -1, batch.ranks))
      weights = judgement_weights(chosen)
      loss, metrics = measure(state.params, batch, weights)
      counted = sum(w.sum() for w in weights.values())
      part = {"loss": Mean(loss, counted), **{name: metric.sum() for name, metric in metrics.items()}}
      total = {name: total[name] + part[name] for name in part} if total else part
    return reported(total, judgement_weights(held_out))

  def normalize(params):
    _, chosen = prompts.take(np.arange(config.normalize_count) % len(prompts.texts))
    rollout, _ = sample(policy, chosen, stage_key(stage))
    return normalize_head(params, model_scorer(model, params)(rollout, (), ()))

  run_steps(
    stage,
    init_state(adapt(config.lora, stage, model.init_head(stage_key(stage), policy)), optimizer),
    step,
    num_steps,
    identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every,
    evaluate=evaluate,
    evaluate_every=config.evaluate_every,
  )


def _load(config, stage, tokenizer):
  """The judgements to train on and to evaluate on, which share no prompt. Raises DataError where either has none."""
  paths = [stage.path(name) for name in config.feedback]
  weights = read_weights(stage.path(config.annotators)) if config.annotators else {}
  judged = load_judgements(
    paths,
    tokenizer,
    config.length,
    kinds=config.kinds,
    weights=weights,
    margins=config.margins,
    per_annotator=config.per_annotator,
  )
  train, held_out = (
    data.take(judged.rows, part) for part in data.split_prompts(judged.prompts, config.eval_fraction, stage.seed)
  )
  if not len(train["tokens"]) or not len(held_out["tokens"]):
    raise data.DataError(
      f"{stage.name}: {len(train['tokens'])} judgements are left to train on and "
      f"{len(held_out['tokens'])} to evaluate, and neither may be 0: change eval_fraction={config.eval_fraction}"
    )
  return train, held_out
