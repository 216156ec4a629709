"""How does the accuracy of a reward model grow with model and data, and where does it hold?

  python experiments/reward_generalisation/analyse.py --run runs/reward_generalisation \
    --out experiments/reward_generalisation
  python experiments/reward_generalisation/analyse.py --run /tmp/fast/run --out /tmp/fast --fast

Makes or continues the sweep beside this file and then reads it: accuracies by model and data as in figure 6 of Stiennon
et al. (2020, arXiv 2009.01325), on answers of other policies, and on labellers that were held out (InstructGPT, arXiv
2203.02155). With --fast the sweep is the small one, which shows that everything runs.

Writes results.json and results.png to OUT and prints the tables of the record. The unit is the seed: a figure is the
mean over the seeds, with Student's t interval (95 %). A percentile bootstrap of three seeds would be narrower, since no
resample leaves the range of the three.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhf_jax.cli import main as command
from rlhf_jax.data import read_json, read_rows, write_text
from rlhf_jax.pipeline.finished import open_run
from rlhf_jax.sweep.figures import figure_text, over_seeds
from rlhf_jax.writing import write_figure

SWEEP = Path(__file__).with_name("sweep.py")
PUBLISHED = {
  "points per doubling of the data": 1.1,
  "points per doubling of the model": 1.8,
  "own labellers": 0.724,
  "held-out labellers": 0.696,
}
MEASURES = ("labels", "gold", "clear")  # of labels of the crowd; of the gold order, on all pairs and on clear ones
WRONG = "wrong"  # a right value against a wrong one in the same words: the kind of contrast that style cannot tell
CROWD = "all"
FLAT = 0.005  # mean gain per doubling below which a curve counts as flat
Interval = dict[str, float]


def read_sweep(run: Path) -> list[dict[str, Any]]:
  """What the analysis needs of each seed, as `read_seed` returns it."""
  cells = read_json(run / "sweep.json")["cells"]
  names = {(cell["values"]["seed"], cell["values"]["part"]): run / "cells" / cell["name"] for cell in cells}
  return [read_seed(names[seed, "accuracy"], names[seed, "labellers"]) for seed in sorted({seed for seed, _ in names})]


def read_seed(run: Path, labellers: Path) -> dict[str, Any]:
  """What stands in the cells of a seed.

  {"accuracy": {policy: results}, "labellers": results, "comparisons": their number, "models": {size: shape}, "seconds":
  {stage: time}}.
  """
  stages = read_json(run / "config.json")["stages"]
  names = [name for name in stages if name.startswith("accuracy_")]
  found = {name.removeprefix("accuracy_"): read_json(run / name / "results.json") for name in names}
  return {
    "accuracy": found,
    "labellers": read_json(labellers / "accuracy_labellers" / "results.json"),
    "comparisons": sum(1 for _ in read_rows(run / "preferences" / "comparisons.jsonl")),
    "models": model_sizes(run, dict.fromkeys(label.split()[0] for label in found["sft"]["groups"])),
    "seconds": {
      path.parent.name: read_json(path)["seconds"] for cell in (labellers, run) for path in cell.glob("*/done.json")
    },
  }


def model_sizes(run: Path, sizes: Iterable[str]) -> dict[str, dict[str, int]]:
  """The shape of the model of each size and its numbers of parameters, with the embeddings and without."""
  opened = open_run(run)
  found = {}
  for size in sizes:
    model = opened.model(f"{size}_sft" if f"{size}_sft" in opened.stages else "sft")
    trees = model.params, model.params["decoder"]["embedding"]
    total, table = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in trees)
    shape = model.model.config
    found[size] = dict(layers=shape.num_layers, width=shape.d_model, parameters=total, without_embeddings=total - table)
  return found


def accuracies(group: Mapping[str, Any]) -> dict[str, float]:
  """{measure: accuracy} of the one model of a group, or of the style baseline; WRONG where there are contrasts."""
  found = {
    "labels": group["label_accuracy"][CROWD][0]["mean"],
    "gold": group["accuracy"][0]["mean"],
    "clear": group["clear_accuracy"][0]["mean"],
  }
  return found | ({WRONG: group["kinds"][WRONG][0]["mean"]} if WRONG in group.get("kinds", ()) else {})


def curves(seeds: Sequence[Mapping[str, Any]], measure: str) -> tuple[list[str], list[int], np.ndarray]:
  """(sizes, the smallest first, numbers of comparisons, accuracies f64[seeds, sizes, numbers]) on answers of SFT."""
  models = seeds[0]["models"]
  sizes = sorted(models, key=lambda size: models[size]["parameters"])
  counts = sorted({int(label.split()[1]) for label in seeds[0]["accuracy"]["sft"]["groups"]})
  grid = [
    [[accuracies(seed["accuracy"]["sft"]["groups"][f"{size} {count}"])[measure] for count in counts] for size in sizes]
    for seed in seeds
  ]
  return sizes, counts, np.array(grid)


def gains(values: np.ndarray, doublings: np.ndarray) -> np.ndarray:
  """Gains per doubling between neighbours on the last axis: f64[..., K - 1] of values f64[..., K].

  doublings: f64[K], base-2 logarithms of the numbers of comparisons or parameters.
  """
  return np.diff(values, axis=-1) / np.diff(doublings)


def rising(means: Sequence[float], least: float = FLAT) -> int:
  """How many of K gains in a row come before the flat part, in which all of them are below `least`."""
  above = [place for place, gain in enumerate(means) if gain >= least]
  return above[-1] + 1 if above else 0


def plane(values: np.ndarray, data: np.ndarray, model: np.ndarray) -> np.ndarray:
  """(a, b, c, rms) of the least squares of values f64[M, N] = a + b * data[N] + c * model[M]; rms of the residuals."""
  x, y = np.broadcast_arrays(data[None, :], model[:, None])
  design = np.stack([np.ones(values.size), x.ravel(), y.ravel()], axis=1)
  found, *_ = np.linalg.lstsq(design, values.ravel(), rcond=None)
  return np.array([*found, np.sqrt(np.mean((design @ found - values.ravel()) ** 2))])


def fit(grid: np.ndarray, data: np.ndarray, model: np.ndarray) -> dict[str, Any]:
  """The plane of each seed's accuracies grid f64[seeds, M, N], and the means of its slopes: gains per doubling."""
  slopes = np.array([plane(values, data, model) for values in grid])
  return {
    "data": over_seeds(slopes[:, 1]),
    "model": over_seeds(slopes[:, 2]),
    "rms of residuals": over_seeds(slopes[:, 3]),
  }


def scaling(seeds: Sequence[Mapping[str, Any]], measure: str) -> dict[str, Any]:
  """Accuracies by size and number of comparisons, gains per doubling, and the fits, of one measure."""
  sizes, counts, grid = curves(seeds, measure)
  data = np.log2(counts)
  model = np.log2([seeds[0]["models"][size]["without_embeddings"] for size in sizes])
  of_data = gains(grid.mean(axis=1), data)  # [seeds, N - 1], the mean over the sizes
  of_model = gains(grid.mean(axis=2), model)  # [seeds, M - 1], the mean over the numbers of comparisons
  num_data, num_sizes = (max(rising(found.mean(axis=0)), 1) + 1 for found in (of_data, of_model))
  steep = grid[:, :num_sizes, :num_data]
  return {
    "accuracy": {
      size: {str(count): over_seeds(grid[:, row, column]) for column, count in enumerate(counts)}
      for row, size in enumerate(sizes)
    },
    "gain of data": {f"{a} to {b}": over_seeds(of_data[:, i]) for i, (a, b) in enumerate(_neighbours(counts))},
    "gain of model": {f"{a} to {b}": over_seeds(of_model[:, i]) for i, (a, b) in enumerate(_neighbours(sizes))},
    "fit": fit(grid, data, model),
    "fit before it is flat": {
      "comparisons": counts[:num_data],
      "sizes": sizes[:num_sizes],
      **fit(steep, data[:num_data], model[:num_sizes]),
    },
  }


def _neighbours(values: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
  return zip(values, values[1:], strict=False)


def people(seeds: Sequence[Mapping[str, Any]], policy: str) -> dict[str, Interval]:
  """On answers of a policy: the accuracy of the gold reward on the labels, and the agreement of two labellers."""
  found = [seed["accuracy"][policy]["labels"][CROWD] for seed in seeds]
  return {key: over_seeds([each[key]["mean"] for each in found]) for key in ("ceiling", "agreement")}


def by_policy(seeds: Sequence[Mapping[str, Any]], measure: str) -> dict[str, dict[str, Any]]:
  """{policy: {size: accuracy}} of the models of all comparisons, the style baseline's as "style", and as "difference"
  the mean over the sizes less that on answers of SFT."""
  sizes, counts, grid = curves(seeds, measure)
  on_sft = grid[:, :, -1].mean(axis=1)
  found = {}
  for policy in seeds[0]["accuracy"]:
    groups = [seed["accuracy"][policy]["groups"] for seed in seeds]
    values = np.array([[accuracies(of[f"{size} {counts[-1]}"])[measure] for size in sizes] for of in groups])
    styles = [accuracies(seed["accuracy"][policy]["style"])[measure] for seed in seeds]
    found[policy] = {size: over_seeds(values[:, column]) for column, size in enumerate(sizes)}
    found[policy] |= {"style": over_seeds(styles), "difference": over_seeds(values.mean(axis=1) - on_sft)}
  return found


def by_kind(seeds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Interval]]:
  """{size: {kind of difference: accuracy}} of the models of all comparisons, and of the style baseline as "style"."""
  sizes, counts, _ = curves(seeds, "gold")
  kinds = seeds[0]["accuracy"]["sft"]["style"]["kinds"]
  of_style = {"style": [seed["accuracy"]["sft"]["style"] for seed in seeds]}
  of_size = {size: [seed["accuracy"]["sft"]["groups"][f"{size} {counts[-1]}"] for seed in seeds] for size in sizes}
  return {
    name: {kind: over_seeds([each["kinds"][kind][0]["mean"] for each in groups]) for kind in kinds}
    for name, groups in {**of_size, **of_style}.items()
  }


def held_out_labellers(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Accuracy on labels of the groups that a model learnt from, and of the group that was left out, over the folds.

  In "by group" the labels of a group are foretold by the models that learnt from it ("own") and by the one that did not
  ("held out"). Each group is held out once and counts as own equally often, so that the mean difference is not one of
  groups that are easy to foretell.
  """
  groups = list(seeds[0]["labellers"]["groups"])
  table = np.array(
    [
      [
        [seed["labellers"]["groups"][fold]["label_accuracy"][group][0]["mean"] for group in groups]
        for fold in groups  # named by the group that it leaves out
      ]
      for seed in seeds
    ]
  )  # [seeds, folds, groups]
  out = np.eye(len(groups), dtype=bool)
  held_out = table[:, out]  # [seeds, groups]
  own = np.where(out, 0.0, table).sum(axis=1) / (len(groups) - 1)
  differences = own - held_out
  result: dict[str, Any] = {
    "own": over_seeds(own.mean(axis=1)),
    "held out": over_seeds(held_out.mean(axis=1)),
    "difference": over_seeds(differences.mean(axis=1)),
    "by group": {},
  }
  for column, group in enumerate(groups):
    found = {"own": own, "held out": held_out, "difference": differences}
    of_people = {
      key: over_seeds([seed["labellers"]["labels"][group][key]["mean"] for seed in seeds])
      for key in ("ceiling", "agreement")
    }
    result["by group"][group] = {name: over_seeds(values[:, column]) for name, values in found.items()} | of_people
  return result


def read_results(run: Path) -> dict[str, Any]:
  """All figures of a finished sweep."""
  seeds = read_sweep(run)
  return {
    "seeds": len(seeds),
    "prompts": seeds[0]["accuracy"]["sft"]["prompts"],
    "comparisons there are": [seed["comparisons"] for seed in seeds],
    "models": seeds[0]["models"],
    "published": PUBLISHED,
    "people": {policy: people(seeds, policy) for policy in seeds[0]["accuracy"]},
    "style baseline": {key: found["style"] for key, found in _each(by_policy(seeds, key)["sft"] for key in MEASURES)},
    "scaling": {key: scaling(seeds, key) for key in (*MEASURES, WRONG)},
    "kinds": by_kind(seeds),
    "policies": {key: by_policy(seeds, key) for key in MEASURES},
    "labellers": held_out_labellers(seeds),
    "seconds": {
      name: round(float(np.mean([seed["seconds"][name] for seed in seeds])), 1) for name in seeds[0]["seconds"]
    },
  }


def _each(found: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, Mapping[str, Any]]]:
  return zip(MEASURES, found, strict=True)


def tables(result: Mapping[str, Any]) -> str:
  """The tables of the record, in Markdown; accuracies in per cent."""
  parts = []
  models = result["models"]
  for measure, found in result["scaling"].items():
    counts = list(next(iter(found["accuracy"].values())))
    rows = {f"{size}, {models[size]['without_embeddings']:,}": by for size, by in found["accuracy"].items()}
    parts += [_table(f"{measure}: model, parameters without embeddings", counts, rows)]
    parts += [_table(f"{measure}: points per doubling", ["gain"], {k: {"gain": v} for k, v in _gains(found).items()})]
  kinds = list(next(iter(result["kinds"].values())))
  parts += [_table("kind of difference", kinds, result["kinds"])]
  for measure, found in result["policies"].items():
    parts += [_table(f"{measure}: answers of", list(found["sft"]), found)]
  parts += [_table("people, on answers of", ["ceiling", "agreement"], result["people"])]
  labellers = result["labellers"]
  columns = ["own", "held out", "difference", "ceiling", "agreement"]
  parts += [_table("labels of", columns, {**labellers["by group"], "mean": labellers})]
  return "\n\n".join(parts)


def _gains(found: Mapping[str, Any]) -> dict[str, Interval]:
  """The gains per doubling of a measure, by the words of their row."""
  steep = found["fit before it is flat"]
  where = f"{steep['comparisons'][0]} to {steep['comparisons'][-1]}, {steep['sizes'][0]} to {steep['sizes'][-1]}"
  return {
    **{f"data, {step}": gain for step, gain in found["gain of data"].items()},
    **{f"model, {step}": gain for step, gain in found["gain of model"].items()},
    "data, fit": found["fit"]["data"],
    "model, fit": found["fit"]["model"],
    f"data, fit {where}": steep["data"],
    f"model, fit {where}": steep["model"],
  }


def _table(title: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> str:
  lines = [f"| {title} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
  for name, row in rows.items():
    lines.append(
      f"| {name} | "
      + " | ".join(figure_text(row[column], 1, 100) if column in row else "" for column in columns)
      + " |"
    )
  return "\n".join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
  """Accuracy on labels: by data and model as in Stiennon et al., by policy, and of own and held-out labellers."""
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(12, 7.2), layout="constrained")
    (by_data, by_data_wrong), (of_policy, of_labellers) = figure.subplots(2, 2)
    _draw_scaling(by_data, result)
    _draw_wrong(by_data_wrong, result)
    names = [*result["models"], "style"]
    for number, name in enumerate(names):
      _points(of_policy, [found[name] for found in result["policies"]["labels"].values()], number, len(names), name)
    _lines(of_policy, [found["ceiling"] for found in result["people"].values()], "gold reward")
    _categories(of_policy, list(result["policies"]["labels"]), "answers of")
    groups = result["labellers"]["by group"]
    for number, name in enumerate(("own", "held out")):
      _points(of_labellers, [found[name] for found in groups.values()], number, 2, f"{name} labellers")
    _lines(of_labellers, [found["ceiling"] for found in groups.values()], "gold reward")
    _categories(of_labellers, list(groups), "labels of")
    for axes in figure.axes:
      axes.grid(alpha=0.3)
      axes.spines[["top", "right"]].set_visible(False)
      axes.legend(frameon=False, fontsize=7)
    write_figure(path, figure, 130)


def _draw_curves(axes: Axes, result: Mapping[str, Any], measure: str) -> None:
  """Accuracy by the number of comparisons, a curve for each size."""
  for number, (size, by_count) in enumerate(result["scaling"][measure]["accuracy"].items()):
    label = f"{result['models'][size]['without_embeddings']:,} parameters"
    x = [int(count) for count in by_count]
    axes.errorbar(
      x, *_bars(list(by_count.values())), fmt="o-", markersize=4, capsize=2, color=f"C{number}", label=label
    )
  axes.set_xscale("log", base=2)
  axes.set_xticks(x, [str(count) for count in x])
  axes.minorticks_off()
  axes.set_xlabel("comparisons")


def _draw_wrong(axes: Axes, result: Mapping[str, Any]) -> None:
  _draw_curves(axes, result, WRONG)
  style = result["kinds"]["style"][WRONG]["mean"]
  axes.axhline(100 * style, color="0.4", linestyle="-.", linewidth=1, label="style")
  axes.set_ylabel("right value before a wrong one (%)")


def _draw_scaling(axes: Axes, result: Mapping[str, Any]) -> None:
  _draw_curves(axes, result, "labels")
  people = result["people"]["sft"]
  lines = {
    "gold reward": people["ceiling"],
    "one labeller": people["agreement"],
    "style": result["style baseline"]["labels"],
  }
  for (name, found), style in zip(lines.items(), ("--", ":", "-."), strict=True):
    axes.axhline(100 * found["mean"], color="0.4", linestyle=style, linewidth=1, label=name)
  axes.set_ylabel("labels foretold (%)")


def _bars(found: Sequence[Interval]) -> tuple[list[float], list[list[float]]]:
  """Means in per cent, and the lengths of their bars below and above; 0 where the limits are unknown."""
  means = [100 * each["mean"] for each in found]
  below, above = (
    [0.0 if each[key] is None else abs(100 * each[key] - value) for each, value in zip(found, means, strict=True)]
    for key in ("low", "high")
  )
  return means, [below, above]


def _points(axes: Axes, found: Sequence[Interval], number: int, count: int, label: str) -> None:
  """A point for each category, beside those of `count` - 1 other series."""
  x = np.arange(len(found)) + (number - (count - 1) / 2) * 0.8 / count
  axes.errorbar(x, *_bars(found), fmt="o", markersize=4, capsize=2, color=f"C{number}", label=label)


def _lines(axes: Axes, found: Sequence[Interval], label: str) -> None:
  """A short dashed line in each category."""
  x = np.arange(len(found))
  axes.hlines([100 * each["mean"] for each in found], x - 0.4, x + 0.4, color="0.4", linestyle="--", label=label)


def _categories(axes: Axes, names: Sequence[str], label: str) -> None:
  axes.set_xticks(np.arange(len(names)), [name.replace("_", "\n") for name in names])
  axes.set_xlabel(label)


def make_runs(options: argparse.Namespace) -> None:
  """Makes or continues the sweep. Raises SystemExit with its status where it fails."""
  arguments = [f"{SWEEP}:fast", "--engine", "inline"] if options.fast else [str(SWEEP)]
  if status := command(["sweep", *arguments, "--workdir", str(options.run)]):
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> None:
  """Makes the runs, writes results.json and results.png, and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--run", type=Path, required=True, help="directory of the sweep; an interrupted one continues there"
  )
  parser.add_argument("--out", type=Path, required=True, help="folder for results.json and results.png")
  parser.add_argument(
    "--fast", action="store_true", help="tiny models and few comparisons, to see that everything runs"
  )
  options = parser.parse_args(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  make_runs(options)
  result = read_results(options.run)
  write_text(options.out / "results.json", json.dumps(result, indent=1) + "\n")
  draw(result, options.out / "results.png")
  print(tables(result))


if __name__ == "__main__":
  main()
