"""Tables of runs that differ in values: a row for each run, and for each setting its seeds taken together.

Seeds are aggregated as Agarwal et al. (2108.13264) advise: the interquartile mean with a percentile bootstrap over the
seeds. Two settings are compared on the seeds that both have, since those share their data and earlier stages.
"""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.evaluation.statistics import interquartile_interval
from rlhf_jax.intervals import Interval
from rlhf_jax.sweep.cells import is_seed, short_names, value_text
from rlhf_jax.sweep.measures import Measured

FEW = 5  # seeds; the interval of fewer is too narrow as often as not
_LAST = ("gold", "reward/gold", "reward/proxy", "eval/accuracy", "eval/loss", "accuracy", "loss")  # metrics that matter


class Row(NamedTuple):
  """One run."""

  hash: str
  """Hash of its resolved config."""
  name: str
  """Name of its directory."""
  state: str
  """Where it stands: "done", "failed", ..."""
  values: dict[str, Any]
  """Values in which runs differ, by column."""
  measured: Measured
  """Numbers that it has left."""
  error: str = ""
  """Error of a run that has failed."""


class Estimate(NamedTuple):
  """One metric over the seeds of a setting."""

  mean: float
  """Arithmetic mean."""
  middle: Interval
  """Interquartile mean with its 95 % bootstrap interval."""
  difference: Interval | None
  """Interquartile mean of the differences to the first setting on the same seeds; None for that setting itself."""


class Group(NamedTuple):
  """One setting: the runs that differ in their seeds alone."""

  values: dict[str, Any]
  """Values of the setting, without seeds."""
  rows: list[Row]
  """Its runs."""
  estimates: dict[str, Estimate]
  """Estimates by metric; a metric that no run of the setting has is not there."""

  @property
  def label(self) -> str:
    """The values in words; "all" where only seeds differ."""
    short = short_names(list(self.values))
    return ", ".join(f"{short[key]}={value_text(value)}" for key, value in self.values.items()) or "all"


def choose_metrics(rows: Sequence[Row], wanted: Sequence[str] = (), count: int = 6) -> list[str]:
  """The metrics of a grouped table: `wanted`, or up to `count` of those that matter most, of the latest stages first.

  An element of `wanted` may be a pattern, as "evaluation/*/gold".

  Raises:
    ValueError: no run has a wanted metric; the message has the names that are close.
  """
  known = list(dict.fromkeys(name for row in rows for name in row.measured.finals))
  chosen: list[str] = []
  for name in wanted:
    found = fnmatch.filter(known, name)
    chosen += found
    if not found:
      part = name.rpartition("/")[2]
      close = [other for other in known if part and part in other][:8] or known[:8]
      raise ValueError(f"no run has the metric {name!r}; there are {', '.join(close) or 'none yet'}")
  if wanted:
    return list(dict.fromkeys(chosen))
  known = [name for name in known if not name.startswith("final/")] + [n for n in known if n.startswith("final/")]
  ranked = [name for end in _LAST for name in reversed(known) if name.partition("/")[2] == end]
  ranked = list(dict.fromkeys(ranked)) or [name for name in reversed(known) if not name.endswith("/seconds")]
  different: dict[tuple[float | None, ...], str] = {}  # "final/gold" and "evaluation/gold" are the same numbers
  for name in ranked:
    different.setdefault(tuple(row.measured.finals.get(name) for row in rows), name)
  varying = [name for values, name in different.items() if len(set(values)) > 1]  # not those of stages that all share
  return (varying or list(different.values()))[:count]


def groups_of(rows: Sequence[Row], metrics: Sequence[str]) -> list[Group]:
  """The settings in the order of their first runs, each with its estimates; differences are to the first of them."""
  found: dict[str, list[Row]] = {}
  for row in rows:
    setting = {key: value for key, value in row.values.items() if not is_seed(key)}
    found.setdefault(json.dumps(setting, default=str), []).append(row)
  everyone = list(found.values())
  groups = []
  for own in everyone:
    estimates = {}
    for metric in metrics:
      first, mine = _by_seed(everyone[0], metric), _by_seed(own, metric)
      if mine:
        paired = [mine[seed] - first[seed] for seed in mine if seed in first]
        difference = _middle(paired) if paired and own is not everyone[0] else None
        estimates[metric] = Estimate(float(np.mean(list(mine.values()))), _middle(list(mine.values())), difference)
    values = {key: value for key, value in own[0].values.items() if not is_seed(key)}
    groups.append(Group(values, own, estimates))
  return groups


def _by_seed(rows: Sequence[Row], metric: str) -> dict[tuple[Any, ...], float]:
  return {
    tuple(value for key, value in row.values.items() if is_seed(key)): row.measured.finals[metric]
    for row in rows
    if metric in row.measured.finals
  }


def _middle(values: Sequence[float]) -> Interval:
  mean, low, high = map(float, interquartile_interval(np.array(values)[:, None]))
  return Interval(mean, low, high, len(values))


def warnings_of(groups: Sequence[Group], metrics: Sequence[str]) -> list[str]:
  """Sentences on what the table cannot show."""
  found = []
  counts = [len(group.rows) for group in groups]
  if counts and min(counts) < FEW:
    number = f"{min(counts)} seed{'s' * (min(counts) > 1)}"
    found.append(
      f"The smallest setting has {number}: an interval of fewer than {FEW} says little, that of one is none."
    )
  unfinished = sum(row.state != "done" for group in groups for row in group.rows)
  if unfinished:
    found.append(f"{unfinished} run{'s are' if unfinished > 1 else ' is'} not done; their numbers are those so far.")
  for metric in metrics:
    unclear = [
      group.label
      for group in groups
      if metric in group.estimates and (paired := group.estimates[metric].difference) and _is_unclear(paired)
    ]
    if unclear:
      shown = "; ".join(unclear[:3]) + (f" and {len(unclear) - 3} more" if len(unclear) > 3 else "")
      found.append(f"{metric}: these seeds do not tell apart from {groups[0].label}: {shown}.")
  return found


def _is_unclear(difference: Interval) -> bool:
  return difference.num > 1 and difference.low <= 0 <= difference.high


def markdown(groups: Sequence[Group], metrics: Sequence[str], names: Mapping[str, str] | None = None) -> str:
  """The grouped table in Markdown: interquartile means with their intervals, and differences to the first setting.

  names: headings of metrics, which default to the metrics themselves. Of one setting alone, "evaluation/ppo/gold" is in
  the row "evaluation/ppo" and the column "gold".
  """
  if len(groups) == 1:
    return _one_setting(groups[0], metrics)
  keys = list(groups[0].values) if groups else []
  short, titles = short_names(keys), {metric: (names or {}).get(metric, metric) for metric in metrics}
  heads = [*(short[key] for key in keys), "runs"]
  for metric in metrics:
    heads += [titles[metric]] + ["difference"] * (len(groups) > 1)
  lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
  for group in groups:
    cells = [value_text(group.values[key]) for key in keys] + [str(len(group.rows))]
    for metric in metrics:
      found = group.estimates.get(metric)
      cells.append(interval_text(found.middle) if found else "")
      if len(groups) > 1:
        cells.append(interval_text(found.difference, sign=True) if found and found.difference else "")
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def _one_setting(group: Group, metrics: Sequence[str]) -> str:
  heads = list(dict.fromkeys(metric.rpartition("/")[2] for metric in metrics))
  count = f"{len(group.rows)} run{'s' * (len(group.rows) != 1)}"
  lines = [f"| {group.label}, {count} | {' | '.join(heads)} |", "|" + "---|" * (1 + len(heads))]
  for place in dict.fromkeys(metric.rpartition("/")[0] for metric in metrics):
    found = [group.estimates.get(f"{place}/{head}") if f"{place}/{head}" in metrics else None for head in heads]
    lines.append(f"| {place} | {' | '.join(interval_text(one.middle) if one else '' for one in found)} |")
  return "\n".join(lines)


def interval_text(interval: Interval, sign: bool = False) -> str:
  """ "1.12 [1.09, 1.23]", without bounds where they are not known."""
  plus = "+" if sign else ""
  text = f"{interval.mean:{plus}.3g}"
  if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
    return text
  return f"{text} [{interval.low:{plus}.3g}, {interval.high:{plus}.3g}]"
