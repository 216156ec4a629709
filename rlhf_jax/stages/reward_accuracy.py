"""Stage: accuracy of several reward models against the gold order, on the same answers to held-out prompts.

Writes `results.json` and `results.png`. Models are named in groups: the models of a group are replicates, trained in
the same way on different data. All models score the same answers, so that groups are compared prompt by prompt.

With `labellers` it also says how well each model foretells their noisy labels: the expected share that agrees with it,
over the pairs of different gold reward. Beside it stand the ceiling, which is that of the gold reward, and a single
person, which is the expected share of agreement of two labellers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax.data.row_formats import COMPARISONS
from rlhf_jax.evaluation.calibration import answer_calibration, distinct_texts
from rlhf_jax.evaluation.results import write_results
from rlhf_jax.evaluation.reward_models import (
  accuracy_by_kind,
  exactly,
  expected_label_accuracy,
  label_probabilities,
  read_contrasts,
  score_sides,
  spread_by_kind,
)
from rlhf_jax.evaluation.statistics import pair_accuracy
from rlhf_jax.evaluation.style_baseline import fit_style_baseline
from rlhf_jax.intervals import Interval, mean_interval
from rlhf_jax.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt
from rlhf_jax.stage import Stage, StageName, StageOfAnyShape
from rlhf_jax.train import (
  Function,
  Sampling,
  load_prompts,
  load_reward_model,
  load_served,
  make_measure_function,
  make_sampler,
  make_score_function,
  model_scorer,
  open_workspace,
  score_scale,
  stage_key,
  text_scorer,
)
from rlhf_jax.train.functions import MeasureFunction, ScoreFunction
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.parts import open_parts
from rlhf_jax.train.row_sources import ComparisonRows, ContrastRows, PromptRows, read_given
from rlhf_jax.train.timeline import counted_as
from rlhf_jax.world import Labeller, Traits, agreement, make_labellers, traits_of
from rlhf_jax.writing import write_figure


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  policy: StageName
  """Stage whose model is sampled."""
  prompts: PromptRows
  """File of prompts that were in no training data."""
  num_prompts: PositiveInt
  """Number of prompts, taken from the start of the file."""
  responses: PositiveInt
  """Number of responses to each prompt, K."""
  batch_size: PositiveInt
  """Number of prompts sampled at once."""
  sampling: Sampling
  """Sampling of the responses."""
  gold: Function
  """Function that gives the gold rewards; with `labellers` it returns a mapping with the gold reward "total" and, if
  known, "apparent", the gold reward as it looks to a labeller who checks no fact."""
  min_gap: NonNegativeFloat
  """Difference in gold reward above which a pair counts as clear."""
  groups: dict[str, tuple[StageOfAnyShape, ...]]
  """Reward-model stages by group: {label: stages}."""
  reference: str
  """Label of the group that all groups are compared with."""
  contrasts: ContrastRows = ""
  """File of pairs {"prompt", "chosen", "rejected", "kind"}, on which accuracies are reported by kind; "" for none."""
  num_contrasts: NonNegativeInt = 0
  """Number of contrasts of each kind, spread evenly over the file; 0 for all."""
  labellers: dict[str, dict[str, NonNegativeInt]] = dataclasses.field(default_factory=dict)
  """Groups of simulated labellers, on whose labels the models are scored as well: {name: number of each kind}; {} for
  none."""
  comparisons: ComparisonRows = ""
  """File of comparisons from which the style baseline learns, which is scored on the same pairs; "" for no baseline."""

  def __post_init__(self) -> None:
    if self.reference not in self.groups:
      raise ValueError(f"reference={self.reference!r} is none of the groups {', '.join(self.groups)}")


@counted_as("evaluation")
def run(config: Config, stage: Stage) -> None:
  """Samples once, scores with every model, and writes the files."""
  tokenizer, model = open_workspace(stage)
  policy = load_served(stage, config.policy, model, tokenizer)
  prompts = load_prompts(config.prompts, stage, tokenizer, config.sampling.max_prompt_tokens)
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)
  gold_of = _gold_function(config, stage)
  names = [name for members in config.groups.values() for name in members]
  judges = {name: load_reward_model(stage, name, model, tokenizer, "groups") for name in names}
  scorers = {name: model_scorer(*judge, stage.transport) for name, judge in judges.items()}
  num = min(config.num_prompts, len(prompts.texts))
  style = fit_style_baseline(read_given(config.comparisons, stage, COMPARISONS)) if config.comparisons else None

  def batch_columns(start: int, rows: np.ndarray, kept: int) -> dict[str, dict[str, list[Any]]]:
    """{"texts", "gold", "scores": {name: values [B][K]}}: the responses, and what measures and models say of them."""
    asked, batch = prompts.take(np.repeat(rows, config.responses))
    rollout, responses = sample(policy, batch, jax.random.fold_in(stage_key(stage), start))
    found: dict[str, dict[str, Any]] = {
      "texts": {"responses": np.array(responses, object)},
      "gold": gold_of(asked, responses),
      "scores": {name: scorer(rollout, asked, responses) for name, scorer in scorers.items()},
    }
    return {
      part: {name: np.asarray(values).reshape(-1, config.responses)[:kept].tolist() for name, values in columns.items()}
      for part, columns in found.items()
    }

  def kinds(score: ScoreFunction) -> dict[str, Any]:
    return {kind: measures["accuracy"] for kind, measures in accuracy_by_kind(pairs, score_sides(pairs, score)).items()}

  def kinds_of_model(name: str) -> dict[str, Any]:
    judge, params = judges[name]
    return kinds(text_scorer(judge, tokenizer, params, config.batch_size, stage.transport))

  batches: list[dict[str, dict[str, list[Any]]]] = []
  with open_parts(stage, num) as parts:
    for batch in fixed_batches(num, config.batch_size):
      batches.append(parts(batch_columns, *batch))
      parts.update(batch.start + batch.kept)
    texts = [row for batch in batches for row in batch["texts"]["responses"]]
    gold, scores = (
      {name: np.concatenate([batch[part][name] for batch in batches]).astype(np.float32) for name in batches[0][part]}
      for part in ("gold", "scores")
    )
    groups = {label: [scores[name] for name in members] for label, members in config.groups.items()}
    labels, people = _labels(config, gold, texts)
    result = compare(groups, gold["total"], config.min_gap, config.reference, labels)
    result |= {"labels": people} if people else {}
    distinct = distinct_texts(texts)

    def calibration(name: str) -> dict[str, Any] | None:
      scale = score_scale(stage, name)
      return None if scale is None else answer_calibration(scores[name], gold["total"], labels, distinct, scale)

    for label, members in config.groups.items():
      result["groups"][label]["calibration"] = [calibration(name) for name in members]
    if style:
      asked = [text for text in prompts.texts[:num] for _ in range(config.responses)]
      of_style = style.score(asked, [text for row in texts for text in row]).reshape(gold["total"].shape)
      result["style"] = _measures([of_style], gold["total"], config.min_gap, labels)
    if config.contrasts:
      pairs = read_contrasts(config.contrasts, stage, tokenizer, model.config.max_length)
      pairs = spread_by_kind(pairs, config.num_contrasts) if config.num_contrasts else pairs
      known = {name: parts(kinds_of_model, name) for name in judges}
      for label, members in config.groups.items():
        result["groups"][label]["kinds"] = _listed([known[name] for name in members])
      if style:
        result["style"]["kinds"] = _listed([kinds(style.score)])
    write_results(stage, "results.json", result)
    plot(result, stage.directory / "results.png")


def _gold_function(config: Config, stage: Stage) -> MeasureFunction:
  """(prompts, responses) -> {"total": f32[N], ...}; without labellers a function that returns one score will do."""
  if config.labellers:
    return make_measure_function(config.gold, stage)
  score = make_score_function(config.gold, stage)
  return lambda prompts, responses: {"total": score(prompts, responses)}


def _labels(
  config: Config, gold: Mapping[str, np.ndarray], texts: Sequence[Sequence[str]]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Of each group of labellers the probabilities f64[N, K, K] of `label_probabilities`, and its ceiling and agreement.

  gold: f[N, K] of each measure of the K answers `texts` to N prompts.
  """
  if not config.labellers:
    return {}, {}
  pages = [traits_of({name: values[row] for name, values in gold.items()}, texts[row]) for row in range(len(texts))]
  page = Traits(*map(np.stack, zip(*pages, strict=True)))  # [N, K]
  crowds = {name: make_labellers(counts) for name, counts in config.labellers.items()}
  labels = {name: label_probabilities(crowd, page) for name, crowd in crowds.items()}
  people = {name: _people(crowd, pages, gold["total"], labels[name]) for name, crowd in crowds.items()}
  return labels, people


def _people(
  crowd: Sequence[Labeller], pages: Sequence[Traits], gold: np.ndarray, labels: np.ndarray
) -> dict[str, dict[str, float]]:
  """{"ceiling"} of a group of labellers, and of two labellers or more also their "agreement"."""
  highest = expected_label_accuracy(gold, gold, labels)
  found = {"ceiling": _rounded(highest)}
  if len(crowd) > 1:
    found["agreement"] = _rounded(exactly(agreement(crowd, pages, untied=True), highest.num))
  return found


def compare(
  groups: dict[str, list[np.ndarray]],
  gold: np.ndarray,
  min_gap: float,
  reference: str,
  labels: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
  """Accuracies of each model, and each group's difference to the reference with an interval over prompts.

  groups: {label: scores f[N, K] of each of its models}. gold: f[N, K], gold rewards of the same K answers to N prompts.
  labels: {name of a group of labellers: f64[N, K, K]}, as `label_probabilities` returns them. A difference compares
  accuracies on all pairs, averaged over the models of a group.

  Raises:
    ValueError: the gold reward orders no two answers to any prompt.
  """
  if (gold == gold[:, :1]).all():
    raise ValueError("the gold reward is the same for all answers to each prompt: no pair has a right order")
  compared: dict[str, Any] = {}
  base = np.mean([_share_right(scores, gold) for scores in groups[reference]], axis=0)
  for label, members in groups.items():
    right = np.mean([_share_right(scores, gold) for scores in members], axis=0)
    compared[label] = {
      **_measures(members, gold, min_gap, labels or {}),
      "difference": _rounded(mean_interval(right - base)),
    }
  return {
    "prompts": len(gold),
    "responses": gold.shape[1],
    "min_gap": min_gap,
    "reference": reference,
    "groups": compared,
  }


def _measures(
  members: Sequence[np.ndarray], gold: np.ndarray, min_gap: float, labels: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """The accuracies of each model of a group, with its scores f[N, K]."""
  found: dict[str, Any] = {
    "accuracy": [_rounded(pair_accuracy(scores, gold)) for scores in members],
    "clear_accuracy": [_rounded(pair_accuracy(scores, gold, min_gap=min_gap)) for scores in members],
  }
  if labels:
    found["label_accuracy"] = {
      name: [_rounded(expected_label_accuracy(scores, gold, given)) for scores in members]
      for name, given in labels.items()
    }
  return found


def _listed(members: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
  """{kind: value of each member} of the members' {kind: value}."""
  return {kind: [each[kind] for each in members] for kind in members[0]}


def _share_right(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
  """Number of pairs of each prompt that the scores order rightly, over the mean number of pairs of a prompt: f64[N].

  The mean is the accuracy over all pairs, and the pairs of a prompt, which share responses, stay one observation.
  """
  better = gold[:, :, None] > gold[:, None, :]
  above = (scores[:, :, None] > scores[:, None, :]) + 0.5 * (scores[:, :, None] == scores[:, None, :])
  return np.where(better, above, 0.0).sum((1, 2)) / better.sum((1, 2)).mean()


def _rounded(interval: Interval) -> dict[str, float]:
  return {name: round(float(value), 4) for name, value in interval._asdict().items()}


def plot(result: dict[str, Any], path: Path) -> None:
  """Accuracies of the models with their intervals, on clear pairs and on all pairs, in a row for each group."""
  labels = list(result["groups"])
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(7, 0.9 + 0.42 * len(labels)), layout="constrained")
    axes = figure.subplots()
    for measure, color in (("accuracy", "C0"), ("clear_accuracy", "C1")):
      for row, label in enumerate(labels):
        members = result["groups"][label][measure]
        for place, one in enumerate(members):
          y = row + 0.12 * (place - (len(members) - 1) / 2)
          label = measure.replace("_", " ") if row == place == 0 else None
          error = [[one["mean"] - one["low"]], [one["high"] - one["mean"]]]
          axes.errorbar([one["mean"]], [y], xerr=error, fmt="o", markersize=4, color=color, label=label, clip_on=False)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, 0), min(high, 1))  # shares lie between 0 and 1, margins included
    axes.set_xlabel("pairs in the gold order")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    write_figure(path, figure)
