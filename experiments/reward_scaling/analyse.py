"""The figures of `experiments/reward_scaling`, from finished runs of its recipe.

  python experiments/reward_scaling/analyse.py runs/easy runs/easy_small runs/hard --out experiments/reward_scaling

Writes `results.json`, {run: {amount of data: {measure: {"mean", "low", "high"}}}}, draws `results.png` and prints the
table of the record. Each run is named by its directory; a name that ends in "_small" is a small model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from rlhf_jax.data import read_json, write_text
from rlhf_jax.writing import write_figure

Figure = dict[str, float]
Figures = dict[str, dict[str, dict[str, Figure]]]
ANSWERS = {"all pairs": "accuracy", "clear pairs": "clear_accuracy"}
KINDS = ("style", "wrong", "refusal", "admission", "off topic")
DRAWN = ("all pairs", "wrong")
SMALL = "_small"


def read_figures(results: Mapping[str, Any]) -> dict[str, dict[str, Figure]]:
  """{amount of data: {measure: interval}} of a results.json of the stage `accuracy_scaling`, the least data first."""
  found = {}
  for group, measures in results["groups"].items():
    kinds = {name: one for name, (one,) in measures["kinds"].items()}
    pairs = {name: measures[key][0] for name, key in ANSWERS.items()}
    found[group] = {**pairs, **{kind: kinds[kind] for kind in KINDS if kind in kinds}}
  return dict(sorted(found.items(), key=lambda item: num_prompts(item[0])))


def num_prompts(group: str) -> int:
  """325 from "325 prompts"."""
  return int(group.split()[0])


def table(figures: Figures) -> str:
  """A table in Markdown: a row for each run and amount of data, percentages with their 95 % intervals."""
  columns = (*ANSWERS, *KINDS)
  lines = ["| world, model | data | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
  for run, groups in figures.items():
    for group, measures in groups.items():
      cells = [_percent(measures.get(column)) for column in columns]
      lines.append(f"| {run.replace(SMALL, ', small')} | {group} | " + " | ".join(cells) + " |")
  return "\n".join(lines)


def _percent(figure: Figure | None) -> str:
  if figure is None:
    return ""
  mean, low, high = (100 * figure[key] for key in ("mean", "low", "high"))
  return f"{mean:.0f} [{low:.0f}, {high:.0f}]"


def draw(figures: Figures, path: Path) -> None:
  """Accuracy against the amount of data: a colour for each world, dashed lines for small models."""
  worlds = list(dict.fromkeys(run.removesuffix(SMALL) for run in figures))
  figure, axes = plt.subplots(1, len(DRAWN), figsize=(9, 3.6), sharey=True, layout="constrained")
  for ax, measure in zip(axes, DRAWN, strict=True):
    for run, groups in figures.items():
      x = [num_prompts(group) for group in groups]
      means, lows, highs = ([100 * found[measure][key] for found in groups.values()] for key in ("mean", "low", "high"))
      below, above = ([abs(a - b) for a, b in zip(means, ends, strict=True)] for ends in (lows, highs))
      color = f"C{worlds.index(run.removesuffix(SMALL))}"
      style = "--" if run.endswith(SMALL) else "-"
      ax.errorbar(x, means, [below, above], color=color, linestyle=style, marker="o", capsize=3, label=run)
    ax.set(title=measure, xlabel="prompts with comparisons", xscale="log")
    ax.set_xticks(x, list(map(str, x)), minor=False)
    ax.minorticks_off()
    ax.grid(axis="y", alpha=0.3)
  axes[0].set_ylabel("pairs in the right order (%)")
  axes[-1].legend(fontsize=8)
  write_figure(path, figure, 130)
  plt.close(figure)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("runs", nargs="+", type=Path, help="run directories")
  parser.add_argument("--out", type=Path, required=True, help="folder for results.json and results.png")
  arguments = parser.parse_args()
  figures = {run.name: read_figures(read_json(run / "accuracy_scaling" / "results.json")) for run in arguments.runs}
  write_text(arguments.out / "results.json", json.dumps(figures, indent=1) + "\n")
  draw(figures, arguments.out / "results.png")
  print(table(figures))


if __name__ == "__main__":
  main()
