"""Which implementation details of PPO matter on the embedded world?

  python experiments/implementation_details/analyse.py --run runs/details --out experiments/implementation_details
  python experiments/implementation_details/analyse.py --run /tmp/fast/run --out /tmp/fast --fast

Makes or continues the sweep of sweep.py, chooses the two changes with the largest effects on the final gold reward,
makes the cells with both of them, and reads all of it. With --fast everything is tiny: it shows that everything runs.

Writes results.json and results.png to OUT and prints the tables of the record. An effect is the difference to the
unchanged run of the same seed; intervals of 95 % are Student's t over the seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax.cli import main as command
from rlhf_jax.data import write_text
from rlhf_jax.pipeline.finished import open_run
from rlhf_jax.settings import import_module
from rlhf_jax.sweep.command import rows_of_sweep
from rlhf_jax.sweep.figures import figure_text, over_seeds
from rlhf_jax.sweep.measures import Measured
from rlhf_jax.writing import write_figure

SWEEP = Path(__file__).with_name("sweep.py")
sweep = import_module(str(SWEEP))
NONE = sweep.NONE
RAW = "rewards as trained"
FINALS = {"gold": "final/gold", "proxy": "final/proxy", "KL": "final/kl", "win rate": "final/win_rate"}
WINDOW = 8  # steps of the running mean of the gold reward
METRICS = {
  "gold": "gold reward",
  "proxy": "proxy reward",
  "KL": "KL to SFT, nats",
  "win rate": "win rate against SFT",
  "fall": "largest fall of the gold reward in training",
  "step KL": "largest KL of a step's updates, nats a token",
}
DRAWN = ("gold", "proxy", "KL", "fall")
Values = dict[str, dict[int, dict[str, float]]]  # change -> seed -> metric


def measures(measured: Measured) -> dict[str, float]:
  """The metrics of a cell: of its evaluation, and of how steadily PPO went."""
  gold = measured.curves["ppo/reward/gold"].values
  found = {name: measured.finals[metric] for name, metric in FINALS.items()}
  found["fall"] = largest_fall(gold)
  found["step KL"] = float(measured.curves["ppo/policy/approx_kl"].values.max())
  return found


def largest_fall(values: np.ndarray, window: int = WINDOW) -> float:
  """The largest fall of the running mean of values f[N] below its maximum until then; at least 0."""
  smooth = np.convolve(values, np.ones(min(window, len(values))) / min(window, len(values)), "valid")
  return float((np.maximum.accumulate(smooth) - smooth).max())


def read_values(root: Path) -> tuple[Values, dict[str, Any]]:
  """(the metrics of every cell, the mean and standard deviation of the scores of a reward model as it was trained).

  All proxy rewards are in the unit of the normalised reward model: the scores as trained are another scale of them.
  """
  rows = {(row.values["change"], row.values.get("seed", 0)): row for row in rows_of_sweep(root)}
  values: Values = {}
  scales: dict[int, tuple[float, float]] = {}
  for (change, seed), row in rows.items():
    found = measures(row.measured)
    if RAW in change.split("+"):
      if seed not in scales:
        scales[seed] = score_scale(*(_head(root, rows[name, seed].name) for name in (RAW, NONE)))
      mean, std = scales[seed]
      found["proxy"] = (found["proxy"] - mean) / std
    values.setdefault(change, {})[seed] = found
  return values, {
    name: over_seeds([scale[place] for scale in scales.values()]) for place, name in enumerate(("mean", "std"))
  }


def score_scale(trained: Mapping[str, np.ndarray], normal: Mapping[str, np.ndarray]) -> tuple[float, float]:
  """(mean, std) of scores as trained where those of the normalised head have 0 and 1: trained = mean + std * normal.

  Raises:
    ValueError: one head is no shift and scale of the other.
  """
  kernel, unit = (np.asarray(head["kernel"], np.float64) for head in (trained, normal))
  std = float(kernel @ unit / (unit @ unit))
  if np.abs(kernel - std * unit).max() > 1e-3 * np.abs(kernel).max():
    raise ValueError("the reward models with and without normalisation differ in more than a shift and a scale")
  return float(trained["bias"] - std * normal["bias"]), std


def _head(root: Path, name: str) -> dict[str, np.ndarray]:
  return {
    key: np.asarray(value)
    for key, value in open_run(root / "cells" / name).model("reward_model").params["head"].items()
  }


def effects(values: Values) -> dict[str, dict[str, Any]]:
  """{change: {metric: interval of the difference to the unchanged runs of the same seeds}}."""
  return {
    change: {
      name: over_seeds([found[name] - values[NONE][seed][name] for seed, found in runs.items()]) for name in METRICS
    }
    for change, runs in values.items()
    if change != NONE
  }


def levels(values: Values) -> dict[str, dict[str, Any]]:
  """{change: {metric: interval over seeds}}, and the standard deviation of the gold reward over seeds."""
  found: dict[str, dict[str, Any]] = {}
  for change, runs in values.items():
    found[change] = {name: over_seeds([run[name] for run in runs.values()]) for name in METRICS}
    gold = [run["gold"] for run in runs.values()]
    found[change]["spread"] = round(float(np.std(gold, ddof=1)), 4) if len(gold) > 1 else None
  return found


def largest(found: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
  """The two changes with the largest effects on the gold reward, of either sign, that change different settings."""
  single = sorted((name for name in found if name in changes), key=lambda name: -abs(found[name]["gold"]["mean"]))
  for place, second in enumerate(single):
    for first in single[:place]:
      if not changes[first].keys() & changes[second].keys():
        return first, second
  raise ValueError("no two changes are of different settings")


def interaction(values: Values, first: str, second: str) -> dict[str, Any]:
  """{metric: {"first", "second", "both", "interaction": intervals}} of two changes, paired by seed.

  The first three are differences to the unchanged runs; the interaction is what both together give beyond the sum.
  """
  both = f"{first}+{second}"
  found: dict[str, Any] = {}
  for name in METRICS:
    a, b, ab = (
      np.array([values[change][seed][name] - values[NONE][seed][name] for seed in values[both]])
      for change in (first, second, both)
    )
    found[name] = {
      "first": over_seeds(a),
      "second": over_seeds(b),
      "both": over_seeds(ab),
      "interaction": over_seeds(ab - a - b),
    }
  return found


def summarise(values: Values, scale: Mapping[str, Any], pair: tuple[str, str]) -> dict[str, Any]:
  """All figures of the record."""
  found = effects(values)
  return {
    "seeds": len(values[NONE]),
    "levels": levels(values),
    "effects": {change: found[change] for change in found if change in sweep.CHANGES},
    "scores as trained": dict(scale),
    "largest": list(pair),
    "two by two": interaction(values, *pair),
  }


def tables(result: Mapping[str, Any]) -> str:
  """The tables of the record, in Markdown."""
  heads = [*METRICS.values(), "spread of the gold reward over seeds"]
  lines = ["| change | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
  level = result["levels"][NONE]
  spread = {
    change: "" if found["spread"] is None else f"{found['spread']:.2f}" for change, found in result["levels"].items()
  }
  lines.append("| " + " | ".join([NONE, *(figure_text(level[name]) for name in METRICS), spread[NONE]]) + " |")
  for change, found in sorted(result["effects"].items(), key=lambda item: -abs(item[1]["gold"]["mean"])):
    lines.append(
      "| " + " | ".join([change, *(figure_text(found[name], sign="+") for name in METRICS), spread[change]]) + " |"
    )
  first, second = result["largest"]
  lines += ["", f"| | {first} | {second} | both | interaction |", "|---" * 5 + "|"]
  for name, label in METRICS.items():
    lines.append(
      "| " + " | ".join([label, *(figure_text(each, sign="+") for each in result["two by two"][name].values())]) + " |"
    )
  return "\n".join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
  """The effect of each change with its interval, a panel for each of four metrics."""
  changes = sorted(result["effects"], key=lambda change: result["effects"][change]["gold"]["mean"])
  rows = [*changes, " + ".join(result["largest"])]
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(11, 1.2 + 0.3 * len(rows)), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(DRAWN), sharey=True), DRAWN, strict=True):
      found = [*(result["effects"][change][name] for change in changes), result["two by two"][name]["both"]]
      means = np.array([each["mean"] for each in found])
      bounds = np.array(
        [[each["mean"] if each[end] is None else each[end] for each in found] for end in ("low", "high")]
      )
      axes.errorbar(means, range(len(rows)), xerr=np.abs(bounds - means), fmt="o", markersize=4, capsize=2, linewidth=1)
      axes.axvline(0, color="0.6", linewidth=0.8)
      axes.set(
        title=METRICS[name].partition(",")[0].replace(" of the gold reward in training", ""), xlabel="difference"
      )
      axes.grid(alpha=0.3)
      axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_yticks(range(len(rows)), rows)
    write_figure(path, figure)


def make_runs(options: argparse.Namespace, together: str = "") -> None:
  """Makes or continues the sweep, with the changes `together` besides. Raises SystemExit where it fails."""
  arg = ",".join(filter(None, ("fast" if options.fast else "", together)))
  engine = ["--engine", "inline"] if options.fast else []
  if status := command(["sweep", f"{SWEEP}:{arg}" if arg else str(SWEEP), "--workdir", str(options.run), *engine]):
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> None:
  """Makes all runs, writes results.json and results.png, and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--run", type=Path, required=True, help="the directory of the sweep; an interrupted one continues"
  )
  parser.add_argument("--out", type=Path, required=True, help="the folder of results.json and results.png")
  parser.add_argument("--fast", action="store_true", help="tiny sizes, one seed and three changes")
  options = parser.parse_args(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  make_runs(options)
  values, _ = read_values(options.run)
  pair = largest(effects(values), sweep.CHANGES)
  make_runs(options, "+".join(pair))
  result = summarise(*read_values(options.run), pair)
  write_text(options.out / "results.json", json.dumps(result, indent=2) + "\n")
  draw(result, options.out / "results.png")
  print(tables(result))


if __name__ == "__main__":
  main()
