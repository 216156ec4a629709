"""table.html: the grouped table of runs with its drawings, and every run, on one page that depends on no other file."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from rlhf_jax.data.files import write_text
from rlhf_jax.evaluation.statistics import interquartile_interval
from rlhf_jax.report.pages import page_template
from rlhf_jax.report.plots import NUM_COLORS, Band, band_panel, thin_out
from rlhf_jax.sweep.cells import is_seed, short_names, value_text
from rlhf_jax.sweep.plots import heat_map, parallel_coordinates
from rlhf_jax.sweep.tables import Group, Row, interval_text, warnings_of

TEMPLATE = Path(__file__).parent / "table.html.jinja"
MAX_CURVES = 8  # settings in a panel: their colours differ


def write_page(directory: Path, rows: Sequence[Row], metrics: Sequence[str], groups: Sequence[Group]) -> None:
  """Writes table.html."""
  keys = [key for key in (rows[0].values if rows else {}) if not is_seed(key)]
  short = short_names(list(rows[0].values) if rows else [])
  write_text(
    directory / "table.html",
    page_template(TEMPLATE).render(
      name=directory.resolve().name,
      counts=_counts(rows),
      warnings=warnings_of(groups, metrics),
      metrics=metrics,
      keys=[short[key] for key in keys],
      groups=[_cells(group, keys, metrics, number) for number, group in enumerate(groups)],
      first=groups[0].label if groups else "",
      panels=[(title, Markup(svg), is_wide) for title, svg, is_wide in _panels(rows, metrics, groups, keys, short)],
      columns=[short[key] for key in short],
      rows=[_line(row, metrics, directory) for row in rows],
    ),
  )


def _counts(rows: Sequence[Row]) -> str:
  states = list(dict.fromkeys(row.state for row in rows))
  return ", ".join(f"{sum(row.state == state for row in rows)} {state}" for state in states)


def _cells(group: Group, keys: Sequence[str], metrics: Sequence[str], number: int) -> dict[str, Any]:
  found = []
  for metric in metrics:
    estimate = group.estimates.get(metric)
    difference = estimate.difference if estimate else None
    found.append(
      {
        "middle": interval_text(estimate.middle) if estimate else "–",
        "mean": f"mean {estimate.mean:.3g}" if estimate else "",
        "difference": interval_text(difference, sign=True) if difference else "",
      }
    )
  color = number % NUM_COLORS if number < MAX_CURVES else None
  values = [value_text(group.values.get(key)) for key in keys]
  return {"label": group.label, "values": values, "color": color, "count": len(group.rows), "cells": found}


def _line(row: Row, metrics: Sequence[str], directory: Path) -> dict[str, Any]:
  report = next((path for path in (f"{place}/{row.name}/report.html" for place in ("cells", "members"))
                 if (directory / path).is_file()), "")  # fmt: skip
  numbers = [f"{row.measured.finals[metric]:.4g}" if metric in row.measured.finals else "–" for metric in metrics]
  values = ["" if value is None else value_text(value) for value in row.values.values()]
  return {"row": row, "report": report, "values": values, "numbers": numbers}


def _panels(
  rows: Sequence[Row], metrics: Sequence[str], groups: Sequence[Group], keys: Sequence[str], short: dict[str, str]
) -> list[tuple[str, str, bool]]:
  """(title, SVG, whether it takes the width of the page)."""
  found = []
  for metric in metrics:
    curves = [_band(group, metric) for group in groups[:MAX_CURVES]]
    if any(len(band.x) > 1 for band in curves):
      more = f" (the first {MAX_CURVES} settings)" if len(groups) > MAX_CURVES else ""
      svg = band_panel(curves, x_label="step", y_label=metric.rpartition("/")[2], percent=False, root_scale=False)
      found.append((f"{metric}{more}", svg, False))
  for metric in metrics:
    numbers = [(group, group.estimates[metric].middle.mean) for group in groups if metric in group.estimates]
    if len(keys) == 2 and len(numbers) > 1:
      pairs = {tuple(_hashable(group.values[key]) for key in keys): number for group, number in numbers}
      found.append((f"{metric}, interquartile mean", heat_map(pairs, short[keys[0]], short[keys[1]]), False))
    if len(keys) > 2 and len(numbers) > 1:
      lines = [[*(_hashable(group.values[key]) for key in keys), number] for group, number in numbers]
      labels = [*(short[key] for key in keys), metric.rpartition("/")[2]]
      found.append((f"{metric}, interquartile mean", parallel_coordinates(lines, labels), True))
  return found


def _hashable(value: Any) -> Any:
  return value_text(value) if isinstance(value, (list, dict)) or value is None else value


_NO_BAND = Band(np.empty(0), np.empty(0), np.empty(0), np.empty(0))


def _band(group: Group, metric: str) -> Band:
  series = [row.measured.curves[metric] for row in group.rows if metric in row.measured.curves]
  if not series:
    return _NO_BAND
  steps = functools.reduce(np.intersect1d, [one.steps for one in series])
  values = [thin_out(one.values[np.isin(one.steps, steps)]) for one in series]  # R arrays of [n]
  if not len(steps):
    return _NO_BAND
  return Band(thin_out(steps), *interquartile_interval(np.array(values)[:, None], resamples=400))
