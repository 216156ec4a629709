"""The drawings of a sweep's page: a heat map over two values, parallel coordinates over more. See `report.plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rlhf_jax.report.plots import GRID, INK, MUTED, SERIES, SETTINGS, dress, page_svg
from rlhf_jax.sweep.cells import value_text


def heat_map(values: Mapping[tuple[Any, Any], float], x_label: str, y_label: str) -> str:
  """An SVG with a field for each pair of values (x, y): the deeper its colour, the higher the number in it."""
  columns, rows = _sorted([x for x, _ in values]), _sorted([y for _, y in values])
  low, high = min(values.values()), max(values.values())
  with matplotlib.rc_context(SETTINGS):
    figure = Figure(figsize=(1.2 + 0.62 * len(columns), 0.9 + 0.4 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for (x, y), number in values.items():
      column, row = columns.index(x), rows.index(y)
      share = (number - low) / (high - low) if high > low else 0.5
      place = (column - 0.48, row - 0.46)
      axes.add_patch(Rectangle(place, 0.96, 0.92, facecolor=SERIES[1], alpha=0.06 + 0.6 * share, linewidth=0))
      axes.text(column, row, f"{number:.3g}".replace("-", "−"), ha="center", va="center", color=INK, fontsize=8.5)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xticks(range(len(columns)), list(map(value_text, columns)))
    axes.set_yticks(range(len(rows)), list(map(value_text, rows)))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    dress(axes, grid_axis="x")
    axes.grid(visible=False)
    return page_svg(figure)


def parallel_coordinates(lines: Sequence[Sequence[Any]], labels: Sequence[str]) -> str:
  """An SVG with a vertical axis for each label and a line for each run, one value an axis; the last axis is the metric.

  The upper half of the runs by the metric is drawn strongly. Texts, and numbers beside texts, have places in the order
  in which they sort.
  """
  columns = [list(column) for column in zip(*lines, strict=True)]
  with matplotlib.rc_context(SETTINGS):
    figure = Figure(figsize=(1.4 * len(labels) + 0.6, 3.0), layout="constrained")
    axes = figure.add_subplot()
    heights = np.array([_heights(column) for column in columns])  # [axes, runs]
    heights[:-1] += 0.06 * (heights[-1] - 0.5)  # runs with the same values lie beside each other, by their metric
    middle = np.median(columns[-1])
    for run in range(heights.shape[1]):
      strong = columns[-1][run] >= middle
      color, width = (SERIES[1], 1.4) if strong else (SERIES[0], 0.8)
      axes.plot(heights[:, run], color=color, linewidth=width, alpha=0.7 if strong else 0.4, clip_on=False)
    for number, column in enumerate(columns):
      axes.axvline(number, color=GRID, linewidth=1)
      ends = _sorted(column)
      for value, height in ((ends[0], 0.0), (ends[-1], 1.0)) if len(ends) > 1 else ((ends[0], 0.5),):
        text = f"{value:.3g}" if isinstance(value, float) else value_text(value)
        place = (4, 20 * height - 13)  # above or below the ends of the lines
        axes.annotate(text, (number, height), place, textcoords="offset points", color=MUTED, fontsize=8)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks([])
    dress(axes, grid_axis="x")
    axes.grid(visible=False)
    return page_svg(figure)


def _heights(column: Sequence[Any]) -> list[float]:
  """Places between 0 and 1: of numbers by their size, of anything else by their order."""
  known = _sorted(column)
  numbers = [float(value) if _is_number(known) else float(known.index(value)) for value in column]
  low, high = min(numbers), max(numbers)
  return [(number - low) / (high - low) if high > low else 0.5 for number in numbers]


def _sorted(values: Sequence[Any]) -> list[Any]:
  known = [value for number, value in enumerate(values) if value not in values[:number]]
  return sorted(known) if _is_number(known) else sorted(known, key=value_text)


def _is_number(values: Sequence[Any]) -> bool:
  return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
