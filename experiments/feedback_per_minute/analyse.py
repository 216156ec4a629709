"""Which kind of feedback teaches a reward model most in the same hours of judging? The lecture's table, with numbers.

  python experiments/feedback_per_minute/analyse.py --run runs/feedback_per_minute --out experiments/feedback_per_minute
  python experiments/feedback_per_minute/analyse.py --run /tmp/fast/run --out /tmp/fast --fast

Makes or continues the sweep of `sweep.py` in RUN, and then reads it: what the reward models learn from the first hours
of judging of each kind, and what the labellers' judgements are worth before anything is learnt from them (noise,
calibration of what they state, bits of the gold order). The latter are drawn anew from the labellers' model, many to a
page, on the answers that the run has sampled. Figures over seeds have Student's 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from rlhf_jax import data
from rlhf_jax.cli import main as command
from rlhf_jax.configs import quickstart
from rlhf_jax.feedback.exchange import read_records
from rlhf_jax.feedback.records import Item
from rlhf_jax.intervals import mean_interval
from rlhf_jax.settings import import_module
from rlhf_jax.train.judgements import within_hours
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.world import (
  Labeller,
  Traits,
  accepts,
  answering_seconds,
  criticise,
  gold_parts,
  make_labellers,
  perceive,
  prompt_seconds,
  ratings,
  strength,
  traits_of,
)
from rlhf_jax.world.labellers import SECONDS_PER_CHECK, SECONDS_PER_WORD, SESSION
from rlhf_jax.writing import write_figure

HERE = Path(__file__).resolve().parent
Values = Callable[[Labeller, Item, np.ndarray, Traits], dict[str, np.ndarray]]
sweep = import_module(str(HERE / "sweep.py"))
DRAWS, CRITICISED = 10_000, 2_000  # simulated judgements of a page of each kind; a critique takes longer to draw
FACTORS = (0.5, 1.0, 2.0)
PARTS = {"answering": ("answering",), "answering and checking": ("answering", "checking")}  # that may take other times
AMOUNTS = ("hours", "judgements", "steps")
CONFIDENT = ("pair with strength", "ratings of 4", "ranking of 4")  # ways that state a difference


class Looks(NamedTuple):
  """N simulated judgements of K responses, each made three times: higher values are better."""

  first: np.ndarray
  """Values f64[N, K]."""
  again: np.ndarray
  """Values f64[N, K] of the same labellers, who look anew."""
  other: np.ndarray
  """Values f64[N, K] of other labellers."""
  gold: np.ndarray
  """Gold rewards f64[N, K]."""
  judgements: int
  """Number of judgements in which a labeller values the K responses: 1, or K of a single response each."""


def concordance(a: np.ndarray, b: np.ndarray, *, untied: bool = False) -> float:
  """Mean over the pairs of the rows of a[N, K] and b[N, K]: 1 where both have one order, 0 where opposite, else 0.5.

  untied: over the pairs that b orders. NaN without pairs.
  """
  i, j = np.triu_indices(a.shape[1], 1)
  signs = np.sign(a[:, i] - a[:, j]), np.sign(b[:, i] - b[:, j])
  alike = 0.5 + 0.5 * signs[0] * signs[1]
  chosen = alike[signs[1] != 0] if untied else alike
  return float(chosen.mean()) if chosen.size else float("nan")


def order_bits(values: np.ndarray, gold: np.ndarray) -> float:
  """Mutual information of the gold order of K responses and the values that judgements give them, in bits.

  values, gold: f[N, K]; rows with equal gold rewards are left out. Responses stand in no order of their own, so that
  the K! gold orders are equally likely and I = H(values) - H(values | order): the values of a row in the order of gold
  have the conditional distribution, and the same values in every arrangement the marginal one. Both entropies are
  plug-in estimates with the correction of Miller and Madow, (cells - 1) / 2N nats. NaN without rows.
  """
  size = values.shape[1]
  kept = np.array([len(set(row)) == size for row in gold.tolist()], bool)
  if not kept.any():
    return float("nan")
  order = np.argsort(-gold[kept], axis=1)
  arranged = np.take_along_axis(values[kept], order, axis=1)
  sets = np.sort(arranged, axis=1)
  return _entropy(sets) + float(np.mean(arrangement_bits(sets))) - _entropy(arranged)


def arrangement_bits(sets: np.ndarray) -> np.ndarray:
  """log2 of the number of different arrangements of each row of sets[N, K]: f64[N]."""
  factorial = np.cumprod([1, *range(1, sets.shape[1] + 1)])
  repeats = [np.unique(row, return_counts=True)[1] for row in sets]
  return np.log2([factorial[-1] / np.prod(factorial[counts]) for counts in repeats])


def _entropy(rows: np.ndarray) -> float:
  """Entropy in bits of the distribution that the rows [N, K] are drawn from, corrected for its bias."""
  counts = np.unique(rows, axis=0, return_counts=True)[1]
  share = counts / counts.sum()
  return float(-(share * np.log2(share)).sum() + (len(counts) - 1) / (2 * counts.sum() * np.log(2)))


def right_by_confidence(looks: Looks, *, largest: int = 3) -> dict[str, float]:
  """{size of the stated difference: share of the pairs in the gold order}, of pairs that are no tie for either.

  A difference of `largest` stands for that and more.
  """
  i, j = np.triu_indices(looks.gold.shape[1], 1)
  stated = looks.first[:, i] - looks.first[:, j]
  gold = np.sign(looks.gold[:, i] - looks.gold[:, j])
  size = np.minimum(np.abs(stated), largest)
  kept = (stated != 0) & (gold != 0)
  found = {}
  for one in range(1, largest + 1):
    here = kept & (size == one)
    if here.any():
      found[str(one)] = float((np.sign(stated) == gold)[here].mean())
  return found


def draw_looks(
  items: Sequence[Item], pages: Sequence[Traits], labellers: Sequence[Labeller], world: Mapping[str, Any], seed: int,
  draws: int = DRAWS, criticised: int = CRITICISED,
) -> dict[str, Looks]:  # fmt: skip
  """Simulated judgements of each way to learn, of pages of four responses; pairs are two responses of a page."""
  rng = np.random.default_rng([seed, 23])
  people = len(labellers)
  four = [n for n, page in enumerate(pages) if len(page.total) == 4]

  def drawn(num: int, size: int, alone: bool, values: Values) -> dict[str, Looks]:
    """values(labeller, item, chosen, page) -> {way: values [K]}; alone: each response has a labeller of its own."""
    rows: dict[str, list[list[np.ndarray]]] = {}
    gold = []
    for _ in range(num):
      n = four[int(rng.integers(len(four)))]
      chosen = rng.permutation(4)[:size]
      first = rng.integers(people, size=size if alone else 1)
      other = (first + rng.integers(1, people, size=len(first))) % people
      gold.append(pages[n].total[chosen])
      looks = [_looked(values, labellers, who, items[n], pages[n], chosen, alone) for who in (first, first, other)]
      for way in looks[0]:
        rows.setdefault(way, []).append([look[way] for look in looks])
    return {
      way: Looks(*np.moveaxis(np.array(found, np.float64), 1, 0), np.array(gold), size if alone else 1)
      for way, found in rows.items()
    }

  def looked(labeller: Labeller, item: Item, chosen: np.ndarray, page: Traits) -> dict[str, np.ndarray]:
    logits = perceive(labeller, page, rng, int(rng.integers(SESSION))).logits
    ranks = np.argsort(np.argsort(logits))
    found = {"ratings": ratings(labeller, logits), "yes or no": accepts(labeller, logits), "ranking": ranks}
    if len(logits) == 2:
      found["strength"] = (2 * ranks - 1) * strength(logits) / 2
    return found

  def no_fault(labeller: Labeller, item: Item, chosen: np.ndarray, page: Traits) -> dict[str, np.ndarray]:
    said = [criticise(labeller, item.prompt, item.responses[i].text, rng, **world) for i in chosen]
    return {"critique": np.array([not text for text in said])}

  together, pair = drawn(draws, 4, False, looked), drawn(draws, 2, False, looked)
  alone = drawn(draws, 4, True, looked) | drawn(criticised, 4, True, no_fault)
  return {
    "rating of 1": alone["ratings"],
    "ratings of 4": together["ratings"],
    "yes or no, of 1": alone["yes or no"],
    "yes or no, of 4": together["yes or no"],
    "pair": pair["ranking"],
    "pair with strength": pair["strength"],
    "ranking of 4": together["ranking"],
    "critique of 1": alone["critique"],
  }


def _looked(
  values: Values,
  labellers: Sequence[Labeller],
  who: np.ndarray,
  item: Item,
  page: Traits,
  chosen: np.ndarray,
  alone: bool,
) -> dict[str, np.ndarray]:
  """{way: values [K]} of the chosen responses, from one page or, alone, from a page and a labeller for each."""
  parts = [chosen[i : i + 1] for i in range(len(chosen))] if alone else [chosen]
  found = [
    values(labellers[person], item, part, Traits(*(trait[part] for trait in page)))
    for person, part in zip(who, parts, strict=True)
  ]
  return {way: np.concatenate([one[way] for one in found]) for way in found[0]}


def worth(looks: Looks, seconds: float) -> dict[str, float | None]:
  """What the judgements of a way to learn are worth, each of which takes `seconds`."""
  bits = order_bits(looks.first, looks.gold) / looks.judgements
  i, j = np.triu_indices(looks.gold.shape[1], 1)
  stacked = [np.stack([x[:, i].ravel(), x[:, j].ravel()], axis=1) for x in (looks.first, looks.gold)]
  return {
    "gold": _number(concordance(looks.first, looks.gold, untied=True)),
    "retest": _number(concordance(looks.first, looks.again)),
    "others": _number(concordance(looks.first, looks.other)),
    "bits": _number(bits),
    "bits a pair": _number(order_bits(*stacked)),
    "bits a minute": _number(60 * bits / seconds),
  }


def read_pages(run: Path, page: str = "ratings") -> tuple[list[Item], list[Traits], dict[str, Any]]:
  """The items that a run's stage `page` judged, their traits, and the arguments of the world."""
  config = data.read_json(run / "config.json")
  world = {key: config["world"][key] for key in ("seed", "difficulty")}
  _, items, _ = read_records(run / page / "feedback.db")
  pages = []
  for item in items:
    texts = [response.text for response in item.responses]
    pages.append(traits_of(gold_parts([item.prompt] * len(texts), texts, **world), texts))
  return items, pages, world


def read_seconds(run: Path, page: str, labellers: Mapping[str, Labeller], critiques: bool) -> dict[str, float]:
  """Means of the seconds of a page's judgements, by what they are spent on, and of the responses it shows.

  Answering, typing and the prompt are by the rule (`rlhf_jax.world.seconds`), and the rest is looking, which is
  divided by what reading and checking are expected to take.
  """
  _, items, judgements = read_records(run / page / "feedback.db")
  by_id = {item.id: item for item in items}
  kinds = sweep.PAGES[page][1]
  rows = []
  for judgement in judgements:
    item, person = by_id[judgement.item], labellers[judgement.annotator]
    texts = [response.text for response in item.responses]
    said = (judgement.critiques or [""] * len(texts)) if critiques else None
    answering = person.pace * answering_seconds(kinds, len(texts), said)
    prompt = person.pace * prompt_seconds(data.prompt_text(item.prompt))
    reading = SECONDS_PER_WORD * sum(len(text.split()) for text in texts)
    checking = SECONDS_PER_CHECK * person.checks * len(texts)
    rows.append([judgement.seconds, answering, prompt, reading, checking, len(texts)])
  total, answering, prompt, reading, checking, shown = np.mean(rows, axis=0).tolist()
  looking = total - answering - prompt
  share = checking / (reading + checking)
  return {
    "seconds": total, "answering": answering, "prompt": prompt, "reading": (1 - share) * looking,
    "checking": share * looking, "responses": shown,
  }  # fmt: skip


def read_seed(run: Path, hours: Sequence[float], seed: int, draws: int, criticised: int) -> dict[str, Any]:
  """The figures of the run of one seed: {"style", way to learn: {...}}."""
  labellers = make_labellers(quickstart.LABELLERS)
  by_name = {labeller.name: labeller for labeller in labellers}
  spent = {page: read_seconds(run, page, by_name, page == "critique") for page in sweep.PAGES}
  said = {page: read_records(run / page / "feedback.db")[2] for page in sweep.PAGES}
  measured = data.read_json(run / "accuracy" / "results.json")
  items, pages, world = read_pages(run)
  looks = draw_looks(items, pages, labellers, world, seed, draws, criticised)
  style = {key: measured["style"][key][0]["mean"] for key in ("accuracy", "clear_accuracy")}
  found: dict[str, Any] = {"style": style, "ways": {}}
  for number, (way, (page, _)) in enumerate(sweep.LEARN.items()):
    points = []
    for time in hours:
      (accuracy,), (clear,), (calibration,) = (
        measured["groups"][sweep.label(way, time)][key] for key in ("accuracy", "clear_accuracy", "calibration")
      )
      steps = read_metrics(run / sweep.reward_stage(number, time) / "metrics.jsonl")[-1]["step"]
      points.append(
        {
          "hours": time,
          "judgements": len(within_hours(said[page], time)),
          "steps": int(steps),
          "accuracy": accuracy["mean"],
          "clear_accuracy": clear["mean"],
          "calibration": calibration and calibration["gold"].get("error"),
          "temperature": calibration and calibration["gold"].get("temperature"),
        }
      )
    found["ways"][way] = {
      "seconds": {key: _number(value) for key, value in spent[page].items()},
      "worth": worth(looks[way], spent[page]["seconds"]),
      "stated": right_by_confidence(looks[way]) if way in CONFIDENT else {},
      "points": points,
    }
  return found


def over_seeds(values: ArrayLike) -> dict[str, float] | None:
  """{"mean", "low", "high"} of a figure of several seeds; no bounds for one seed, and None where a seed lacks it."""
  given = np.asarray(values, object)
  if any(value is None for value in given):
    return None
  interval = mean_interval(given.astype(np.float64))
  return {"mean": _number(interval.mean), "low": _number(interval.low), "high": _number(interval.high)}


def summarise(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The figures over seeds, differences to the pair at the same hours, and what other times would change.

  What a way to learn needs is told to the accuracy of pairs after the middle one of the hours, over all seeds.
  """
  hours = [point["hours"] for point in seeds[0]["ways"]["pair"]["points"]]
  middle = len(hours) // 2
  threshold = float(np.mean([seed["ways"]["pair"]["points"][middle]["accuracy"] for seed in seeds]))
  ways: dict[str, Any] = {}
  for way in seeds[0]["ways"]:
    own = [seed["ways"][way] for seed in seeds]
    pair = [seed["ways"]["pair"] for seed in seeds]
    points = []
    for place, point in enumerate(own[0]["points"]):
      each = [one["points"][place] for one in own]
      base = [one["points"][place]["accuracy"] for one in pair]
      keys = ("judgements", "steps", "accuracy", "clear_accuracy", "calibration", "temperature")
      summed = {key: over_seeds([one[key] for one in each]) for key in keys}
      beyond = over_seeds([one["accuracy"] - other for one, other in zip(each, base, strict=True)])
      points.append({"hours": point["hours"], **summed, "beyond pairs": beyond})
    ways[way] = {
      **{part: {key: over_seeds([one[part][key] for one in own]) for key in own[0][part]}
         for part in ("seconds", "worth")},
      "stated": {key: over_seeds([one["stated"].get(key) for one in own]) for key in own[0]["stated"]},
      "points": points,
    }  # fmt: skip
    curves = [averaged([one["points"] for one in own]), *(one["points"] for one in own)]
    needed = {
      key: [first_reaching(*([point[name] for point in curve] for name in (key, "accuracy")), threshold)
            for curve in curves]
      for key in AMOUNTS
    }  # fmt: skip
    ways[way]["needed"] = {key: {"mean": mean, "seeds": each} for key, (mean, *each) in needed.items()}
  other_times = {
    name: {
      way: {
        f"{factor:g}": over_seeds([with_other_times(seed["ways"][way], hours[middle], parts, factor) for seed in seeds])
        for factor in FACTORS
      }
      for way in ways
    }
    for name, parts in PARTS.items()
  }
  return {
    "seeds": len(seeds),
    "style": {key: over_seeds([seed["style"][key] for seed in seeds]) for key in seeds[0]["style"]},
    "threshold": {"hours": hours[middle], "accuracy": _number(threshold)},
    "ways": ways,
    "other times": {"hours": hours[middle], **other_times},
  }


def averaged(curves: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
  """The points of a curve whose hours, judgements, steps and accuracies are the means of those of several curves."""
  return [
    {key: float(np.mean([point[key] for point in points])) for key in (*AMOUNTS, "accuracy")}
    for points in zip(*curves, strict=True)
  ]


def first_reaching(amounts: Sequence[float], accuracies: Sequence[float], threshold: float) -> float | None:
  """The amount at which the accuracy first reaches the threshold, between two points on a line in log(amount).

  None where it never does; where it does from the first point on, that point's amount.
  """
  for place, accuracy in enumerate(accuracies):
    if accuracy >= threshold:
      if place == 0:
        return _number(amounts[0])
      before = accuracies[place - 1]
      share = (threshold - before) / (accuracy - before)
      low, high = np.log(amounts[place - 1 : place + 1])
      return _number(np.exp(low + share * (high - low)))
  return None


def with_other_times(one: Mapping[str, Any], hours: float, parts: Sequence[str], factor: float) -> float:
  """The accuracy of a way to learn after `hours` if `parts` of the seconds of a judgement took `factor` times as long.

  Another time of a judgement is another number of judgements in the hours; the accuracy with that number lies on the
  line between the points that were measured, in log(judgements), and is that of the last point beyond them.
  """
  seconds, points = one["seconds"], one["points"]
  total = seconds["seconds"] + (factor - 1) * sum(seconds[part] for part in parts)
  num = np.log([point["judgements"] for point in points])
  here = np.interp(np.log(hours), np.log([point["hours"] for point in points]), num)
  there = here + np.log(seconds["seconds"] / total)
  return float(np.interp(there, num, [point["accuracy"] for point in points]))


def tables(result: Mapping[str, Any]) -> str:
  """The tables of the record, in Markdown."""
  ways = result["ways"]
  hours = [point["hours"] for point in ways["pair"]["points"]]
  lines = ["| judgement | answers shown | seconds: all | prompt | reading | checking | answering | an hour |"]
  lines.append("|---" * 8 + "|")
  for way, one in ways.items():
    cells = [_shown(one["seconds"]["responses"], 1), _shown(one["seconds"]["seconds"], 1)]
    cells += [f"{one['seconds'][part]['mean']:.1f}" for part in ("prompt", "reading", "checking", "answering")]
    lines.append(f"| {way} | " + " | ".join([*cells, f"{3600 / one['seconds']['seconds']['mean']:.0f}"]) + " |")
  lines += ["", "| accuracy after hours of judging | " + " | ".join(f"{time:g}" for time in hours) + " |"]
  lines.append("|---" * (len(hours) + 1) + "|")
  for way, one in ways.items():
    lines.append(f"| {way} | " + " | ".join(_shown(point["accuracy"], 3) for point in one["points"]) + " |")
  lines.append(f"| style baseline | {' | ' * (len(hours) - 1)}{_shown(result['style']['accuracy'], 3)} |")
  lines += ["", "| beyond pairs after hours | " + " | ".join(f"{time:g}" for time in hours) + " |"]
  lines.append("|---" * (len(hours) + 1) + "|")
  for way, one in ways.items():
    if way != "pair":
      lines.append(f"| {way} | " + " | ".join(_shown(point["beyond pairs"], 3) for point in one["points"]) + " |")
  names = {"gold": "gold order", "retest": "same labeller again", "others": "another labeller", "bits": "bits",
           "bits a pair": "bits a pair", "bits a minute": "bits a minute"}  # fmt: skip
  headings = [*names.values(), "calibration error", "temperature"]
  lines += ["", "| judgement | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
  for way, one in ways.items():
    cells = [_shown(one["worth"][key], 3) for key in names]
    cells += [_shown(one["points"][-1]["calibration"], 3), _shown(one["points"][-1]["temperature"], 2)]
    lines.append(f"| {way} | " + " | ".join(cells) + " |")
  asked = result["threshold"]
  lines += [
    "",
    f"| to {asked['accuracy']:.3f}, as pairs after {asked['hours']:g} hours | " + " | ".join(AMOUNTS) + " |",
  ]
  lines.append("|---" * (len(AMOUNTS) + 1) + "|")
  for way, one in ways.items():
    lines.append(f"| {way} | " + " | ".join(_needed(one["needed"][key]) for key in AMOUNTS) + " |")
  lines += ["", "| in the gold order, by what is stated | 1 | 2 | 3 or more |", "|---|---|---|---|"]
  for way in CONFIDENT:
    cells = [_shown(ways[way]["stated"].get(str(size)), 3) for size in (1, 2, 3)]
    lines.append(f"| {way} | " + " | ".join(cells) + " |")
  found = result["other times"]
  headings = [f"{part} x {factor:g}" for part in PARTS for factor in FACTORS]
  lines += ["", f"| accuracy after {found['hours']:g} hours | " + " | ".join(headings) + " |"]
  lines.append("|---" * (len(headings) + 1) + "|")
  for way in ways:
    cells = [_shown(found[part][way][f"{factor:g}"], 3) for part in PARTS for factor in FACTORS]
    lines.append(f"| {way} | " + " | ".join(cells) + " |")
  return "\n".join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
  """Accuracy against hours of judging and against judgements: a line for each way to learn."""
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2, sharey=True), ("hours", "judgements"), strict=True):
      for number, (way, one) in enumerate(result["ways"].items()):
        x = [point[key] if key == "hours" else point[key]["mean"] for point in one["points"]]
        mean, low, high = (
          np.array([point["accuracy"][bound] for point in one["points"]], np.float64)
          for bound in ("mean", "low", "high")
        )
        axes.plot(x, mean, marker="o", markersize=3, color=f"C{number}", label=way)
        axes.fill_between(x, low, high, color=f"C{number}", alpha=0.1, linewidth=0)
      axes.axhline(result["style"]["accuracy"]["mean"], color="gray", linestyle=":", label="style baseline")
      axes.set(xscale="log", xlabel="hours of judging" if key == "hours" else key)
      axes.grid(alpha=0.3)
      axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("pairs in the gold order")
    figure.axes[1].legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    write_figure(path, figure)


def make_runs(options: argparse.Namespace) -> list[Path]:
  """Makes or continues the sweep; its cells by seed. Raises SystemExit with its status where it fails."""
  name = str(HERE / "sweep.py") + (":fast" if options.fast else "")
  engine = ["--engine", "inline"] if options.fast else []
  if status := command(["sweep", name, "--workdir", str(options.run), *engine]):
    sys.exit(status)
  cells = data.read_json(options.run / "sweep.json")["cells"]
  return [options.run / "cells" / cell["name"] for cell in sorted(cells, key=lambda cell: cell["values"]["seed"])]


def main(argv: Sequence[str] | None = None) -> None:
  """Makes the sweep, writes results.json and results.png, and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--run", type=Path, required=True, help="directory of the sweep, which continues there")
  parser.add_argument("--out", type=Path, required=True, help="folder for results.json and results.png")
  parser.add_argument("--fast", action="store_true", help="one seed of a tiny model and minutes of judging")
  options = parser.parse_args(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  hours = sweep.FAST_HOURS if options.fast else sweep.HOURS
  draws = (200, 50) if options.fast else (DRAWS, CRITICISED)
  seeds = []
  for seed, run in enumerate(runs := make_runs(options)):
    print(f"reading seed {seed}, {seed + 1} of {len(runs)}", file=sys.stderr, flush=True)
    seeds.append(read_seed(run, hours, seed, *draws))
  result = summarise(seeds)
  data.write_text(options.out / "results.json", json.dumps(result, indent=2) + "\n")
  draw(result, options.out / "results.png")
  print(tables(result))


def _number(value: float) -> float | None:
  return round(float(value), 4) if np.isfinite(value) else None


def _needed(found: Mapping[str, Any]) -> str:
  """The amount of the mean curve, with the least and the most of the seeds."""
  told = [
    "never" if x is None else f"{x:.3g}" for x in sorted(found["seeds"], key=lambda x: np.inf if x is None else x)
  ]
  mean = "never" if found["mean"] is None else f"{found['mean']:.3g}"
  return f"{mean} ({told[0]} to {told[-1]})"


def _shown(found: Mapping[str, float | None] | None, digits: int) -> str:
  if found is None:
    return "–"
  if found["low"] is None:
    return f"{found['mean']:.{digits}f}"
  return f"{found['mean']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


if __name__ == "__main__":
  main()
