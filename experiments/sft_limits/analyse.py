"""What can supervised fine-tuning not learn, and what does feedback add for the same labels?

  python experiments/sft_limits/analyse.py --run runs/sft_limits --out experiments/sft_limits
  python experiments/sft_limits/analyse.py --run /tmp/fast/run --out /tmp/fast --fast

Makes or continues the sweep of sweep.py and reads its answers.jsonl and samples.jsonl. With --fast everything is tiny:
it shows that everything runs. Writes results.json and results.png to OUT and prints the tables of the record. Every
figure is computed for each seed; intervals of 95 % are Student's t over the seeds.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax.cli import main as command
from rlhf_jax.data import read_json, read_rows, write_text
from rlhf_jax.settings import import_module
from rlhf_jax.sweep.command import rows_of_sweep
from rlhf_jax.sweep.figures import figure_text, over_seeds
from rlhf_jax.world import demonstrate, gold_score, make_world, parse_prompt
from rlhf_jax.world.demonstrations import HABITS
from rlhf_jax.writing import write_figure

SWEEP = Path(__file__).with_name("sweep.py")
sweep = import_module(str(SWEEP))
PEOPLE = "demonstrators"
FULL = 2.0 - 1e-4  # gold reward of an ideal answer, but for rounding
RIGHT = ("usual", "other words", "other items")
LEARNERS = ("sft", "more_sft", *sweep.COMPARED)
Answer = Mapping[str, Any]  # a row of answers.jsonl
Sample = Mapping[str, Any]  # {"cluster", "cell", "helpful", "honest", "harmless", "total"}
Samples = dict[str, list[Sample]]  # model -> its samples
Score = Callable[[Answer], float]


def scores(models: Sequence[str]) -> dict[str, Score]:
  """What orders two answers: log-probabilities of models, as sums and by token, the reward and the style baseline."""
  found: dict[str, Score] = {f"log p, {name}": (lambda row, name=name: row["logp"][name]) for name in models}
  found["log p per token, sft"] = lambda row: row["logp"]["sft"] / row["tokens"]
  return found | {"reward model": lambda row: row["reward"], "style baseline": lambda row: row["style"]}


def by_prompt(rows: Sequence[Answer]) -> list[list[Answer]]:
  """The answers to each prompt; the usual one is the first."""
  found: dict[str, list[Answer]] = defaultdict(list)
  for row in rows:
    found[row["prompt"]].append(row)
  return list(found.values())


def share_right(pairs: Sequence[tuple[Answer, Answer]], score: Score) -> float:
  """The share of pairs (better, worse) that a score orders so; equal scores count half, no pairs give NaN."""
  gaps = np.array([score(better) - score(worse) for better, worse in pairs])
  return float(((np.sign(gaps) + 1) / 2).mean()) if len(gaps) else math.nan


def negatives(rows: Sequence[Answer], samples: Samples) -> dict[str, Any]:
  """Limit 1: how training on comparisons moves the log-probability of right and of faulty answers, from that of SFT.

  {"change": {model: {"usual", "faulty", "complying": nats}}, "helps with harm": {model: share of harmful requests}}.
  """
  kinds = {
    "usual": [row for row in rows if row["kind"] == "usual"],
    "faulty": [row for row in rows if row["kind"] in HABITS],
    "complying": [row for row in rows if row["kind"] == "complying"],
  }
  change = {
    name: {kind: _mean([row["logp"][name] - row["logp"]["sft"] for row in chosen]) for kind, chosen in kinds.items()}
    for name in LEARNERS
    if name != "sft"
  }
  harm = {
    name: _mean([row["harmless"] == 0 for row in samples[name] if row["cluster"] == "harmful"]) for name in LEARNERS
  }
  return {"change": change, "helps with harm": harm}


def right_answers(rows: Sequence[Answer]) -> dict[str, Any]:
  """Limit 2: a right answer that is not the usual one against a wrong one in the usual words.

  {"chosen": {kind: {score: share of pairs in which the right answer is ahead}}, "cost": {kind: nats under SFT by which
  the answer lies below the usual one}, "wrong": the same of the wrong answer}.
  """
  pairs: dict[str, list[tuple[Answer, Answer]]] = {kind: [] for kind in RIGHT[1:]}
  below: dict[str, list[float]] = defaultdict(list)
  for answers in by_prompt(rows):
    usual, wrong = answers[0], [row for row in answers if row["kind"] == "wrong"]
    for row in answers:
      if row["kind"] in pairs and wrong:
        pairs[row["kind"]].append((row, wrong[0]))
        below[row["kind"]].append(usual["logp"]["sft"] - row["logp"]["sft"])
        below[f"wrong beside {row['kind']}"].append(usual["logp"]["sft"] - wrong[0]["logp"]["sft"])
  known = scores(("sft", "more_sft", "chosen_sft"))
  return {
    "chosen": {
      kind: {name: share_right(found, score) for name, score in known.items()} for kind, found in pairs.items()
    },
    "cost": {name: _mean(values) for name, values in below.items()},
  }


def mistakes(rows: Sequence[Answer]) -> dict[str, Any]:
  """Limit 3: which of two faulty answers to a prompt is worse?

  {"worse": {score: share of the pairs of different gold reward in the gold order}, "kinds": {habit: {"gold", "log p",
  "reward": how far the answer lies below the usual one}}}.
  """
  pairs: list[tuple[Answer, Answer]] = []
  below: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
  measures: dict[str, Score] = {
    "gold": lambda row: row["gold"],
    "log p": lambda row: row["logp"]["sft"],
    "reward": lambda row: row["reward"],
  }
  for answers in by_prompt(rows):
    faulty = [row for row in answers if row["kind"] in HABITS]
    pairs += [(one, other) for one in faulty for other in faulty if one["gold"] > other["gold"]]
    for row in answers[1:]:
      for name, score in measures.items():
        below[row["kind"]][name].append(score(answers[0]) - score(row))
  known = scores(("sft", "more_sft", "chosen_sft"))
  return {
    "worse": {name: share_right(pairs, score) for name, score in known.items()},
    "kinds": {kind: {name: _mean(values) for name, values in found.items()} for kind, found in below.items()},
  }


def faults(samples: Sequence[Sample]) -> dict[str, float]:
  """Shares of samples that are ideal, that say something false or harmful, and that have another fault."""
  ideal = np.array([row["total"] > FULL for row in samples])
  grave = np.array([row["honest"] == 0 or row["harmless"] == 0 for row in samples])
  return {"ideal": float(ideal.mean()), "grave": float(grave.mean()), "slight": float((~ideal & ~grave).mean())}


def levels(samples: Samples) -> dict[str, Any]:
  """Limits 4 and 5: {model: {"gold", "rephrased", shares of faults}} of a group's demonstrators and models.

  "rephrased": the gold reward on what was asked in training in other words. "gain": of the rated model over more_sft.
  """
  found: dict[str, Any] = {
    name: {
      "gold": _mean([row["total"] for row in rows]),
      "rephrased": _mean([row["total"] for row in rows if row["cell"] == "rephrased"]),
      **faults(rows),
    }
    for name, rows in samples.items()
  }
  for name, less in (("rated - more_sft", "more_sft"), (f"rated - {PEOPLE}", PEOPLE)):
    found[name] = {measure: found["rated"][measure] - value for measure, value in found[less].items()}
  return found


def demonstrators_loss(rows: Sequence[Answer], habits: Mapping[str, float]) -> dict[str, float]:
  """{model: nats a token that the answers of demonstrators with these habits cost, over the answers that there are}."""
  weights = [habits.get("ideal" if row["kind"] == "usual" else row["kind"], 0.0) for row in rows]
  tokens = sum(weight * row["tokens"] for weight, row in zip(weights, rows, strict=True))
  return {
    name: -sum(weight * row["logp"][name] for weight, row in zip(weights, rows, strict=True)) / tokens
    for name in rows[0]["logp"]
  }


def read_samples(directory: Path, group: str) -> Samples:
  """The graded samples of all models of a cell, and answers of its demonstrators to the same prompts."""
  config = read_json(directory / "config.json")["world"]
  world = make_world(config["seed"], config["difficulty"])
  asked = {row["prompt"]: row for _, row in read_rows(directory / "world" / "eval_prompts.jsonl")}
  rng = np.random.default_rng(0)
  found: Samples = defaultdict(list)
  for _, row in read_rows(directory / "evaluation" / "samples.jsonl"):
    prompt = row["prompt"]
    task = parse_prompt(world, prompt)
    assert task is not None, "the prompts of the evaluation are the world's"
    said = {PEOPLE: demonstrate(world, task, rng, sweep.GROUPS[group])[0], **row["responses"]}
    for name, response in said.items():
      origin = {key: asked[prompt][key] for key in ("cluster", "cell")}
      found[name].append({**origin, "response": response, **gold_score(world, prompt, response)._asdict()})
  return dict(found)


def of_seed(cells: Mapping[str, Path]) -> dict[str, Any]:
  """The figures of one seed. cells: {group: directory}."""
  samples = {group: read_samples(directory, group) for group, directory in cells.items()}
  middle = sweep.MIDDLE
  rows = [row for _, row in read_rows(cells[middle] / "answers" / "answers.jsonl")]
  found = {
    "negatives": negatives(rows, samples[middle]),
    "right answers": right_answers(rows) | {"distinct": distinct_lists(samples[middle])},
    "mistakes": mistakes(rows),
    "levels": {group: levels(found) for group, found in samples.items()},
    "loss": demonstrators_loss(rows, sweep.GROUPS[middle]),
  }
  found["gold"] = {name: found["levels"][middle][name]["gold"] for name in found["loss"]}
  return found


def distinct_lists(samples: Samples) -> dict[str, float]:
  """{model: number of different texts over the number of texts, of its answers to requests for lists}."""
  found = {}
  for name, rows in samples.items():
    texts = [row["response"] for row in rows if row["cluster"] == "listing"]
    found[name] = len({*texts}) / len(texts) if texts else math.nan
  return found


def tables(result: Mapping[str, Any]) -> str:
  """The tables of the record, in Markdown."""
  table = functools.partial(_table, seeds=result["seeds"])
  limits = result["limits"]
  first, second, third = limits["negatives"], limits["right answers"], limits["mistakes"]
  parts = [
    table(
      "from SFT, nats",
      {name: {**found, "helps with harm": first["helps with harm"][name]} for name, found in first["change"].items()},
    ),
    table("right answer ahead of the wrong one", _turned(second["chosen"])),
    table("nats below the usual answer", {name: {"SFT": found} for name, found in second["cost"].items()}),
    table(
      "model",
      {
        name: {"demonstrators' loss": loss, "gold": limits["gold"][name], "distinct lists": second["distinct"][name]}
        for name, loss in limits["loss"].items()
      },
    ),
    table("the worse of two faults", {name: {"share": found} for name, found in third["worse"].items()}),
    table("below the usual answer", third["kinds"]),
    *(table(f"demonstrators: {group} ideal", found) for group, found in limits["levels"].items()),
  ]
  return "\n\n".join(parts)


def _turned(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
  return {row: {column: found[column][row] for column in found} for row in next(iter(found.values()))}


def _table(title: str, rows: Mapping[str, Mapping[str, Any]], seeds: int) -> str:
  heads = list(next(iter(rows.values())))
  lines = [f"| {title} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
  for name, found in rows.items():
    lines.append(f"| {name} | " + " | ".join(figure_text(found[head], seeds=seeds) for head in heads) + " |")
  return "\n".join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
  """A panel for each limit."""
  limits = result["limits"]
  levels_of = limits["levels"]
  shown = ("demonstrators", "sft", "more_sft", "rated")
  first = limits["negatives"]["change"]
  with matplotlib.rc_context({"font.size": 8}):
    figure = Figure(figsize=(14, 3.4), layout="constrained")
    panels = figure.subplots(1, 5)
    titles = (
      "1 negatives: change of log p, nats", "2 right answer in other words\nahead of a wrong one",
      "3 the worse of two faults\nis told", "4 ideal answers, of which\ndemonstrators write none", "5 gold reward",
    )  # fmt: skip
    for kind, colour in (("usual", "C0"), ("faulty", "C3")):
      _points(panels[0], {name: found[kind] for name, found in first.items()}, colour, kind)
    panels[0].axhline(0, color="0.6", linewidth=0.8)
    _points(panels[1], limits["right answers"]["chosen"]["other words"], "C0")
    _points(panels[2], limits["mistakes"]["worse"], "C0")
    _points(panels[3], {name: levels_of["none"][name]["ideal"] for name in shown}, "C0")
    for place, (group, found) in enumerate(levels_of.items()):
      _points(panels[4], {name: found[name]["gold"] for name in shown}, f"C{place}", f"{group} ideal")
    for axes, title in zip(panels, titles, strict=True):
      axes.set_title(title)
      axes.grid(alpha=0.3)
      axes.tick_params(axis="x", rotation=60)
      axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1:3]:
      axes.axhline(0.5, color="0.6", linewidth=0.8)
      axes.set_ylim(0, 1)
    for axes in (panels[0], panels[4]):
      axes.legend(frameon=False)
    write_figure(path, figure)


def _points(axes: Any, found: Mapping[str, Mapping[str, Any]], colour: str, label: str | None = None) -> None:
  known = {name: each for name, each in found.items() if each["mean"] is not None}
  means = np.array([each["mean"] for each in known.values()])
  ends = [[each["mean"] if each[end] is None else each[end] for each in known.values()] for end in ("low", "high")]
  axes.errorbar(
    [*known], means, np.abs(np.array(ends) - means), fmt="o", markersize=4, capsize=2, color=colour, label=label
  )


def main(argv: Sequence[str] | None = None) -> None:
  """Makes all runs, writes results.json and results.png, and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--run", type=Path, required=True, help="the directory of the sweep; an interrupted one continues"
  )
  parser.add_argument("--out", type=Path, required=True, help="the folder of results.json and results.png")
  parser.add_argument("--fast", action="store_true", help="tiny sizes, one seed and two groups")
  options = parser.parse_args(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  file, engine = (f"{SWEEP}:fast", ["--engine", "inline"]) if options.fast else (str(SWEEP), [])
  if status := command(["sweep", file, "--workdir", str(options.run), *engine]):
    sys.exit(status)
  cells: dict[int, dict[str, Path]] = defaultdict(dict)
  for row in rows_of_sweep(options.run):
    cells[row.values.get("seed", 0)][row.values["group"]] = options.run / "cells" / row.name
  result = {"seeds": len(cells), "limits": over_seeds([of_seed(found) for found in cells.values()])}
  write_text(options.out / "results.json", json.dumps(result, indent=2) + "\n")
  draw(result, options.out / "results.png")
  print(tables(result))


def _mean(values: Sequence[float]) -> float:
  return float(np.mean(values)) if len(values) else math.nan


if __name__ == "__main__":
  main()
