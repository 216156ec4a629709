"""The part of the report on what was kept while stages learnt: held-out evaluations, samples, and speed."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from rlhf_jax.data import value_text
from rlhf_jax.intervals import Interval
from rlhf_jax.report.plots import Line, line_panel
from rlhf_jax.report.read_run import Run, StageRecord, mapping
from rlhf_jax.report.sections import MEASURES, Panel, heading, measure_cell
from rlhf_jax.report.words import SPEEDS, TIMELINE, number, share

MAX_PROMPTS = 4  # prompts whose samples are on the page, for each stage; samples.jsonl has all


def held_out(run: Run, colors: dict[str, int]) -> dict[str, Any] | None:
  """The win rate along training, and a table of the first, a middle and the last evaluation of each stage of RL."""
  stages = [stage for stage in run.stages if stage.optimises_reward and "eval/win_rate" in stage.series]
  if not stages:
    return None
  measures = [measure for measure in MEASURES if any(f"eval/{measure}" in stage.series for stage in stages)]
  lines = [Line(*stage.series["eval/win_rate"], colors[stage.name], "dots") for stage in stages]
  svg = line_panel(lines, x_label="step", y_label="won against the reference", percent=True, guide=0.5)
  return {
    "panel": Panel("Win rate on held-out prompts", Markup(svg)),
    "headings": [heading(measure) for measure in measures],
    "rows": [
      (stage.name, f"{step:g}", [measure_cell(measure, _interval(stage, measure, step)) for measure in measures])
      for stage in stages
      for step in ends(stage.series["eval/win_rate"].steps)
    ],
  }


def progress_samples(run: Run) -> list[dict[str, Any]]:
  """For each stage with samples: prompts with the response at the first, a middle and the last step that has them.

  Held-out prompts are the same at each evaluation; without evaluation each step has prompts of its own.
  """
  found = []
  for stage in run.stages:
    asked = [row for row in stage.samples if "prompt" in row]
    rows = [row for row in asked if row.get("split") == "eval"] or asked
    prompts: dict[str, dict[float, dict[str, Any]]] = {}
    for row in rows:
      prompts.setdefault(value_text(row["prompt"]), {})[row["step"]] = row
    blocks = []
    for prompt, by_step in prompts.items():
      answers = [(f"step {step:g}", str(by_step[step]["response"]), numbers(by_step[step])) for step in ends(by_step)]
      blocks.append({"prompt": prompt, "answers": answers})
    blocks.sort(key=lambda block: -len(block["answers"]))  # prompts that are followed first
    if blocks:
      found.append({"name": stage.name, "prompts": blocks[:MAX_PROMPTS], "num": len(rows)})
  return found


def speeds(run: Run) -> dict[str, Any] | None:
  """A table with the median of each measure of speed.jsonl over the steps of a stage, but the first, which compiles."""
  stages = [stage for stage in run.stages if stage.speed]
  names = [name for name in SPEEDS if any(name in stage.speed for stage in stages)]
  if not names:
    return None

  def cell(stage: StageRecord, name: str) -> str:
    if name not in stage.speed:
      return "–"
    values = stage.speed[name].values
    median = float(np.median(values[1:] if len(values) > 1 else values))
    return share(median) if name == "mfu" else number(median, 3 if name.startswith("seconds") else 2)

  rows = [(stage.name, [cell(stage, name) for name in names]) for stage in stages]
  return {"headings": [SPEEDS[name] for name in names], "rows": rows}


def timeline(run: Run) -> dict[str, Any] | None:
  """A table with the seconds of each part of the stages that are done, and their sums."""
  stages = [stage for stage in run.stages if stage.timeline]
  if not stages:
    return None
  parts = [part for part in TIMELINE if any(part in stage.timeline for stage in stages)]
  seconds = {stage.name: [stage.timeline.get(part, 0.0) for part in parts] for stage in stages}
  seconds["all stages"] = [sum(column) for column in zip(*seconds.values(), strict=True)]
  rows = [(name, [number(value, 1) for value in (sum(values), *values)]) for name, values in seconds.items()]
  return {"headings": ["seconds", *(TIMELINE[part] for part in parts)], "rows": rows}


def ends(steps: Iterable[float]) -> list[float]:
  """The first, a middle and the last of the steps, as far as they differ."""
  ordered = sorted(steps)
  return list(dict.fromkeys(ordered[index] for index in (0, len(ordered) // 2, len(ordered) - 1)))


def _interval(stage: StageRecord, measure: str, step: float) -> Interval | None:
  mean, low, high = (_at(stage, f"eval/{measure}{end}", step) for end in ("", "_low", "_high"))
  return Interval(mean, low, high, 0) if np.isfinite(mean) else None


def _at(stage: StageRecord, metric: str, step: float) -> float:
  series = stage.series.get(metric)
  found: Sequence[float] = series.values[series.steps == step] if series else ()
  return float(found[0]) if len(found) else float("nan")


def numbers(row: dict[str, Any]) -> list[tuple[str, str]]:
  """What is known of a sample as a whole, as (name, number)."""
  parts = mapping(row.get("parts"))
  values = [("reward", row.get("reward")), ("gold", parts.get("gold")), ("KL", row.get("kl"))]
  return [(name, number(float(value))) for name, value in values if isinstance(value, int | float)]
