"""Where does the gold reward peak as a policy moves away from its reference, and what moves the peak?

  S=experiments/over_optimisation
  python $S/analyse.py --data DIR --run runs/over_optimisation --out $S
  python $S/analyse.py --data DIR --run /tmp/fast/run --out /tmp/fast --fast

Makes or continues the sweeps `world.py` in RUN/world and `people.py` in RUN/people, reads them, writes results.json and
results.png to OUT and prints the tables of the record. DIR holds vader_ratings.tsv.gz; without --data the part on
people is left out.

The distance d is the square root of the KL to the SFT model, in nats. A gain is a mean reward on the held-out prompts
less that of the SFT model. Intervals of 95 % are over seeds: Student's t for means, percentiles of 2,000 bootstrap
resamples for fits and peaks.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax import data
from rlhf_jax.cli import main as command
from rlhf_jax.intervals import mean_interval
from rlhf_jax.pipeline.finished import open_run
from rlhf_jax.settings import import_module
from rlhf_jax.train import text_scorer
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.writing import write_figure

HERE = Path(__file__).parent
fits, world, people = (import_module(str(HERE / f"{name}.py")) for name in ("fits", "world", "people"))
BEST_OF_N = "best of n"
BATCH = 64  # texts scored at once
Rows = Sequence[Mapping[str, Any]]


class Course(NamedTuple):
  """The courses of S seeds away from the SFT model, at E distances that begin with 0; all f64[S, E]."""

  d: np.ndarray
  """Distances, in square roots of nats."""
  proxy: np.ndarray
  """Gains of the proxy reward, in standard deviations of gold rewards for one of proxy rewards of the SFT model."""
  gold: np.ndarray
  """Gains of the gold reward."""


class Start(NamedTuple):
  """The SFT model on the held-out prompts, by one reward model."""

  proxy: float
  """Mean proxy reward."""
  gold: float
  """Mean gold reward."""
  scale: float
  """Standard deviation of the gold rewards over that of the proxy rewards."""
  accuracy: float
  """Share of the pairs of answers to a prompt, with different gold rewards, that the reward model orders as gold."""


def start_of(samples: Rows, model: str) -> Start:
  """The start of a curve by the reward model `model`. samples: rows of samples.jsonl of a stage best_of_n_curve."""
  counts, proxy, gold = (
    np.concatenate(columns)
    for columns in zip(*((row["counts"], row["scores"][model], row["gold"]) for row in samples), strict=True)
  )
  means = [np.average(values, weights=counts) for values in (proxy, gold)]
  spreads = [
    np.sqrt(np.average((values - mean) ** 2, weights=counts)) for values, mean in zip((proxy, gold), means, strict=True)
  ]
  right, pairs = np.sum([_ordered(row, model) for row in samples], axis=0)
  return Start(*means, spreads[1] / max(spreads[0], 1e-9), right / max(pairs, 1e-9))


def _ordered(row: Mapping[str, Any], model: str) -> tuple[float, float]:
  """(pairs in the gold order, pairs of different gold rewards) of the answers to a prompt; equal scores count half."""
  gold, scores, counts = (np.array(column, np.float64) for column in (row["gold"], row["scores"][model], row["counts"]))
  pairs = np.outer(counts, counts) * (gold[:, None] > gold)
  above = (scores[:, None] > scores) + 0.5 * (scores[:, None] == scores)
  return float((pairs * above).sum()), float(pairs.sum())


def course_of(points: Sequence[tuple[float, float, float]], start: Start) -> Course:
  """The course of one seed, [1, E], from its points (KL in nats, proxy reward, gold reward)."""
  kl, proxy, gold = np.array(points, np.float64).T
  columns = np.sqrt(np.maximum(kl, 0.0)), (proxy - start.proxy) * start.scale, gold - start.gold
  return Course(*(column[None] for column in columns))


def read_courses(cells: Sequence[Path], stages: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Course]]:
  """{method: {stage: its courses}} of the runs of all seeds: BEST_OF_N by the reward models, and RL.

  stages: {method of RL: {stage: the reward model that it learns from}}.
  """
  parts: dict[str, dict[str, list[Course]]] = {BEST_OF_N: {}, **{method: {} for method in stages}}
  for cell in cells:
    samples = [row for _, row in data.read_rows(cell / "best_of_n" / "samples.jsonl")]
    curves = data.read_json(cell / "best_of_n" / "results.json")["curves"]
    starts = {model: start_of(samples, model) for model in curves}
    for model, points in curves.items():
      found = [(point["kl"], point["proxy"]["mean"], point["gold"]["mean"]) for point in points]
      parts[BEST_OF_N].setdefault(model, []).append(course_of(found, starts[model]))
    for method, models in stages.items():
      for stage, model in models.items():
        start = starts[model]
        rows = [row for row in read_metrics(cell / stage / "metrics.jsonl") if "eval/gold" in row]
        found = [(row["eval/kl"], row["eval/proxy"], row["eval/gold"]) for row in rows]
        course = course_of([(0.0, start.proxy, start.gold), *found], start)
        parts[method].setdefault(stage, []).append(course)
  return {
    method: {stage: Course(*map(np.concatenate, zip(*courses, strict=True))) for stage, courses in by_stage.items()}
    for method, by_stage in parts.items()
  }


def describe(course: Course) -> dict[str, Any]:
  """Both fits, the highest measured gold reward, and the end of a course."""
  curves = [(d[1:], gold[1:]) for d, gold in zip(course.d, course.gold, strict=True)]
  forms = {}
  for form in fits.FORMS:
    found, bounds = fits.fit(form, curves), fits.fit_intervals(form, curves)
    values = {name: _bounded(getattr(found, name), bounds[name]) for name in ("a", "b", "peak")}
    forms[form] = {**values, "r2": round(found.r2, 4)}
  highest = _bounded(*fits.highest(course.d, course.gold))
  return {
    "forms": forms,
    "highest": {"d": highest, "gold": _interval(course.gold[:, fits.highest_place(course.gold)])},
    "end": {name: _interval(values[:, -1]) for name, values in course._asdict().items()},
    "loss after the highest": _interval(fits.losses_after_peak(course.gold)),
  }


def above_curve(course: Course, form: str, free: Course) -> np.ndarray:
  """What each seed's gold reward is above the fit to `free` at the same d: f64[S], means over the last third."""
  found = fits.fit(form, [(d[1:], gold[1:]) for d, gold in zip(free.d, free.gold, strict=True)])
  last = slice(-max(course.d.shape[1] // 3, 1), None)
  fitted = fits.design(form, course.d[:, last].ravel()) @ (found.a, found.b)
  return (course.gold[:, last] - fitted.reshape(len(course.d), -1)).mean(axis=1)


def read_world(directory: Path) -> tuple[dict[str, Any], dict[str, dict[str, Course]]]:
  """The figures of the part in the embedded world, and its courses."""
  cells = read_cells(directory)
  config = data.read_json(cells[0] / "config.json")
  learning = {
    name: config[name]["environment"]["reward"]["checkpoint"]
    for name in config["stages"]
    if "environment" in config[name]
  }
  penalised = {name: model for name, model in learning.items() if config[name]["kl_coef"] > 0}
  stages = {
    "REINFORCE": {name: model for name, model in learning.items() if name.startswith("reinforce")},
    "PPO": {name: model for name, model in learning.items() if name.startswith("ppo") and name not in penalised},
    "PPO with penalties": penalised,
  }
  courses = read_courses(cells, stages)
  result: dict[str, Any] = {
    "seeds": len(cells),
    "accuracy": _accuracies(cells),
    **{method: {stage: describe(course) for stage, course in found.items()} for method, found in courses.items()},
  }
  for name, model in penalised.items():
    free = courses["PPO"][f"ppo_{model}"]
    above = above_curve(courses["PPO with penalties"][name], fits.FORMS[1], free)
    found = {"coefficient": config[name]["kl_coef"], "reward model": model, "above the curve without": _interval(above)}
    result["PPO with penalties"][name] |= found
  return result, courses


def read_people(directory: Path) -> tuple[dict[str, Any], dict[str, dict[str, Course]]]:
  """The figures of the part in which people are the gold, and its courses."""
  cells = read_cells(directory)
  config = data.read_json(cells[0] / "config.json")
  proxies = [name for name in config["stages"] if name.startswith("proxy")]
  courses = read_courses(cells, {"REINFORCE": {f"reinforce_{name}": name for name in proxies}})
  known = [_with_people(cell, proxies) for cell in cells]
  return {
    "seeds": len(cells),
    "counts": data.read_json(cells[0] / "texts" / "counts.json")["parts"],
    "accuracy": _accuracies(cells),
    "correlation with people": {
      "gold": round(known[0]["gold"], 4),
      **{name: _interval([found[name] for found in known]) for name in proxies},
    },
    **{method: {stage: describe(course) for stage, course in found.items()} for method, found in courses.items()},
  }, courses


def _accuracies(cells: Sequence[Path]) -> dict[str, Any]:
  found: dict[str, list[float]] = {}
  for cell in cells:
    samples = [row for _, row in data.read_rows(cell / "best_of_n" / "samples.jsonl")]
    for model in samples[0]["scores"]:
      found.setdefault(model, []).append(start_of(samples, model).accuracy)
  return {model: _interval(values) for model, values in found.items()}


def _with_people(cell: Path, proxies: Sequence[str]) -> dict[str, float]:
  """Correlation of the gold model and the proxies with the mean of all ratings of held-out texts; kept in the cell."""
  path = cell / "correlations.json"
  if not path.exists():
    run = open_run(cell)
    rows = [row for _, row in data.read_rows(cell / "texts" / "held_out.jsonl")]
    prompts, responses = [row["prompt"] for row in rows], [row["response"] for row in rows]
    means = [np.mean(row["means"]) for row in rows]
    found = {}
    for name in ("gold", *proxies):
      judge = run.model(name)
      score = text_scorer(judge.model, judge.tokenizer, judge.params, BATCH, judge.stage.transport)
      found[name] = float(np.corrcoef(score(prompts, responses), means)[0, 1])
    data.write_json(path, found)
  return data.read_json(path)


def read_cells(directory: Path) -> list[Path]:
  """The runs of a sweep in their order, one for each seed."""
  return [directory / "cells" / cell["name"] for cell in data.read_json(directory / "sweep.json")["cells"]]


def tables(result: Mapping[str, Any]) -> str:
  """The tables of the record, in Markdown."""
  lines: list[str] = []
  for part, found in result.items():
    for method in (name for name in (BEST_OF_N, "REINFORCE", "PPO", "PPO with penalties") if name in found):
      measured = ("highest gold gain", "at d", "loss from there to the end", "d at the end", "proxy gain at the end")
      above = ("KL coefficient", "gold above the curve without it") if method == "PPO with penalties" else ()
      lines += ["", f"**{part}, {method}: measured**", "", _heading(("by", *measured, *above))]
      lines += [_row(stage, _measured(one)) for stage, one in found[method].items()]
      lines += ["", f"**{part}, {method}: fitted**", "", _heading(("by", "form", "a", "b", "R²", "peak at d"))]
      for stage, one in found[method].items():
        lines += [_row(stage, [form, *_fitted(fitted)]) for form, fitted in one["forms"].items()]
    lines += ["", f"**{part}: reward models**", "", _heading(("reward model", "pairs in the gold order"))]
    lines += [_row(model, [_shown(one)]) for model, one in found["accuracy"].items()]
    if known := found.get("correlation with people"):
      lines += ["", f"**{part}: held-out texts**", "", _heading(("model", "correlation with the mean rating"))]
      lines += [_row(name, [_shown(one) if isinstance(one, Mapping) else f"{one:.2f}"]) for name, one in known.items()]
  return "\n".join(lines[1:])


def _measured(one: Mapping[str, Any]) -> list[str]:
  cells = [one["highest"]["gold"], one["highest"]["d"], one["loss after the highest"], one["end"]["d"]]
  shown = [*map(_shown, cells), _shown(one["end"]["proxy"])]
  return shown + ([f"{one['coefficient']}", _shown(one["above the curve without"])] if "coefficient" in one else [])


def _fitted(fitted: Mapping[str, Any]) -> list[str]:
  return [_shown(fitted["a"]), _shown(fitted["b"]), f"{fitted['r2']:.2f}", _shown(fitted["peak"])]


def _heading(columns: Sequence[str]) -> str:
  return "\n".join(["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"])


def _row(name: str, cells: Sequence[str]) -> str:
  return f"| {name} | " + " | ".join(cells) + " |"


def _shown(found: Mapping[str, Any]) -> str:
  """A figure with its interval; "none" for a peak that a curve never has."""
  mean, low, high = ("none" if found[key] == "inf" else f"{found[key]:.2f}" for key in ("mean", "low", "high"))
  return f"{mean} [{low}, {high}]"


def draw(parts: Mapping[str, Mapping[str, Mapping[str, Course]]], path: Path) -> None:
  """A panel for each method of each part: mean gains over seeds by d, proxy dashed and gold solid."""
  panels = [(part, method, found) for part, methods in parts.items() for method, found in methods.items()]
  columns = 3
  with matplotlib.rc_context({"font.size": 8}):
    figure = Figure(figsize=(10, 3.1 * math.ceil(len(panels) / columns)), layout="constrained")
    grid = figure.subplots(math.ceil(len(panels) / columns), columns, squeeze=False).ravel()
    for axes, (part, method, found) in zip(grid, panels, strict=False):
      for number, (stage, course) in enumerate(found.items()):
        d, proxy, gold = (values.mean(axis=0) for values in course)
        half = np.array([(one.high - one.low) / 2 for one in map(mean_interval, course.gold.T)])
        axes.plot(d, proxy, color=f"C{number}", linestyle="--", linewidth=1)
        axes.plot(d, gold, color=f"C{number}", linewidth=1.5, label=stage)
        axes.fill_between(d, gold - half, gold + half, color=f"C{number}", alpha=0.15, linewidth=0)
      axes.set(title=f"{part}: {method}", xlabel="d = √KL (√nats)", ylabel="gain in reward")
      axes.grid(alpha=0.3)
      axes.spines[["top", "right"]].set_visible(False)
      axes.legend(frameon=False, fontsize=6)
    for axes in grid[len(panels) :]:
      axes.remove()
    write_figure(path, figure)


def make_sweep(file: str, arg: str, directory: Path) -> None:
  """Makes or continues a sweep. Raises SystemExit with its status where it fails."""
  source = f"{HERE / file}:{arg}" if arg else str(HERE / file)
  engine = "inline" if arg.endswith("fast") else "local"
  if status := command(["sweep", source, "--workdir", str(directory), "--engine", engine]):
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> None:
  """Makes the sweeps, writes results.json and results.png, and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", type=Path, help="the directory of vader_ratings.tsv.gz; without it no part on people")
  parser.add_argument("--run", type=Path, required=True, help="directory of the sweeps; an interrupted one continues")
  parser.add_argument("--out", type=Path, required=True)
  parser.add_argument("--fast", action="store_true", help="tiny models and two seeds, which show that everything runs")
  options = parser.parse_args(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  make_sweep("world.py", "fast" if options.fast else "", options.run / "world")
  found = {"world": read_world(options.run / "world")}
  if options.data:
    arg = f"{options.data.absolute()},fast" if options.fast else f"{options.data.absolute()}"
    make_sweep("people.py", arg, options.run / "people")
    found["people"] = read_people(options.run / "people")
  result = {part: figures for part, (figures, _) in found.items()}
  data.write_text(options.out / "results.json", json.dumps(result, indent=1) + "\n")
  draw({part: courses for part, (_, courses) in found.items()}, options.out / "results.png")
  print(tables(result))


def _interval(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
  found = mean_interval(values)
  return _bounded(found.mean, (found.low, found.high))


def _bounded(mean: float, bounds: tuple[float, float]) -> dict[str, Any]:
  """A figure with its interval, rounded; "inf" and "-inf" as texts, since JSON has no number for them."""
  values = dict(zip(("mean", "low", "high"), (mean, *bounds), strict=True))
  return {name: round(float(value), 4) if math.isfinite(value) else str(float(value)) for name, value in values.items()}


if __name__ == "__main__":
  main()
