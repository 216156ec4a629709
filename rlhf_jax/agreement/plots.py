"""The plots of the agreement report, as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.lines
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhf_jax.agreement.findings import Findings
from rlhf_jax.agreement.screening import KEEP, SET_ASIDE, WATCH
from rlhf_jax.writing import write_figure

MOST = 60  # annotators in a plot at most; the least reliable are shown
COLORS = {SET_ASIDE: "#c0392b", WATCH: "#d68910", KEEP: "#2471a3"}
OTHER = "#7f8c8d"  # for the advice "cannot say"
_SETTINGS: Any = {"font.size": 9, "text.parse_math": False}  # the name "$x$" of an annotator is no formula


def plot_annotators(findings: Findings, path: Path) -> None:
  """A row for each annotator, in the colour of the advice: agreement with reference and others, habits, time."""
  people = np.argsort(findings.model.reliability, kind="stable")[:MOST]
  panels = (
    (f"agrees with {findings.source}", findings.experts, None),
    ("agrees with others", findings.others, None),
    ("shown earlier wins", findings.first_shown, 0.5),
    ("longer wins", findings.longer, 0.5),
  )
  with matplotlib.rc_context(_SETTINGS):
    figure = Figure(figsize=(13, 1.2 + 0.24 * len(people)), layout="constrained")
    axes = figure.subplots(1, 5, sharey=True)
    colors = [COLORS.get(findings.verdicts[i].advice, OTHER) for i in people]
    for panel, (title, estimates, guide) in zip(axes, panels, strict=False):
      for row, (i, color) in enumerate(zip(people, colors, strict=True)):
        if estimates[i].value is not None:
          panel.plot([estimates[i].low, estimates[i].high], [row, row], color=color, linewidth=4, alpha=0.4)
          panel.plot([estimates[i].value], [row], "o", color=color, markersize=4, clip_on=False)
      if guide is not None:
        panel.axvline(guide, color="black", linewidth=0.8, linestyle=":")
      panel.set_xlim(0, 1)
      panel.set_title(title, fontsize=9)
    for row, (i, color) in enumerate(zip(people, colors, strict=True)):
      time = findings.timing[i]
      if time.median is not None:
        axes[4].plot([time.low, time.high], [row, row], color=color, linewidth=4, alpha=0.4)
        axes[4].plot([time.median], [row], "o", color=color, markersize=4)
    axes[4].set_title("seconds, quartiles", fontsize=9)
    axes[4].set_xlim(left=0)
    axes[0].set_yticks(range(len(people)), [findings.table.annotators[i] for i in people])
    axes[0].invert_yaxis()
    _legend(figure, findings)
    for panel in axes:
      _dress(panel)
    write_figure(path, figure)


def plot_pairs(findings: Findings, path: Path) -> None:
  """Raw agreement and Cohen's kappa of every two annotators; white where no pair was judged by both."""
  people = np.argsort(findings.model.reliability, kind="stable")[:MOST]
  place = {int(person): row for row, person in enumerate(people)}
  values = {name: np.full((len(people), len(people)), np.nan) for name in ("raw", "kappa")}
  for two in findings.two_by_two:
    if two.first in place and two.second in place:
      rows = [place[two.first], place[two.second]]
      for name, matrix in values.items():
        value = getattr(two, name).value
        matrix[rows, rows[::-1]] = np.nan if value is None else value
  side = 2.2 + 0.2 * len(people)
  with matplotlib.rc_context(_SETTINGS):
    figure = Figure(figsize=(2 * side + 1, side), layout="constrained")
    axes = figure.subplots(1, 2)
    for panel, title, (name, low) in zip(
      axes, ("raw agreement", "Cohen's kappa"), (("raw", 0), ("kappa", -1)), strict=True
    ):
      image = panel.imshow(values[name], cmap="RdBu", vmin=low, vmax=1)
      names = [findings.table.annotators[i] for i in people]
      panel.set_xticks(range(len(people)), names, rotation=90, fontsize=7)
      panel.set_yticks(range(len(people)), names, fontsize=7)
      panel.set_title(title, fontsize=9)
      figure.colorbar(image, ax=panel, shrink=0.8)
    write_figure(path, figure)


def plot_items(findings: Findings, path: Path) -> None:
  """A histogram of the disagreement of the items."""
  known = findings.disagreement[~np.isnan(findings.disagreement)]
  with matplotlib.rc_context(_SETTINGS):
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.hist(known, bins=np.linspace(0, 1, 21).tolist(), color=COLORS[KEEP])
    axes.set_xlim(0, 1)
    axes.set_xlabel("unequal answers of two annotators to a pair of responses")
    axes.set_ylabel("items")
    axes.set_title(f"Disagreement in {len(known)} items with two judgements or more", fontsize=9)
    _dress(axes)
    write_figure(path, figure)


def _legend(figure: Figure, findings: Findings) -> None:
  advice = list(dict.fromkeys(verdict.advice for verdict in findings.verdicts))
  handles = [matplotlib.lines.Line2D([], [], marker="o", linestyle="", color=COLORS.get(a, OTHER)) for a in advice]
  figure.legend(handles, advice, loc="outside lower center", ncols=len(advice), frameon=False)


def _dress(axes: Axes) -> None:
  axes.spines[["top", "right"]].set_visible(False)
  axes.grid(alpha=0.3)
