"""The figures and plots of `experiments/instruction_tuning`, from finished runs of the recipe instruction_tuning.

  python experiments/instruction_tuning/analyse.py runs/instruction_tuning --out experiments/instruction_tuning

For clusters, examples and masking the unit is the fold: its value is the mean over its clusters, and over the runs if
there are several (other seeds have other base models). A figure is the mean over the folds, with Student's t interval,
and differences are taken fold by fold. For rationales the unit is the problem: its score is the mean over the
replicates; each run has its own problems.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax.data import write_text
from rlhf_jax.intervals import mean_interval
from rlhf_jax.writing import write_figure

MEASURES = {"likelihood": "acc", "generate": "score"}
BASE = "pretrain (text)"
# The differences a - b behind the claims: (evaluation, number of examples, a, b).
CONTRASTS = (
  ("zero_shot", "0", "clusters_12", BASE),
  ("zero_shot", "0", "clusters_12", "pretrain"),
  ("zero_shot", "0", "clusters_12", "clusters_1"),
  ("shots", "3", "clusters_12", BASE),
  ("shots", "3", "examples", BASE),
  ("shots", "3", "examples", "clusters_12"),
  ("masking", "0", "everything", "clusters_12"),
)
PANELS = ("", "_answers"), ("choices ranked", "answers written")
Values = dict[str, dict[str, dict[str, list[float]]]]  # task -> number of examples -> model -> values of the folds


def collect(runs: Sequence[Path]) -> dict[str, Any]:
  """{"values": evaluation -> task -> shots -> model -> folds, "differences", "rationales"}, from the evaluations that
  every run has finished.

  Raises:
    FileNotFoundError: no evaluation is finished in every run.
  """
  done = [
    name
    for name in ("zero_shot", "shots", "masking", "rationales")
    if all((run / name / "few_shot.json").is_file() for run in runs)
  ]
  if not done:
    raise FileNotFoundError(f"no part has its few_shot.json in {', '.join(map(str, runs))}: run the recipe first")
  values = {name: _mean([_by_fold(run / name) for run in runs]) for name in done if name != "rationales"}
  if "masking" in values and "zero_shot" in values:  # both are on the same folds and questions
    for task, found in values["masking"].items():
      found["0"]["clusters_12"] = values["zero_shot"][task]["0"]["clusters_12"]
  results: dict[str, Any] = {"values": values, "differences": _differences(values)}
  if "rationales" in done:
    rows = [data_rows(run / "rationales" / "responses.jsonl") for run in runs]
    results["rationales"] = _rationales([dict(row, run=number) for number, part in enumerate(rows) for row in part])
  return results


def _mean(runs: Sequence[Any]) -> Any:
  """The mean, element by element, of lists at the same places of nested dictionaries."""
  if isinstance(runs[0], dict):
    return {key: _mean([run[key] for run in runs]) for key in runs[0]}
  return np.mean(runs, axis=0).tolist()


def data_rows(path: Path) -> list[dict]:
  """The rows of a .jsonl file that the evaluation wrote."""
  return [json.loads(line) for line in path.read_text().splitlines()]


def _by_fold(directory: Path) -> Values:
  tasks = json.loads((directory / "few_shot.json").read_text())["tasks"]
  found: Values = {}
  for label in sorted(tasks, key=_number):
    measure = MEASURES[tasks[label]["method"]]
    for model, by_shots in tasks[label]["models"].items():
      for count, result in by_shots.items():
        means = [measures[measure]["mean"] for measures in result["clusters"].values()]
        name = model.removesuffix(f"_{_number(label)}")
        shots = found.setdefault(label.rpartition("_")[0], {}).setdefault(count, {})
        shots.setdefault(name, []).append(float(np.mean(means)))
  return found


def _number(label: str) -> int:
  return int(label.rpartition("_")[2])


def _differences(values: Mapping[str, Values]) -> list[dict[str, Any]]:
  found = []
  for evaluation, count, a, b in CONTRASTS:
    for task, by_shots in values.get(evaluation, {}).items():
      models = by_shots.get(count, {})
      if a in models and b in models:
        interval = mean_interval(np.array(models[a]) - np.array(models[b]))
        found.append(dict(evaluation=evaluation, task=task, shots=int(count), a=a, b=b, **interval._asdict()))
  return found


def _rationales(rows: Sequence[dict]) -> dict[str, Any]:
  """task -> {"steps", "answer", "difference"} -> number of demonstrations -> interval over problems, and the means of
  the replicates."""
  scores: dict = defaultdict(lambda: defaultdict(list))  # (task, form, number) -> problem -> scores of the replicates
  means: dict = defaultdict(list)
  for row in rows:
    form, number, replicate = re.fullmatch(r"(\w+)_(\d+)_(\d+)", row["model"]).groups()
    scores[row["task"], form, int(number)][row["run"], row["prompt"]].append(row["score"])
    means[row["task"], form, int(number), row["run"], replicate].append(row["score"])
  found: dict = defaultdict(lambda: defaultdict(dict))
  for task, form, number in sorted(scores):
    by_prompt = {prompt: float(np.mean(x)) for prompt, x in scores[task, form, number].items()}
    replicates = [float(np.mean(x)) for key, x in means.items() if key[:3] == (task, form, number)]
    found[task][form][str(number)] = mean_interval(list(by_prompt.values()))._asdict() | {"replicates": replicates}
    if form == "steps" and (task, "answer", number) in scores:
      gains = [x - float(np.mean(scores[task, "answer", number][prompt])) for prompt, x in by_prompt.items()]
      found[task]["difference"][str(number)] = mean_interval(gains)._asdict()
  return found


def tables(results: Mapping[str, Any]) -> str:
  """Tables in Markdown: means of every evaluation, differences, and rationales by the number of demonstrations."""
  parts = []
  for evaluation, tasks in results["values"].items():
    for task, by_shots in tasks.items():
      head = " | ".join(f"{count} shots" for count in by_shots)
      parts += [f"**{evaluation}: {task}**", "", f"| model | {head} |", "|---|" + "---|" * len(by_shots)]
      for model in next(iter(by_shots.values())):
        cells = [_text(mean_interval(models[model])._asdict()) for models in by_shots.values()]
        parts.append(f"| {model} | {' | '.join(cells)} |")
      parts.append("")
  parts += ["| difference | shots | task | mean |", "|---|---|---|---|"]
  for row in results["differences"]:
    parts.append(f"| {row['a']} - {row['b']} | {row['shots']} | {row['task']} | {_text(row)} |")
  for task, forms in results.get("rationales", {}).items():
    numbers = list(next(iter(forms.values())))
    parts += ["", f"**rationales: {task}**", "", f"| | {' | '.join(numbers)} |", "|---|" + "---|" * len(numbers)]
    parts += [f"| {form} | {' | '.join(_text(found[n]) for n in numbers)} |" for form, found in forms.items()]
  return "\n".join(parts) + "\n"


def _text(found: Mapping[str, float]) -> str:
  return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def plot(results: Mapping[str, Any], directory: Path) -> list[Path]:
  """Draws a picture for each claim whose evaluation was run; returns the paths."""
  values = results["values"]
  drawings: tuple[tuple[str, Any, Callable], ...] = (
    ("clusters", values.get("zero_shot"), _clusters),
    ("examples", values.get("shots"), _examples),
    ("masking", values.get("masking"), _masking),
    ("rationales", results.get("rationales"), _rationale_panels),
  )
  paths = []
  for name, found, draw in drawings:
    if not found:
      continue
    with matplotlib.rc_context({"font.size": 9}):
      figure = Figure(figsize=(7.2, 3.2), layout="constrained")
      panels = figure.subplots(1, 2)
      draw(panels, found)
      for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.set_ylim(0, 1)  # accuracy, helpfulness and shares of problems; a t interval that reaches beyond is cut
      paths.append(directory / f"{name}.png")
      write_figure(paths[-1], figure)
  return paths


def _clusters(panels, tasks: Values) -> None:
  """Held-out and seen accuracy over the number of clusters; a thin line for each fold."""
  for axes, suffix, title in zip(panels, *PANELS, strict=True):
    for colour, name in (("C0", "held_out"), ("C1", "seen")):
      models = tasks[name + suffix]["0"]
      numbers = sorted(int(model.removeprefix("clusters_")) for model in models if model.startswith("clusters_"))
      folds = np.array([models[f"clusters_{number}"] for number in numbers])  # [numbers, folds]
      if name == "held_out":
        axes.plot(numbers, folds, color=colour, alpha=0.2, linewidth=0.8)
      _line(axes, numbers, list(folds), name.replace("_", " "), colour)
      axes.axhline(np.mean(models[BASE]), color=colour, linestyle=":", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, numbers)
    axes.set_xlabel("training clusters (dotted: base model, as text)")
    axes.set_title(title)
  panels[0].set_ylabel("zero-shot accuracy")
  panels[1].set_ylabel("helpfulness")
  panels[0].legend(frameon=False)


def _examples(panels, tasks: Values) -> None:
  for axes, suffix, title in zip(panels, *PANELS, strict=True):
    by_shots = tasks["held_out" + suffix]
    counts = sorted(map(int, by_shots))
    for number, model in enumerate(next(iter(by_shots.values()))):
      _line(axes, counts, [by_shots[str(count)][model] for count in counts], model.replace("_", " "), f"C{number}")
    axes.set_xticks(counts)
    axes.set_xlabel("worked examples")
    axes.set_title(f"held-out clusters, {title}")
  panels[0].set_ylabel("accuracy")
  panels[1].set_ylabel("helpfulness")
  panels[0].legend(frameon=False, fontsize=7)


def _masking(panels, tasks: Values) -> None:
  for axes, suffix, title in zip(panels, *PANELS, strict=True):
    for number, (model, label) in enumerate((("clusters_12", "responses"), ("everything", "everything"))):
      found = [tasks[name + suffix]["0"][model] for name in ("held_out", "seen")]
      _line(axes, np.arange(2) + 0.1 * number, found, f"loss on {label}", f"C{number}", "o")
    axes.set_xticks([0, 1], ["held out", "seen"])
    axes.set_xlim(-0.5, 1.6)
    axes.set_title(title)
  panels[0].set_ylabel("zero-shot accuracy")
  panels[1].set_ylabel("helpfulness")
  panels[0].legend(frameon=False)


def _rationale_panels(panels, tasks: Mapping[str, Any]) -> None:
  for axes, (task, forms) in zip(panels, tasks.items(), strict=True):
    for colour, form, label in (("C0", "steps", "with rationales"), ("C1", "answer", "answers alone")):
      numbers = sorted(map(int, forms[form]))
      found = [forms[form][str(number)] for number in numbers]
      _bounds(axes, numbers, found, label, colour)
      for number, entry in zip(numbers, found, strict=True):
        replicates = entry["replicates"]
        axes.plot([number] * len(replicates), replicates, "x", color=colour, alpha=0.5, markersize=4, clip_on=False)
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, numbers)
    axes.set_xlabel("demonstrations")
    axes.set_title(f"problems of {task.replace('_', ' ')}")
  panels[0].set_ylabel("problems solved")
  panels[0].legend(frameon=False)


def _line(axes, x, folds: Sequence[Sequence[float]], label: str, colour: str, style: str = "o-") -> None:
  _bounds(axes, x, [mean_interval(values)._asdict() for values in folds], label, colour, style)


def _bounds(axes, x, found: Sequence[Mapping[str, float]], label: str, colour: str, style: str = "o-") -> None:
  mean, low, high = (np.array([entry[key] for entry in found]) for key in ("mean", "low", "high"))
  bounds = [mean - np.clip(low, 0, mean), np.clip(high, mean, 1) - mean]
  axes.errorbar(x, mean, bounds, fmt=style, capsize=2, label=label, color=colour, clip_on=False)


def main(argv: Sequence[str] | None = None) -> None:
  """Writes OUT/results.json and a picture for each claim, and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
  parser.add_argument("--out", type=Path, required=True)
  options = parser.parse_args(argv)
  results = collect(options.runs)
  options.out.mkdir(parents=True, exist_ok=True)
  write_text(options.out / "results.json", json.dumps(results, indent=1) + "\n")
  plot(results, options.out)
  print(tables(results))


if __name__ == "__main__":
  main()
