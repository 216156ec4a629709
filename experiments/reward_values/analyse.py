"""How right and how sure is a reward model at low and at high scores, before and after PPO?

  python experiments/reward_values/analyse.py --run runs/reward_values --out experiments/reward_values
  python experiments/reward_values/analyse.py --run /tmp/fast/run --out /tmp/fast --fast

Makes or continues the sweep of sweep.py beside it in RUN, reads the answers of all its cells with their scores, writes
results.json and results.png to OUT, and prints the tables of the record. Intervals of 95 % are Student's over seeds.
With --fast the cells are two of tiny sizes: it shows that everything runs.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhf_jax import data
from rlhf_jax.cli import main as command
from rlhf_jax.configs.quickstart import LABELLERS
from rlhf_jax.evaluation.calibration import distinct_texts, pair_calibration
from rlhf_jax.evaluation.reward_models import answer_traits, label_probabilities
from rlhf_jax.sweep.cells import read_cells
from rlhf_jax.sweep.figures import figure_text, over_seeds
from rlhf_jax.world import make_labellers
from rlhf_jax.writing import write_figure

SWEEP = Path(__file__).with_name("sweep.py")
POLICIES = {"sft": "SFT (before PPO)", "ppo": "PPO"}
MODEL = "reward_model"
LEVELS = tuple(round(0.1 * step, 1) for step in range(10))  # thresholds, as shares of SFT's answers that score less
GAPS = (0.0, 0.25, 0.5, 1.0, 2.0, np.inf)  # bounds of differences of scores, in standard deviations over SFT's answers
THIRDS = ("low", "middle", "high")
OUTCOMES = {"gold": "gold order", "labels": "labels"}
FEWEST = 20  # pairs of a seed below which a cell of a curve is left out
Figures = dict[str, float]


class Pairs(NamedTuple):
  """P pairs of different answers of one policy to one prompt."""

  first: np.ndarray
  """Scores of the first answers, f64[P], with mean 0 and deviation 1 over answers of SFT."""
  second: np.ndarray
  """Scores of the second answers, f64[P]."""
  gold: np.ndarray
  """Gold reward of the first less that of the second, f64[P]."""
  labels: np.ndarray
  """Probability that a labeller drawn at random prefers the first, f64[P]."""
  style: np.ndarray
  """Style baseline's score of the first less that of the second, f64[P]."""
  prompt: np.ndarray
  """Number of the prompt, i64[P]."""


class Seed(NamedTuple):
  """What a cell of the sweep has left."""

  pairs: dict[str, Pairs]
  """Pairs of each policy."""
  scores: dict[str, np.ndarray]
  """Scores of all answers of each policy, f64[M]."""
  scale: float
  """Factor from scores to logits of preference."""
  temperature: float
  """Temperature that the held-out labels ask for."""


def read_seed(cell: Path) -> Seed:
  """The pairs of a finished cell."""
  rows = [row for _, row in data.read_rows(cell / "reward_values" / "answers.jsonl")]
  pairs, scores = {}, {}
  for policy in POLICIES:
    mine = [row for row in rows if row["policy"] == policy]
    pairs[policy] = make_pairs(mine)
    scores[policy] = np.array([row[f"scores/{MODEL}"] for row in mine], np.float64).ravel()
  held_out = data.read_json(cell / "held_out_labels" / "results.json")["sets"]["labels"]["models"][MODEL]["calibration"]
  return Seed(pairs, scores, held_out["scale"], held_out["labels"]["temperature"])


def make_pairs(rows: Sequence[Mapping[str, Any]]) -> Pairs:
  """The pairs of different texts among the answers to each prompt; rows of answers.jsonl, of one policy."""
  columns = {
    key: np.array([row[key] for row in rows], np.float64) for key in (f"scores/{MODEL}", "gold", "scores/style")
  }
  texts = [row["responses"] for row in rows]
  apparent = np.array([row.get("apparent", row["gold"]) for row in rows], np.float64)
  traits = answer_traits({"total": columns["gold"], "apparent": apparent}, texts)
  labels, distinct = label_probabilities(make_labellers(LABELLERS), traits), distinct_texts(texts)
  i, j = np.triu_indices(distinct.shape[1], 1)
  kept = distinct[:, i] & distinct[:, j]  # [N, P]
  scores, gold, style = columns.values()
  prompt = np.broadcast_to(np.arange(len(rows))[:, None], kept.shape)
  found = (scores[:, i], scores[:, j], gold[:, i] - gold[:, j], labels[:, i, j], style[:, i] - style[:, j], prompt)
  return Pairs(*(values[kept] for values in found))


def accuracies(pairs: Pairs, chosen: np.ndarray) -> Figures:
  """Of the pairs bool[P]: {"share" of all pairs, "pairs", "reward model", "style", "over style", "labels"}.

  "reward model" and "style" are shares in the gold order of the pairs of different gold reward, equal scores as halves,
  "over style" is their difference and "pairs" the number of pairs; "labels" is the expected share of labels that agree
  with the reward model, over all pairs. What has fewer than `FEWEST` pairs is left out.
  """
  lead = np.sign(pairs.first - pairs.second)[chosen]
  gold, style, labels = np.sign(pairs.gold)[chosen], np.sign(pairs.style)[chosen], pairs.labels[chosen]
  ordered = gold != 0
  found = {"share": float(chosen.mean()), "pairs": float(ordered.sum())}
  if ordered.sum() >= FEWEST:
    found["reward model"] = float(((1 + lead * gold)[ordered] / 2).mean())
    found["style"] = float(((1 + style * gold)[ordered] / 2).mean())
    found["over style"] = found["reward model"] - found["style"]
  if len(lead) >= FEWEST:
    found["labels"] = float((0.5 + lead * (labels - 0.5)).mean())
  return found


def by_third(pairs: Pairs, bounds: np.ndarray) -> dict[str, Figures]:
  """`accuracies` of the pairs whose scores both lie in one third; bounds: f64[2], between the thirds."""
  first, second = (np.searchsorted(bounds, scores) for scores in (pairs.first, pairs.second))
  return {name: accuracies(pairs, (first == place) & (second == place)) for place, name in enumerate(THIRDS)}


def by_threshold(pairs: Pairs, thresholds: np.ndarray) -> list[Figures]:
  """`accuracies` of the pairs whose scores both lie at or above each threshold."""
  least = np.minimum(pairs.first, pairs.second)
  return [accuracies(pairs, least >= threshold) for threshold in thresholds]


def by_gap(pairs: Pairs, bounds: Sequence[float] = GAPS) -> dict[str, Figures]:
  """`accuracies` of the pairs whose difference of scores lies between two neighbouring bounds, the lower included."""
  gap = np.abs(pairs.first - pairs.second)
  ends = list(zip(bounds, bounds[1:], strict=False))
  return {_range(low, high): accuracies(pairs, (gap >= low) & (gap < high)) for low, high in ends}


def _range(low: float, high: float) -> str:
  return f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} or more"


def calibrations(seed: Seed, policy: str) -> dict[str, dict[str, dict[str, Any]]]:
  """{outcome: {"as trained" | "refitted" | "best": `pair_calibration`}} of a policy's pairs.

  "refitted" divides by the temperature of the held-out labels, "best" by the one that these very pairs ask for.
  """
  pairs = seed.pairs[policy]
  lead = seed.scale * (pairs.first - pairs.second)
  ordered = pairs.gold != 0
  found = {}
  for outcome, shares, chosen in (
    ("gold", (pairs.gold > 0).astype(np.float64), ordered),
    ("labels", pairs.labels, np.ones(len(lead), bool)),
  ):
    given = lead[chosen], shares[chosen], pairs.prompt[chosen]
    trained = pair_calibration(*given)
    found[outcome] = {"as trained": trained, "refitted": pair_calibration(*given, temperature=seed.temperature)}
    found[outcome]["best"] = pair_calibration(*given, temperature=trained.get("temperature", 1.0))
  return found


def pooled_bins(calibrated: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
  """The bins of several seeds as one: mean probability and frequency weighted by pairs, and the number of pairs."""
  bins: dict[int, list[tuple[float, float, int]]] = {}
  for found in calibrated:
    for entry in found.get("bins", ()):
      frequency = entry["frequency"]
      bins.setdefault(int(20 * entry["confidence"]), []).append(
        (entry["confidence"], frequency["mean"], frequency["num"])
      )
  pooled = []
  for _, entries in sorted(bins.items()):
    confidence, frequency, num = np.array(entries).T
    means = [float(np.average(values, weights=num)) for values in (confidence, frequency)]
    pooled.append({"confidence": round(means[0], 4), "frequency": round(means[1], 4), "pairs": int(num.sum())})
  return pooled


def analyse(seeds: Sequence[Seed]) -> dict[str, Any]:
  """All figures of the record, over seeds."""
  found: dict[str, Any] = {"seeds": len(seeds), "levels": list(LEVELS), "policies": {}}
  found["scale"] = over_seeds([seed.scale for seed in seeds])
  found["temperature of the held-out labels"] = over_seeds([seed.temperature for seed in seeds])
  for policy in POLICIES:
    curves, calibrated = [], [calibrations(seed, policy) for seed in seeds]
    for seed in seeds:
      pairs, base = seed.pairs[policy], seed.scores["sft"]
      curves.append({
        "score": float(seed.scores[policy].mean()),
        "all": accuracies(pairs, np.ones(len(pairs.gold), bool)),
        "thirds": by_third(pairs, np.quantile(base, [1 / 3, 2 / 3])),
        "thresholds": by_threshold(pairs, np.quantile(base, LEVELS)),
        "gaps": by_gap(pairs),
      })  # fmt: skip
    measured = [
      {outcome: {way: _numbers(entry) for way, entry in ways.items()} for outcome, ways in one.items()}
      for one in calibrated
    ]
    bins = {
      outcome: {way: pooled_bins([one[outcome][way] for one in calibrated]) for way in ("as trained", "refitted")}
      for outcome in OUTCOMES
    }
    found["policies"][policy] = {**over_seeds(curves), "calibration": over_seeds(measured), "bins": bins}
  return found


def _numbers(calibrated: Mapping[str, Any]) -> Figures:
  return {key: calibrated[key] for key in ("error", "log_loss", "temperature") if key in calibrated}


def tables(result: Mapping[str, Any]) -> str:
  """The tables of the record, in Markdown."""
  text = functools.partial(figure_text, seeds=result["seeds"])
  lines = [f"Over {result['seeds']} seeds. Scale {text(result['scale'], 2)}, temperature of the held-out labels "
           f"{text(result['temperature of the held-out labels'], 2)}.", ""]  # fmt: skip
  columns = ("reward model", "style", "over style", "labels", "share")
  lines += ["| answers of | pairs | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
  for policy, found in result["policies"].items():
    rows = {"all": found["all"], **{f"both {name}": entry for name, entry in found["thirds"].items()}}
    rows |= {f"gap {name}": entry for name, entry in found["gaps"].items()}
    for name, entry in rows.items():
      cells = [text(entry[column], 0, 100) if column in entry else "–" for column in columns]
      lines.append(f"| {POLICIES[policy]} | {name} | " + " | ".join(cells) + " |")
  lines += ["", "| answers of | outcome | probabilities | calibration error, points | log loss, nats | best T |"]
  lines.append("|---" * 6 + "|")
  for policy, found in result["policies"].items():
    for outcome, ways in found["calibration"].items():
      for way, entry in ways.items():
        if not entry:
          continue
        cells = (
          text(entry["error"], 1, 100),
          text(entry["log_loss"], 3),
          text(entry["temperature"], 2),
        )
        lines.append(f"| {POLICIES[policy]} | {OUTCOMES[outcome]} | {way} | " + " | ".join(cells) + " |")
  return "\n".join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
  """Reliability before and after PPO, accuracy above a threshold, and accuracy by the difference of scores."""
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    axes = figure.subplots(2, 2)
    for place, (policy, label) in enumerate(POLICIES.items()):
      _reliability(axes[0][place], result["policies"][policy]["bins"], f"Reliability on answers of {label}")
    for number, (policy, label) in enumerate(POLICIES.items()):
      found = result["policies"][policy]
      for column, style in (("reward model", "-"), ("style", ":")):
        name = f"{column}, {label}"
        _curve(axes[1][0], LEVELS, found["thresholds"], column, f"C{number}", style, name)
        _curve(axes[1][1], range(len(found["gaps"])), list(found["gaps"].values()), column, f"C{number}", style, name)
    axes[1][0].set(xlabel="threshold: share of SFT's answers that score less", ylabel="pairs in the gold order",
                   title="Both scores above a threshold")  # fmt: skip
    axes[1][1].set(xlabel="difference of scores, deviations of SFT's", title="By difference of scores")
    axes[1][1].set_xticks(range(len(GAPS) - 1), [_range(low, high) for low, high in zip(GAPS, GAPS[1:], strict=False)])
    for each in axes.ravel():
      each.grid(alpha=0.3)
      each.spines[["top", "right"]].set_visible(False)
    for each in (axes[0][0], axes[1][1]):
      each.legend(frameon=False, fontsize=8)
    write_figure(path, figure)


def _reliability(axes: Axes, bins: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]], title: str) -> None:
  axes.plot([0.5, 1], [0.5, 1], color="grey", linewidth=0.8)
  for number, (outcome, label) in enumerate(OUTCOMES.items()):
    for way, style in (("as trained", "o-"), ("refitted", "s--")):
      found = bins[outcome][way]
      points = [[entry[key] for entry in found] for key in ("confidence", "frequency")]
      axes.plot(*points, style, color=f"C{number}", markersize=3, label=f"{label}, {way}")
  axes.set(title=title, xlabel="predicted probability", ylabel="preferred so")


def _curve(
  axes: Axes, x: Sequence[float] | range, entries: Sequence[Mapping[str, Any]], column: str, color: str, style: str,
  label: str,
) -> None:  # fmt: skip
  """The means of a column with its intervals, cut at 0 and 1, where no seed is left out."""
  most = max((entry[column]["seeds"] for entry in entries if column in entry), default=0)
  kept = [
    (place, entry[column])
    for place, entry in zip(x, entries, strict=True)
    if column in entry and entry[column]["seeds"] == most
  ]
  if not kept:
    return
  places, figures = [place for place, _ in kept], [figure for _, figure in kept]
  axes.plot(places, [figure["mean"] for figure in figures], style, color=color, marker="o", markersize=3, label=label)
  known = [(place, figure) for place, figure in kept if figure["low"] is not None]
  if known and style == "-":
    bounds = [np.clip([figure[key] for _, figure in known], 0.0, 1.0) for key in ("low", "high")]
    axes.fill_between([place for place, _ in known], *bounds, color=color, alpha=0.15, linewidth=0)


def run_sweep(file: Path, arg: str, run: Path, engine: Sequence[str] = ()) -> list[Path]:
  """Makes or continues the sweep; returns the directories of its cells. Raises SystemExit where it fails."""
  if status := command(["sweep", f"{file}:{arg}" if arg else str(file), "--workdir", str(run), *engine]):
    sys.exit(status)
  return [run / "cells" / cell.name for cell in read_cells(file, arg)]


def main(argv: Sequence[str] | None = None) -> None:
  """Makes the sweep, writes results.json and results.png, and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--run", type=Path, required=True, help="the sweep's directory; an interrupted one continues there"
  )
  parser.add_argument("--out", type=Path, required=True, help="folder for results.json and results.png")
  parser.add_argument("--fast", action="store_true", help="two cells of tiny sizes, one after the other")
  options = parser.parse_args(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  cells = run_sweep(SWEEP, "fast" if options.fast else "", options.run, ["--engine", "inline"] if options.fast else ())
  result = analyse([read_seed(cell) for cell in cells])
  data.write_text(options.out / "results.json", json.dumps(result, indent=1) + "\n")
  draw(result, options.out / "results.png")
  print(tables(result))


if __name__ == "__main__":
  main()
