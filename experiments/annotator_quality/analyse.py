"""Does screening find the bad labellers of the embedded world, and what is consensus worth?

  python experiments/annotator_quality/analyse.py --seeds 20 --out experiments/annotator_quality

Each seed draws a world, 20 labellers of whom 7 are trusting, careless, biased or adversarial, and their rankings of
four demonstrators' answers; three labellers rank each item. Screening sees the records alone.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax.agreement.annotator_bias import habits, timing
from rlhf_jax.agreement.consensus import dawid_skene, majority, noisy_bradley_terry
from rlhf_jax.agreement.screening import SET_ASIDE, screen
from rlhf_jax.agreement.tables import Table, judgement_table, pairs_of
from rlhf_jax.data import write_text
from rlhf_jax.evaluation.simulated_judgements import simulate_judgements
from rlhf_jax.feedback.records import Item
from rlhf_jax.intervals import mean_interval, wilson_interval
from rlhf_jax.world import gold_reward, make_labellers
from rlhf_jax.writing import write_figure

LABELLERS = {
  "expert": 1, "ordinary": 12, "trusting": 1, "careless": 2, "length_biased": 1, "style_biased": 1,
  "position_biased": 1, "adversarial": 1,
}  # fmt: skip
GOOD = ("expert", "ordinary")
RIGHT_CHECKS = {  # kind of labeller -> checks that name its fault when they fail
  "trusting": {"gold", "skill"},
  "careless": {"gold", "skill"},
  "style_biased": {"gold", "skill"},
  "adversarial": {"gold", "skill"},
  "length_biased": {"length"},
  "position_biased": {"position"},
}
JUDGES = 3
SETTINGS = {  # name -> (items for each labeller, share of gold items)
  "150 items": (150, 0.15),
  "75 items": (75, 0.15),
  "40 items": (40, 0.15),
  "150 items, no gold": (150, 0.0),
}


def one_seed(seed: int, items_each: int, gold_share: float) -> dict:
  """The advice for every labeller, failed checks, pace, and the consensus' agreement with gold."""
  labellers = make_labellers(LABELLERS)
  num_items = round(len(labellers) * items_each / JUDGES)
  annotators, items, judgements = simulate_judgements(
    labellers, num_items=num_items, judges=JUDGES, gold_share=gold_share, seed=seed
  )
  table = judgement_table(annotators, items, judgements)
  pairs = pairs_of(table)
  model = noisy_bradley_terry(table, pairs)
  verdicts = screen(table, pairs, habits(table, pairs, model))
  kinds = {labeller.name: labeller.kind for labeller in labellers}
  set_aside = np.array([verdict.advice == SET_ASIDE for verdict in verdicts])
  kept = table.where(~set_aside[table.annotator])
  kept_pairs = pairs_of(kept)
  gold = _gold(items, seed)
  scores = {
    "majority": majority(table, pairs),
    "majority after screening": majority(kept, kept_pairs),
    "Dawid-Skene": dawid_skene(table, pairs),
    "noisy Bradley-Terry": model,
    "noisy Bradley-Terry after screening": noisy_bradley_terry(kept, kept_pairs),
  }
  return {
    "seed": seed,
    "labellers": [
      {
        "kind": kinds[verdict.annotator],
        "advice": verdict.advice,
        "failed": [check.name for check in verdict.checks if check.status == "fails"],
        "pace": time.pace,
      }
      for verdict, time in zip(verdicts, timing(table), strict=True)
    ],
    "accuracy": {
      "single judgements": _single_accuracy(table, gold),
      **{name: _accuracy(consensus.scores, gold, table) for name, consensus in scores.items()},
    },
  }


def summarise(runs: Sequence[dict]) -> dict:
  """Precision and recall over all seeds with Wilson intervals, by kind, and the accuracies with t intervals.

  The pace of a kind is [median, 10 % quantile, 90 % quantile] over its labellers.
  """
  people = [person for run in runs for person in run["labellers"]]
  bad = [person for person in people if person["kind"] not in GOOD]
  found = [person for person in people if person["advice"] == SET_ASIDE]
  right = [person for person in found if person["kind"] not in GOOD]
  result = {
    "seeds": len(runs),
    "precision": _share(len(right), len(found)),
    "recall": _share(len(right), len(bad)),
    "kinds": {},
    "accuracy": {},
  }
  for kind in LABELLERS:
    own = [person for person in people if person["kind"] == kind]
    aside = [person for person in own if person["advice"] == SET_ASIDE]
    result["kinds"][kind] = {
      "set aside": _share(len(aside), len(own)),
      "watch": sum(person["advice"] == "watch" for person in own),
      "pace": [round(float(x), 2) for x in np.quantile([person["pace"] for person in own], (0.5, 0.1, 0.9))],
    }
    if kind in RIGHT_CHECKS:
      named = sum(bool(RIGHT_CHECKS[kind] & set(person["failed"])) for person in aside)
      result["kinds"][kind]["for the right reason"] = _share(named, len(aside))
  for name in runs[0]["accuracy"]:
    interval = mean_interval([run["accuracy"][name] for run in runs])
    result["accuracy"][name] = [round(float(x), 4) for x in (interval.mean, interval.low, interval.high)]
  return result


def plot(results: dict[str, dict], path: Path) -> None:
  """Precision and recall for each number of items, the share set aside by kind, and the consensus accuracies."""
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    names = list(results)
    for offset, measure in ((-0.12, "precision"), (0.12, "recall")):
      _points(left, np.arange(len(names)) + offset, [results[name][measure] for name in names], measure)
    left.set_xticks(range(len(names)), [name.replace(", ", ",\n") for name in names])
    left.set_ylim(0, 1)
    left.set_title("Screening, all kinds")
    left.legend(frameon=False, loc="lower left")
    kinds = list(LABELLERS)
    shown = list(dict.fromkeys([names[-2], names[0]]))
    for offset, name in zip((-0.12, 0.12), shown, strict=False):
      values = [results[name]["kinds"][kind]["set aside"] for kind in kinds]
      _points(middle, np.arange(len(kinds)) + offset, values, name)
    middle.set_xticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds], rotation=30, ha="right")
    middle.set_ylim(0, 1)
    middle.set_title("Share set aside")
    middle.legend(frameon=False, loc=(0.0, 0.68))
    accuracy = results[names[0]]["accuracy"]
    for row, (mean, low, high) in enumerate(accuracy.values()):
      right.plot([low, high], [row, row], color="C0", linewidth=4, alpha=0.4)
      right.plot([mean], [row], "o", color="C0")
    right.set_yticks(range(len(accuracy)), list(accuracy))
    right.invert_yaxis()
    right.set_title(f"Pairs in gold order, {names[0]}")
    for axes in (left, middle, right):
      axes.spines[["top", "right"]].set_visible(False)
      axes.grid(alpha=0.3)
    write_figure(path, figure)


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the seeds of each setting, which may be done in several calls, and writes OUT/results.json and .png."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seeds", type=int, default=20)
  parser.add_argument("--first-seed", type=int, default=0)
  parser.add_argument("--setting", choices=list(SETTINGS), action="append", help="all by default; may be repeated")
  parser.add_argument("--out", type=Path, required=True)
  options = parser.parse_args(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  path = options.out / "results.json"
  results = json.loads(path.read_text()) if path.exists() else {}
  for name in options.setting or SETTINGS:
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    results[name] = summarise([one_seed(seed, *SETTINGS[name]) for seed in seeds])
    print(name, json.dumps(results[name], indent=1))
    results = {setting: results[setting] for setting in SETTINGS if setting in results}
    write_text(path, json.dumps(results, indent=2) + "\n")
  plot(results, options.out / "results.png")


def _share(part: int, whole: int) -> dict:
  if not whole:
    return {"count": [part, whole]}
  interval = wilson_interval(part, whole)
  return {"count": [part, whole], **{name: round(getattr(interval, name), 4) for name in ("mean", "low", "high")}}


def _gold(items: Sequence[Item], seed: int) -> np.ndarray:
  prompts = [item.prompt for item in items for _ in item.responses]
  texts = [response.text for item in items for response in item.responses]
  return gold_reward(prompts, texts, seed).reshape(len(items), -1)


def _agree(scores: np.ndarray, gold: np.ndarray) -> float:
  """The share of pairs with unequal gold that `scores` orders as gold does, over all rows; a tie counts half."""
  i, j = np.triu_indices(gold.shape[1], 1)
  wanted, given = np.sign(gold[:, i] - gold[:, j]), np.sign(np.round(scores[:, i] - scores[:, j], 6))
  return float((0.5 + 0.5 * wanted * given)[wanted != 0].mean())


def _accuracy(scores: np.ndarray, gold: np.ndarray, table: Table) -> float:
  """`_agree` on the items without gold ranks; a response without judgements has score 0, a tie with the mean."""
  plain = (table.gold < 0).all(1)
  return _agree(np.nan_to_num(scores[plain]), gold[plain])


def _single_accuracy(table: Table, gold: np.ndarray) -> float:
  plain = (table.gold[table.item] < 0).all(1)
  return _agree(-table.ranks[plain].astype(np.float64), gold[table.item[plain]])


def _points(axes, x: np.ndarray, shares: Sequence[dict], label: str) -> None:
  defined = [i for i, share in enumerate(shares) if "mean" in share]
  mean, low, high = (np.array([shares[i][name] for i in defined]) for name in ("mean", "low", "high"))
  bounds = [np.maximum(mean - low, 0), np.maximum(high - mean, 0)]
  axes.errorbar(x[defined], mean, bounds, fmt="o", label=label, clip_on=False)


if __name__ == "__main__":
  main()
