"""How well do reward models predict people that they did not learn from, and how many ratings should a text have?

  python experiments/held_out_raters/analyse.py --data DIR --model MODEL --run runs/raters --out OUT
  python experiments/held_out_raters/analyse.py --data DIR --run /tmp/fast/run --out /tmp/fast --fast

DIR holds wmt23_zhen_side_by_side.jsonl.gz and vader_ratings.tsv.gz; MODEL is a directory or a .gguf file. A reward
model is a linear head on the model as it is, which reads texts as plain text: on the hidden state at the end of a text
and on the mean log-probability of its tokens. The features of all texts are computed once and kept in the run
directory, as are the figures of each seed; a call that was interrupted goes on. With --fast few texts are read, and
without a MODEL a tiny one drawn at random takes its place: it shows that everything runs.

`wmt` and `ratings` say what is fitted and tested. Writes results.json and results.png to OUT and prints the tables of
the record. Intervals of 95 % are over documents for WMT and over seeds for VADER.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhf_jax import data
from rlhf_jax.data.vader import read_vader
from rlhf_jax.data.wmt import read_wmt
from rlhf_jax.evaluation.word_baselines import length_scores
from rlhf_jax.models import stack_layers
from rlhf_jax.models.hub import open_pretrained
from rlhf_jax.settings import import_module
from rlhf_jax.stage import ImportedModel, Stage, Transport
from rlhf_jax.stages.plain_text import write_plain_text
from rlhf_jax.train import kept_features, load_imported, open_workspace, text_features
from rlhf_jax.train.features import seconds_of
from rlhf_jax.train.programs import keep_programs
from rlhf_jax.verify.sentiment import vader
from rlhf_jax.writing import write_figure

wmt, ratings = (import_module(str(Path(__file__).with_name(name))) for name in ("wmt.py", "ratings.py"))
tiny_model = import_module(str(Path(__file__).parents[1] / "sentiment" / "analyse.py")).tiny_model

BOUNDARY = "<|endoftext|>"  # token before and behind a text
SOURCE = "movies"  # of VADER's texts
BEGINNINGS = {"wmt": "Translation:", SOURCE: "Review:"}  # what stands before a text
BATCH = 16  # texts read at once
PART = 1024  # texts whose features are kept at once
MOST_TOKENS = 1024  # of a text, for the tiny model
WMT_SEEDS, WMT_PRIORS = 3, (0.003, 0.01, 0.03, 0.1)  # logits per standard deviation of a feature within a segment
TEXTS = 5600  # of VADER's, drawn at random
FULL = ratings.Sizes(4224, 6, (1, 2, 4, 8, 16, ratings.ALL), 5, (0.01, 0.03, 0.1, 0.3))
FAST = ratings.Sizes(64, 2, (1, 2, 4, ratings.ALL), 3, (0.03, 0.3))
FAST_SEGMENTS, FAST_TEXTS = 40, 100
PUBLISHED = {  # accuracy of reward models of Ouyang et al. 2022 (2203.02155), five folds of groups of labellers
  "InstructGPT, own labellers": 0.724,
  "InstructGPT, held-out labellers": 0.696,
}


def read_studies(directory: Path, fast: bool) -> tuple[Any, Any]:
  """The studies of WMT and of VADER, of few rows with `fast`."""
  segments = read_wmt(directory / "wmt23_zhen_side_by_side.jsonl.gz")
  snippets = read_vader(directory / "vader_ratings.tsv.gz")[SOURCE]
  if fast:
    segments = segments[:: max(len(segments) // FAST_SEGMENTS, 1)]  # of all documents, for all raters
  return wmt.make_study(segments), ratings.make_study(snippets, FAST_TEXTS if fast else TEXTS)


def open_features(model: str, run: Path) -> Callable[[str, Sequence[str]], np.ndarray]:
  """`features(name, texts) -> f32[N, D]` of a study's texts, kept in the run directory.

  The weights are read when the first features are missing.
  """
  (run / "tokenizer").mkdir(parents=True, exist_ok=True)
  write_plain_text(data.load_tokenizer(open_pretrained(Path(model)).path), BOUNDARY, run / "tokenizer")
  transport = Transport("jit", fsdp=1, microbatches=1)
  stage = Stage("features", run, 0, "{run}/tokenizer/tokenizer.json", ImportedModel(model), transport)
  tokenizer, language = open_workspace(stage)
  made_by = f"{model} {language.config.describe()} {tokenizer.fingerprint}"
  read_features = None

  def read(prompts: Sequence[data.Prompt], responses: Sequence[data.Response]) -> np.ndarray:
    nonlocal read_features
    if read_features is None:
      params = load_imported(stage)
      params = stack_layers(params) if language.scan else params
      read_features = text_features(language, tokenizer, params, BATCH, stage.transport)
    return read_features(prompts, responses)

  def features(name: str, texts: Sequence[str]) -> np.ndarray:
    """Equal texts are read once."""
    unique, places = np.unique(np.array(texts, object), return_inverse=True)
    prompts = [BEGINNINGS[name]] * len(unique)
    return kept_features(stage.directory / name, read, prompts, list(unique), PART, made_by)[places]

  return features


def kept_seed(path: Path, made_from: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
  """What `compute` returns, with its seconds, as the file `path` keeps it where it was made from the same."""
  if path.exists() and (kept := data.read_json(path))["made_from"] == made_from:
    return kept["found"]
  began = time.monotonic()
  found = compute()
  seconds = time.monotonic() - began
  data.write_json(path, {"made_from": made_from, "seconds": seconds, "found": found})
  print(f"{path.name}: {seconds:.0f} s", flush=True)
  return data.read_json(path)["found"]


def digest(*values: Any) -> str:
  """A digest of settings and arrays."""
  found = hashlib.sha256()
  for value in values:
    found.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
  return found.hexdigest()


def run(options: argparse.Namespace) -> dict[str, Any]:
  """All figures, of which the run directory keeps what is costly."""
  sizes = FAST if options.fast else FULL
  segments, texts = read_studies(options.data, options.fast)
  model = options.model or str(tiny_model(options.out / "tiny_model", texts.texts, MOST_TOKENS))
  features = open_features(model, options.run)
  read = features("wmt", segments.texts)
  priors = WMT_PRIORS[::2] if options.fast else WMT_PRIORS
  fits = wmt.methods(segments, read, priors)
  made_from = digest(read, segments.penalties, priors)
  seeds = [
    kept_seed(options.run / f"wmt_{seed}.json", made_from, lambda seed=seed: wmt.run_seed(segments, fits, seed))
    for seed in range(WMT_SEEDS)
  ]
  read_texts = features(SOURCE, texts.texts)
  made_from = digest(read_texts, texts.ratings, sizes)
  text_fits = {
    ratings.HEAD: ratings.head_fit(read_texts, sizes.priors),
    ratings.WORDS: ratings.word_fit(texts.texts),
  }
  fixed = {
    ratings.PROGRAM: np.asarray(vader([""] * len(texts.texts), texts.texts)["total"], np.float64),
    ratings.LONGER: length_scores([], texts.texts),
  }
  text_seeds = [
    kept_seed(
      options.run / f"{SOURCE}_{seed}.json",
      made_from,
      lambda seed=seed: ratings.run_seed(texts, text_fits, fixed, sizes, seed),
    )
    for seed in range(sizes.seeds)
  ]
  kept = [data.read_json(path)["seconds"] for path in sorted(options.run.glob("*_?.json"))]
  return {
    "published": PUBLISHED,
    "wmt": {"seeds": WMT_SEEDS, **wmt.results(segments, seeds)},
    SOURCE: {"seeds": sizes.seeds, **ratings.results(texts, text_seeds, sizes)},
    "seconds": {
      **{f"features, {name}": round(seconds_of(options.run / "features" / name), 1) for name in BEGINNINGS},
      "heads and baselines": round(sum(kept), 1),
    },
  }


def tables(result: Mapping[str, Any]) -> str:
  """The tables of the record, in Markdown."""
  return "\n".join([*wmt_tables(result), "", *rating_tables(result[SOURCE])])


def wmt_tables(result: Mapping[str, Any]) -> list[str]:
  """The tables of WMT."""
  found = result["wmt"]
  columns = (wmt.OWN, wmt.HELD_OUT, wmt.GAP)
  lines = ["| WMT: untied pairs ordered as by | " + " | ".join(columns) + " | reward model less it |", "|---" * 5 + "|"]
  for name, of_method in found["methods"].items():
    cells = [percent(of_method[column]) for column in columns]
    less = found["reward model less"].get(name)
    lines.append(f"| {name} | " + " | ".join(cells) + f" | {percent(less) if less else '–'} |")
  own, other = result["published"].values()
  lines.append(f"| InstructGPT, published | {100 * own:.1f} | {100 * other:.1f} | {100 * (own - other):.1f} | – |")
  lines += ["", "| WMT: who orders a rater's untied pairs | |", "|---|---|"]
  lines += [f"| {name} | {percent(share)} |" for name, share in found["people"].items()]
  head = found["methods"][wmt.HEAD]
  lines += ["", f"| WMT: reward model, rater | {wmt.OWN} | {wmt.HELD_OUT} |", "|---|---|---|"]
  for name, of_rater in head["raters"].items():
    lines.append(f"| {name} | {percent(of_rater[wmt.OWN])} | {percent(of_rater[wmt.HELD_OUT])} |")
  gaps = ", ".join(f"{100 * gap:.2f}" for gap in head["with each seed"])
  return [*lines, "", f"Own less held out with each seed, reward model, in points: {gaps}"]


def rating_tables(found: Mapping[str, Any]) -> list[str]:
  """The tables of VADER."""
  measures = (ratings.ORDER, ratings.CORRELATION, ratings.SINGLE)
  most = list(found["grid"][ratings.HEAD])[-1]
  lines = [f"| {most} texts: method, ratings a text | " + " | ".join(measures) + " |", "|---" * 4 + "|"]
  rows = [(f"{name}, {k}", cell) for name, grid in found["grid"].items() for k, cell in grid[most].items()]
  rows += [(name, cell) for name, cell in found["fixed"].items()]
  rows += [(f"people: {k}", cell) for k, cell in found["people"].items()]
  for name, cell in rows:
    told = {key: decimal(cell[key]) if key == ratings.CORRELATION else percent(cell[key]) for key in cell}
    lines.append(f"| {name} | " + " | ".join(told.get(key, "–") for key in measures) + " |")
  for name, grid in found["grid"].items():
    ks = list(grid[most])
    lines += ["", f"| {name}: texts by ratings a text, {ratings.ORDER} | " + " | ".join(ks) + " |"]
    lines.append("|---" * (len(ks) + 1) + "|")
    for items, row in grid.items():
      lines.append(f"| {items} | " + " | ".join(percent(row[k][ratings.ORDER]) for k in ks) + " |")
    gains = found["doublings"][name]
    for of in ("mean", "mean of the last three"):
      lines.append(f"| gain of a doubling, {of} | " + " | ".join(percent(gains[k][of]) for k in ks) + " |")
    for budget, divisions in found["budgets"][name].items():
      lines += [
        "",
        f"| {name}: {budget} ratings, ratings a text | {ratings.ORDER} | less one a text |",
        "|---|---|---|",
      ]
      for k, cell in divisions.items():
        lines.append(f"| {k} | {percent(cell[ratings.ORDER])} | {percent(cell['less one a text'])} |")
  lines += [
    "",
    f"| texts learnt from, ratings a text | {ratings.OWN} | {ratings.OTHER} | difference |",
    "|---" * 4 + "|",
  ]
  for row in found["seen"]:
    cells = [percent(row[key]) for key in (ratings.OWN, ratings.OTHER, "difference")]
    lines.append(f"| {row['method']}, {row['ratings']} | " + " | ".join(cells) + " |")
  return lines


def draw(result: Mapping[str, Any], path: Path) -> None:
  """Own and held-out raters; accuracy by the number of texts; by ratings a text, at a fixed number of ratings."""
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    draw_raters(first, result["wmt"])
    draw_texts(second, result[SOURCE])
    draw_budgets(third, result[SOURCE])
    for axes in (first, second, third):
      axes.grid(alpha=0.3)
      axes.spines[["top", "right"]].set_visible(False)
    write_figure(path, figure)


def draw_raters(axes: Axes, found: Mapping[str, Any]) -> None:
  """The share of each method by own and by held-out raters, between chance and the raters themselves."""
  names = list(found["methods"])
  for shift, key in ((-0.12, wmt.OWN), (0.12, wmt.HELD_OUT)):
    mean, bars = bounds([found["methods"][name][key] for name in names])
    axes.errorbar(np.arange(len(names)) + shift, mean, bars, fmt="o", markersize=4, label=key)
  for style, (name, share) in zip(("--", ":", "-."), found["people"].items(), strict=True):
    axes.axhline(share["mean"], color="grey", linestyle=style, linewidth=1, label=name)
  axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
  axes.set(ylabel="untied pairs in the rater's order", title="WMT: raters")
  _legend_below(axes, columns=1)


def draw_texts(axes: Axes, found: Mapping[str, Any]) -> None:
  """The order of held-out texts by the number of training texts."""
  for name, style in ((ratings.HEAD, "o-"), (ratings.WORDS, "s:")):
    grid = found["grid"][name]
    ks = list(next(iter(grid.values())))
    for number, k in enumerate((ks[0], ks[len(ks) // 2], ks[-1])):
      mean, bars = bounds([row[k][ratings.ORDER] for row in grid.values()])
      label = f"{name}, {k} a text"
      axes.errorbar(
        [*map(int, grid)], mean, bars, fmt=style, color=f"C{number}", markersize=3, linewidth=1, label=label
      )
  for name, style in ((ratings.PROGRAM, "--"), (ratings.LONGER, "-.")):
    axes.axhline(found["fixed"][name][ratings.ORDER]["mean"], color="grey", linestyle=style, linewidth=1, label=name)
  axes.axhline(found["people"]["1"][ratings.ORDER]["mean"], color="black", linewidth=1, label="one person's rating")
  axes.set(xscale="log", xlabel="training texts", ylabel="pairs in the order of the mean", title="film reviews: texts")
  _legend_below(axes)


def draw_budgets(axes: Axes, found: Mapping[str, Any]) -> None:
  """The order of held-out texts by the ratings that a training text has, a line for each number of ratings in all."""
  for name, style in ((ratings.HEAD, "o-"), (ratings.WORDS, "s:")):
    for number, (budget, divisions) in enumerate(found["budgets"][name].items()):
      mean, bars = bounds([cell[ratings.ORDER] for cell in divisions.values()])
      label, ks = f"{name}, {budget} ratings", [*map(int, divisions)]
      axes.errorbar(ks, mean, bars, fmt=style, color=f"C{number}", markersize=3, linewidth=1, label=label)
  axes.set_xscale("log", base=2)
  axes.set(xlabel="ratings a training text", title="film reviews: one number of ratings")
  _legend_below(axes)


def _legend_below(axes: Axes, columns: int = 2) -> None:
  """The legend under the axis, where it covers no line."""
  axes.legend(fontsize=7, frameon=False, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.25))


def bounds(found: Sequence[Mapping[str, float]]) -> tuple[np.ndarray, np.ndarray]:
  """(means f64[N], distances f64[2, N] to the ends) of intervals."""
  mean, low, high = np.array([[one[key] for key in ("mean", "low", "high")] for one in found]).T
  return mean, np.maximum([mean - low, high - mean], 0.0)


def percent(found: Mapping[str, float]) -> str:
  """An interval in per cent, as tables have it."""
  return f"{100 * found['mean']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def decimal(found: Mapping[str, float]) -> str:
  """An interval of correlations."""
  return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def main(argv: Sequence[str] | None = None) -> None:
  """Writes results.json and results.png, and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", type=Path, required=True, help="the directory of the two files of ratings")
  parser.add_argument("--model", default="", help="directory or .gguf file of the model")
  parser.add_argument("--run", type=Path, required=True, help="where features and the figures of each seed are kept")
  parser.add_argument("--out", type=Path, required=True)
  parser.add_argument("--fast", action="store_true", help="few texts; without --model a tiny random model")
  options = parser.parse_args(argv)
  if not (options.model or options.fast):
    parser.error("--model is needed without --fast")
  options.out.mkdir(parents=True, exist_ok=True)
  options.run.mkdir(parents=True, exist_ok=True)
  keep_programs()
  result = run(options)
  data.write_text(options.out / "results.json", json.dumps(result, indent=2) + "\n")
  draw(result, options.out / "results.png")
  print(tables(result))


if __name__ == "__main__":
  main()
