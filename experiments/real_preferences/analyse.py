"""What do reward models learn of real people's preferences, and does what is helpful carry over to what is harmless?

  python experiments/real_preferences/analyse.py --data DIR --model MODEL --run runs/preferences --out OUT
  python experiments/real_preferences/analyse.py --data DIR --run /tmp/fast/run --out /tmp/fast --fast

DIR holds hh_helpful_base_test.jsonl.gz and hh_harmless_base_test.jsonl.gz; MODEL is a directory or a .gguf file. A
reward model is a linear head on the model as it is: on the last hidden state and on the mean log-probability of a
response. The features of all texts are computed once and kept in the run directory, as are the outcomes of each seed; a
call that was interrupted goes on. With --fast few pairs are read, and without a MODEL a tiny one drawn at random takes
its place: it shows that everything runs.

Writes results.json and results.png to OUT and prints the tables of the record. Each seed holds a fifth of the prompts
out, so that a prompt may be held out by several. Intervals of 95 % are over prompts where nothing else is said.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax import data
from rlhf_jax.configs.real_preferences import DOMAINS, FILE, HELD_OUT
from rlhf_jax.data.encoding import encode_answers
from rlhf_jax.evaluation.linear_reward import choose_prior, fit_preferences, preference_losses, spreads
from rlhf_jax.evaluation.statistics import clustered_share, ratio_interval
from rlhf_jax.evaluation.word_baselines import fit_word_baseline, length_scores
from rlhf_jax.intervals import Interval, mean_interval
from rlhf_jax.models import DecoderConfig, LanguageModel, language_model, stack_layers
from rlhf_jax.models.hub import export_model
from rlhf_jax.stage import ImportedModel, Stage, Transport
from rlhf_jax.train import kept_features, load_imported, open_workspace, report_skips, text_features
from rlhf_jax.train.features import seconds_of
from rlhf_jax.train.programs import keep_programs
from rlhf_jax.train.speed import peak_memory
from rlhf_jax.writing import write_figure

LENGTH = 192  # tokens of the prompt with either response, beyond which a pair is left out
BATCH = 16  # texts read at once
PART = 128  # texts whose features are kept at once
TESTS = ("helpful", "harmless")
HEAD, WORDS, LONGER, LIKELIER = "reward model", "bag of words", "longer wins", "likelier wins"
KEPT, ALL = "kept pairs", "all pairs"
# Earlier figures on all pairs, with another split, {(test, method, trained on): share}.
EARLIER = {
  ("helpful", LONGER, ""): 0.5956,
  ("harmless", LONGER, ""): 0.4425,
  ("helpful", WORDS, "helpful"): 0.599,
  ("harmless", WORDS, "harmless"): 0.631,
}


class Sizes(NamedTuple):
  """The extent of the study."""

  pairs: int
  """Number of pairs read of each file; 0 for all."""
  seeds: int
  """Number of divisions of the prompts."""
  doublings: int
  """Number of doublings of the training pairs along the learning curve."""
  priors: tuple[float, ...]
  """Standard deviations that a prior of a head's weights may have, in logits per standard deviation of a feature."""


FULL = Sizes(0, 5, 5, (0.003, 0.01, 0.03, 0.1, 0.3))
FAST = Sizes(40, 3, 1, (0.03, 0.3))


class Domain(NamedTuple):
  """N pairs of a file."""

  pairs: list[data.Comparison]
  """Pairs, whose first response is the preferred one."""
  tokens: np.ndarray
  """Number of tokens of the prompt with each response, i64[N, 2]."""
  skipped: dict[str, int]
  """Number of rows that are no pair, by reason."""

  @property
  def kept(self) -> np.ndarray:
    """Whether both rows of a pair have at most LENGTH tokens, bool[N]."""
    return self.tokens.max(axis=1) <= LENGTH

  def texts(self, rows: np.ndarray) -> tuple[list[data.Prompt], list[data.Response]]:
    """The prompts and responses of these pairs, the two responses to a prompt side by side."""
    chosen = [self.pairs[row] for row in rows]
    return [pair.prompt for pair in chosen for _ in range(2)], [text for pair in chosen for text in pair.responses]


class Outcome(NamedTuple):
  """What one method says of the held-out pairs of one file."""

  scope: str
  """Pairs that it is fitted and tested on: `KEPT` or `ALL`, or a number of training pairs."""
  test: str
  """Name of the file."""
  method: str
  trained: str
  """Name of the training pairs in `DOMAINS`; "" for a method without any."""
  right: list[float]
  """For each held-out pair in order, 1 where the preferred response has the higher score, 0.5 for equal scores."""


def read_domain(path: Path, tokenizer: data.Tokenizer, most: int) -> Domain:
  """The pairs of a file, at most `most` of them (0 for all), that the chat form of the tokenizer can express."""
  found, skips = data.read_comparisons(path)
  found = found[: most or None]
  pairs = [pair._replace(responses=(pair.responses[pair.ranks.index(0)], pair.responses[pair.ranks.index(1)]),
                         ranks=(0, 1)) for pair in found]  # fmt: skip
  encoded = encode_answers(tokenizer, [(pair.prompt, text) for pair in pairs for text in pair.responses])
  sizes = [None if isinstance(one, str) else len(one.prompt) + len(one.response) for one in encoded]
  refused = Counter(one for one in encoded[::2] if isinstance(one, str))
  usable = [row for row in range(len(pairs)) if None not in sizes[2 * row : 2 * row + 2]]
  report_skips(str(path), skips + refused, len(pairs) + skips.total())
  tokens = np.array([sizes[2 * row : 2 * row + 2] for row in usable], np.int64).reshape(-1, 2)
  return Domain([pairs[row] for row in usable], tokens, dict(skips + refused))


def read_features(
  domains: Mapping[str, Domain], tokenizer: data.Tokenizer, model: LanguageModel, stage: Stage
) -> dict[str, np.ndarray]:
  """{name: features f64[N, 2, D]} of the kept pairs, NaN for all others; the model is loaded if any are missing."""
  name = f"{stage.model} {model.config.describe()} {tokenizer.fingerprint}"
  features = None

  def read(prompts: Sequence[data.Prompt], responses: Sequence[data.Response]) -> np.ndarray:
    nonlocal features
    if features is None:
      params = load_imported(stage)
      params = stack_layers(params) if model.scan else params
      features = text_features(model, tokenizer, params, BATCH, stage.transport)
    return features(prompts, responses)

  found = {}
  for domain, of_domain in domains.items():
    rows = np.flatnonzero(of_domain.kept)
    kept = kept_features(stage.directory / domain, read, *of_domain.texts(rows), PART, name)
    found[domain] = np.full((len(of_domain.pairs), 2, kept.shape[-1]), np.nan)
    found[domain][rows] = kept.reshape(len(rows), 2, -1)
  return found


def held_out(domain: Domain, seed: int) -> np.ndarray:
  """The pairs that a seed holds out, bool[N]: those that a reward model of the recipe `real_preferences` does."""
  return np.array([data.is_held_out(pair.prompt, HELD_OUT, seed) for pair in domain.pairs], bool)


def curve_sizes(domains: Mapping[str, Domain], sizes: Sizes) -> list[int]:
  """Numbers of training pairs, each twice the one before, up to what every file and seed has."""
  most = min(
    int((domain.kept & ~held_out(domain, seed)).sum()) for domain in domains.values() for seed in range(sizes.seeds)
  )
  return [most // 2**step for step in reversed(range(sizes.doublings + 1))]


def fit_head(pairs: np.ndarray, prompts: Sequence[str], priors: Sequence[float], seed: int) -> tuple[np.ndarray, float]:
  """(weights f64[D] of a head on features f64[P, 2, D] of pairs, the prior that was chosen for it)."""
  scale = spreads(pairs.reshape(-1, pairs.shape[-1]))
  x = (pairs[:, 0] - pairs[:, 1]) / scale
  prior = choose_prior(
    lambda rows, sd: fit_preferences(x[rows], 1.0, sd),
    lambda head, rows: preference_losses(head, x[rows]),
    prompts,
    priors,
    seed=seed,
  )
  return fit_preferences(x, 1.0, prior) / scale, prior


def right(scores: np.ndarray) -> list[float]:
  """The outcomes of pairs with these scores f[P, 2], those of the preferred responses first."""
  return ((scores[:, 0] > scores[:, 1]) + 0.5 * (scores[:, 0] == scores[:, 1])).tolist()


def run_seed(
  domains: Mapping[str, Domain],
  features: Mapping[str, np.ndarray],
  sizes: Sizes,
  curve: Sequence[int],
  seed: int,
) -> tuple[list[Outcome], dict[str, float]]:
  """(outcomes of all methods on the pairs that a seed holds out, {training pairs: prior of their head})."""
  found: list[Outcome] = []
  priors: dict[str, float] = {}
  out = {name: held_out(domain, seed) for name, domain in domains.items()}
  scopes = {KEPT: {name: domain.kept for name, domain in domains.items()},
            ALL: {name: np.ones(len(domain.pairs), bool) for name, domain in domains.items()}}  # fmt: skip

  def test(scope: str, method: str, trained: str, score: Any) -> None:
    within = ALL if scope == ALL else KEPT
    for name in TESTS:
      rows = np.flatnonzero(scopes[within][name] & out[name])
      found.append(Outcome(scope, name, method, trained, right(np.asarray(score(name, rows)).reshape(-1, 2))))

  def train(scope: str, trained: str, rows: Sequence[tuple[str, int]]) -> None:
    pairs = [domains[name].pairs[row] for name, row in rows]
    words = fit_word_baseline(pairs)
    test(scope, WORDS, trained, lambda name, rows: words.score(*domains[name].texts(rows)))
    if scope != ALL:
      given = np.stack([features[name][row] for name, row in rows])
      head, prior = fit_head(given, [data.prompt_text(pair.prompt) for pair in pairs], sizes.priors, seed)
      priors[f"{trained}, {scope}"] = prior
      test(scope, HEAD, trained, lambda name, rows: features[name][rows] @ head)

  for scope in scopes:
    test(scope, LONGER, "", lambda name, rows: length_scores(*domains[name].texts(rows)))
    for trained, names in DOMAINS.items():
      rows = [(name, int(row)) for name in names for row in np.flatnonzero(scopes[scope][name] & ~out[name])]
      train(scope, trained, rows)
      if scope == KEPT:
        order = np.random.default_rng([seed, 1]).permutation(len(rows))
        for size in curve:
          train(str(size), trained, [rows[place] for place in order[:size]])
  test(KEPT, LIKELIER, "", lambda name, rows: features[name][rows, :, -1])
  return found, priors


def kept_seed(path: Path, made_from: str, *arguments: Any) -> dict[str, Any]:
  """`run_seed(*arguments)` with its seconds, as the file `path` keeps it where it was made from the same."""
  if path.exists() and (kept := data.read_json(path))["made_from"] == made_from:
    return kept
  began = time.monotonic()
  outcomes, priors = run_seed(*arguments)
  seconds = time.monotonic() - began
  data.write_json(path, {"made_from": made_from, "outcomes": outcomes, "priors": priors, "seconds": seconds})
  return data.read_json(path)


class Pooled(NamedTuple):
  """Outcomes of one method on one file over all seeds, in the order of seeds and held-out pairs."""

  right: np.ndarray
  prompts: np.ndarray
  """Number of the prompt of each outcome."""
  seeds: np.ndarray
  """Seed of each outcome."""

  def over_seeds(self) -> list[float]:
    """The share of the pairs that are right with each seed."""
    return [float(self.right[self.seeds == seed].mean()) for seed in np.unique(self.seeds)]


def pool(domains: Mapping[str, Domain], seeds: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str, str], Pooled]:
  """{(scope, test, method, trained): its outcomes over all seeds}."""
  numbers: dict[str, dict[data.Prompt, int]] = {
    name: {prompt: n for n, prompt in enumerate(dict.fromkeys(pair.prompt for pair in domain.pairs))}
    for name, domain in domains.items()
  }
  parts: dict[tuple[str, str, str, str], list[Pooled]] = {}
  for seed, kept in enumerate(seeds):
    for one in (Outcome(*values) for values in kept["outcomes"]):
      domain = domains[one.test]
      rows = np.flatnonzero(held_out(domain, seed) & (domain.kept | (one.scope == ALL)))
      prompts = np.array([numbers[one.test][domain.pairs[row].prompt] for row in rows])
      parts.setdefault(one[:4], []).append(Pooled(np.array(one.right), prompts, np.full(len(rows), seed)))
  return {key: Pooled(*map(np.concatenate, zip(*found, strict=True))) for key, found in parts.items()}


def share(found: Pooled) -> dict[str, Any]:
  """The share of the outcomes that are right: over prompts, and over seeds."""
  sums, counts = np.bincount(found.prompts, found.right), np.bincount(found.prompts)
  return {**rounded(clustered_share(sums, counts)), "over seeds": rounded(mean_interval(found.over_seeds()))}


def difference(first: Pooled, second: Pooled) -> dict[str, Any]:
  """The difference of two shares on the same pairs: over prompts, and over seeds."""
  counts = np.bincount(first.prompts)
  totals = np.bincount(first.prompts, first.right - second.right)
  seeds = np.subtract(first.over_seeds(), second.over_seeds())
  over_prompts = ratio_interval(totals[counts > 0], counts[counts > 0])
  return {**rounded(over_prompts), "over seeds": rounded(mean_interval(seeds))}


def results(
  domains: Mapping[str, Domain],
  seeds: Sequence[Mapping[str, Any]],
  curve: Sequence[int],
  cost: Mapping[str, float],
) -> dict[str, Any]:
  """All figures of the record."""
  pooled = pool(domains, seeds)

  def shares(scope: str) -> dict[str, Any]:
    found: dict[str, Any] = {test: {} for test in TESTS}
    for (of_scope, test, method, trained), outcomes in pooled.items():
      if of_scope == scope:
        found[test].setdefault(method, {})[trained] = share(outcomes)
    return found

  above = {
    test: {trained: difference(pooled[KEPT, test, HEAD, trained], pooled[KEPT, test, WORDS, trained])
           for trained in DOMAINS}
    for test in TESTS
  }  # fmt: skip
  return {
    "counts": {name: counts(domain) for name, domain in domains.items()},
    "length": LENGTH,
    "seeds": len(seeds),
    "cost": dict(cost) | {"seconds of heads and words": round(sum(kept["seconds"] for kept in seeds), 1)},
    KEPT: shares(KEPT),
    ALL: shares(ALL),
    "earlier": {", ".join(filter(None, key)): value for key, value in EARLIER.items()},
    "reward model less bag of words": above,
    "curve": {str(size): shares(str(size)) for size in curve},
    "priors": {name: [kept["priors"][name] for kept in seeds] for name in seeds[0]["priors"]},
  }


def counts(domain: Domain) -> dict[str, Any]:
  """How many pairs a file has, and how many of them are kept."""
  kept = domain.kept
  return {
    "pairs": len(domain.pairs),
    "skipped": domain.skipped,
    "kept": int(kept.sum()),
    f"longer than {LENGTH} tokens": int((~kept).sum()),
    "tokens of kept pairs": int(domain.tokens[kept].sum()),
  }


def tables(result: Mapping[str, Any]) -> str:
  """The tables of the record, in Markdown."""
  lines = ["| pairs | " + " | ".join(TESTS) + " |", "|---|---|---|"]
  kept = f"kept, of at most {result['length']} tokens"
  for name, key in ((kept, "kept"), ("all", "pairs")):
    lines.append(f"| {name} | " + " | ".join(f"{result['counts'][test][key]:,}" for test in TESTS) + " |")
  for scope in (KEPT, ALL):
    lines += ["", f"| {scope}: method, trained on | " + " | ".join(f"held-out {test}" for test in TESTS)
              + (" | " + " | ".join(f"{test}, earlier" for test in TESTS) if scope == ALL else "") + " |"]  # fmt: skip
    lines.append("|---" * (5 if scope == ALL else 3) + "|")
    for method in (LONGER, LIKELIER, WORDS, HEAD):
      for trained in result[scope][TESTS[0]].get(method, {}):
        cells = [shown(result[scope][test][method][trained]) for test in TESTS]
        if scope == ALL:
          before = [result["earlier"].get(", ".join(filter(None, (test, method, trained)))) for test in TESTS]
          cells += ["–" if known is None else f"{known:.3f}" for known in before]
        lines.append(f"| {method}{trained and ', '}{trained} | " + " | ".join(cells) + " |")
  lines += ["", "| reward model less bag of words, trained on | " + " | ".join(TESTS) + " |", "|---|---|---|"]
  for trained in DOMAINS:
    cells = [shown(result["reward model less bag of words"][test][trained]) for test in TESTS]
    lines.append(f"| {trained} | " + " | ".join(cells) + " |")
  for test in TESTS:
    columns = [(method, trained) for method in (HEAD, WORDS) for trained in DOMAINS]
    lines += ["", f"| training pairs, held-out {test} | " + " | ".join(", ".join(column) for column in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for size, found in result["curve"].items():
      lines.append(f"| {size} | " + " | ".join(shown(found[test][method][t]) for method, t in columns) + " |")
  return "\n".join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
  """Accuracy by the number of training pairs, a panel for each file of held-out pairs."""
  sizes = [int(size) for size in result["curve"]]
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, test in zip(figure.subplots(1, len(TESTS), sharey=True), TESTS, strict=True):
      for method, style in ((HEAD, "o-"), (WORDS, "s:")):
        for number, trained in enumerate(DOMAINS):
          found = [by_size[test][method][trained] for by_size in result["curve"].values()]
          mean, low, high = np.array([[one[key] for key in ("mean", "low", "high")] for one in found]).T
          bars = [np.maximum(mean - low, 0), np.maximum(high - mean, 0)]
          label = f"{method}, trained on {trained}"
          axes.errorbar(sizes, mean, bars, fmt=style, color=f"C{number}", label=label, markersize=4, linewidth=1)
      axes.axhline(result[KEPT][test][LONGER][""]["mean"], color="grey", linestyle="--", linewidth=1, label=LONGER)
      axes.set_xscale("log")
      axes.set_xticks(sizes, [str(size) for size in sizes])
      axes.minorticks_off()
      axes.set(xlabel="training pairs", title=f"held-out {test} pairs")
      axes.grid(alpha=0.3)
      axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("share of pairs in people's order")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right", frameon=False)
    write_figure(path, figure)


def tiny_model(directory: Path, texts: Sequence[str]) -> Path:
  """A tiny Llama drawn at random, as others would publish it, with a tokenizer of the texts."""
  tokenizer = data.train_tokenizer(texts, 512)
  config = DecoderConfig(tokenizer.vocab_size, 1, 32, 2, 1, 48, 2 * LENGTH)
  ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
  export_model(directory, config, language_model(config).init(jax.random.key(0)), ids)
  data.export_tokenizer(tokenizer, directory)
  return directory


def main(argv: Sequence[str] | None = None) -> None:
  """Writes results.json and results.png, and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", type=Path, required=True, help="the directory of the two files of pairs")
  parser.add_argument("--model", default="", help="directory or .gguf file of the model")
  parser.add_argument("--run", type=Path, required=True, help="where features and outcomes are kept")
  parser.add_argument("--out", type=Path, required=True)
  parser.add_argument("--fast", action="store_true", help="few pairs; without --model a tiny random model")
  options = parser.parse_args(argv)
  if not (options.model or options.fast):
    parser.error("--model is needed without --fast")
  options.out.mkdir(parents=True, exist_ok=True)
  keep_programs()
  paths = {name: options.data / FILE.format(domain=name) for name in TESTS}
  sizes = FAST if options.fast else FULL
  model = options.model
  if not model:
    pairs = [pair for path in paths.values() for pair in data.read_comparisons(path)[0][: sizes.pairs]]
    model = str(tiny_model(options.out / "tiny_model", [data.prompt_text(pair.prompt) for pair in pairs]))
  stage = Stage("features", options.run, 0, "{model}", ImportedModel(model), Transport("jit", fsdp=1, microbatches=1))
  tokenizer, language = open_workspace(stage)
  domains = {name: read_domain(path, tokenizer, sizes.pairs) for name, path in paths.items()}
  features = read_features(domains, tokenizer, language, stage)
  cost = costs(options.run / "cost.json", stage.directory)
  curve = curve_sizes(domains, sizes)
  made_from = digest(domains, features, sizes, curve)
  seeds = []
  for seed in range(sizes.seeds):
    given = (domains, features, sizes, curve, seed)
    seeds.append(kept_seed(options.run / f"seed_{seed}.json", made_from, *given))
    print(f"seed {seed}: {seeds[-1]['seconds']:.0f} s, {sizes.seeds - seed - 1} seeds left", flush=True)
  result = results(domains, seeds, curve, cost)
  data.write_text(options.out / "results.json", json.dumps(result, indent=2) + "\n")
  draw(result, options.out / "results.png")
  print(tables(result))


def costs(path: Path, features: Path) -> dict[str, float]:
  """What the features took, in one call or in several: seconds, and the peak memory of the call that took most.

  path: where the peak of earlier calls is kept.
  """
  before = data.read_json(path) if path.exists() else {}
  peaks = {name: max(round(value, 2), before.get(name, 0.0)) for name, value in peak_memory().items()}
  seconds = sum(seconds_of(features / name) for name in TESTS)
  data.write_json(path, {"seconds of features": round(seconds, 1), **peaks})
  return data.read_json(path)


def digest(
  domains: Mapping[str, Domain], features: Mapping[str, np.ndarray], sizes: Sizes, curve: Sequence[int]
) -> str:
  """A digest of what the outcomes of a seed are made from."""
  found = hashlib.sha256(repr((sizes, list(curve))).encode())
  for name, domain in domains.items():
    found.update(repr((name, domain.pairs)).encode())
    found.update(features[name].tobytes())
  return found.hexdigest()


def rounded(interval: Interval) -> dict[str, float]:
  """An interval for results.json."""
  return {name: round(float(value), 4) for name, value in interval._asdict().items()}


def shown(found: Mapping[str, float]) -> str:
  """An interval as tables have it."""
  return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


if __name__ == "__main__":
  main()
