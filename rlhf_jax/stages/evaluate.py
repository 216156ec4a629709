"""Stage: evaluate the models of several stages on held-out prompts, and the reward model on pairs of answers.

Writes `evaluation.json` (means with 95 % intervals), `samples.jsonl` and `samples.md` (prompts with every model's
answer). Beside the models stand baselines without a model: constant answers, and copies of the demonstrations
(`rlhf_jax.evaluation.text_baselines`). The reward model is judged on answers of the reference, and on contrasts, pairs
that differ in a known way (`rlhf_jax.evaluation.reward_models`).

The rows of a file of prompts may name a cell: what the prompt has to do with the training texts, such as "rephrased"
(the same task in other words), "new" (new facts or numbers) or "held_out" (a cluster of no training text).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.data.row_formats import COMPARISONS, DEMONSTRATIONS, PROMPTS
from rlhf_jax.evaluation.results import write_results
from rlhf_jax.evaluation.reward_models import (
  accuracy_by_kind,
  judge_reward_model,
  label_shares,
  read_contrasts,
  score_sides,
  spread_by_kind,
)
from rlhf_jax.evaluation.style_baseline import StyleBaseline, fit_style_baseline
from rlhf_jax.evaluation.summary import Origins, has_full_reward, summarize
from rlhf_jax.evaluation.text_baselines import commonest_response, nearest_responses
from rlhf_jax.models import LanguageModel
from rlhf_jax.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt
from rlhf_jax.stage import Stage, StageName, StageOfAnyShape
from rlhf_jax.train import (
  Function,
  PromptSet,
  Sampling,
  encode_prompts,
  load_policy,
  load_reward_model,
  load_served,
  make_logprobs,
  make_measure_function,
  make_sampler,
  model_scorer,
  open_workspace,
  score_scale,
  stage_key,
  text_scorer,
)
from rlhf_jax.train.functions import MeasureFunction, ScoreFunction
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.parts import Parts, open_parts
from rlhf_jax.train.processes import host
from rlhf_jax.train.rewards import Scorer
from rlhf_jax.train.row_sources import ComparisonRows, ContrastRows, DemonstrationRows, PromptRows, raw_rows, read_given
from rlhf_jax.train.timeline import counted_as
from rlhf_jax.types import Params, Rollout
from rlhf_jax.world import make_labellers

WRITES = ("evaluation.json", "samples.jsonl")


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  models: tuple[StageName, ...]
  """Stages whose models are compared."""
  reference: StageName
  """Stage that win rates and KL are measured against."""
  prompts: PromptRows
  """File of prompts."""
  held_out_prompts: PromptRows
  """File of prompts of clusters that were in no training data; "" for none."""
  num_prompts: PositiveInt
  """Number of prompts, taken from the start of each file."""
  batch_size: PositiveInt
  """Number of prompts sampled at once."""
  sampling: Sampling
  """Sampling of the answers."""
  reward_model: StageOfAnyShape
  """Reward-model stage that gives the proxy reward; "" for none."""
  gold: Function
  """Function that returns a mapping from names to scores: the gold reward "total" and its parts; "" for no gold."""
  responses: PositiveInt
  """Number of answers of the reference to each prompt, on which the reward model is scored; the first is the answer
  that the reference is evaluated by."""
  min_gap: NonNegativeFloat
  """Difference in gold reward above which a pair of answers counts as clear."""
  labellers: dict[str, NonNegativeInt]
  """Number of simulated labellers of each kind, whose noisy labels the reward model is scored on as well; {} for
  none."""
  num_samples: NonNegativeInt
  """Number of prompts in the files of samples."""
  contrasts: ContrastRows = ""
  """File of pairs {"prompt", "chosen", "rejected", "kind"} (see `rlhf_jax.evaluation.reward_models.read_contrasts`), on
  which the reward model's accuracy is reported by kind of difference; "" for none."""
  num_contrasts: NonNegativeInt = 0
  """Number of contrasts of each kind, spread evenly over the file; 0 for all."""
  comparisons: ComparisonRows = ""
  """File of the comparisons that the reward model was trained on, from which the style baseline learns; "" for no
  style baseline."""
  baselines: dict[str, str] = dataclasses.field(default_factory=dict)
  """Constant answers by name, which are evaluated as policies beside the models."""
  demonstrations: DemonstrationRows = ""
  """File of the demonstrations that the models were trained on, for the baselines "commonest answer" and "look-up";
  "" for none."""
  full_gold: float = 0.0
  """Gold reward of an ideal answer; the share of answers that earn it is reported by cell. 0 for none."""

  def __post_init__(self) -> None:
    if self.gold.function and self.reference not in self.models:
      raise ValueError(f"reference={self.reference!r} is none of the models {', '.join(self.models)}")


class _Prompts(NamedTuple):
  """The N prompts of both files."""

  encoded: PromptSet
  origins: Origins


@counted_as("evaluation")
def run(config: Config, stage: Stage) -> None:
  """Evaluates every model and writes the files."""
  tokenizer, model = open_workspace(stage)
  prompts = _load_prompts(config, stage, tokenizer)
  reference = load_policy(stage, config.reference, model, tokenizer)
  judge = (
    load_reward_model(stage, config.reward_model, model, tokenizer, "reward_model") if config.reward_model else None
  )
  proxy = model_scorer(*judge, stage.transport) if judge else None
  gold = make_measure_function(config.gold, stage) if config.gold.function else None
  judged = proxy is not None and gold is not None
  with open_parts(stage, len(config.models) + (config.responses - 1) * judged) as parts:
    answer = _answerer(config, stage, model, tokenizer, prompts.encoded, proxy, gold, parts)
    answers = {}
    for name in config.models:
      load = functools.cache(functools.partial(load_served, stage, name, model, tokenizer))
      far = reference if name != config.reference else None
      answers[name] = answer(load, stage_key(stage), np.arange(len(prompts.origins.clusters)), far)
      if name == config.reference:
        answers[name]["kl"] = np.zeros(len(prompts.origins.clusters))
      parts.update(len(answers))
    groups: list[dict[str, Any]] = []
    if judged:
      # Held-out clusters are for the policies: the reward model was trained on no comparison of them.
      first = answers[config.reference]
      groups = [{key: np.asarray(values)[prompts.origins.inside] for key, values in first.items()}]
      load = functools.cache(functools.partial(load_served, stage, config.reference, model, tokenizer))
      for index in range(1, config.responses):
        key = jax.random.fold_in(stage_key(stage), index)
        groups.append(answer(load, key, prompts.origins.inside, None))
        parts.update(len(answers) + index)
    score = text_scorer(judge[0], tokenizer, judge[1], config.batch_size, stage.transport) if judge else None
    baselines, copied = _baselines(config, stage, model, tokenizer, prompts.encoded.texts, score, gold, parts)
    result = summarize(answers, baselines, config.reference, prompts.origins, copied=copied, full_gold=config.full_gold)
    if score:
      style = None
      if config.comparisons:
        style = fit_style_baseline(read_given(config.comparisons, stage, COMPARISONS))
      measured = parts(_judge_reward_model, config, stage, model, tokenizer, prompts, groups, score, style, gold)
      result |= {"reward_model": {config.reward_model: measured}} if measured else {}
    write_results(stage, "evaluation.json", result)
    _write_samples(config, stage, prompts.encoded.texts, prompts.origins.clusters, answers)


def _baselines(
  config: Config,
  stage: Stage,
  model: LanguageModel,
  tokenizer: data.Tokenizer,
  prompts: Sequence[data.Prompt],
  score: ScoreFunction | None,
  gold: MeasureFunction | None,
  parts: Parts,
) -> tuple[dict[str, dict[str, Any]], np.ndarray | None]:
  """The answers of each policy without a model, and whether a similar demonstration's response has the full reward.

  The measures are those of `_answerer`, but for kl and finished.
  """
  texts = {name: [text] * len(prompts) for name, text in config.baselines.items()}
  nearest: list[list[str]] = []
  if config.demonstrations:
    demonstrations = read_given(config.demonstrations, stage, DEMONSTRATIONS)
    room = model.config.max_length - config.sampling.max_prompt_tokens
    lengths = data.response_lengths(tokenizer, demonstrations)
    demonstrations = [pair for pair, length in zip(demonstrations, lengths, strict=True) if length <= room]
    nearest = nearest_responses(prompts, demonstrations)
    texts["commonest answer"] = [commonest_response(demonstrations)] * len(prompts)
    texts["look-up"] = [responses[0] for responses in nearest]
  found: dict[str, dict[str, Any]] = {}
  for name, responses in texts.items():
    length = data.response_lengths(tokenizer, [*zip(prompts, responses, strict=True)])
    found[name] = {"responses": responses, "length": np.array(length, np.float32)}
    found[name] |= {"proxy": np.array(parts(_listed, score, prompts, responses), np.float32)} if score else {}
    found[name] |= _gold_measures(gold, prompts, responses, parts) if gold else {}
  copied = None
  if nearest and gold and config.full_gold:
    copied = has_full_reward(found["look-up"]["gold"], config.full_gold)
    left = [(row, dict.fromkeys(nearest[row])) for row in np.flatnonzero(~copied).tolist()]
    others = [(row, text) for row, texts in left for text in texts if text != nearest[row][0]]
    earned = _gold_measures(gold, [prompts[row] for row, _ in others], [text for _, text in others], parts)["gold"]
    full = has_full_reward(earned, config.full_gold)
    copied[[row for (row, _), is_full in zip(others, full, strict=True) if is_full]] = True
  return found, copied


def _listed(score: ScoreFunction, prompts: Sequence[data.Prompt], responses: Sequence[str]) -> list[float]:
  return score(prompts, responses).tolist()


def _judge_reward_model(
  config: Config,
  stage: Stage,
  model: LanguageModel,
  tokenizer: data.Tokenizer,
  prompts: _Prompts,
  groups: Sequence[dict[str, Any]],
  score: ScoreFunction,
  style: StyleBaseline | None,
  gold: MeasureFunction | None,
) -> dict[str, Any]:
  """The reward model on answers of the reference and on the contrasts, with the style baseline beside it."""
  labellers = make_labellers(config.labellers) if config.labellers else []
  measured: dict[str, Any] = {}
  if groups:
    asked = [prompts.encoded.texts[index] for index in prompts.origins.inside]
    if style:
      groups = [{**group, "style": style.score(asked, group["responses"])} for group in groups]
    scale = score_scale(stage, config.reward_model)
    measured = judge_reward_model(groups, config.min_gap, labellers, stage.stage_seed, scale)
  if config.contrasts:
    contrasts = read_contrasts(config.contrasts, stage, tokenizer, model.config.max_length)
    contrasts = spread_by_kind(contrasts, config.num_contrasts) if config.num_contrasts else contrasts
    measured["kinds"] = accuracy_by_kind(
      contrasts,
      score_sides(contrasts, score),
      score_sides(contrasts, style.score) if style else None,
      label_shares(contrasts, labellers, gold) if gold and labellers else None,
    )
  return measured


def _load_prompts(config: Config, stage: Stage, tokenizer: data.Tokenizer) -> _Prompts:
  texts: list[data.Prompt] = []
  cluster_of: dict[data.Prompt, str] = {}
  cell_of: dict[data.Prompt, str] = {}
  held_out: set[str] = set()
  for given, outside in ((config.prompts, False), (config.held_out_prompts, True)):
    if not given:
      continue
    texts += read_given(given, stage, PROMPTS)[: config.num_prompts]
    for where, row in raw_rows(given, stage):
      if "cell" in row:
        cell_of[data.prompt_of(row, where)] = row["cell"]
      if "cluster" in row:
        cluster_of[data.prompt_of(row, where)] = row["cluster"]
        held_out |= {row["cluster"]} if outside else set()
  prompts = encode_prompts(texts, tokenizer, config.sampling.max_prompt_tokens, stage.name)
  clusters, cells = ([known.get(text, "") for text in prompts.texts] for known in (cluster_of, cell_of))
  return _Prompts(prompts, Origins(clusters, cells, held_out))


Answerer = Callable[[Callable[[], Params], jax.Array, np.ndarray, Params | None], dict[str, Any]]


def _answerer(
  config: Config,
  stage: Stage,
  model: LanguageModel,
  tokenizer: data.Tokenizer,
  prompts: PromptSet,
  proxy: Scorer | None,
  gold: MeasureFunction | None,
  parts: Parts,
) -> Answerer:
  """`answer(load, key, chosen, reference) -> {"responses": N texts, measure: f[N]}` for N chosen prompts i64[N].

  load: returns the parameters; it is called where an answer is not yet among the stage's parts. The measures are length
  (tokens), finished, kl (nats, to the reference, unless that is None), reference_logp (nats), and proxy, gold and its
  parts if known.
  """
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)
  logprobs = make_logprobs(model.apply, config.sampling.temperature or 1.0, stage.transport)

  @jax.jit
  def by_reference(reference: Params, rollout: Rollout) -> dict[str, jax.Array]:  # f32[B] each
    logp = logprobs(reference, rollout.tokens, rollout.mask, rollout.at)
    return {"kl": (rollout.logp - logp).sum(axis=1), "reference_logp": logp.sum(axis=1)}

  def batch_columns(
    load: Callable[[], Params],
    key: jax.Array,
    chosen: np.ndarray,
    reference: Params | None,
    start: int,
    rows: np.ndarray,
    kept: int,
  ) -> dict[str, list[Any]]:
    texts, batch = prompts.take(chosen[rows])
    rollout, responses = sample(load(), batch, jax.random.fold_in(key, start))
    columns: dict[str, Any] = {"length": rollout.mask.sum(axis=1), "finished": rollout.finished}
    own = {"reference_logp": rollout.logp.sum(axis=1)}  # without another reference the model is its own
    columns |= own if reference is None else by_reference(reference, rollout)
    columns |= {"proxy": proxy(rollout, texts, responses)} if proxy else {}
    measured = {name: host(values).astype(np.float32)[:kept].tolist() for name, values in columns.items()}
    return {"responses": responses[:kept], **measured}

  def answer(
    load: Callable[[], Params], key: jax.Array, chosen: np.ndarray, reference: Params | None
  ) -> dict[str, Any]:
    columns: dict[str, Any] = collections.defaultdict(list)
    for batch in fixed_batches(len(chosen), config.batch_size):
      for name, values in parts(batch_columns, load, key, chosen, reference, *batch).items():
        columns[name] += values
    if gold:
      columns |= _gold_measures(gold, [prompts.texts[index] for index in chosen], columns["responses"], parts)
    return {name: values if name == "responses" else np.asarray(values) for name, values in columns.items()}

  return answer


def _gold_measures(
  gold: MeasureFunction, prompts: Sequence[data.Prompt], responses: Sequence[str], parts: Parts
) -> dict[str, np.ndarray]:
  """The gold reward as "gold", and its parts by their names, each f32[N]."""
  found = parts(lambda: {name: values.tolist() for name, values in gold(prompts, responses).items()})
  return {"gold" if name == "total" else name: np.array(values, np.float32) for name, values in found.items()}


def _write_samples(
  config: Config,
  stage: Stage,
  prompts: Sequence[data.Prompt],
  clusters: Sequence[str],
  answers: dict[str, dict[str, Any]],
) -> None:
  """Writes the answers to `num_samples` prompts, drawn at random, as rows and as tables in Markdown."""
  rows = []
  for i in np.random.default_rng(stage.stage_seed).permutation(len(prompts))[: config.num_samples]:
    row: dict[str, Any] = {"prompt": data.prompt_value(prompts[i])}
    if clusters[i]:
      row["cluster"] = clusters[i]
    row["responses"] = {name: answer["responses"][i] for name, answer in answers.items()}
    for measure in ("proxy", "gold"):
      if all(measure in answer for answer in answers.values()):
        row[measure] = {name: round(float(answer[measure][i]), 3) for name, answer in answers.items()}
    rows.append(row)
  data.write_rows(stage.directory / "samples.jsonl", rows)
  lines = ["# Samples", ""]
  for row in rows:
    lines += [
      f"**{_cell(data.value_text(row['prompt']))}**",
      "",
      "| model | answer | proxy | gold |",
      "|---|---|---|---|",
    ]
    for name, response in row["responses"].items():
      numbers = [f"{row[m][name]:.2f}" if m in row else "" for m in ("proxy", "gold")]
      lines.append(f"| {name} | {_cell(response)} | {' | '.join(numbers)} |")
    lines.append("")
  data.write_text(stage.directory / "samples.md", "\n".join(lines))


def _cell(text: str) -> str:
  return text.replace("|", "\\|").replace("\n", " ⏎ ").replace("<", "&lt;")
