"""The part of the report on who won by the judgements of people, as `rlhf-jax agreement --out RUN/NAME` wrote it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from rlhf_jax.intervals import Interval
from rlhf_jax.report.plots import NO_SERIES, interval_panel
from rlhf_jax.report.read_run import Run, mapping
from rlhf_jax.report.sections import Panel, measure_cell, short
from rlhf_jax.report.words import visible


def winners(run: Run) -> list[dict[str, Any]]:
  """For each agreement.json a drawing of the win rates, the board, and the win rates by cluster of prompts."""
  found = []
  for name, boards in run.judged.items():
    standings = _standings(boards.get("overall"))
    if not standings:
      continue
    rates = [
      (short(model), rate, NO_SERIES) for model, one in standings.items() if (rate := _interval(one["win_rate"]))
    ]
    svg = interval_panel(rates, x_label="win rate, ties count half, 95 % interval", percent=True, guide=0.5)
    rows = []
    for model, one in standings.items():
      counts = [str(one.get(key, "")) for key in ("wins", "ties", "losses")]
      cells = [
        measure_cell("win_rate", _interval(one.get("win_rate"))),
        _points(one.get("rating")),
        _points(one.get("controlled")),
        measure_cell("win_rate", _interval(one.get("controlled_win_rate"))),
      ]
      rows.append((visible(model), counts, cells))
    clusters = [
      (visible(str(cluster)), [_rate(_standings(board), model) for model in standings])
      for cluster, board in mapping(boards.get("clusters")).items()
    ]
    panel = Panel(f"Win rates, {visible(name)}", Markup(svg))
    found.append({"name": name, "panel": panel, "rows": rows, "models": list(standings), "clusters": clusters})
  return found


def _standings(board: Any) -> dict[str, Mapping[str, Any]]:
  given = mapping(board).get("standings")
  rows = [row for row in given if isinstance(row, dict)] if isinstance(given, list) else []
  return {str(row.get("model", "")): row for row in rows if _interval(row.get("win_rate"))}


def _rate(standings: Mapping[str, Mapping[str, Any]], model: str) -> tuple[str, str]:
  return measure_cell("win_rate", _interval(standings[model]["win_rate"]) if model in standings else None)


def _interval(value: Any) -> Interval | None:
  """An estimate {"value", "low", "high", "num"} as an interval, NaN for absent bounds; None without a value."""
  given = [mapping(value).get(key) for key in ("value", "low", "high")]
  mean, low, high = (float(x) if isinstance(x, int | float) and math.isfinite(x) else math.nan for x in given)
  num = mapping(value).get("num")
  return None if math.isnan(mean) else Interval(mean, low, high, num if isinstance(num, int) else 0)


def _points(value: Any) -> tuple[str, str]:
  found = _interval(value)
  if found is None:
    return "–", ""
  return f"{found.mean:.0f}", "" if math.isnan(found.low) else f"[{found.low:.0f}, {found.high:.0f}]"
