"""Stage: accuracy of several reward models against the gold order, on the same answers to held-out prompts.

Writes `results.json` and `results.png`. Models are named in groups: the models of a group are replicates, trained in
the same way on different data. All models score the same answers, so that groups are compared prompt by prompt. Beside
them may stand the style baseline (`rlhf_jax.evaluation.style_baseline`), what a reward model reaches by style alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax import data
from rlhf_jax.evaluation.results import write_results
from rlhf_jax.evaluation.reward_models import accuracy_by_kind, read_contrasts, score_sides
from rlhf_jax.evaluation.statistics import pair_accuracy, pair_calibration
from rlhf_jax.evaluation.style_baseline import fit_style_baseline
from rlhf_jax.feedback.exchange import read_records
from rlhf_jax.feedback.learner_rows import rankings
from rlhf_jax.intervals import Interval, mean_interval
from rlhf_jax.ranges import NonNegativeFloat, PositiveInt
from rlhf_jax.stage import RecordFile, Stage, StageName, StageOfAnyShape
from rlhf_jax.train import (
  Function,
  Sampling,
  load_prompts,
  load_reward_model,
  load_served,
  make_sampler,
  make_score_function,
  model_scorer,
  open_workspace,
  stage_key,
  text_scorer,
)
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.parts import open_parts
from rlhf_jax.train.row_sources import ContrastRows, PromptRows
from rlhf_jax.train.timeline import counted_as
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
  """Function that gives the gold rewards."""
  min_gap: NonNegativeFloat
  """Difference in gold reward above which a pair counts as clear."""
  groups: dict[str, tuple[StageOfAnyShape, ...]]
  """Reward-model stages by group: {label: stages}."""
  reference: str
  """Label of the group that all groups are compared with."""
  contrasts: ContrastRows = ""
  """File of pairs {"prompt", "chosen", "rejected", "kind"}, on which accuracies are reported by kind; "" for none."""
  style: tuple[RecordFile, ...] = ()
  """Files of records with rankings, which the style baseline learns from; () for no style baseline."""

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
  gold_of = make_score_function(config.gold, stage)
  names = [name for members in config.groups.values() for name in members]
  judges = {name: load_reward_model(stage, name, model, tokenizer, "groups") for name in names}
  scorers = {name: model_scorer(*judge, stage.transport) for name, judge in judges.items()}
  num = min(config.num_prompts, len(prompts.texts))
  style = None
  if config.style:
    rows = rankings(read_records(*(stage.path(name) for name in config.style)))
    style = fit_style_baseline(
      [data.Comparison(data.prompt_of(row, stage.name), tuple(row["responses"]), tuple(row["ranks"])) for row in rows]
    )

  def batch_scores(start: int, rows: np.ndarray, kept: int) -> list[list[list[float]]]:
    """Scores of the gold reward and of every model, each f32[B, K]."""
    texts, batch = prompts.take(np.repeat(rows, config.responses))
    rollout, responses = sample(policy, batch, jax.random.fold_in(stage_key(stage), start))
    found = [gold_of(texts, responses), *(scorer(rollout, texts, responses) for scorer in scorers.values())]
    found += [style.score(texts, responses)] if style else []
    return [values.reshape(-1, config.responses)[:kept].tolist() for values in found]

  def kinds(name: str) -> dict[str, Any]:
    judge, params = judges[name]
    score = text_scorer(judge, tokenizer, params, config.batch_size, stage.transport)
    return accuracy_by_kind(contrasts, score_sides(contrasts, score))

  batches: list[list[list[list[float]]]] = []
  with open_parts(stage, num) as parts:
    for batch in fixed_batches(num, config.batch_size):
      batches.append(parts(batch_scores, *batch))
      parts.update(batch.start + batch.kept)
    gold, *found = (np.concatenate(values).astype(np.float32) for values in zip(*batches, strict=True))
    scores = dict(zip(scorers, found[: len(scorers)], strict=True))
    groups = {label: [scores[name] for name in members] for label, members in config.groups.items()}
    result = compare(groups, gold, config.min_gap, config.reference)
    if style:
      result["style"] = _accuracies(found[-1], gold, config.min_gap)
    if config.contrasts:
      contrasts = read_contrasts(config.contrasts, stage, tokenizer, model.config.max_length)
      known = {name: parts(kinds, name) for name in judges}
      for label, members in config.groups.items():
        result["groups"][label]["kinds"] = {
          kind: [known[name][kind]["accuracy"] for name in members] for kind in known[members[0]]
        }
    write_results(stage, "results.json", result)
    plot(result, stage.directory / "results.png")


def compare(groups: dict[str, list[np.ndarray]], gold: np.ndarray, min_gap: float, reference: str) -> dict[str, Any]:
  """Accuracies of each model, and each group's difference to the reference with an interval over prompts.

  groups: {label: scores f[N, K] of each of its models}. gold: f[N, K], gold rewards of the same K answers to N prompts.
  A difference compares accuracies on all pairs, averaged over the models of a group. The calibration is that of
  `rlhf_jax.evaluation.statistics.pair_calibration`.

  Raises:
    ValueError: the gold reward orders no two answers to any prompt.
  """
  if (gold == gold[:, :1]).all():
    raise ValueError("the gold reward is the same for all answers to each prompt: no pair has a right order")
  compared: dict[str, Any] = {}
  base = np.mean([_share_right(scores, gold) for scores in groups[reference]], axis=0)
  for label, members in groups.items():
    right = np.mean([_share_right(scores, gold) for scores in members], axis=0)
    each = [_accuracies(scores, gold, min_gap) for scores in members]
    slopes = [pair_calibration(scores, gold) for scores in members]
    compared[label] = {
      **{name: [one[name] for one in each] for name in each[0]},
      "calibration": [{"slope": _number(slope), "error": _number(error)} for slope, error in slopes],
      "difference": _rounded(mean_interval(right - base)),
    }
  return {
    "prompts": len(gold),
    "responses": gold.shape[1],
    "min_gap": min_gap,
    "reference": reference,
    "groups": compared,
  }


def _share_right(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
  """Number of pairs of each prompt that the scores order rightly, over the mean number of pairs of a prompt: f64[N].

  The mean is the accuracy over all pairs, and the pairs of a prompt, which share responses, stay one observation.
  """
  better = gold[:, :, None] > gold[:, None, :]
  above = (scores[:, :, None] > scores[:, None, :]) + 0.5 * (scores[:, :, None] == scores[:, None, :])
  return np.where(better, above, 0.0).sum((1, 2)) / better.sum((1, 2)).mean()


def _accuracies(scores: np.ndarray, gold: np.ndarray, min_gap: float) -> dict[str, dict[str, float]]:
  return {
    "accuracy": _rounded(pair_accuracy(scores, gold)),
    "clear_accuracy": _rounded(pair_accuracy(scores, gold, min_gap=min_gap)),
  }


def _number(value: float) -> float | None:
  return round(value, 4) if np.isfinite(value) else None


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
