"""The figures and plots of `experiments/instruction_tuning` from a finished run of configs/instruction_tuning.py.

  python -m rlhf_jax.evaluation.instruction_tuning runs/instruction_tuning --out experiments/instruction_tuning

Replicates differ in their clusters and in the order of the data, not in the base model. A figure is the mean over them
with Student's t interval; that of a single model is the interval over its questions.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax.evaluation.statistics import mean_interval

MEASURES = {"likelihood": "acc", "generate": "score"}
EVALUATIONS = ("zero_shot", "thoughts", "shots", "masking")  # stages of the recipe, the last of its variant
_CLUSTERS = re.compile(r"clusters_\d+")
_REPLICATE = re.compile(r"_\d+(?= |$)")


def collect(run: Path) -> dict[str, Any]:
  """Evaluation -> task -> shots -> model, without the number of its replicate -> {mean, low, high, num}.

  Raises:
    FileNotFoundError: no evaluation of `run` is finished.
  """
  results = {}
  for name in EVALUATIONS:
    path = run / name / "few_shot.json"
    if path.is_file():
      results[name] = {task: _pool(found) for task, found in json.loads(path.read_text())["tasks"].items()}
  if not results:
    raise FileNotFoundError(f"{run} has no few_shot.json of {', '.join(EVALUATIONS)}: run the recipe first")
  return results


def _pool(found: Mapping[str, Any]) -> dict[str, dict[str, dict]]:
  measure = MEASURES[found["method"]]
  means: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
  for model, by_shots in found["models"].items():
    for count, result in by_shots.items():
      means[count][_REPLICATE.sub("", model)].append(result["measures"][measure])
  return {
    count: {name: _one(entries) for name, entries in models.items()} for count, models in means.items()
  }


def _one(entries: Sequence[dict]) -> dict[str, float]:
  if len(entries) == 1:
    return entries[0]
  return mean_interval([entry["mean"] for entry in entries])._asdict()


def tables(results: Mapping[str, Any]) -> str:
  """One Markdown table for each task of each evaluation, its models in rows and numbers of shots in columns."""
  parts = []
  for evaluation, tasks in results.items():
    for task, by_shots in tasks.items():
      head = " | ".join(f"{count} shots" for count in by_shots)
      parts += [f"**{evaluation}: {task}**", "", f"| model | {head} |", "|---|" + "---|" * len(by_shots)]
      for model in next(iter(by_shots.values())):
        cells = [_text(models[model]) for models in by_shots.values()]
        parts.append(f"| {model} | {' | '.join(cells)} |")
      parts.append("")
  return "\n".join(parts)


def _text(found: Mapping[str, float]) -> str:
  return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def plot(results: Mapping[str, Any], path: Path) -> None:
  """What each part of the experiment asks, a panel each; parts that were not run are left out."""
  panels = [panel for panel in (_clusters, _thoughts, _shots, _masking) if _NEEDS[panel] in results]
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(3.6 * len(panels), 3.2), layout="constrained")
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
      panel(axes, results[_NEEDS[panel]])
      axes.spines[["top", "right"]].set_visible(False)
      axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _clusters(axes, tasks) -> None:
  for task in (name for name in tasks if not name.endswith("_answers")):
    found = {int(name.split("_")[1]): x for name, x in tasks[task]["0"].items() if _CLUSTERS.fullmatch(name)}
    _line(axes, sorted(found), [found[number] for number in sorted(found)], task.replace("_", " "))
    base = tasks[task]["0"].get("pretrain (text)")
    if base:
      axes.axhline(base["mean"], color=axes.lines[-1].get_color(), linestyle=":", linewidth=1)
  axes.set_xlabel("training clusters")
  axes.set_ylabel("zero-shot accuracy (dotted: base, in text)")
  axes.set_title("Number of clusters")
  axes.legend(frameon=False)


def _shots(axes, tasks) -> None:
  by_shots = tasks["held_out"]
  counts = sorted(map(int, by_shots))
  for model in next(iter(by_shots.values())):
    _line(axes, counts, [by_shots[str(count)][model] for count in counts], model.replace("_", " "))
  axes.set_xticks(counts)
  axes.set_xlabel("worked examples")
  axes.set_ylabel("accuracy on held-out clusters")
  axes.set_title("Before and after tuning")
  axes.legend(frameon=False, fontsize=7)


def _thoughts(axes, tasks) -> None:
  _bars(axes, tasks, "Rationales in training", "accuracy of the last number")


def _masking(axes, tasks) -> None:
  _bars(axes, tasks, "Loss on responses or on everything", "accuracy")


def _bars(axes, tasks, title: str, label: str) -> None:
  models = list(next(iter(tasks.values()))["0"])
  for offset, model in zip(np.linspace(-0.12, 0.12, len(models)), models, strict=True):
    found = [by_shots["0"][model] for by_shots in tasks.values()]
    _line(axes, np.arange(len(found)) + offset, found, model.replace("_", " "), "o")
  axes.set_xticks(range(len(tasks)), [task.replace("_", "\n") for task in tasks])
  axes.set_title(title)
  axes.set_ylabel(label)
  axes.legend(frameon=False)


def _line(axes, x, found: Sequence[Mapping[str, float]], label: str, style: str = "o-") -> None:
  mean, low, high = (np.array([entry[key] for entry in found]) for key in ("mean", "low", "high"))
  axes.errorbar(x, mean, [np.maximum(mean - low, 0), np.maximum(high - mean, 0)], fmt=style, capsize=2, label=label)


_NEEDS = {_clusters: "zero_shot", _thoughts: "thoughts", _shots: "shots", _masking: "masking"}


def main(argv: Sequence[str] | None = None) -> None:
  """Writes OUT/results.json and OUT/results.png and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("run", type=Path)
  parser.add_argument("--out", type=Path, required=True)
  options = parser.parse_args(argv)
  results = collect(options.run)
  options.out.mkdir(parents=True, exist_ok=True)
  (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
  plot(results, options.out / "results.png")
  print(tables(results))


if __name__ == "__main__":
  main()
