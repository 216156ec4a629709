"""The part of the report on what a reward model knows: its accuracy on pairs that differ in a known way."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from rlhf_jax.intervals import Interval
from rlhf_jax.report.plots import NO_SERIES, interval_panel
from rlhf_jax.report.read_run import Run
from rlhf_jax.report.sections import Panel, measure_cell, short
from rlhf_jax.report.words import CELLS, KINDS, points, visible


def kinds(run: Run, colors: dict[str, int]) -> list[dict[str, Any]]:
  """For each reward model with contrasts a drawing, a table by kind, and tables of kind by cluster and by cell."""
  found = []
  for name, given in run.kinds.items():
    if not given:
      continue
    by_kind = {kind: given[kind] for kind in dict.fromkeys([*KINDS, *given]) if kind in given}
    rows, drawn = [], []
    for kind, result in by_kind.items():
      measures = result.measures
      cells = [measure_cell(measure, measures.get(measure)) for measure in ("accuracy", "style")]
      cells += [_gap(measures.get("gap")), measure_cell("ceiling", measures.get("ceiling"))]
      title, words = KINDS.get(kind, (visible(kind), ""))
      rows.append((title, words, cells, measures["accuracy"].num if "accuracy" in measures else 0))
      bars = ((short(title), "accuracy", colors.get(name, 0)), ("by style alone", "style", NO_SERIES))
      drawn += [(label, measures[key], color) for label, key, color in bars if key in measures]
    svg = interval_panel(drawn, x_label="right response above the wrong one", percent=True, guide=0.5)
    found.append(
      {
        "name": name,
        "rows": rows,
        "panel": Panel(f"Accuracy of {name} by kind of difference", Markup(svg)),
        "headings": [KINDS.get(kind, (visible(kind), ""))[0] for kind in by_kind],
        "groups": [
          (title, rows)
          for title, rows in (
            ("cell", _crossed({kind: result.cells for kind, result in by_kind.items()}, CELLS)),
            ("cluster", _crossed({kind: result.clusters for kind, result in by_kind.items()}, {})),
          )
          if rows
        ],
      }
    )
  return found


def _crossed(
  found: Mapping[str, Mapping[str, Mapping[str, Interval]]], names: Mapping[str, str]
) -> list[tuple[str, list[tuple[str, str]]]]:
  """[(group by its plain name, accuracy of the reward model on each kind)]."""
  groups = dict.fromkeys(group for by_group in found.values() for group in by_group)
  return [
    (
      names.get(group, visible(group)),
      [measure_cell("accuracy", each.get(group, {}).get("accuracy")) for each in found.values()],
    )
    for group in groups
  ]


def _gap(interval: Interval | None) -> tuple[str, str]:
  return points(interval) if interval else ("–", "")
