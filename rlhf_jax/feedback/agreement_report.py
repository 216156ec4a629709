"""The agreement report: every statistic of a set of judgements, as tables on a console and as files.

agreement.json     all numbers; what is undefined says why
consensus.jsonl    the order of each item by majority, Dawid-Skene and noisy Bradley-Terry, and the latter's scores
annotators.png, pairs.png, items.png
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from rlhf_jax.feedback import consensus, habits
from rlhf_jax.feedback.agreement import (
  Estimate,
  Pairwise,
  agreement_with_experts,
  agreement_with_others,
  group_agreement,
  item_disagreement,
  pairwise,
  undefined,
)
from rlhf_jax.feedback.records import Annotator, Item, Judgement
from rlhf_jax.feedback.screening import DEFAULT, KEEP, SET_ASIDE, WATCH, Limits, Verdict, screen
from rlhf_jax.feedback.tables import Pairs, Table, judgement_table, pairs_of

SHOWN = 10  # rows of a list whose rest is in agreement.json
HURRIED = 1 / 3  # of the time that others take for the same items
STYLES = {SET_ASIDE: "bold red", WATCH: "yellow", KEEP: "green"}


@dataclasses.dataclass(frozen=True)
class Findings:
  """Everything the report says. Lists by annotator are in the order of `table.annotators`; disagreement: f64[M]."""

  table: Table
  pairs: Pairs
  source: str
  experts: list[Estimate]
  others: list[Estimate]
  first_shown: list[Estimate]
  longer: list[Estimate]
  timing: list[habits.Timing]
  verdicts: list[Verdict]
  weights: dict[str, float]
  two_by_two: list[Pairwise]
  group: dict[str, Estimate]
  disagreement: np.ndarray
  majority: consensus.Consensus
  dawid_skene: consensus.DawidSkene
  model: consensus.NoisyBradleyTerry


def analyse(
  annotators: Sequence[Annotator], items: Sequence[Item], judgements: Sequence[Judgement], limits: Limits = DEFAULT
) -> Findings:
  """All statistics of the records. Raises ValueError where no judgement orders two responses."""
  table = judgement_table(annotators, items, judgements)
  pairs = pairs_of(table)
  if not len(pairs.unit):
    raise ValueError(
      f"none of the {len(judgements)} judgements orders two responses: there is nothing to compare; "
      "agreement needs rankings, choices, or ratings of two responses or more"
    )
  model = consensus.noisy_bradley_terry(table, pairs)
  experts, everyone, source = agreement_with_experts(table, pairs)
  two_by_two = pairwise(table, pairs)
  return Findings(
    table, pairs, source, experts,
    others=agreement_with_others(table, pairs),
    first_shown=habits.first_shown_wins(table, pairs),
    longer=habits.longer_wins(table, pairs),
    timing=habits.timing(table),
    verdicts=screen(table, pairs, habits.habits(table, pairs, model), limits),
    weights=consensus.annotator_weights(table, model),
    two_by_two=two_by_two,
    group={f"agreement with experts ({source})": everyone} | _means(two_by_two) | group_agreement(table, pairs),
    disagreement=item_disagreement(table, pairs),
    majority=consensus.majority(table, pairs),
    dawid_skene=consensus.dawid_skene(table, pairs),
    model=model,
  )  # fmt: skip


def print_findings(findings: Findings, console: Console | None = None) -> None:
  """The tables, with the longest lists cut (`write_findings` has all)."""
  console = console or Console()
  if not console.is_terminal:
    console.width = 130  # a pipe has no width; 80 columns would fold the numbers
  table = findings.table
  gold = int((table.gold >= 0).any(1).sum())
  console.print(
    f"{len(table.item)} judgements of {len(np.unique(table.item))} items ({gold} gold) by {len(table.annotators)} "
    f"annotators; {table.num_skips.sum()} skips; {findings.pairs.num_units} pairs of responses."
  )
  for note in table.left_out:
    console.print(f"Left out: {note}.")
  for grid in (_group_grid(findings), _people_grid(findings), _habits_grid(findings), *_pairs_grid(findings)):
    console.print(grid)
  console.print(_items_grid(findings))
  _print_screening(findings, console)


def write_findings(findings: Findings, directory: str | Path) -> list[Path]:
  """Writes the files named above and returns their paths; the same findings give the same text files."""
  from rlhf_jax.feedback.agreement_plots import plot_annotators, plot_items, plot_pairs

  directory = Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  paths = [directory / name for name in ("agreement.json", "consensus.jsonl")]
  text = json.dumps(summary(findings), indent=2, ensure_ascii=False, allow_nan=False)
  paths[0].write_text(text + "\n", encoding="utf-8")
  rows = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in consensus_rows(findings))
  paths[1].write_text("".join(rows), encoding="utf-8")
  for name, plot in (("annotators", plot_annotators), ("pairs", plot_pairs), ("items", plot_items)):
    paths.append(directory / f"{name}.png")
    plot(findings, paths[-1])
  return paths


def summary(findings: Findings) -> dict[str, Any]:
  """agreement.json: JSON values alone."""
  table = findings.table
  people = []
  for i, name in enumerate(table.annotators):
    verdict = findings.verdicts[i]
    people.append(
      {
        "annotator": name,
        "expert": bool(table.expert[i]),
        "items": verdict.num_items,
        "skips": int(table.num_skips[i]),
        "agreement_with_experts": _json(findings.experts[i]),
        "agreement_with_others": _json(findings.others[i]),
        "first_shown_wins": _json(findings.first_shown[i]),
        "longer_wins": _json(findings.longer[i]),
        "seconds": dataclasses.asdict(findings.timing[i]),
        "reliability": round(float(findings.model.reliability[i]), 4),
        "weight": round(findings.weights[name], 4),
        "confusion": np.round(findings.dawid_skene.confusion[i], 4).tolist(),
        "advice": verdict.advice,
        "checks": [
          {"name": c.name, "status": c.status, "limit": c.limit, "evidence": c.evidence, **_json(c.estimate)}
          for c in verdict.checks
        ],
      }
    )
  order = np.argsort(-np.nan_to_num(findings.disagreement, nan=-1.0), kind="stable")
  return {
    "judgements": len(table.item),
    "left_out": list(table.left_out),
    "group": {name: _json(estimate) for name, estimate in findings.group.items()},
    "annotators": people,
    "pairs": [
      {
        "annotators": [table.annotators[two.first], table.annotators[two.second]],
        **{name: _json(getattr(two, name)) for name in ("raw", "kappa", "spearman", "kendall")},
      }
      for two in findings.two_by_two
    ],
    "items": [
      {"item": table.items[i], "disagreement": round(float(findings.disagreement[i]), 4)}
      for i in order
      if not np.isnan(findings.disagreement[i])
    ],
  }


def consensus_rows(findings: Findings) -> list[dict[str, Any]]:
  """consensus.jsonl: a row for each item that was judged, ranks as in a judgement (0 best, ties equal, -1 absent)."""
  table = findings.table
  rows = []
  for i in np.unique(table.item):
    size = int((~np.isnan(table.num_words[i])).sum())
    scores = findings.model.scores[i, :size]
    rows.append(
      {
        "item": table.items[i],
        "majority": findings.majority.ranks[i, :size].tolist(),
        "dawid_skene": findings.dawid_skene.ranks[i, :size].tolist(),
        "noisy_bradley_terry": findings.model.ranks[i, :size].tolist(),
        "scores": [None if np.isnan(score) else round(float(score), 4) for score in scores],
      }
    )
  return rows


def _means(two_by_two: Sequence[Pairwise]) -> dict[str, Estimate]:
  """Means over every two annotators, weighted by what they judged in common; those undefined are left out."""
  names = {
    "raw": "raw agreement of two annotators",
    "kappa": "Cohen's kappa of two annotators",
    "spearman": "Spearman's rho of two annotators, mean over items",
    "kendall": "Kendall's tau-b of two annotators, mean over items",
  }
  result = {}
  for field, name in names.items():
    defined = [estimate for two in two_by_two if (estimate := getattr(two, field)).value is not None]
    if defined:
      weights = [estimate.num for estimate in defined]
      mean = float(np.average([estimate.value for estimate in defined], weights=weights))
      result[name] = Estimate(mean, num=sum(weights))
    else:
      reason = "it is for every two" if two_by_two else "no two annotators judged one item"
      result[name] = undefined(reason)
  return result


def _json(estimate: Estimate) -> dict[str, Any]:
  if estimate.value is None:
    return {"undefined": estimate.undefined, "num": estimate.num}
  values = {name: getattr(estimate, name) for name in ("value", "low", "high")}
  return {name: round(x, 4) for name, x in values.items() if x is not None} | {"num": estimate.num}


def _grid(title: str, *columns: str) -> Grid:
  grid = Grid(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
  for i, column in enumerate(columns):
    grid.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
  return grid


def _group_grid(findings: Findings) -> Grid:
  grid = _grid("\nAll together", "", "value [95 %]", "from")
  for name, estimate in findings.group.items():
    grid.add_row(_plain(name), estimate.text(), str(estimate.num))
  return grid


def _people_grid(findings: Findings) -> Grid:
  columns = ("annotator", "items", "skips", f"with {findings.source}", "with others", "reliability", "weight", "advice")
  grid = _grid("\nAgreement by annotator (reliability: 1 is typical, 0 guesses, below 0 prefers the worse)", *columns)
  for i in _order(findings):
    name, verdict = findings.table.annotators[i], findings.verdicts[i]
    cells = [findings.experts[i].text(True), findings.others[i].text(True), f"{findings.model.reliability[i]:.2f}"]
    advice = Text(verdict.advice, style=STYLES.get(verdict.advice, "dim"))
    skips = str(findings.table.num_skips[i])
    grid.add_row(_plain(name), str(verdict.num_items), skips, *cells, f"{findings.weights[name]:.2f}", advice)
  return grid


def _habits_grid(findings: Findings) -> Grid:
  title = "\nHabits (shares of pairs; what screening sees beyond quality is in its evidence)"
  grid = _grid(title, "annotator", "seconds", "25 to 75 %", "pace", "shown earlier wins", "longer wins")
  for i in _order(findings):
    time = findings.timing[i]
    seconds = ["unknown", ""] if time.median is None else [f"{time.median:.0f}", f"{time.low:.0f} to {time.high:.0f}"]
    pace = "" if time.pace is None else f"{time.pace:.2f}" + (" hurried" if time.pace < HURRIED else "")
    shares = [findings.first_shown[i].text(True), findings.longer[i].text(True)]
    grid.add_row(_plain(findings.table.annotators[i]), *seconds, pace, *shares)
  return grid


def _pairs_grid(findings: Findings) -> list[Grid | str]:
  if not findings.two_by_two:
    return ["\nNo two annotators judged one item."]
  worst = sorted(findings.two_by_two, key=lambda two: two.raw.value)[:SHOWN]
  title = f"\nTwo by two, the {len(worst)} with the least agreement of {len(findings.two_by_two)}"
  grid = _grid(title, "annotators", "pairs", "raw", "kappa", "Spearman", "Kendall")
  for two in worst:
    names = f"{findings.table.annotators[two.first]}, {findings.table.annotators[two.second]}"
    estimates = (two.raw.text(True), two.kappa.text(), two.spearman.text(), two.kendall.text())
    grid.add_row(_plain(names), str(two.raw.num), *estimates)
  return [grid]


def _items_grid(findings: Findings) -> Grid | str:
  known = np.flatnonzero(~np.isnan(findings.disagreement))
  if not len(known):
    return "\nDisagreement by item is undefined: no item has two judgements."
  worst = known[np.argsort(-findings.disagreement[known], kind="stable")][:SHOWN]
  title = f"\nMost disputed items, {len(worst)} of {len(known)} (mean {findings.disagreement[known].mean():.0%})"
  grid = _grid(title, "item", "unequal answers", "prompt")
  grid.columns[2].justify = "left"
  grid.columns[2].no_wrap, grid.columns[2].overflow = True, "ellipsis"
  for i in worst:
    prompt = _plain(findings.table.prompts[i])
    grid.add_row(_plain(findings.table.items[i]), f"{findings.disagreement[i]:.0%}", prompt)
  return grid


def _print_screening(findings: Findings, console: Console) -> None:
  counts = {}
  for verdict in findings.verdicts:
    counts[verdict.advice] = counts.get(verdict.advice, 0) + 1
  told = ", ".join(f"{advice} {count}" for advice, count in counts.items())
  console.print(f"\n[bold]Screening[/bold]: {told}. A recommendation: nothing was removed.")
  for verdict in findings.verdicts:
    if verdict.reasons:
      console.print(Text(f"  {verdict.annotator}: {verdict.advice}", style=STYLES.get(verdict.advice, "dim")))
      for reason in verdict.reasons:
        console.print(Text(f"    {reason}"))
  unsure = [f"{v.annotator} ({v.num_items})" for v in findings.verdicts if v.advice not in STYLES]
  if unsure:
    console.print(Text(f"  Too few items to say: {', '.join(unsure)}"))


def _order(findings: Findings) -> np.ndarray:
  """The least reliable first."""
  return np.argsort(findings.model.reliability, kind="stable")


def _plain(text: str) -> Text:
  """Text without markup or control characters: names and prompts are data."""
  return Text("".join(c if c.isprintable() else " " for c in text))
