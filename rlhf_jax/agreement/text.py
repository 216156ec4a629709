"""The agreement report as tables on a console."""

from collections import Counter

import numpy as np
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from rlhf_jax.agreement.coefficients import Estimate
from rlhf_jax.agreement.findings import Findings
from rlhf_jax.agreement.screening import KEEP, SET_ASIDE, WATCH
from rlhf_jax.agreement.tables import Table

SHOWN = 10  # rows of a long list; agreement.json has all
HURRIED = 1 / 3  # pace below which an annotator is marked as hurried
STYLES = {SET_ASIDE: "bold red", WATCH: "yellow", KEEP: "green"}


def print_findings(findings: Findings, console: Console | None = None) -> None:
  """Prints the tables, the longest lists cut to SHOWN rows (the files of the report have all rows)."""
  console = console or Console()
  if not console.is_terminal:
    console.width = 130  # a pipe has no width, and rich's default of 80 columns would wrap the numbers
  table = findings.table
  gold = int((table.gold >= 0).any(1).sum())
  console.print(
    f"{len(table.item)} judgements of {len(np.unique(table.item))} items ({gold} gold) by {len(table.annotators)} "
    f"annotators; {table.num_skips.sum()} skips; {findings.pairs.num_units} pairs of responses."
  )
  for note in table.left_out:
    console.print(f"Left out: {note}.")
  if told := final_line(table):
    console.print(told)
  for grid in (
    *_winner_grids(findings),
    _group_grid(findings),
    _people_grid(findings),
    _habits_grid(findings),
    *_pairs_grid(findings),
  ):
    console.print(grid)
  console.print(_items_grid(findings))
  _print_screening(findings, console)


def final_line(table: Table) -> str:
  """A sentence on the final judgements, which no agreement counts; "" where there are none."""
  told = f"{table.num_final} final judgements answer their items, and are no ratings: no agreement counts them."
  return told if table.num_final else ""


def _grid(title: str, *columns: str) -> Grid:
  grid = Grid(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
  for i, column in enumerate(columns):
    grid.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
  return grid


def _winner_grids(findings: Findings) -> list[Grid | str]:
  """Who won: the board of all prompts, then the win rates in each cluster of prompts."""
  if findings.winners is None:
    return []
  overall = findings.winners.overall
  columns = ("model", "won", "tied", "lost", "win rate", "rating", "rating, controlled", "win rate, controlled")
  title = "\nWho won (ratings on Elo's scale, mean 1000; controlled: responses of one length in one place)"
  grid = _grid(title, *columns)
  for one in overall.standings:
    counts = [str(count) for count in (one.wins, one.ties, one.losses)]
    ratings = [_points(one.rating), _points(one.controlled)]
    row = (*counts, one.win_rate.text(True), *ratings, one.controlled_win_rate.text(True))
    grid.add_row(_printable(one.model), *row)
  slopes = (
    f"A place earlier is worth {overall.position.text()} logits, a longer response {overall.length.text()}; "
    f"nu of ties {overall.tie:.2f}."
  )
  clusters = findings.winners.clusters
  if not clusters:
    return [grid, slopes]
  names = [one.model for one in overall.standings]
  by_cluster = _grid("\nWin rate by cluster of prompts", "cluster", *map(str, map(_printable, names)))
  for name, board in list(clusters.items())[:SHOWN]:
    rates = {one.model: one.win_rate.text(True) for one in board.standings}
    by_cluster.add_row(_printable(name), *(rates.get(model, "") for model in names))
  return [grid, slopes, by_cluster]


def _points(estimate: Estimate) -> str:
  interval = "" if estimate.low is None else f" [{estimate.low:.0f}, {estimate.high:.0f}]"
  return f"{estimate.value:.0f}{interval}"


def _group_grid(findings: Findings) -> Grid:
  grid = _grid("\nAll together", "", "value [95 %]", "from")
  for name, estimate in findings.group.items():
    grid.add_row(_printable(name), estimate.text(), str(estimate.num))
  return grid


def _people_grid(findings: Findings) -> Grid:
  columns = ("annotator", "items", "skips", f"with {findings.source}", "with others", "reliability", "weight", "advice")
  grid = _grid(
    "\nAgreement by annotator (reliability: 1 is typical, 0 is guessing, negative is preferring the worse)", *columns
  )
  for i in _order(findings):
    name, verdict = findings.table.annotators[i], findings.verdicts[i]
    cells = [findings.experts[i].text(True), findings.others[i].text(True), f"{findings.model.reliability[i]:.2f}"]
    advice = Text(verdict.advice, style=STYLES.get(verdict.advice, "dim"))
    skips = str(findings.table.num_skips[i])
    grid.add_row(_printable(name), str(verdict.num_items), skips, *cells, f"{findings.weights[name]:.2f}", advice)
  return grid


def _habits_grid(findings: Findings) -> Grid:
  title = "\nHabits (shares of pairs; the evidence of the screening has them at equal quality)"
  grid = _grid(title, "annotator", "seconds", "25 to 75 %", "pace", "shown earlier wins", "longer wins")
  for i in _order(findings):
    time = findings.timing[i]
    seconds = ["unknown", ""] if time.median is None else [f"{time.median:.0f}", f"{time.low:.0f} to {time.high:.0f}"]
    pace = "" if time.pace is None else f"{time.pace:.2f}" + (" hurried" if time.pace < HURRIED else "")
    shares = [findings.first_shown[i].text(True), findings.longer[i].text(True)]
    grid.add_row(_printable(findings.table.annotators[i]), *seconds, pace, *shares)
  return grid


def _pairs_grid(findings: Findings) -> list[Grid | str]:
  if not findings.two_by_two:
    return ["\nNo two annotators judged the same item."]
  worst = sorted(findings.two_by_two, key=lambda two: two.raw.value or 0.0)[:SHOWN]
  title = f"\nTwo annotators at a time, the {len(worst)} with the least agreement of {len(findings.two_by_two)}"
  grid = _grid(title, "annotators", "pairs", "raw", "kappa", "Spearman", "Kendall")
  for two in worst:
    names = f"{findings.table.annotators[two.first]}, {findings.table.annotators[two.second]}"
    estimates = (two.raw.text(True), two.kappa.text(), two.spearman.text(), two.kendall.text())
    grid.add_row(_printable(names), str(two.raw.num), *estimates)
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
    prompt = _printable(findings.table.prompts[i])
    grid.add_row(_printable(findings.table.items[i]), f"{findings.disagreement[i]:.0%}", prompt)
  return grid


def _print_screening(findings: Findings, console: Console) -> None:
  counts = Counter(verdict.advice for verdict in findings.verdicts)
  told = ", ".join(f"{advice} {count}" for advice, count in counts.items())
  console.print(f"\n[bold]Screening[/bold]: {told}. This is a recommendation: nothing was removed.")
  for verdict in findings.verdicts:
    if verdict.reasons:
      console.print(Text(f"  {verdict.annotator}: {verdict.advice}", style=STYLES.get(verdict.advice, "dim")))
      for reason in verdict.reasons:
        console.print(Text(f"    {reason}"))
  unsure = [f"{v.annotator} ({v.num_items})" for v in findings.verdicts if v.advice not in STYLES]
  if unsure:
    console.print(Text(f"  Cannot say (items judged): {', '.join(unsure)}"))


def _order(findings: Findings) -> np.ndarray:
  """Indices of the annotators, the least reliable first."""
  return np.argsort(findings.model.reliability, kind="stable")


def _printable(text: str) -> Text:
  """Text without markup or control characters, as names and prompts may hold either."""
  return Text("".join(c if c.isprintable() else " " for c in text))
