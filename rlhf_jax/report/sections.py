"""The content of each section of the report: text and drawings for report.html.jinja; None or [] without data.

`colors` maps each stage to its number, see `report.series_colors`.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from rlhf_jax.data import value_text
from rlhf_jax.evaluation.statistics import pooled_interval
from rlhf_jax.intervals import Interval
from rlhf_jax.report.plots import NO_SERIES, NUM_COLORS, Line, interval_panel, line_panel, thin_out
from rlhf_jax.report.read_run import Run, StageRecord, mapping, read_interval
from rlhf_jax.report.words import (
  KINDS,
  SHARES,
  bounds_text,
  constant_sentences,
  kl_penalty_sentences,
  mean_text,
  number,
  summary_sentences,
  visible,
)

GOLD_PARTS = ("helpful", "honest", "harmless")  # each between 0 and 1
DRAWN_MEASURES = ("gold", "proxy", "win_rate", *GOLD_PARTS)  # the table has every measure
NUM_STRETCHES = 20  # points of a curve over KL
MAX_SAMPLES = 24  # prompts on the page; samples.jsonl has all

MEASURES = {
  "gold": "gold reward",
  "apparent": "gold reward unchecked",
  "helpful": "helpful",
  "honest": "honest",
  "harmless": "harmless",
  "proxy": "proxy reward",
  "win_rate": "win rate",
  "kl": "KL (nats)",
  "perplexity": "perplexity by the reference",
  "length": "length (tokens)",
  "finished": "finished",
}
BUDGET_MEASURES = ("gold", "win_rate", "kl")
STYLE = "style baseline"
REWARD_MODEL_MEASURES = {
  "clear_accuracy": "clear gold pairs",
  "accuracy": "all gold pairs",
  "label_accuracy": "noisy labels",
  "label_ceiling": "ceiling of the labels",
}
TRAINING_PANELS: tuple[tuple[str, str, str, dict[str, bool]], ...] = (  # metric, title, y label, options
  ("reward/proxy", "Proxy reward", "reward model's score", {}),
  ("reward/gold", "Gold reward", "gold reward", {}),
  ("kl/reference", "KL to the reference", "nats (root scale)", {"root_scale": True}),
  ("kl/coef", "KL coefficient", "coefficient", {}),
  ("policy/entropy", "Entropy of the policy", "nats per token", {}),
  ("policy/clip_fraction", "Updates that are clipped", "share of the tokens", {"percent": True}),
  ("value/explained_variance", "What the value function explains", "share of the variance", {}),
  ("response/length", "Response length", "tokens", {}),
  ("response/finished", "Responses that end by themselves", "share", {"percent": True}),
)
PERPLEXITIES = ("token_perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")


class Panel(NamedTuple):
  """One figure and its heading."""

  title: str
  svg: Markup
  color: int = NO_SERIES  # colour of the mark beside the title, where the figure shows a single series


def over_optimisation(stage: StageRecord, measure: str) -> tuple[np.ndarray, np.ndarray] | None:
  """The trajectory (sqrt(KL), reward) over the steps that log both, after Gao et al. (2210.10760).

  Each point is the mean over a twentieth of training, since a curve through single batches is unreadable. A mean of
  sampled KL may be slightly negative near the reference; it is drawn at 0.
  """
  if "kl/reference" not in stage.series or measure not in stage.series:
    return None
  kl, reward = stage.series["kl/reference"], stage.series[measure]
  _, kl_index, reward_index = np.intersect1d(kl.steps, reward.steps, return_indices=True)
  if len(kl_index) == 0:
    return None
  root = np.sqrt(np.maximum(thin_out(kl.values[kl_index], NUM_STRETCHES), 0.0))
  return root, thin_out(reward.values[reward_index], NUM_STRETCHES)


def summary(run: Run, colors: dict[str, int]) -> dict[str, Any] | None:
  """A table of every measure of every model, with drawings and sentences on the main measures."""
  if not run.models:
    return None
  known = dict.fromkeys(measure for found in run.models.values() for measure in found)
  measures = [key for key in MEASURES if key in known] + [key for key in known if key not in MEASURES]
  panels = []
  for measure in (key for key in DRAWN_MEASURES if key in known):
    rows = [(short(name), found[measure], colors[name]) for name, found in run.models.items() if measure in found]
    label = "share" if measure in SHARES else "mean"
    if measure == "win_rate" and run.reference:
      label = f"won against {short(str(run.reference))}"
    guide = 0.5 if measure == "win_rate" else None
    scale = {"percent": measure in SHARES, "unit": measure in GOLD_PARTS}
    svg = interval_panel(rows, x_label=f"{label}, 95 % interval", guide=guide, **scale)
    panels.append(Panel(heading(measure), Markup(svg)))
  return {
    "headings": [heading(measure) for measure in measures],
    "rows": [(name, [measure_cell(key, found.get(key)) for key in measures]) for name, found in run.models.items()],
    "baselines": [
      (name, run.constants.get(name, ""), [measure_cell(key, found.get(key)) for key in measures])
      for name, found in run.baselines.items()
    ],
    "panels": panels,
    "sentences": [*summary_sentences(run), *constant_sentences(run)],
  }


def heading(measure: str) -> str:
  """The measure's name, for a column."""
  name = MEASURES.get(measure, visible(measure).replace("_", " "))
  return name[:1].upper() + name[1:]


def short(name: str) -> str:
  """The name in at most 20 characters, to fit beside an axis. Its end stays: variants often differ in the last word."""
  name = visible(name)
  return name if len(name) <= 20 else f"{name[:10]}…{name[-9:]}"


def measure_cell(measure: str, interval: Interval | None) -> tuple[str, str]:
  """(mean, bounds) as texts; a dash without an interval."""
  return (mean_text(measure, interval), bounds_text(measure, interval)) if interval else ("–", "")


def learning_curves(run: Run, colors: dict[str, int]) -> list[Panel]:
  """The loss of each stage that logs one."""
  panels = []
  for stage in run.stages:
    lines = _train_and_eval(stage, "loss", colors[stage.name]) if stage.series else []
    if lines:
      svg = line_panel(lines, x_label="step", y_label="loss")
      panels.append(Panel(stage.name, Markup(svg), colors[stage.name] % NUM_COLORS))
  return panels


def _train_and_eval(stage: StageRecord, metric: str, color: int) -> list[Line]:
  """The training curve in the stage's colour, and the held-out values as dots in the colour of text."""
  lines = []
  if metric in stage.series:
    lines.append(Line(*stage.series[metric], color))
  if f"eval/{metric}" in stage.series:
    lines.append(Line(*stage.series[f"eval/{metric}"], NO_SERIES, "dots"))
  return lines


def reward_model(run: Run, colors: dict[str, int]) -> dict[str, Any] | None:
  """Accuracy curves, and a table of accuracies on gold rewards and noisy labels."""
  panels = []
  for stage in run.stages:
    if stage.optimises_reward or not {"accuracy", "eval/accuracy"} & set(stage.series):
      continue
    ceiling = run.reward_models.get(stage.name, {}).get("label_ceiling")
    svg = line_panel(
      _train_and_eval(stage, "accuracy", colors[stage.name]),
      x_label="step",
      y_label="pairs ordered like the labels",
      percent=True,
      guide=ceiling.mean if ceiling else None,
    )
    panels.append(Panel(f"Accuracy of {stage.name}", Markup(svg), colors[stage.name] % NUM_COLORS))
  rows = []
  known = {measure for found in run.reward_models.values() for measure in found}
  measures = [measure for measure in REWARD_MODEL_MEASURES if measure in known]
  for name, found in run.reward_models.items():
    gap = found["min_gap"]
    cells = [measure_cell(measure, found.get(measure)) for measure in measures]
    if cells:
      rows.append((name, number(float(gap)) if isinstance(gap, int | float) else "–", cells))
    if style := run.style[name]:
      rows.append((STYLE, "", [measure_cell(m, style[m]) if m in style else ("", "") for m in measures]))
  headings = [REWARD_MODEL_MEASURES[measure] for measure in measures]
  has_style = any(run.style.values())
  return {"panels": panels, "headings": headings, "rows": rows, "has_style": has_style} if panels or rows else None


def reward_training(run: Run, colors: dict[str, int]) -> dict[str, Any] | None:
  """Curves of all stages that maximise a reward, over KL and over the step."""
  stages = [stage for stage in run.stages if stage.optimises_reward]
  if not stages:
    return None
  trajectories = []
  for measure in ("proxy", "gold"):
    found = [(colors[stage.name], over_optimisation(stage, f"reward/{measure}")) for stage in stages]
    lines = [Line(*path, color, "path") for color, path in found if path is not None]
    if lines:
      svg = line_panel(lines, x_label="√KL to the reference (√nats)", y_label=f"{measure} reward")
      trajectories.append(Panel(f"{measure.capitalize()} reward against √KL", Markup(svg)))
  panels = []
  for metric, title, label, options in TRAINING_PANELS:
    lines = [Line(*stage.series[metric], colors[stage.name]) for stage in stages if metric in stage.series]
    if lines:
      panels.append(Panel(title, Markup(line_panel(lines, x_label="step", y_label=label, **options))))
  return {
    "stages": [(stage.name, _coefficient_text(stage)) for stage in stages],
    "trajectories": trajectories,
    "panels": panels,
    "sentences": kl_penalty_sentences(run),
  }


def _coefficient_text(stage: StageRecord) -> str:
  coefficient = stage.config.get("kl_coef")
  return f"KL coefficient {coefficient:g}" if isinstance(coefficient, int | float) else ""


def clusters(run: Run) -> dict[str, Any] | None:
  """Gold reward of each model on each task cluster, held-out clusters last, and pooled over either kind of cluster."""
  models = [name for name in run.models if any(name in found["models"] for found in run.clusters.values())]
  models += sorted({name for found in run.clusters.values() for name in found["models"]} - set(models))
  if not models:
    return None
  ordered = sorted(run.clusters.items(), key=lambda item: item[1]["held_out"])
  means = [interval.mean for _, found in ordered for interval in found["models"].values()]
  low, span = min(means), (max(means) - min(means)) or 1.0

  def row(name: str, held_out: bool, found: dict[str, Interval]) -> dict[str, Any]:
    cells = []
    for model in models:
      mean, bounds = measure_cell("gold", found.get(model))
      heat = round(32 * (found[model].mean - low) / span) if model in found else 0
      cells.append((mean, bounds, heat))
    return {"name": name, "held_out": held_out, "cells": cells}

  totals = []
  for held_out, title in ((False, "All clusters seen in training"), (True, "All held-out clusters")):
    group = [found["models"] for _, found in ordered if found["held_out"] is held_out]
    if len(group) > 1:
      pooled = {model: pooled_interval([found[model] for found in group if model in found]) for model in models}
      totals.append(row(title, False, {name: value for name, value in pooled.items() if value.num}))
  return {
    "models": models,
    "rows": [row(name, found["held_out"], found["models"]) for name, found in ordered],
    "totals": totals,
  }


def few_shot(run: Run) -> dict[str, Any] | None:
  """A drawing and a table for each task, over models and numbers of examples; a table of perplexities for each text."""
  tasks = []
  for task, models in run.few_shot.items():
    cells = [(model, n, found) for model, by_shots in models.items() for n, found in by_shots.items()]
    measures = list(dict.fromkeys(measure for _, _, found in cells for measure in found))
    if not measures:
      continue
    colors = {model: index for index, model in enumerate(models)}
    rows = [
      (f"{short(model)}, {n}", found[measures[0]], colors[model]) for model, n, found in cells if measures[0] in found
    ]
    label = f"{heading(measures[0]).lower()} by number of examples, 95 % interval"
    svg = interval_panel(rows, x_label=label, percent=measures[0] in ("acc", "acc_norm"))
    table = [(model, n, [measure_cell(m, found.get(m)) for m in measures]) for model, n, found in cells]
    tasks.append((task, Panel(task, Markup(svg)), [heading(measure) for measure in measures], table))
  texts = [
    (text, model, [measure_cell(measure, found.get(measure)) for measure in PERPLEXITIES])
    for text, models in run.perplexity.items()
    for model, found in models.items()
  ]
  headings = [heading(measure) for measure in PERPLEXITIES]
  return {"tasks": tasks, "texts": texts, "headings": headings} if tasks or texts else None


def accuracies(run: Run) -> list[tuple[str, list[str], list[tuple[str, list[tuple[str, str]]]]]]:
  """[(stage, kinds, [(group of reward models, cells)])] of stages that compare groups, with a row for each model.

  Cells: accuracy on all pairs, accuracy on clear pairs, in a group's first row the difference to the reference, and the
  accuracy on each kind of contrast.
  """
  found = []
  for stage, result in run.comparisons.items():
    rows = []
    groups = mapping(result.get("groups"))
    by_kind = {label: mapping(mapping(measures).get("kinds")) for label, measures in groups.items()}
    known = dict.fromkeys(kind for given in by_kind.values() for kind in given)
    kinds = [kind for kind in dict.fromkeys([*KINDS, *known]) if kind in known]
    for label, measures in groups.items():
      models = zip(*(_list(mapping(measures).get(key)) for key in ("accuracy", "clear_accuracy")), strict=False)
      for replicate, (accuracy, clear) in enumerate(models):
        cells = [
          measure_cell("accuracy", read_interval(accuracy)),
          measure_cell("clear_accuracy", read_interval(clear)),
        ]
        difference = (
          None if replicate or label == result.get("reference") else read_interval(measures.get("difference"))
        )
        cells.append(measure_cell("difference", difference) if difference else ("", ""))
        for kind in kinds:
          values = _list(by_kind[label].get(kind))
          cells.append(measure_cell("accuracy", read_interval(values[replicate]) if replicate < len(values) else None))
        rows.append((str(label), cells))
    if rows:
      found.append((stage, [KINDS.get(kind, (visible(kind), ""))[0] for kind in kinds], rows))
  return found


def budgets(run: Run) -> dict[str, Any] | None:
  """{"headings", "stages": [(stage, [(way, labels, model, cells)])]} of stages that compare ways to spend labels."""
  found = []
  for stage, result in run.comparisons.items():
    rows = [
      (str(way), f"{point['labels']:g}", str(point.get("model")), _cells(point))
      for way, points in result.items()
      for point in _list(points)
      if isinstance(point, dict) and isinstance(point.get("labels"), int | float)
    ]
    if rows:
      found.append((stage, rows))
  headings = [heading(measure) for measure in BUDGET_MEASURES]
  return {"headings": headings, "stages": found} if found else None


def _list(value: Any) -> list[Any]:
  return value if isinstance(value, list) else []


def _cells(point: dict[str, Any]) -> list[tuple[str, str]]:
  return [measure_cell(measure, read_interval(point.get(measure))) for measure in BUDGET_MEASURES]


def samples(run: Run, colors: dict[str, int]) -> list[dict[str, Any]]:
  """At most MAX_SAMPLES prompts with every model's answer."""
  shown = []
  for row in _spread(run.samples)[:MAX_SAMPLES]:
    responses = mapping(row.get("responses"))
    answers = [
      (name, str(responses[name]), _rewards(row, name))
      for name in sorted(responses, key=lambda name: colors.get(name, len(colors)))
    ]
    shown.append({"prompt": value_text(row["prompt"]), "cluster": str(row.get("cluster") or ""), "answers": answers})
  return shown


def _rewards(row: dict[str, Any], model: str) -> list[tuple[str, str]]:
  values = {key: row[key].get(model) for key in ("gold", "proxy") if isinstance(row.get(key), dict)}
  return [(key, number(float(value))) for key, value in values.items() if isinstance(value, int | float)]


def _spread(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """The samples with clusters in turn: a file sorted by cluster would begin with prompts of a single kind."""
  groups: dict[str, list[dict[str, Any]]] = {}
  for row in samples:
    groups.setdefault(str(row.get("cluster")), []).append(row)
  return [row for turn in zip_longest(*groups.values()) for row in turn if row is not None]
