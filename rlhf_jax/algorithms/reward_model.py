"""A reward model from comparisons, or from recorded judgements: pairs, rankings of K, ratings, yes or no, or several.

The judgement of one item, or one row of comparisons, is one element of a batch. The loss of its ranking, if any, is

  pairs          -log sigmoid(r_i - r_j - m), the mean over all untied pairs of the K responses (Stiennon et al. 2020,
                 arXiv 2009.01325; InstructGPT, arXiv 2203.02155, eq. 1). The margin m grows with the stated strength of
                 a preference (Llama 2, arXiv 2307.09288, eq. 2); it is 0 without a strength. With `ties` above 0 all
                 pairs count, by Davidson's model (1970): P(i, tie, j) ~ exp(d / 2), ties, exp(-d / 2), d = r_i - r_j
  plackett_luce  -log P(ranking): each response in turn is the best of those that are left (Luce 1959; Plackett 1975)

and the loss of its ratings, if any, is (r - s z)^2, the mean over the rated responses: z is the rating in standard
deviations of the annotator's own scale, s (`rating_scale`) the reward that one standard deviation is worth. The loss of
its answers to a yes-or-no question, if any, is logistic, the mean of -log sigmoid(r) for yes and -log sigmoid(-r) for
no. A judgement of several kinds adds them up, and is weighted by its annotator (see stages/annotators.py). `centring`
adds a multiple of the mean (r_i + r_j)^2 of the untied pairs, which keeps rewards around 0 (arXiv 2312.09244).

The score is read at the last token of the response, its <eos> where it has one. `likelihood` adds a learnt weight
times the mean log-probability of the response's tokens, the implicit reward of SimPO (Meng et al. 2024, arXiv
2405.14734): from its last token alone a small model hardly tells that a response contradicts what the model knows.

From the N implementation details: the head starts with standard deviation 1/sqrt(d + 1), and its scores get mean 0 and
standard deviation 1 over responses of `init`; normalization.json has the mean and deviation before, by which scores
become logits of preference again. DEVIATIONS: InstructGPT's demonstrations score 0; Llama 2 has 4 margins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np

from rlhf_jax import data, objectives
from rlhf_jax.models import LanguageModel, only_scored
from rlhf_jax.positions import only
from rlhf_jax.ranges import EVALUATION, NEUTRAL, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share
from rlhf_jax.reduce import masked_mean, ordered_pairs, weighted_sum
from rlhf_jax.stage import RecordFile, RowLength, Stage, StageName, Transport, WeightFile
from rlhf_jax.train import (
  Functions,
  Loop,
  Lora,
  LossFn,
  Optimizer,
  Sampling,
  adapt,
  check_length,
  identity,
  init_state,
  load_policy,
  make_functions,
  make_normalize,
  open_workspace,
  run_steps,
  stage_key,
)
from rlhf_jax.train.comparisons import load_comparisons, sum_to_one
from rlhf_jax.train.heldout import pooled_metrics
from rlhf_jax.train.judgements import LEARNT, load_judgements, read_weights, reported, row_weights, split_judgements
from rlhf_jax.train.normalization import NORMALIZATION
from rlhf_jax.train.packed_rows import pack_groups, ungrouped
from rlhf_jax.train.pair_losses import ranking_loss
from rlhf_jax.train.row_sources import ComparisonRows, PromptRows
from rlhf_jax.types import Mean, Preferences, TrainState

WRITES = (NORMALIZATION,)
FEEDBACK_ONLY = ("kinds", "hours", "annotators", "margins", "rating_scale", "per_annotator")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of a reward model; `comparisons` or `feedback` is given, not both."""

  algorithm: str
  """Module that carries out the stage."""
  init: StageName
  """Stage to start from; its policy also samples the responses that the scores are normalised on."""
  eval_fraction: Share
  """Share of the prompts held out, between 0 and 1, and their comparisons or judgements evaluated on; 0 for none."""
  num_epochs: PositiveInt
  """Number of passes over the training rows."""
  batch_size: PositiveInt
  """Number of rows of comparisons, or of judgements, in an optimiser step."""
  length: RowLength = 0
  """Number of tokens of prompt and response; a row with a longer response is skipped and counted."""
  optimizer: Optimizer
  """Settings of the optimiser."""
  normalize_prompts: PromptRows
  """File of prompts, whose sampled responses have mean score 0 and standard deviation 1 after training."""
  normalize_count: NonNegativeInt
  """Number of prompts of `normalize_prompts`, one response each, the file repeated as needed; 0 normalises nothing."""
  sampling: Sampling
  """Settings of sampling these responses."""
  evaluate_every: Annotated[NonNegativeInt, EVALUATION]
  """Number of steps between evaluations; 0 evaluates at the end only."""
  checkpoint_every: Annotated[PositiveInt, NEUTRAL]
  """Number of steps between checkpoints; there is always one at the end."""
  comparisons: ComparisonRows = ""
  """File of rows with ranked responses (see `rlhf_jax.data.read_comparisons`); "" where `feedback` is given."""
  feedback: tuple[RecordFile, ...] = ()
  """Files of records, or of rows of `rlhf-jax convert --as` (.jsonl); () where `comparisons` is given."""
  kinds: tuple[str, ...] = ("ranks",)
  """Kinds of judgement in `feedback` that are learnt from: one or more of "ranks", "ratings", "yes_no" and "critiques".
  A critique counts as a no, and a response without one, where critiques were asked for, as a yes."""
  hours: NonNegativeFloat = 0.0
  """Time of judging in `feedback` that is learnt from, in hours, from the first judgement on; 0 for all."""
  annotators: WeightFile = ""
  """File of rows {"annotator", "weight"} for the judgements of `feedback`; "" weighs all annotators alike."""
  ranking: Literal["pairs", "plackett_luce"] = "pairs"
  """Loss of a ranking, as described at the head of the module."""
  ties: NonNegativeFloat = 0.0
  """Davidson's parameter of ties, for ranking="pairs": two responses of equal reward tie with probability
  ties / (2 + ties). 0 skips tied pairs."""
  margins: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (0.0, 0.0, 0.0)
  """Margins in logits for a preference of strength 1, 2 and 3 in `feedback`; 0 asks for no margin."""
  rating_scale: PositiveFloat = 1.0
  """Difference in reward that one standard deviation of ratings in `feedback` is worth."""
  likelihood: NonNegativeFloat = 0.0
  """Weight, before training, of the mean log-probability of a response's tokens, in reward per nat; 0 for none."""
  centring: NonNegativeFloat = 0.0
  """Weight of `rlhf_jax.objectives.reward_centring_loss` beside the loss of a ranking; 0 for none, 0.01 is usual."""
  per_annotator: bool = False
  """Switch for ratings of `feedback`: True standardises each annotator's ratings, False all ratings together."""
  loop: Loop = Loop()
  """Settings of checkpoints, of an early end and of numbers that are not finite."""
  lora: Lora | None = None
  """Settings of the adapters that are trained; None trains all parameters."""

  def __post_init__(self):
    if bool(self.comparisons) == bool(self.feedback):
      raise ValueError(f"comparisons={self.comparisons!r}, feedback={self.feedback}: give exactly one of the two")
    if self.comparisons:
      defaults = {field.name: field.default for field in dataclasses.fields(self)}
      idle = [key for key in FEEDBACK_ONLY if getattr(self, key) != defaults[key]]
      if idle:
        raise ValueError(f"{', '.join(idle)}: no effect on comparisons; leave out, or give the file as feedback")
    if not self.kinds or set(self.kinds) - set(LEARNT):
      raise ValueError(f"kinds={self.kinds} must name at least one of {', '.join(LEARNT)}, and nothing else")
    if self.ranking == "plackett_luce" and any((*self.margins, self.ties)):
      raise ValueError("margins and ties have no effect on ranking='plackett_luce': set them to 0")
    if (self.centring or self.ties) and "ranks" not in self.kinds:
      raise ValueError(f"centring and ties have no effect on kinds={self.kinds}: they are of rankings; set them to 0")


def make_loss(
  score: Callable, *, ranking: str = "pairs", ties: float = 0.0, rating_scale: float = 1.0, centring: float = 0.0
) -> LossFn:
  """The loss of `score(params, tokens i32[M, T], mask bool[M, T]) -> f32[M]`, by the equations of this module.

  It takes `Preferences` of N rows and weights {"ranks": f32[N]}, with "ratings" and "yes_no" for those there are; then
  the losses of rankings, centring included, and of the other kinds are metrics too. `score` gets `at` by name.
  """
  order_of = ranking_loss(ranking, ties=ties, centring=centring)

  def loss_fn(params, batch: Preferences, weights):
    tokens, mask, at = ungrouped((batch.tokens, batch.mask, batch.at))  # [N K, ...]
    rewards = score(params, tokens, mask, **only(at)).reshape(batch.ranks.shape)
    order = order_of(rewards, batch.ranks, batch.margin)  # [N]
    gap = rewards[:, :, None] - rewards[:, None, :]  # [N, K, K]
    pairs = ordered_pairs(jnp.asarray(batch.ranks)).astype(jnp.float32)
    loss = weighted_sum(order, weights["ranks"])
    metrics = {"accuracy": Mean((jnp.sign(gap) + 1) / 2, pairs), "margin": Mean(gap, pairs)}  # equal counts half
    losses: dict[str, Callable] = {"ratings": rating_error, "yes_no": objectives.correctness_loss}
    for kind, error in losses.items():
      said = getattr(batch, kind)
      if said is not None:
        present = ~jnp.isnan(said)
        error_of_row = masked_mean(error(rewards, said, mask=present), present, axis=-1)  # [N]
        loss += weighted_sum(error_of_row, weights[kind])
        metrics |= {"ranks/loss": Mean(order, weights["ranks"]), f"{kind}/loss": Mean(error_of_row, weights[kind])}
    return loss, metrics

  def rating_error(rewards, ratings, mask):
    return objectives.rating_loss(rewards, rating_scale * ratings, mask=mask)

  return loss_fn


def build(config: Config, model: LanguageModel, transport: Transport, num_steps: int) -> Functions:
  """(optimizer, update, measure): the compiled functions of a run of num_steps."""
  loss_fn = make_loss(
    model.score, ranking=config.ranking, ties=config.ties, rating_scale=config.rating_scale, centring=config.centring
  )
  return make_functions(loss_fn, config.optimizer, num_steps, transport)


def run(config: Config, stage: Stage) -> None:
  """Trains on the comparisons or judgements, then normalises the scores."""
  tokenizer, model = open_workspace(stage)
  check_length(model, config.length)
  train, held_out = _load(config, stage, tokenizer)
  num_steps = max(config.num_epochs * len(train["tokens"]) // config.batch_size, 1)
  optimizer, update, measure = build(config, model, stage.transport, num_steps)
  normalize = make_normalize(
    stage, model, tokenizer, config.init, config.normalize_prompts, config.sampling, config.normalize_count
  )
  packed = pack_groups(train, config.batch_size, num_steps, stage, predictions=config.likelihood > 0)

  def batch_of(rows, indices):
    chosen = data.take(rows, indices)
    batch = Preferences(**{key: array for key, array in chosen.items() if key != "weight"})
    return batch, row_weights(chosen, ties=config.ties > 0)

  def step(state: TrainState, index: int):
    rows = data.batch_indices(len(train["tokens"]), config.batch_size, index, stage.stage_seed)
    batch, weights = batch_of(train, rows)
    batch, counts = packed(batch, rows)
    state, metrics = update(state, batch, sum_to_one(weights))
    return state, {**reported(metrics, weights, train["ranks"][rows]), **counts}

  def evaluate(state: TrainState):
    def measured(rows, present):
      batch, weights = batch_of(held_out, rows)
      weights = {kind: np.where(present, weight, np.float32(0)) for kind, weight in weights.items()}
      return measure(state.params, batch.replace(ranks=np.where(present[:, None], batch.ranks, -1)), weights)

    metrics = pooled_metrics(measured, len(held_out["tokens"]), config.batch_size)
    return reported(metrics, row_weights(held_out, ties=config.ties > 0), held_out["ranks"])

  def initial():
    policy = load_policy(stage, config.init, model, tokenizer)
    return adapt(config.lora, stage, only_scored(model.init_head(stage_key(stage), policy, config.likelihood)))

  run_steps(
    stage, init_state(initial(), optimizer), step, num_steps, identity=identity(stage, model, tokenizer),
    checkpoint_every=config.checkpoint_every, loop=config.loop, evaluate=evaluate if len(held_out["tokens"]) else None,
    evaluate_every=config.evaluate_every, finish=normalize,
  )  # fmt: skip


def _load(config: Config, stage: Stage, tokenizer: data.Tokenizer) -> tuple[dict, dict]:
  """The rows to train on and to evaluate on: the arrays of `Preferences` by name, and "weight" f32[N]."""
  if config.comparisons:
    given = (config.comparisons, stage, tokenizer, config.length, config.eval_fraction)
    sides = load_comparisons(*given, ties=config.ties > 0)
    train, held_out = ({**side.rows, "weight": np.ones(len(side.groups), np.float32)} for side in sides)
    return train, held_out
  judged = load_judgements(
    [stage.path(name) for name in config.feedback], tokenizer, config.length, kinds=config.kinds,
    weights=read_weights(stage.path(config.annotators)) if config.annotators else {}, margins=config.margins,
    per_annotator=config.per_annotator, ties=config.ties > 0, hours=config.hours,
  )  # fmt: skip
  return split_judgements(judged, config.eval_fraction, stage.seed, stage.name)
