"""How does the preference for a policy grow and fall along PPO, and does a retrained reward model keep up with it?

  python experiments/policy_improvement/analyse.py --run runs/policy_improvement --out experiments/policy_improvement
  python experiments/policy_improvement/analyse.py --run /tmp/fast/run --out /tmp/fast --fast

Makes or continues the sweep of sweep.py beside it in RUN, reads what its cells say of the answers of every checkpoint,
writes results.json and results.png to OUT, and prints the tables of the record. Intervals of 95 % are Student's over
seeds. With --fast there is one cell, of tiny sizes and without intervals: it shows that everything runs.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhf_jax import data
from rlhf_jax.cli import main as command
from rlhf_jax.configs import policy_improvement
from rlhf_jax.settings import import_module
from rlhf_jax.sweep.cells import read_cells
from rlhf_jax.sweep.figures import figure_text, over_seeds
from rlhf_jax.writing import write_figure

SWEEP = Path(__file__).with_name("sweep.py")
REFERENCE = "sft"
FIXED = "reward_model"
ARMS = {"ppo_kl": "with the KL penalty", "ppo_free": "no penalty", "ppo_retrained": "no penalty, retrained"}
JUDGES = {"gold": "gold reward", "labels": "simulated people", FIXED: "fixed reward model"}
STYLE = "style"  # the baseline that reads no value, beside the reward models
Course = Mapping[str, Sequence[tuple[int, str]]]  # {arm: [(step, policy)]}
Results = Mapping[str, Any]  # of the stage `course`, of one seed


def policy_figures(results: Results, policy: str) -> dict[str, float]:
  """KL in nats, gold reward, shares that are preferred to SFT's answers, of one policy in one seed."""
  found = results["policies"][policy]
  shares = {f"preferred by {judge}": found["preferred"][judge]["mean"] for judge in JUDGES}
  return {"kl": found["kl"]["mean"], "gold": found["gold"]["mean"], **shares}


def judge_figures(results: Results, policy: str, model: str) -> dict[str, float]:
  """What one reward model, or the style baseline, gets right on pairs of answers of one policy in one seed."""
  found = results["policies"][policy]["pairs"][model]
  measures = {key: found[key]["mean"] for key in ("accuracy", "clear_accuracy", "label_accuracy")}
  of_labels = found.get("calibration", {}).get("labels", {})
  return measures | ({"calibration_error": of_labels["error"]} if "error" in of_labels else {})


def model_of_round(step: int, each: int, kind: str) -> str:
  """The latest reward model of `kind`, "retrained" or "more", that is trained before the steps of the round of `step`.

  Of the first round it is the fixed one.
  """
  number = -(-step // each)
  return FIXED if number == 1 else f"reward_{kind}_{min(number, policy_improvement.ROUNDS[-1])}"


def gains(results: Results, policy: str, step: int, each: int) -> dict[str, float]:
  """Accuracies of the retrained and of the "more labels" reward model less that of the fixed one, on the same pairs."""
  fixed = judge_figures(results, policy, FIXED)["accuracy"]
  models = {kind: model_of_round(step, each, kind) for kind in ("retrained", "more")}
  return {kind: judge_figures(results, policy, model)["accuracy"] - fixed for kind, model in models.items()}


def fall(points: Sequence[Mapping[str, Mapping[str, Any]]], by_seed: Sequence[Sequence[float]]) -> dict[str, Any]:
  """The fall of the preference from the step of its highest mean to the last step, paired by seed.

  points: figures of the steps over seeds, with "step" and the preference. by_seed: [S][T], of S seeds and T steps. The
  step is chosen on the mean of the same seeds, which makes the fall look larger than it is.
  """
  highest = int(np.argmax(np.mean(by_seed, axis=0)))
  return {"step": points[highest]["step"], "fall": over_seeds([row[highest] - row[-1] for row in by_seed])}


def analyse(seeds: Sequence[Results], course: Course, each: int) -> dict[str, Any]:
  """All figures of the record, over seeds. each: the number of steps of PPO in a round."""
  models = [name for name in seeds[0]["policies"][REFERENCE]["pairs"] if name != "labels"]

  def point(arm: str, step: int, policy: str) -> dict[str, Any]:
    judged = {name: over_seeds([judge_figures(seed, policy, name) for seed in seeds]) for name in models}
    ceiling = over_seeds([seed["policies"][policy]["pairs"]["labels"]["ceiling"]["mean"] for seed in seeds])
    found = {"step": step, "policy": policy, **over_seeds([policy_figures(seed, policy) for seed in seeds])}
    found |= {"models": judged, "label_ceiling": ceiling}
    is_followed = step > 0 and arm != "ppo_kl"  # the retrained reward models have met answers without the penalty
    return found | ({"gain": over_seeds([gains(seed, policy, step, each) for seed in seeds])} if is_followed else {})

  arms: dict[str, Any] = {}
  for arm, points in course.items():
    found = [point(arm, 0, REFERENCE), *(point(arm, step, policy) for step, policy in points)]
    falls = {}
    for judge in JUDGES:
      by_seed = [[seed["policies"][entry["policy"]]["preferred"][judge]["mean"] for entry in found] for seed in seeds]
      falls[judge] = fall(found, by_seed)
    arms[arm] = {"points": found, "falls": falls}
  ends = {arm: [seed["policies"][points[-1][1]]["gold"]["mean"] for seed in seeds] for arm, points in course.items()}
  difference = np.subtract(ends["ppo_retrained"], ends["ppo_free"]).tolist()
  return {
    "seeds": len(seeds),
    "each": each,
    "arms": arms,
    "retrained less fixed, gold at the end": over_seeds(difference),
  }


def tables(result: Mapping[str, Any]) -> str:
  """The tables of the record, in Markdown."""
  text = functools.partial(figure_text, seeds=result["seeds"])
  lines = ["| arm | step | KL, nats | gold reward | " + " | ".join(f"{name}, %" for name in JUDGES.values()) + " |"]
  lines.append("|---" * (4 + len(JUDGES)) + "|")
  for arm, found in result["arms"].items():
    for point in found["points"]:
      cells = [text(point["kl"], 2), text(point["gold"], 2)]
      cells += [text(point[f"preferred by {judge}"], 1, 100) for judge in JUDGES]
      lines.append(f"| {ARMS[arm]} | {point['step']} | " + " | ".join(cells) + " |")
  lines += ["", "| arm | judge | highest at step | fall from there to the end, points |", "|---|---|---|---|"]
  for arm, found in result["arms"].items():
    for judge, entry in found["falls"].items():
      lines.append(f"| {ARMS[arm]} | {JUDGES[judge]} | {entry['step']} | {text(entry['fall'], 1, 100)} |")
  lines += ["", "| answers of | step | fixed, % | style baseline, % | retrained less fixed, points | more labels less "
            "fixed, points | fixed on labels, % | ceiling, % | calibration error of fixed, points |"]  # fmt: skip
  lines.append("|---" * 9 + "|")
  for arm, found in result["arms"].items():
    for point in found["points"]:
      fixed = point["models"][FIXED]
      cells = [text(fixed["accuracy"], 1, 100), text(point["models"][STYLE]["accuracy"], 1, 100)]
      cells += [text(point["gain"][kind], 1, 100) if "gain" in point else "–" for kind in ("retrained", "more")]
      cells += [text(fixed["label_accuracy"], 1, 100), text(point["label_ceiling"], 1, 100)]
      cells.append(text(fixed["calibration_error"], 1, 100) if "calibration_error" in fixed else "–")
      lines.append(f"| {ARMS[arm]} | {point['step']} | " + " | ".join(cells) + " |")
  lines += ["", "Gold reward at the end, retrained less fixed reward model, no penalty: "
            f"{text(result['retrained less fixed, gold at the end'], 2)}."]  # fmt: skip
  return "\n".join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
  """Preference along training and against the KL, and accuracies of reward models along training."""
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    along, distance, accuracy = figure.subplots(1, 3)
    for number, (arm, label) in enumerate(ARMS.items()):
      points, color = result["arms"][arm]["points"], f"C{number}"
      steps = [point["step"] for point in points]
      roots = [max(point["kl"]["mean"], 0.0) ** 0.5 for point in points]
      for judge, style in zip(JUDGES, ("-", "--", ":"), strict=True):
        values = [point[f"preferred by {judge}"] for point in points]
        _band(along, steps, values, color, style, f"{label}: {JUDGES[judge]}")
        _band(distance, roots, values, color, style, "")
      _band(accuracy, steps, [point["models"][FIXED]["accuracy"] for point in points], color, "-", f"{label}: fixed")
      others = [point for point in points if "gain" in point]
      for kind, style in (("retrained", "--"), ("more", ":")):
        models = [model_of_round(point["step"], result["each"], kind) for point in others]
        values = [point["models"][model]["accuracy"] for point, model in zip(others, models, strict=True)]
        if arm == "ppo_retrained":
          name = "retrained" if kind == "retrained" else "more labels of SFT"
          _band(accuracy, [point["step"] for point in others], values, color, style, f"{label}: {name}")
    along.set(xlabel="step of PPO", ylabel="preferred to SFT", title="Preference along training")
    distance.set(xlabel="square root of the KL to SFT, nats", title="Preference and distance")
    accuracy.set(xlabel="step of PPO", ylabel="pairs in the gold order", title="Reward models on the policy's answers")
    for axes in (along, distance, accuracy):
      axes.grid(alpha=0.3)
      axes.spines[["top", "right"]].set_visible(False)
    along.legend(frameon=False, fontsize=6)
    accuracy.legend(frameon=False, fontsize=7)
    write_figure(path, figure)


def _band(
  axes: Axes, x: Sequence[float], figures: Sequence[Mapping[str, Any]], color: str, style: str, label: str
) -> None:
  """A line of means; around a drawn-through one a band of its intervals."""
  kept = [(place, figure) for place, figure in zip(x, figures, strict=True) if figure["mean"] is not None]
  axes.plot([place for place, _ in kept], [figure["mean"] for _, figure in kept], style, color=color, marker="o",
            markersize=3, linewidth=1, label=label)  # fmt: skip
  known = [(place, figure) for place, figure in kept if figure["low"] is not None]
  if known and style == "-":
    bounds = [[figure[key] for _, figure in known] for key in ("low", "high")]
    axes.fill_between([place for place, _ in known], *bounds, color=color, alpha=0.15, linewidth=0)


def run_sweep(arg: str, run: Path, engine: Sequence[str] = ()) -> list[Path]:
  """Makes or continues the sweep; returns the directories of this study's cells. Raises SystemExit where it fails."""
  if status := command(["sweep", f"{SWEEP}:{arg}" if arg else str(SWEEP), "--workdir", str(run), *engine]):
    sys.exit(status)
  return [run / "cells" / cell.name for cell in read_cells(SWEEP, arg) if "course" in cell.config["stages"]]


def main(argv: Sequence[str] | None = None) -> None:
  """Makes the sweep, writes results.json and results.png, and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--run", type=Path, required=True, help="the sweep's directory; an interrupted one continues there"
  )
  parser.add_argument("--out", type=Path, required=True, help="folder for results.json and results.png")
  parser.add_argument("--fast", action="store_true", help="one cell of tiny sizes")
  options = parser.parse_args(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  cells = run_sweep("fast" if options.fast else "", options.run, ["--engine", "inline"] if options.fast else ())
  sizes = import_module(str(SWEEP)).FAST if options.fast else {}
  seeds = [data.read_json(cell / "course" / "results.json") for cell in cells]
  result = analyse(seeds, policy_improvement.course(**sizes), sizes.get("each", policy_improvement.ROUND))
  data.write_text(options.out / "results.json", json.dumps(result, indent=1) + "\n")
  draw(result, options.out / "results.png")
  print(tables(result))


if __name__ == "__main__":
  main()
