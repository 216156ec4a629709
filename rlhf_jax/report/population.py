"""The section of a report on a population: interquartile means over its members, for each step and at the end."""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from rlhf_jax.evaluation.statistics import Interval, interquartile_interval
from rlhf_jax.report.plots import NUM_COLORS, Band, band_panel, thin_out, write_bands
from rlhf_jax.report.read_run import Run, Series
from rlhf_jax.report.sections import TRAINING_PANELS, Panel
from rlhf_jax.report.words import bounds_text, mean_text, number

# A stage that logs reward/proxy shows REWARDS, any other stage LOSSES: (metric, title, y label, options).
REWARDS = TRAINING_PANELS[:3]
LOSSES: tuple[tuple[str, str, str, dict[str, bool]], ...] = (
  ("loss", "Loss", "loss", {}),
  ("eval/loss", "Loss on held-out data", "loss", {}),
  ("eval/accuracy", "Accuracy on held-out data", "share", {"percent": True}),
)


class Metric(NamedTuple):
  """One metric of one stage, for every group of a population: group -> member -> its series."""

  title: str
  options: dict[str, Any]
  series: dict[str, dict[str, Series]]


def population_section(run: Run) -> dict[str, Any] | None:
  """Panels over the steps, and a table of the members' final values; None where the run is no population."""
  if not run.groups:
    return None
  metrics = found_metrics(run)
  panels = [Panel(m.title, Markup(band_panel(bands(m), **m.options))) for m in metrics]
  finals = [
    {name: series.final for group in metric.series.values() for name, series in group.items()} for metric in metrics
  ]
  groups = {label or f"{len(members)} seeds": members for label, members in run.groups.items()}
  return {
    "stages": run.own_stages,
    "size": sum(map(len, run.groups.values())),
    "groups": [(label, index % NUM_COLORS) for index, label in enumerate(groups)],
    "panels": panels,
    "headings": [metric.title for metric in metrics],
    "aggregates": [
      (f"IQM of {label}", [_aggregate([final[name] for name in members if name in final]) for final in finals])
      for label, members in groups.items()
    ],
    "rows": [
      (name, [number(final.get(name, float("nan"))) for final in finals])
      for members in groups.values()
      for name in members
    ],
  }


def write_picture(run: Run, path: Path) -> None:
  """Writes the first four panels as one PNG; writes nothing without a population or a logged step."""
  metrics = found_metrics(run)
  if metrics:
    labels = [label or "all" for label in run.groups]
    write_bands(path, [(metric.title, bands(metric), metric.options) for metric in metrics[:4]], labels)


def found_metrics(run: Run) -> list[Metric]:
  """The metrics that members logged in the stages they train for themselves, stage by stage."""
  found = []
  for stage in run.own_stages:
    logged = {
      label: {name: part.series for name, member in members.items() for part in member.stages if part.name == stage}
      for label, members in run.groups.items()
    }
    known = {key for group in logged.values() for series in group.values() for key in series}
    for key, title, y_label, options in REWARDS if "reward/proxy" in known else LOSSES:
      if key not in known:
        continue
      chosen = {
        label: {name: series[key] for name, series in group.items() if key in series} for label, group in logged.items()
      }
      axes = {"x_label": "step", "y_label": y_label, "percent": False, "root_scale": False, **options}
      found.append(Metric(f"{title}, {stage}", axes, chosen))
  return found


def bands(metric: Metric) -> list[Band]:
  """The interquartile mean of each group over the steps that all of its members have reached."""
  return [_band(list(group.values()), alone=len(metric.series) == 1) for group in metric.series.values()]


def _band(members: Sequence[Series], alone: bool) -> Band:
  if not members:
    empty = np.empty(0)
    return Band(empty, empty, empty, empty)
  steps = reduce(np.intersect1d, [series.steps for series in members])
  values = [thin_out(series.values[np.isin(series.steps, steps)]) for series in members]  # M arrays of [n]
  aggregate, low, high = interquartile_interval(np.array(values)[:, None])
  return Band(thin_out(steps), aggregate, low, high, values if alone else ())


def _aggregate(finals: Sequence[float]) -> tuple[str, str]:
  if not finals:
    return "–", ""
  mean, low, high = map(float, interquartile_interval(np.array(finals)[:, None]))
  interval = Interval(mean, low, high, len(finals))
  return mean_text("", interval), bounds_text("", interval)
