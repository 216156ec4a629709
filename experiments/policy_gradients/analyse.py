"""How much noise has a policy gradient with each baseline, and which algorithm gets furthest, and how steadily?

  python experiments/policy_gradients/analyse.py --run runs/policy_gradients --out experiments/policy_gradients
  python experiments/policy_gradients/analyse.py --run /tmp/fast/run --out /tmp/fast --fast

Makes or continues the sweep of `sweep.py` in RUN/sweep, then measures the gradients of its policies, which stay in
RUN/gradients, and computes the exact part anew. Writes results.json and results.png to OUT and prints the tables.
Intervals of 95 % are over the seeds, in the exact part over the draws of the problem: Student's t for means, that of
the linearised ratio for ratios.
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

from rlhf_jax import data
from rlhf_jax.cli import main as command
from rlhf_jax.intervals import mean_interval
from rlhf_jax.settings import import_module
from rlhf_jax.sweep.command import rows_of_sweep
from rlhf_jax.sweep.tables import Row
from rlhf_jax.train.programs import keep_programs
from rlhf_jax.writing import write_figure

FOLDER = Path(__file__).parent
exact, measured, cells = (import_module(str(FOLDER / f"{name}.py")) for name in ("exact", "measured", "sweep"))

DRAWS, DEPTHS = 100, (3, 8)  # problems of the exact part, and tokens of their longest responses
BATCHES = 10  # of 64 samples, for the gradients of one policy
TARGETS = (0.9, 1.0)  # gold rewards
MEASURES = ("gold", "win_rate", "kl", "proxy", "length")
WATCHED = {  # curves of the policy's training whose ends are reported
  "clip fraction": "policy/clip_fraction", "largest ratio": "policy/ratio_max", "KL of an update": "policy/approx_kl",
  "explained variance": "value/explained_variance", "length of the gradient": "grad_norm",
}  # fmt: skip
# Win rates against the reference summaries of TL;DR, in percent (Ahmadian et al. 2024, arXiv 2402.14740).
PUBLISHED = {
  "rloo": 77.9, "rloo, 2 responses": 74.2, "best of 8, 2000 prompts": 73.2, "reinforce, moving_mean": 70.7,
  "ppo": 67.6, "dpo": 66.6,
}  # fmt: skip
SHOWN = {  # baseline -> its color and its name in the exact and in the measured part
  "none": ("C0", "none", "none"),
  "mean": ("C1", "mean", "mean"),
  "leave one out": ("C2", "leave one out", "leave one out of the batch"),
  "leave one out of 4": ("C3", "", "leave one out"),
  "value": ("C4", "value, error 0.5", "trained, lambda 1"),
  "optimal": ("C5", "optimal", "optimal"),
}
Finals = dict[str, dict[int, dict[str, float]]]  # setting -> seed -> measure


def make_sweep(directory: Path, fast: bool) -> list[Row]:
  """Makes or continues the sweep, and returns the rows of its cells. Raises SystemExit where it fails."""
  small = [":fast", "--engine", "inline"] if fast else [""]
  if status := command(["sweep", f"{FOLDER / 'sweep.py'}{small[0]}", "--workdir", str(directory), *small[1:]]):
    sys.exit(status)
  return rows_of_sweep(directory)


def finals_of(rows: Iterable[Row]) -> Finals:
  """The measures of the policies and of their SFT models, as "sft gold", by setting and seed.

  The seed is that of the chain, for `SAME_CHAIN` that of PPO. "seconds" are those of all stages behind the chain but
  the evaluation.
  """
  found: Finals = {}
  for row in rows:
    finals, setting = row.measured.finals, row.values["setting"]
    seed = row.values["seeds.policy"] if setting == cells.SAME_CHAIN else row.values.get("seed", 0)
    own = {name: finals[f"evaluation/policy/{name}"] for name in MEASURES}
    own |= {"sft gold": finals["evaluation/sft/gold"]}
    own |= {name: finals[f"policy/{metric}"] for name, metric in WATCHED.items() if f"policy/{metric}" in finals}
    own["seconds"] = sum(finals.get(f"{stage}/seconds", 0.0) for stage in ("best_of_n", "policy"))
    found.setdefault(setting, {})[int(seed)] = own
  if cells.SAME_CHAIN in found:
    found[cells.SAME_CHAIN][0] = found["ppo"][0]
  return found


def curves_of(rows: Iterable[Row]) -> dict[str, dict[int, dict[int, float]]]:
  """{setting: {seed: {samples: gold reward}}} on the held-out prompts, of the settings that sample while they learn."""
  found: dict[str, dict[int, dict[int, float]]] = {}
  for row in rows:
    curve = row.measured.curves.get("policy/eval/gold")
    if curve is not None and row.values["setting"] != cells.SAME_CHAIN:
      seed = int(row.values.get("seed", 0))
      points = {int(step) * cells.SAMPLES: float(x) for step, x in zip(curve.steps, curve.values, strict=True)}
      found.setdefault(row.values["setting"], {})[seed] = points
  return found


def samples_to_reach(curve: Mapping[int, float], target: float) -> float:
  """Samples at the first evaluation whose mean with the one before is the target or more; infinite where none is.

  curve: {samples: gold reward} in the order of samples.
  """
  points = list(curve.items())
  for (_, before), (samples, now) in zip(points, points[1:], strict=False):
    if (before + now) / 2 >= target:
      return float(samples)
  return float("inf")


def reached(curves: Mapping[int, Mapping[int, float]], target: float) -> dict[str, Any]:
  """How many of the seeds reach the target, and the median, the least and the most samples; None for never."""
  samples = sorted(samples_to_reach(curve, target) for curve in curves.values())
  known = [int(x) if np.isfinite(x) else None for x in (float(np.median(samples)), samples[0], samples[-1])]
  return {
    "seeds": len(samples),
    "reached": int(np.isfinite(samples).sum()),
    **dict(zip(("median", "first", "last"), known, strict=True)),
  }


def training(finals: Finals) -> dict[str, Any]:
  """For each setting the means of its measures over the seeds, the gold reward of each, and differences to PPO.

  A run has failed where its policy has no higher gold reward than the SFT model that it starts from.
  """
  result: dict[str, Any] = {}
  for setting, by_seed in finals.items():
    golds = {seed: own["gold"] for seed, own in sorted(by_seed.items())}
    names = list(next(iter(by_seed.values())))
    paired = [seed for seed in by_seed if seed in finals.get("ppo", {}) and setting != cells.SAME_CHAIN]
    worst = min(golds, key=golds.__getitem__)
    result[setting] = {
      "seeds": len(by_seed),
      **{name: interval([own[name] for own in by_seed.values()]) for name in names},
      "gain": interval([own["gold"] - own["sft gold"] for own in by_seed.values()]),
      "gold by seed": golds,
      "deviation": float(np.std(list(golds.values()), ddof=1)) if len(golds) > 1 else None,
      "worst": {"seed": worst, "gold": golds[worst]},
      "failures": sum(own["gold"] <= own["sft gold"] for own in by_seed.values()),
    }
    if paired and setting != "ppo":
      differences = [by_seed[seed]["gold"] - finals["ppo"][seed]["gold"] for seed in paired]
      result[setting]["difference to ppo"] = interval(differences)
  return result


def interval(values: Sequence[float]) -> dict[str, float]:
  """The mean with Student's t interval, which has no limits for one value."""
  found = mean_interval(values)
  return {"mean": found.mean, "low": found.low, "high": found.high}


def measure_gradients(rows: Iterable[Row], sweep: Path, kept: Path, batches: int) -> dict[str, list[dict[str, Any]]]:
  """{"before": a point for each seed, "after": the same} of the cells of PPO; those that are kept are read."""
  kept.mkdir(parents=True, exist_ok=True)
  found: dict[str, list[dict[str, Any]]] = {"before": [], "after": []}
  for row in rows:
    if row.values["setting"] == "ppo":
      for name, points in found.items():
        path = kept / f"seed={row.values.get('seed', 0)},{name},{batches}.json"
        if not path.exists():
          data.write_json(path, measured.measure(sweep / "cells" / row.name, name == "after", batches))
        points.append(data.read_json(path))
  return found


def noise(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Variances by baseline over the seeds of one policy, before or after PPO.

  Returns {"variance": {baseline: {size: over that without a baseline}}, "noise": {baseline: {size: over the squared
  length of the gradient}}, "gae": {kind: {"bias", "deviation"}} in lengths of the gradient, of the largest batch}.
  """
  sizes = [int(size) for size in points[0]["norms"]["constant"]]
  found = {size: [measured.variances(point, size) for point in points] for size in sizes}
  signals = [point["products"][0][0] for point in points]
  names, kinds = list(found[sizes[0]][0]), points[0]["kinds"][1:]
  of = {name: {size: [point[name] for point in found[size]] for size in sizes} for name in names}
  apart = {name: [measured.bias(point, name)[0] for point in points] for name in kinds}
  return {
    "samples": points[0]["samples"],
    "explained variance": {
      name: interval([point["explained variance"][name] for point in points])
      for name in points[0]["explained variance"]
    },
    "variance": {n: {size: exact.interval(of[n][size], of["none"][size]) for size in sizes} for n in names},
    "noise": {n: {size: exact.interval(of[n][size], signals) for size in sizes} for n in names},
    "gae": {
      name: {
        "squared bias": exact.interval(apart[name], signals),
        "deviation": exact.root(exact.interval(of[name][sizes[-1]], signals)),
      }
      for name in kinds
    },
  }


def read_results(run: Path, fast: bool) -> dict[str, Any]:
  """All figures; makes what is not there yet."""
  rows = make_sweep(run / "sweep", fast)
  keep_programs()
  points = measure_gradients(rows, run / "sweep", run / "gradients", 2 if fast else BATCHES)
  curves = curves_of(rows)
  return {
    "exact": {
      f"{depth} tokens": exact.study(4 if fast else DRAWS, depth) for depth in (DEPTHS[:1] if fast else DEPTHS)
    },
    "measured": {name: noise(found) for name, found in points.items()},
    "training": training(finals_of(rows)),
    "curves": {setting: {seed: by_samples for seed, by_samples in found.items()} for setting, found in curves.items()},
    "samples to reach": {
      setting: {target: reached(found, target) for target in TARGETS} for setting, found in curves.items()
    },
    "published win rates": PUBLISHED,
  }


def tables(result: Mapping[str, Any]) -> str:
  """The tables of the record, in Markdown."""
  parts = [noise_table(f"exact, {name}", found["baselines"]) for name, found in result["exact"].items()]
  parts += [noise_table(f"measured, {name} PPO", found["variance"]) for name, found in result["measured"].items()]
  parts += [noise_table(f"variance over squared length, measured, {name} PPO", found["noise"])
            for name, found in result["measured"].items()]  # fmt: skip
  for name, found in result["exact"].items():
    lines = [f"| exact, {name}: bias, deviation of one sample | " + " | ".join(map(str, exact.LAMBDAS)) + " |",
             "|---" * (len(exact.LAMBDAS) + 1) + "|"]  # fmt: skip
    for error, by_lambda in found["gae"].items():
      pairs = [f"{x['bias']['mean']:.2f}, {x['deviation']['mean']:.2f}" for x in by_lambda.values()]
      lines.append(f"| {error} | " + " | ".join(pairs) + " |")
    lines += ["", "| best lambda | " + " | ".join(f"{size} samples" for size in exact.BATCHES) + " |",
              "|---" * (len(exact.BATCHES) + 1) + "|"]  # fmt: skip
    lines += [f"| {error} | " + " | ".join(map(str, by_size.values())) + " |"
              for error, by_size in found["best lambda"].items()]  # fmt: skip
    parts.append("\n".join(lines))
  for name, found in result["measured"].items():
    lines = [f"| measured, {name} PPO | squared bias | deviation of 64 samples |", "|---|---|---|"]
    lines += [f"| {kind} | {shown(x['squared bias'])} | {shown(x['deviation'])} |" for kind, x in found["gae"].items()]
    parts.append("\n".join(lines))
  parts.append(training_table(result))
  return "\n\n".join(parts)


def noise_table(title: str, found: Mapping[str, Mapping[Any, Mapping[str, float]]]) -> str:
  """A row for each baseline, a column for each number of samples."""
  sizes = list(dict.fromkeys(size for by_size in found.values() for size in by_size))
  lines = [f"| {title} | " + " | ".join(f"m = {size}" for size in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
  for name, by_size in found.items():
    lines.append(f"| {name} | " + " | ".join(shown(by_size.get(size), 3) for size in sizes) + " |")
  return "\n".join(lines)


def training_table(result: Mapping[str, Any]) -> str:
  """A row for each setting."""
  targets = [f"samples to {target}" for target in TARGETS]
  heads = ["setting", "seeds", "gold", "less PPO's", "win rate", "KL, nats", "worst", "failures", *targets,
           "seconds", "published win rate, %"]  # fmt: skip
  lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
  for setting, found in result["training"].items():
    by_target = result["samples to reach"].get(setting, {})
    reach = [reach_text(by_target.get(target)) for target in TARGETS]
    lines.append("| " + " | ".join([
      setting, str(found["seeds"]), shown(found["gold"]), shown(found.get("difference to ppo")),
      shown(found["win_rate"], 3), shown(found["kl"]), f"{found['worst']['gold']:.2f} (seed {found['worst']['seed']})",
      str(found["failures"]), *reach, f"{found['seconds']['mean']:.0f}", str(PUBLISHED.get(setting, "")),
    ]) + " |")  # fmt: skip
  return "\n".join(lines)


def reach_text(found: Mapping[str, Any] | None) -> str:
  """The median of the seeds with the first and the last one, and how many have reached the target."""
  if found is None:
    return ""
  median, first, last = ("never" if found[name] is None else str(found[name]) for name in ("median", "first", "last"))
  return f"{median} ({first} to {last}; {found['reached']} of {found['seeds']})"


def shown(found: Mapping[str, float] | None, digits: int = 2) -> str:
  """An interval; the mean alone where it is unbounded, nothing where there is none."""
  if found is None:
    return ""
  mean, low, high = (found[name] for name in ("mean", "low", "high"))
  if low is None or not np.isfinite([low, high]).all():
    return f"{mean:.{digits}f}"
  return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def rounded(value: Any) -> Any:
  """Numbers with four digits behind the point, or in all where they are small; None for what is not finite."""
  if isinstance(value, Mapping):
    return {str(key): rounded(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [rounded(item) for item in value]
  if isinstance(value, float):
    return (float(f"{value:.4g}") if abs(value) < 1 else round(value, 4)) if np.isfinite(value) else None
  return value


def draw(result: Mapping[str, Any], path: Path) -> None:
  """Six panels: noise by baseline, exact and measured; lambda; gold along samples; one factor at a time; seeds."""
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    (a, b, c), (d, e, f) = figure.subplots(2, 3)
    depth, by_depth = list(result["exact"].items())[-1]
    draw_noise(a, by_depth["noise"], 1, f"exact, up to {depth}")
    draw_noise(b, result["measured"]["before"]["noise"], 2, "measured, before PPO")
    draw_lambda(c, by_depth["gae"], f"GAE, exact, up to {depth}")
    draw_curves(d, result)
    draw_factors(e, result["training"])
    draw_seeds(f, result["training"])
    for axes in figure.axes:
      axes.grid(alpha=0.3)
      axes.spines[["top", "right"]].set_visible(False)
    write_figure(path, figure)


def draw_noise(axes: Axes, found: Mapping[str, Mapping[int, Mapping[str, float]]], part: int, title: str) -> None:
  """Variance over the squared length of the gradient, by the number of samples."""
  for label, entry in SHOWN.items():
    if entry[part] in found:
      by_size = found[entry[part]]
      means = [x["mean"] for x in by_size.values()]
      axes.plot(list(by_size), means, marker="o", markersize=3, color=entry[0], label=label)
  axes.set(xscale="log", yscale="log", xlabel="samples", ylabel="variance / |gradient|²", title=title)
  axes.legend(frameon=False, fontsize=7)


def draw_lambda(axes: Axes, found: Mapping[str, Mapping[float, Any]], title: str) -> None:
  """Bias (solid) and deviation of 64 samples (dashed) by lambda, for each error of the values."""
  for number, (error, by_lambda) in enumerate(found.items()):
    lambdas = list(by_lambda)
    axes.plot(lambdas, [x["bias"]["mean"] for x in by_lambda.values()], color=f"C{number}", label=error)
    deviations = [x["deviation"]["mean"] / 8 for x in by_lambda.values()]
    axes.plot(lambdas, deviations, color=f"C{number}", linestyle="--")
  axes.set(xlabel="lambda", ylabel="lengths of the gradient", title=f"{title}: bias, and of 64 samples deviation (- -)")
  axes.title.set_fontsize(8)
  axes.legend(frameon=False, fontsize=7)


def draw_curves(axes: Axes, result: Mapping[str, Any]) -> None:
  """Held-out gold reward by samples, means over the seeds."""
  for setting, by_seed in result["curves"].items():
    if setting not in cells.FACTORS:
      samples = list(next(iter(by_seed.values())))
      means = np.mean([list(curve.values()) for curve in by_seed.values()], axis=0)
      axes.plot(samples, means, label=setting, linewidth=1)
  axes.set(xlabel="samples", ylabel="gold reward, held out", title="training, means over seeds")
  axes.legend(frameon=False, fontsize=7)


def draw_factors(axes: Axes, training: Mapping[str, Any]) -> None:
  """Differences of gold rewards to PPO's on the same seeds."""
  names = [name for name in cells.FACTORS if name in training]
  for place, name in enumerate(names):
    found = training[name]["difference to ppo"]
    width = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
    bar = width if np.isfinite(width).all() else None
    axes.errorbar([found["mean"]], [place], xerr=bar, fmt="o", markersize=4, color="C0", capsize=2)
  axes.axvline(0, color="grey", linewidth=0.8)
  axes.set_yticks(range(len(names)), names)
  axes.invert_yaxis()
  axes.set(xlabel="gold reward less PPO's, same seeds", title="one setting changed")


def draw_seeds(axes: Axes, training: Mapping[str, Any]) -> None:
  """The gold reward of each seed."""
  names = [name for name in training if name not in cells.FACTORS]
  for place, name in enumerate(names):
    golds = list(training[name]["gold by seed"].values())
    axes.plot(golds, [place] * len(golds), "|", markersize=9, color="C0")
    axes.plot([np.mean(golds)], [place], "o", markersize=4, color="C3")
  axes.set_yticks(range(len(names)), names)
  axes.invert_yaxis()
  axes.set(xlabel="gold reward, held out", title="each seed, and the mean")


def main(argv: Sequence[str] | None = None) -> None:
  """Makes what is not there, writes results.json and results.png, and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--run", type=Path, required=True, help="directory of the sweep; an interrupted one continues")
  parser.add_argument("--out", type=Path, required=True)
  parser.add_argument("--fast", action="store_true", help="tiny sizes and few cells, which show that everything runs")
  options = parser.parse_args(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  if options.fast:  # programs that run a few times
    jax.config.update("jax_disable_most_optimizations", True)
  result = read_results(options.run, options.fast)
  data.write_text(options.out / "results.json", json.dumps(rounded(result), indent=1) + "\n")
  draw(result, options.out / "results.png")
  print(tables(result))


if __name__ == "__main__":
  main()
