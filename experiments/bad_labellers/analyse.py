"""What do bad labellers cost a reward model, and does weighing annotators win it back?

  python experiments/bad_labellers/analyse.py runs/quickstart --out experiments/bad_labellers

The reward model is a linear head on the last hidden state of the quickstart's SFT model and on the mean log-probability
of a response, which is what `rlhf_jax.algorithms.reward_model` starts from; the trunk stays as it is, so that a head is
the solution of a convex problem and hundreds of replicates take minutes. A replicate draws items of the stage
`preferences`, three labellers to an item, with bad ones among them and without.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax import data
from rlhf_jax.agreement.consensus import annotator_weights, noisy_bradley_terry
from rlhf_jax.agreement.tables import judgement_table, pairs_of
from rlhf_jax.configs.bad_labellers import HALF_BAD
from rlhf_jax.configs.feedback_kinds import BAD, SOUND
from rlhf_jax.evaluation.linear_reward import fit_preferences
from rlhf_jax.evaluation.simulated_judgements import annotator_records, judge_item
from rlhf_jax.feedback.records import Item, Response, make_item
from rlhf_jax.intervals import mean_interval
from rlhf_jax.objectives import token_logprobs
from rlhf_jax.pipeline.finished import open_run
from rlhf_jax.reduce import masked_mean
from rlhf_jax.world import Traits, gold_parts, make_labellers, traits_of
from rlhf_jax.writing import write_figure

LENGTH = 64  # tokens of prompt and response, one more than the longest
JUDGES = 3
HELD_OUT = 200  # items whose gold order a head is measured on
PRIOR_SD = 0.3  # of a weight of the head, in logits per standard deviation of a feature; chosen on seeds 1000 to 1004
CROWDS = {"30 % bad": {**SOUND, **BAD}, "half bad": HALF_BAD}
SIZES = (150, 300, 600, 1050)  # judgements
ARMS = ("sound", "bad", "weighted", "weights known")


class Study(NamedTuple):
  """N items of K responses."""

  items: list[Item]
  pages: list[Traits]
  features: np.ndarray
  """Features of the responses, with mean 0 and standard deviation 1: f64[N, K, D]."""
  gold: np.ndarray
  """Gold rewards: f64[N, K]."""


def read_study(run: Path) -> Study:
  """The items of the stage `preferences` of a run of the quickstart, with the features of its SFT model."""
  found = open_run(run).language_model("sft")
  config = json.loads((run / "config.json").read_text())
  world = {key: config["world"][key] for key in ("seed", "difficulty")}
  rows = [row for _, row in data.read_rows(run / "preferences" / "comparisons.jsonl")]
  rows = [row for row in rows if len(row["responses"]) == 4]
  prompts = [row["prompt"] for row in rows for _ in range(4)]
  texts = [text for row in rows for text in row["responses"]]
  gold = gold_parts(prompts, texts, **world)
  pages = [
    traits_of({key: values[n : n + 4] for key, values in gold.items()}, texts[n : n + 4])
    for n in range(0, len(texts), 4)
  ]
  items = [make_item(row["prompt"], [Response(text) for text in row["responses"]]) for row in rows]
  features = _features(found, prompts, texts).reshape(len(rows), 4, -1)
  return Study(items, pages, features, np.asarray(gold["total"], np.float64).reshape(-1, 4))


def _features(found, prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
  """The hidden state behind the last token of each response, and its mean log-probability: f64[N, d + 1]."""
  asked = [data.Demonstration(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
  rows, skips = data.demonstration_rows(found.tokenizer, asked, LENGTH - 1)
  if skips:
    raise ValueError(f"{skips.total()} of {len(asked)} responses are longer than {LENGTH - 1} tokens")
  tokens, mask = (np.pad(rows[key], ((0, 0), (0, 1))) for key in ("tokens", "mask"))

  @jax.jit
  def forward(params, tokens, mask):
    hidden = found.model.hidden(params, tokens)  # [B, T, d]; place t has seen the tokens before it
    end = jnp.max(jnp.where(mask, jnp.arange(LENGTH), 0), axis=1) + 1
    logp = token_logprobs(found.model.apply(params, tokens), tokens)
    return hidden[jnp.arange(len(tokens)), end], masked_mean(logp, mask, axis=-1)

  size = 200
  parts = []
  for start in range(0, len(tokens), size):
    chosen = np.minimum(np.arange(start, start + size), len(tokens) - 1)  # one shape for every batch
    last, logp = jax.device_get(forward(found.policy, tokens[chosen], mask[chosen]))
    parts.append(np.column_stack([last, logp])[: len(tokens) - start])
  found_features = np.concatenate(parts).astype(np.float64)
  return (found_features - found_features.mean(0)) / found_features.std(0)


def judged(study: Study, chosen: np.ndarray, crowd: Mapping[str, int], seed: int) -> dict[str, Any]:
  """The ranks i64[J, K] that the crowd's labellers gave to the chosen items, with item, labeller and weights f64[J]."""
  rng = np.random.default_rng([seed, 5])
  labellers = make_labellers(crowd)
  counts = np.zeros(len(labellers), int)
  said = []
  for n in chosen:
    for person in rng.permutation(len(labellers))[:JUDGES]:
      said.append(
        judge_item(
          labellers[person], study.items[n], study.pages[n], rng, ("ranks",), number=len(said), judged=counts[person]
        )
      )
      counts[person] += 1
  items = {study.items[n].id: study.items[n] for n in chosen}
  table = judgement_table(annotator_records(labellers), list(items.values()), said)
  learnt = annotator_weights(table, noisy_bradley_terry(table, pairs_of(table)))
  place = {study.items[n].id: n for n in chosen}
  kinds = np.array([labeller.kind in SOUND for labeller in labellers])
  return {
    "ranks": table.ranks,
    "item": np.array([place[table.items[i]] for i in table.item]),
    "weighted": np.array([learnt[table.annotators[i]] for i in table.annotator]),
    "weights known": kinds[table.annotator].astype(np.float64),
  }


def fit_head(study: Study, said: dict[str, Any], weight: np.ndarray, prior_sd: float = PRIOR_SD) -> np.ndarray:
  """The weights f64[D] of a head: the mean loss -log sigmoid(r_i - r_j) of each judgement's pairs, by Newton.

  weight: of the judgements, f64[J]. The sum over judgements has the prior N(0, prior_sd^2) on each weight.
  """
  i, j = np.triu_indices(study.features.shape[1], 1)
  x = study.features[said["item"]]
  sign = np.sign(said["ranks"][:, j] - said["ranks"][:, i])  # [J, P], 1 where i is better
  x = ((x[:, i] - x[:, j]) * sign[:, :, None]).reshape(-1, x.shape[-1])
  w = np.repeat(weight / len(i), len(i)) * (np.abs(sign).ravel() > 0)
  return fit_preferences(x, w, prior_sd)


def accuracy(study: Study, head: np.ndarray, items: np.ndarray) -> float:
  """The share of the untied pairs of these items that a head orders as gold does."""
  i, j = np.triu_indices(study.gold.shape[1], 1)
  scores, gold = study.features[items] @ head, study.gold[items]
  wanted = np.sign(gold[:, i] - gold[:, j])
  return float((np.sign(scores[:, i] - scores[:, j]) == wanted)[wanted != 0].mean())


def label_accuracy(study: Study, said: dict[str, Any]) -> float:
  """The share of the untied pairs of the judgements that are in the gold order."""
  i, j = np.triu_indices(study.gold.shape[1], 1)
  gold = study.gold[said["item"]]
  wanted = np.sign(gold[:, i] - gold[:, j])
  return float((np.sign(said["ranks"][:, j] - said["ranks"][:, i]) == wanted)[wanted != 0].mean())


def replicate(study: Study, crowd: str, num: int, seed: int, prior_sd: float = PRIOR_SD) -> dict[str, float]:
  """The accuracy of each arm in one replicate, and of the labels of both crowds."""
  rng = np.random.default_rng([seed, 4])
  order = np.random.default_rng(3).permutation(len(study.items))  # the held-out items are the same for all
  held_out, pool = order[:HELD_OUT], order[HELD_OUT:]
  chosen = [rng.choice(pool, num // JUDGES, replace=False) for _ in range(2)]
  bad, sound = (judged(study, c, labellers, seed) for c, labellers in zip(chosen, (CROWDS[crowd], SOUND), strict=True))
  heads = {
    "sound": fit_head(study, sound, np.ones(num), prior_sd),
    "bad": fit_head(study, bad, np.ones(num), prior_sd),
    "weighted": fit_head(study, bad, bad["weighted"], prior_sd),
    "weights known": fit_head(study, bad, bad["weights known"], prior_sd),
  }
  found = {arm: accuracy(study, head, held_out) for arm, head in heads.items()}
  return found | {"labels, sound": label_accuracy(study, sound), "labels, bad": label_accuracy(study, bad)}


def summarise(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
  """Means with t intervals over replicates: accuracies, the loss, what weights win back, and its share of the loss.

  The share is a ratio of means, with the percentiles of a bootstrap over replicates.
  """
  arms = {name: np.array([one[name] for one in runs]) for name in runs[0]}
  loss, gain = arms["sound"] - arms["bad"], arms["weighted"] - arms["bad"]
  rows = np.random.default_rng(0).integers(len(runs), size=(10_000, len(runs)))
  low, high = np.quantile(gain[rows].mean(1) / loss[rows].mean(1), [0.025, 0.975])
  return {
    "replicates": len(runs),
    **{name: _rounded(values) for name, values in arms.items()},
    "loss": _rounded(loss),
    "won back": _rounded(gain),
    "won back, weights known": _rounded(arms["weights known"] - arms["bad"]),
    "share won back": [round(float(x), 3) for x in (gain.mean() / loss.mean(), low, high)],
  }


def plot(results: dict[str, dict], path: Path) -> None:
  """Accuracy by number of judgements, a panel for each crowd."""
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, (crowd, by_size) in zip(figure.subplots(1, 2, sharey=True), results.items(), strict=True):
      sizes = [int(size) for size in by_size]
      for number, arm in enumerate(ARMS):
        mean, low, high = np.array([found[arm] for found in by_size.values()]).T
        axes.errorbar(sizes, mean, [mean - low, high - mean], fmt="o-", markersize=4, label=arm, color=f"C{number}")
      axes.set_xscale("log")
      axes.set_xticks(sizes, [str(size) for size in sizes])
      axes.minorticks_off()
      axes.set_xlabel("judgements")
      axes.set_title(crowd)
      axes.grid(alpha=0.3)
      axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("pairs in the gold order")
    figure.axes[1].legend(frameon=False)
    write_figure(path, figure)


def main(argv: Sequence[str] | None = None) -> None:
  """Writes OUT/results.json after each setting, which may be done in several calls, and OUT/results.png."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("run", type=Path, help="a run of the quickstart up to its stage preferences")
  parser.add_argument("--replicates", type=int, default=40)
  parser.add_argument("--out", type=Path, required=True)
  options = parser.parse_args(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  path = options.out / "results.json"
  study = read_study(options.run)
  results: dict[str, dict] = json.loads(path.read_text()) if path.exists() else {}
  for crowd in CROWDS:
    for num in SIZES:
      if results.get(crowd, {}).get(str(num), {}).get("replicates") == options.replicates:
        continue
      found = summarise([replicate(study, crowd, num, seed) for seed in range(options.replicates)])
      results.setdefault(crowd, {})[str(num)] = found
      data.write_text(path, json.dumps(results, indent=2) + "\n")
      print(crowd, num, json.dumps(found), flush=True)
  plot(results, options.out / "results.png")


def _rounded(values: np.ndarray) -> list[float]:
  interval = mean_interval(values)
  return [round(float(x), 4) for x in (interval.mean, interval.low, interval.high)]


if __name__ == "__main__":
  main()
