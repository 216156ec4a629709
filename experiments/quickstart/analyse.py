"""The figures of `experiments/quickstart`, from finished runs of the quickstart with different seeds.

  python experiments/quickstart/analyse.py runs/seed_* --out experiments/quickstart

Writes `results.json`, the figures of each run and over the runs, and prints the tables of the record. A figure over the
runs is the mean of their means, with the lowest and the highest of them. Other algorithms that were run in one of the
directories have a row each, with intervals (95 %) over prompts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.data import write_text

Figure = dict[str, float]
MODELS = ("gold", "apparent", "proxy", "win_rate", "kl")
PAIRS = ("clear_accuracy", "accuracy", "label_accuracy", "label_ceiling")
SHARES = {*PAIRS, "win_rate", "style", "ceiling", "gap", "copied", "rephrased", "new", "held_out"}


def over_runs(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Figure]]]:
  """{table: {row: {column: {"mean", "low", "high"}}}} over the evaluations of several runs."""

  def figures(path: Sequence[str], columns: Mapping[str, Sequence[str]]) -> dict[str, Figure]:
    found = {}
    for column, keys in columns.items():
      values = [value for evaluation in evaluations if (value := _at(evaluation, [*path, *keys])) is not None]
      if values:
        found[column] = dict(mean=sum(values) / len(values), low=min(values), high=max(values))
    return found

  first = evaluations[0]
  judged = ["reward_model", next(iter(first["reward_model"]))]
  kinds = _at(first, [*judged, "kinds"]) or {}
  policies = [(part, name) for part in ("models", "baselines") for name in first[part]]
  by_kind = {"accuracy": ["accuracy"], "style": ["style"], "gap": ["gap"], "ceiling": ["ceiling"]}
  by_kind |= {cell: ["cells", cell, "accuracy"] for cell in ("rephrased", "new", "held_out")}
  return {
    "policies": {name: figures([part, name], {key: [key] for key in MODELS}) for part, name in policies},
    "cells": {
      cell: figures(["cells", cell], {name: [part, name, "gold"] for part, name in policies} | {"copied": ["copied"]})
      for cell in first["cells"]
    },
    "pairs": {
      "reward model": figures(judged, {key: [key] for key in PAIRS}),
      "style baseline": figures([*judged, "style"], {key: [key] for key in PAIRS}),
    },
    "kinds": {kind: figures([*judged, "kinds", kind], by_kind) for kind in kinds},
  }


def other_algorithms(run: Path) -> dict[str, dict[str, Figure]]:
  """{stage: {"reference", "gold", "win_rate", "proxy", "kl"}} of each evaluation RUN/STAGE_evaluation.

  reference is the gold reward of the reference in that evaluation, which samples it anew.
  """
  found = {}
  for path in sorted(run.glob("*_evaluation/evaluation.json")):
    models = json.loads(path.read_text())["models"]
    stage = path.parent.name.removesuffix("_evaluation")
    if stage in models:
      measures = {key: models[stage][key] for key in ("gold", "win_rate", "proxy", "kl")}
      found[stage] = {"reference": models["sft"]["gold"], **measures}
  return found


def means(figures: Any) -> Any:
  """The nested mappings with the mean in place of each figure."""
  if "mean" in figures:
    return round(figures["mean"], 4)
  return {key: means(value) for key, value in figures.items()}


def _at(value: Any, keys: Sequence[str]) -> Any:
  """The mean at a path of keys, or the value where it has no mean; None where the path ends early."""
  for key in keys:
    if not isinstance(value, Mapping) or key not in value:
      return None
    value = value[key]
  return value["mean"] if isinstance(value, Mapping) and "mean" in value else value


def table(rows: Mapping[str, Mapping[str, Figure]]) -> str:
  """A table in Markdown: the mean of each figure, with the lowest and the highest."""
  columns = list(dict.fromkeys(column for found in rows.values() for column in found))
  share = [column in SHARES or (column == "accuracy" and "style" in columns) for column in columns]
  lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
  for name, found in rows.items():
    cells = [_text(found.get(column), is_share) for column, is_share in zip(columns, share, strict=True)]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  return "\n".join(lines)


def _text(figure: Figure | None, share: bool) -> str:
  if figure is None:
    return ""
  mean, low, high = (f"{100 * figure[key]:.0f}" if share else f"{figure[key]:.2f}" for key in ("mean", "low", "high"))
  return f"{mean}{' %' if share else ''} ({low} to {high})"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("runs", nargs="+", type=Path, help="run directories")
  parser.add_argument("--out", type=Path, required=True, help="folder for results.json")
  arguments = parser.parse_args()
  evaluations = {run.name: json.loads((run / "evaluation" / "evaluation.json").read_text()) for run in arguments.runs}
  figures = over_runs(list(evaluations.values()))
  each = {name: means(over_runs([evaluation])) for name, evaluation in evaluations.items()}
  others = {run.name: found for run in arguments.runs if (found := other_algorithms(run))}
  results = {"over_runs": figures, "runs": each, "algorithms": others}
  write_text(arguments.out / "results.json", json.dumps(results, indent=1) + "\n")
  for name, rows in figures.items():
    print(f"{name}, {len(evaluations)} runs\n\n{table(rows)}\n")
  for name, rows in others.items():
    print(f"algorithms, {name}\n\n{table(rows)}\n")


if __name__ == "__main__":
  main()
