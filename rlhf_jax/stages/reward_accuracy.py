"""Stage: several reward models against the gold order, on the same answers to prompts that nothing was trained on.

Writes `results.json` and `results.png`. Models are named in groups: those of a group were trained in the same way on
other data (a replicate each). All see the same answers, so that two groups are compared on the prompts they share.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax.evaluation.statistics import mean_interval, pair_accuracy
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import (
  Function,
  Sampling,
  load_policy,
  load_prompts,
  load_stage,
  make_sampler,
  make_score_function,
  model_scorer,
  open_workspace,
  stage_key,
)
from rlhf_jax.train.progress import StageProgress


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  policy: the stage whose answers are scored, `responses` to each of num_prompts of the file `prompts`. gold: a function
  of texts. min_gap: pairs count as clear whose gold rewards differ by more. groups: label -> reward-model stages.
  reference: the label that the others are compared with.
  """

  algorithm: str
  policy: StageName
  prompts: str
  num_prompts: int
  responses: int
  batch_size: int
  sampling: Sampling
  gold: Function
  min_gap: float
  groups: dict[str, tuple[StageName, ...]]
  reference: str

  def __post_init__(self):
    if self.reference not in self.groups:
      raise ValueError(f"reference={self.reference!r} is none of the groups {', '.join(self.groups)}")


def run(config: Config, stage: Stage) -> None:
  """Samples once, scores with every model, and writes the files."""
  tokenizer, model = open_workspace(stage)
  policy = load_policy(stage, config.policy, model, tokenizer)
  prompts = load_prompts(stage.path(config.prompts), tokenizer, config.sampling.max_prompt_tokens)
  sample, gold_of = (
    make_sampler(model, tokenizer, config.sampling, stage.transport),
    make_score_function(config.gold, stage),
  )
  names = [name for members in config.groups.values() for name in members]
  scorers = {name: model_scorer(model, load_stage(stage, name, model, tokenizer)) for name in names}
  num = min(config.num_prompts, len(prompts.texts))
  scores, gold = {name: [] for name in names}, []
  with StageProgress(stage.name, num) as progress:
    for start in range(0, num, config.batch_size):
      rows = np.arange(start, start + config.batch_size)  # one shape for every batch
      kept = int((rows < num).sum())
      texts, batch = prompts.take(np.repeat(rows % num, config.responses))
      rollout, responses = sample(policy, batch, jax.random.fold_in(stage_key(stage), start))
      gold.append(gold_of(texts, responses).reshape(-1, config.responses)[:kept])
      for name, scorer in scorers.items():
        scores[name].append(scorer(rollout, texts, responses).reshape(-1, config.responses)[:kept])
      progress.update(min(start + config.batch_size, num), {})
  result = compare(
    {label: [np.concatenate(scores[name]) for name in members] for label, members in config.groups.items()},
    np.concatenate(gold),
    config.min_gap,
    config.reference,
  )
  stage.directory.mkdir(parents=True, exist_ok=True)
  (stage.directory / "results.json").write_text(json.dumps(result, indent=1) + "\n")
  plot(result, stage.directory / "results.png")


def compare(groups: dict[str, list[np.ndarray]], gold: np.ndarray, min_gap: float, reference: str) -> dict:
  """Accuracies of each model, scores[N, K] against gold[N, K], and each group's difference to the reference.

  A difference is of the accuracies on all pairs, the mean of a group's models, with an interval over prompts.

  Raises ValueError where gold orders no two answers to any prompt.
  """
  if (gold == gold[:, :1]).all():
    raise ValueError("the gold reward is the same for all answers to each prompt: it orders no pair to be right on")
  result = {"prompts": len(gold), "responses": gold.shape[1], "min_gap": min_gap, "reference": reference, "groups": {}}
  base = np.mean([_share_right(scores, gold) for scores in groups[reference]], axis=0)
  for label, members in groups.items():
    right = np.mean([_share_right(scores, gold) for scores in members], axis=0)
    result["groups"][label] = {
      "accuracy": [_rounded(pair_accuracy(scores, gold)) for scores in members],
      "clear_accuracy": [_rounded(pair_accuracy(scores, gold, min_gap=min_gap)) for scores in members],
      "difference": _rounded(mean_interval(right - base)),
    }
  return result


def _share_right(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
  """For each prompt its ordered pairs that the scores order rightly, over the mean number of pairs of a prompt: f64[N].

  Its mean is the accuracy over all pairs, and pairs of one prompt, which share responses, stay one observation.
  """
  better = gold[:, :, None] > gold[:, None, :]
  above = (scores[:, :, None] > scores[:, None, :]) + 0.5 * (scores[:, :, None] == scores[:, None, :])
  return np.where(better, above, 0.0).sum((1, 2)) / better.sum((1, 2)).mean()


def _rounded(interval) -> dict:
  return {name: round(float(value), 4) for name, value in interval._asdict().items()}


def plot(result: dict, path: Path) -> None:
  """A row for each group: its models' accuracies with their intervals, on clear pairs and on all."""
  labels = list(result["groups"])
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(7, 0.9 + 0.42 * len(labels)), layout="constrained")
    axes = figure.subplots()
    for measure, color in (("accuracy", "C0"), ("clear_accuracy", "C1")):
      for row, label in enumerate(labels):
        members = result["groups"][label][measure]
        for place, one in enumerate(members):
          y = row + 0.12 * (place - (len(members) - 1) / 2)
          named = {"label": measure.replace("_", " ")} if row == place == 0 else {}
          error = [[one["mean"] - one["low"]], [one["high"] - one["mean"]]]
          axes.errorbar([one["mean"]], [y], xerr=error, fmt="o", markersize=4, color=color, **named)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("pairs in the gold order")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})
