"""The tables and the plot of docs/performance.md, from the results of `benchmarks/peers.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contenders.comparisons import COMPARISONS, OURS, START, STARTS
from contenders.ratios import Ratio, Results, of_part, of_results

DOCS = Path(__file__).parents[2] / "docs"
PLOT = "performance.png"


def lines(name: str, cores: int, contenders: Mapping[str, Any]) -> list[str]:
  """A part's ratios and errors, for a terminal."""
  return [f"  {_words(ratio)}" for ratio in of_part(name, cores, contenders)]


def errors(found: Results) -> list[str]:
  """The contenders that did not run, or did other work, with their errors."""
  return [
    f"{key}, {name}: {result['error']}"
    for key, part in found.items()
    for name, result in part["contenders"].items()
    if "error" in result
  ]


def write(found: Results, name: str) -> None:
  """Puts the tables between their marks in docs/performance.md, and draws the plot. name: that of the results' file."""
  path = DOCS / "performance.md"
  path.write_text(with_tables(path.read_text(), found, name))
  plot(list(of_results(found)), DOCS / PLOT)


def with_tables(text: str, found: Results, name: str) -> str:
  """The page's text with the tables of these results.

  Raises:
    ValueError: the marks of a table are not there once.
  """
  steps = f"{steps_table(found)}\n{_origin(found, name)}\n\n![Seconds of the peers over ours]({PLOT})\n"
  for mark, table in (("peers", steps), ("peers starts", starts_table(found))):
    pattern = rf"(<!-- {mark}: begin -->\n).*?(<!-- {mark}: end -->)"
    text, count = re.subn(pattern, lambda match, table=table: f"{match[1]}{table}{match[2]}", text, flags=re.S)
    if count != 1:
      raise ValueError(f"docs/performance.md needs the marks of {mark!r} once, and has them {count} times")
  return text


def steps_table(found: Results) -> str:
  """Seconds of a step and ratios, on one core by CPU time and on several by wall time."""
  cores = sorted({int(key.rpartition(", ")[2]) for key in found if not key.startswith(START)})
  ratios = [ratio for ratio in of_results(found) if not ratio.part.startswith(START)]
  heads = [f"{number} core{'s' * (number > 1)}, {'CPU' if number == 1 else 'wall'} s" for number in cores]
  rows = [["work", "beside", *(cell for head in heads for cell in (head, "ratio")), "goal"]]
  for name, comparison in COMPARISONS.items():
    for goal in comparison.goals:
      cells = []
      for number in cores:
        part = f"{name}, {number}"
        (ratio,) = [r for r in ratios if (r.part, r.ours, r.peer) == (part, goal.ours, goal.peer)] or [None]
        cells += [f"{_seconds(ratio)}", _spread(ratio)] if ratio else ["", _why(found, part, goal.peer)]
      title = comparison.title if goal.ours == OURS else f"{comparison.title}, value head on the policy's trunk"
      rows.append([title, goal.peer, *cells, f"{goal.factor:g}" if goal.factor else ""])
  return "\n".join([*_markdown(rows), *_notes(found)]) + "\n"


def starts_table(found: Results) -> str:
  """Seconds from the start of a process to the end of the first update."""
  ratios = [ratio for ratio in of_results(found) if ratio.part.startswith(START)]
  rows = [["algorithm", "empty cache, s", "warm cache, s", "TRL, s", "ratio, empty", "ratio, warm"]]
  for name in STARTS:
    here = {ratio.clock: ratio for ratio in ratios if ratio.part.startswith(f"{name}, ")}
    if len(here) == 2:
      empty, warm = here["empty"], here["warm"]
      seconds = [f"{value:.1f}" for value in (empty.seconds[0], warm.seconds[0], warm.seconds[1])]
      rows.append([COMPARISONS[name.removeprefix(START)].title, *seconds, _spread(empty), _spread(warm)])
  return "\n".join(_markdown(rows)) + "\n" if len(rows) > 1 else ""


def plot(ratios: Sequence[Ratio], path: Path) -> None:
  """Draws the ratios on the most cores that were measured, with their quartiles and goals."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  steps = [ratio for ratio in ratios if not ratio.part.startswith(START)]
  most = max(int(ratio.part.rpartition(", ")[2]) for ratio in steps)
  shown = [ratio for ratio in steps if int(ratio.part.rpartition(", ")[2]) == most][::-1]
  figure, axes = pyplot.subplots(figsize=(8, 0.28 * len(shown) + 1), layout="constrained")
  for row, ratio in enumerate(shown):
    middle, low, high = ratio.spread
    colour = "tab:blue" if middle >= (ratio.goal or 1.0) else "tab:orange"
    axes.barh(row, middle, xerr=[[middle - low], [high - middle]], color=colour, height=0.7)
    if ratio.goal:
      axes.plot([ratio.goal] * 2, [row - 0.45, row + 0.45], color="black", linewidth=1.5)
  axes.axvline(1.0, color="gray", linewidth=0.8)
  axes.set_yticks(range(len(shown)), [_label(ratio) for ratio in shown], fontsize=8)
  axes.set_xlabel(f"seconds of the peer over ours, {most} cores, median and quartiles; black: the goal")
  figure.savefig(path, dpi=110, metadata={"Software": None})
  pyplot.close(figure)


def _label(ratio: Ratio) -> str:
  title = COMPARISONS[ratio.part.rpartition(", ")[0]].title
  return f"{title}{'' if ratio.ours == OURS else ', shared trunk'} / {ratio.peer}"


def _words(ratio: Ratio) -> str:
  goal = f", goal {ratio.goal:g}{'' if ratio.spread.median >= ratio.goal else ', missed'}" if ratio.goal else ""
  return f"{ratio.name}: {_seconds(ratio)} s, {_spread(ratio)}{goal}"


def _seconds(ratio: Ratio) -> str:
  return " / ".join(f"{value:.3f}" for value in ratio.seconds)


def _spread(ratio: Ratio) -> str:
  return f"{ratio.spread.median:.2f} [{ratio.spread.low:.2f}, {ratio.spread.high:.2f}]"


def _why(found: Results, part: str, peer: str) -> str:
  """Why a ratio is missing, in a few words; the notes below the table have the error."""
  if part not in found:
    return "not measured"
  return "does not run" if "error" in found[part]["contenders"].get(peer, {}) else "not measured"


def _notes(found: Results) -> list[str]:
  said = errors(found)
  return ["", "Did not run:", "", *(f"- {line}" for line in said)] if said else []


def _origin(found: Results, name: str) -> str:
  """The sentence that says where the figures come from."""
  parts = list(found.values())
  machines = sorted({f"{part['machine']['device']}, {part['machine']['cpus']} cores" for part in parts})
  commits = sorted({(part["commit"] or "unknown")[:9] for part in parts})
  rounds = min(part["rounds"] for key, part in found.items() if not key.startswith(START))
  return (
    f"Medians of {rounds} rounds with their quartiles, on {'; '.join(machines)}, commit {', '.join(commits)}; "
    f"`benchmarks/results/{name}` has every round."
  )


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
  head, *rest = rows
  return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest)]
