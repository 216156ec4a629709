"""Does a policy learn from real people's ratings to write kinder film reviews, by judges that it never met?

  python experiments/sentiment/analyse.py --data DIR --model MODEL --run runs/sentiment --out experiments/sentiment
  python experiments/sentiment/analyse.py --data DIR --run /tmp/fast/run --out /tmp/fast --fast

Makes or continues the run of the recipe `sentiment:DIR,small`, and then reads it. Without --data the run, of whatever
size, must be finished. DIR holds vader_ratings.tsv.gz; MODEL is a directory or a .gguf file. With --fast the recipe is
`sentiment:DIR,few`, and without a MODEL a tiny one drawn at random takes its place: it shows that everything runs.

Writes results.json and results.png to OUT and prints the tables of the record. Intervals of 95 % are over held-out
texts: percentiles of 2,000 bootstrap resamples for correlations, Agresti and Min's for win rates.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax import data
from rlhf_jax.cli import main as command
from rlhf_jax.data.vader import SOURCES, read_vader
from rlhf_jax.intervals import mean_interval, win_rate
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.models.hub import export_model
from rlhf_jax.pipeline.finished import FinishedRun, open_run
from rlhf_jax.train import text_scorer
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.verify.sentiment import vader
from rlhf_jax.writing import write_figure

RESAMPLES = 2000
BATCH = 64  # texts scored at once
MODELS = {"reward model": "reward_model", "judge": "judge"}  # name -> stage
PROGRAM = "vaderSentiment"
RL = ("rloo", "rloo_free")
CURVES = {"reward/proxy": "reward model's score", "reward/gold": PROGRAM, "kl/reference": "KL to SFT, nats"}
SHOWN = 8  # prompts in results.json with the continuations of every model
Scores = dict[str, np.ndarray]


def model_scores(run: FinishedRun, texts: Sequence[data.Demonstration]) -> Scores:
  """{judge: f64[N]} of N texts by both reward models and by vaderSentiment."""
  prompts, responses = [text.prompt for text in texts], [text.response for text in texts]
  found = {PROGRAM: np.asarray(vader(prompts, responses)["total"], np.float64)}
  for name, stage in MODELS.items():
    judge = run.model(stage)
    score = text_scorer(judge.model, judge.tokenizer, judge.params, BATCH, judge.stage.transport)
    found[name] = np.asarray(score(prompts, responses), np.float64)
  return found


def correlation(x: np.ndarray, y: np.ndarray, seed: int = 0) -> dict[str, float]:
  """Pearson's correlation of x[N] and y[N] with its interval."""
  rows = np.random.default_rng(seed).integers(len(x), size=(RESAMPLES, len(x)))
  a, b = (values[np.vstack([np.arange(len(x)), rows])] for values in (x, y))  # the sample, then its resamples
  a, b = (values - values.mean(axis=1, keepdims=True) for values in (a, b))
  with np.errstate(invalid="ignore", divide="ignore"):
    found = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
  low, high = np.nanquantile(found[1:], [0.025, 0.975])
  return _rounded({"mean": found[0], "low": low, "high": high})


def human_texts(rows: Sequence[Mapping[str, Any]], scores: Scores) -> dict[str, dict[str, float]]:
  """The correlation of each judge with the mean of the second half of people's ratings; so of the first half's mean.

  rows: the held-out texts with the means of both halves; scores: of the same texts.
  """
  first, second = np.array([row["means"] for row in rows], np.float64).T
  return {name: correlation(values, second) for name, values in {"first half of the people": first, **scores}.items()}


def continuations(samples: Sequence[Mapping[str, Any]], scores: Mapping[str, Scores], reference: str) -> dict[str, Any]:
  """{model: {"win rate": {judge: interval}, "score": {judge: interval}, "distinct bigrams"}} of each model.

  samples: rows of samples.jsonl. scores: {model: {judge: f64[N]}} of their continuations.
  """
  found: dict[str, Any] = {}
  for name, judged in scores.items():
    found[name] = {"score": {judge: _rounded(mean_interval(values)._asdict()) for judge, values in judged.items()}}
    if name != reference:
      wins = {judge: win_rate(values, scores[reference][judge]) for judge, values in judged.items()}
      found[name]["win rate"] = {judge: _rounded(interval._asdict()) for judge, interval in wins.items()}
    found[name]["distinct bigrams"] = round(distinct_bigrams([row["responses"][name] for row in samples]), 4)
  return found


def distinct_bigrams(texts: Sequence[str]) -> float:
  """The share of different pairs of neighbouring words among all such pairs; 0 where there are none."""
  pairs = [pair for text in texts for pair in zip(text.split(), text.split()[1:], strict=False)]
  return len({*pairs}) / len(pairs) if pairs else 0.0


def read_results(directory: Path) -> dict[str, Any]:
  """All figures of a finished run."""
  run = open_run(directory)
  rows = [row for _, row in data.read_rows(directory / "texts" / "held_out.jsonl")]
  samples = [row for _, row in data.read_rows(directory / "evaluation" / "samples.jsonl")]
  evaluation = data.read_json(directory / "evaluation" / "evaluation.json")
  models = list(evaluation["models"])
  texts = [data.Demonstration(row["prompt"], row["response"]) for row in rows]
  texts += [data.Demonstration(row["prompt"], row["responses"][name]) for name in models for row in samples]
  scores = model_scores(run, texts)
  parts = {name: np.split(values, _ends(len(rows), len(samples), len(models))) for name, values in scores.items()}
  of_model = {name: {judge: values[1 + place] for judge, values in parts.items()} for place, name in enumerate(models)}
  found = continuations(samples, of_model, evaluation["reference"])
  for name in models:
    measures = evaluation["models"][name]
    found[name] |= {key: _rounded(measures[key]) for key in ("kl", "perplexity", "length", "finished")}
  stages = data.read_json(directory / "config.json")["stages"]
  done = {name: data.read_json(directory / name / "done.json") for name in stages}
  return {
    "counts": data.read_json(directory / "texts" / "counts.json"),
    "texts that people rated": human_texts(rows, {name: values[0] for name, values in parts.items()}),
    "prompts": len(samples),
    "reference": evaluation["reference"],
    "models": found,
    "training": {name: course(read_metrics(directory / name / "metrics.jsonl")) for name in RL},
    "seconds": {name: round(record["seconds"], 1) for name, record in done.items()},
    "samples": [{"prompt": row["prompt"], **row["responses"]} for row in samples[:SHOWN]],
  }


def course(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
  """The curves of a stage of RL, a number for each step."""
  return {name: [round(float(row[name]), 4) for row in rows if name in row] for name in CURVES}


def tables(result: Mapping[str, Any]) -> str:
  """The tables of the record, in Markdown."""
  lines = ["| held-out texts of people: correlation with the second half's mean | |", "|---|---|"]
  lines += [f"| {name} | {_shown(found, 3)} |" for name, found in result["texts that people rated"].items()]
  judges = list(next(iter(result["models"].values()))["score"])
  headings = [*(f"won by the {judge}" if judge != PROGRAM else f"won by {judge}" for judge in judges),
              "KL, nats", "perplexity", "distinct bigrams"]  # fmt: skip
  lines += ["", "| model | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
  for name, found in result["models"].items():
    wins = [_shown(found["win rate"][judge], 3) if "win rate" in found else "–" for judge in judges]
    cells = [*wins, _shown(found["kl"], 1), _shown(found["perplexity"], 1), f"{found['distinct bigrams']:.2f}"]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  for row in result["samples"]:
    lines += ["", f"**{row['prompt']}** ...", ""]
    lines += [f"- {name}: {' '.join(text.split())}" for name, text in row.items() if name != "prompt"]
  return "\n".join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
  """What training saw: the reward that is learnt from, the program's score and the KL, by step."""
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, (metric, label) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
      for name, curves in result["training"].items():
        axes.plot(np.arange(1, len(curves[metric]) + 1), curves[metric], label=name, linewidth=1)
      axes.set(xlabel="step", title=label)
      axes.grid(alpha=0.3)
      axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    write_figure(path, figure)


def tiny_model(directory: Path, texts: Sequence[str], max_length: int = 128) -> Path:
  """A tiny Llama drawn at random, as others would publish it, with a tokenizer of the texts."""
  tokenizer = data.train_tokenizer(texts, 512, control=("<|endoftext|>",))
  config = DecoderConfig(tokenizer.vocab_size, 1, 32, 2, 1, 48, max_length)
  ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
  export_model(directory, config, language_model(config).init(jax.random.key(0)), ids)
  data.export_tokenizer(tokenizer, directory)
  return directory


def make_run(options: argparse.Namespace) -> None:
  """Makes or continues the run. Raises SystemExit with its status where it fails."""
  model = options.model
  if options.fast and not model:
    snippets = read_vader(options.data / "vader_ratings.tsv.gz")
    texts = [text for source in SOURCES.values() for text, _ in snippets[source].values()]
    model = tiny_model(options.out / "tiny_model", texts[:1000])
  arguments = ["--config", f"sentiment:{options.data},{'few' if options.fast else 'small'}"]
  arguments += ["--workdir", str(options.run)] + ([f"--config.model.path={model}"] if model else [])
  if status := command(["run", *arguments]):
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> None:
  """Makes the run where --data is given, writes results.json and results.png, and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", type=Path, help="the directory of vader_ratings.tsv.gz; without it RUN is finished")
  parser.add_argument("--model", default="", help="directory or .gguf file of the model (default: from the hub)")
  parser.add_argument("--run", type=Path, required=True, help="the run directory; an interrupted run continues there")
  parser.add_argument("--out", type=Path, required=True)
  parser.add_argument("--fast", action="store_true", help="few texts and steps; without --model a tiny random model")
  options = parser.parse_args(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  if options.data:
    make_run(options)
  result = read_results(options.run)
  data.write_text(options.out / "results.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
  draw(result, options.out / "results.png")
  print(tables(result))


def _ends(first: int, each: int, count: int) -> list[int]:
  return [first + place * each for place in range(count)]


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
  return {name: round(float(value), 4) for name, value in values.items()}


def _shown(found: Mapping[str, float], digits: int) -> str:
  return f"{found['mean']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


if __name__ == "__main__":
  main()
