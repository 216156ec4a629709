"""Stage: evaluate the models of several stages on held-out prompts, and the reward model on answers of the reference.

Writes `evaluation.json` (means with 95 % intervals), `samples.jsonl` and `samples.md` (prompts with every model's
answer).
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.evaluation.results import write_results
from rlhf_jax.evaluation.statistics import mean_interval, pair_accuracy, ranking_accuracy, wilson_interval, win_rate
from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import token_logprobs
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import (
  Function,
  PromptSet,
  Sampling,
  encode_prompts,
  jit,
  load_policy,
  load_stage,
  make_measure_function,
  make_sampler,
  model_scorer,
  open_workspace,
  stage_key,
)
from rlhf_jax.train.functions import MeasureFunction
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.progress import StageProgress
from rlhf_jax.train.rewards import Scorer
from rlhf_jax.types import Params, Rollout
from rlhf_jax.world import Labeller, make_labellers, rank, traits_of

WRITES = ("evaluation.json", "samples.jsonl")


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  models: tuple[StageName, ...]
  """Stages whose models are compared."""
  reference: StageName
  """Stage that win rates and KL are measured against."""
  prompts: str
  """File of prompts."""
  held_out_prompts: str
  """File of prompts of clusters that were in no training data; "" for none."""
  num_prompts: int
  """Number of prompts, taken from the start of each file."""
  batch_size: int
  """Number of prompts sampled at once."""
  sampling: Sampling
  """Sampling of the answers."""
  reward_model: StageName
  """Reward-model stage that gives the proxy reward; "" for none."""
  gold: Function
  """Function that returns a mapping from names to scores: the gold reward "total" and its parts; "" for no gold."""
  responses: int
  """Number of answers of the reference to each prompt, on which the reward model is scored."""
  min_gap: float
  """Difference in gold reward above which a pair of answers counts as clear."""
  labellers: dict[str, int]
  """Number of simulated labellers of each kind, whose noisy labels the reward model is scored on as well."""
  num_samples: int
  """Number of prompts in the files of samples."""


def run(config: Config, stage: Stage) -> None:
  """Evaluates every model and writes the files."""
  tokenizer, model = open_workspace(stage)
  prompts, clusters, held_out = _load_prompts(config, stage, tokenizer)
  reference = load_policy(stage, config.reference, model, tokenizer)
  proxy = None
  if config.reward_model:
    proxy = model_scorer(model, load_stage(stage, config.reward_model, model, tokenizer))
  gold = make_measure_function(config.gold, stage) if config.gold.function else None
  answer = _answerer(config, stage, model, tokenizer, prompts, reference, proxy, gold)
  total = len(config.models) + (config.responses if proxy and gold else 0)
  with StageProgress(stage.name, total) as progress:
    everything = range(len(clusters))
    answers = {}
    for name in config.models:
      answers[name] = answer(load_policy(stage, name, model, tokenizer), stage_key(stage), everything)
      progress.update(len(answers), {})
    result = summarize(answers, config.reference, clusters, held_out)
    if proxy and gold:
      # Held-out clusters are for the policies: the reward model was trained on no comparison of them.
      inside = [index for index in everything if clusters[index] not in held_out]
      groups = []
      for index in range(config.responses):
        groups.append(answer(reference, jax.random.fold_in(stage_key(stage), index + 1), inside))
        progress.update(len(answers) + len(groups), {})
      measured = judge_reward_model(groups, config.min_gap, make_labellers(config.labellers), stage.stage_seed)
      result["reward_model"] = {config.reward_model: measured}
  write_results(stage, "evaluation.json", result)
  _write_samples(config, stage, prompts.texts, clusters, answers)


def summarize(
  answers: dict[str, dict[str, np.ndarray]], reference: str, clusters: list[str], held_out: set[str]
) -> dict[str, Any]:
  """Mean of each measure of each model over the training clusters, and mean gold reward in each cluster.

  answers: {model: {measure: f[N], "responses": N texts}}. clusters: cluster of each of the N prompts, "" for none.
  held_out: clusters that were in no training data. Every mean comes with its 95 % interval.
  """
  inside = np.array([cluster not in held_out for cluster in clusters])
  models: dict[str, Any] = {}
  by_cluster: dict[str, Any] = {
    cluster: {"held_out": cluster in held_out, "models": {}} for cluster in dict.fromkeys(clusters) if cluster
  }
  for name, answer in answers.items():
    measures = {key: values[inside] for key, values in answer.items() if key != "responses"}
    models[name] = {key: mean_interval(values)._asdict() for key, values in measures.items()}
    models[name]["finished"] = wilson_interval(measures["finished"].sum(), int(inside.sum()))._asdict()
    if "gold" in answer:
      models[name]["win_rate"] = win_rate(answer["gold"][inside], answers[reference]["gold"][inside])._asdict()
      for cluster, entry in by_cluster.items():
        chosen = np.array([c == cluster for c in clusters])
        entry["models"][name] = mean_interval(answer["gold"][chosen])._asdict()
  return {"reference": reference, "models": models, "clusters": by_cluster}


def judge_reward_model(
  groups: Sequence[Mapping[str, Any]], min_gap: float, labellers: Sequence[Labeller], seed: int
) -> dict[str, Any]:
  """Accuracy of the reward model's order of K answers against the gold order and against noisy labels.

  groups: K answers to each of the same N prompts, as K mappings with "responses" (N texts), "proxy" f[N], "gold" f[N]
  and, if known, "apparent" f[N]. A labeller drawn at random orders the different answers to each prompt. Pairs of equal
  gold reward have no right order and count nowhere: "label_accuracy" is the reward model's accuracy on these labels,
  and "label_ceiling" that of a model that knows the gold reward.
  """
  proxy = np.stack([group["proxy"] for group in groups], axis=1)  # [N, K]
  gold, apparent = (
    np.stack([group.get(name, group["gold"]) for group in groups], axis=1) for name in ("gold", "apparent")
  )
  ranks = np.full(gold.shape, -1)
  rng = np.random.default_rng(seed)
  judged = collections.Counter[int]()
  for row, texts in enumerate(zip(*(group["responses"] for group in groups), strict=True)):
    # No labeller compares a text with itself: an answer that occurs twice is judged once.
    distinct = [k for k, text in enumerate(texts) if text not in texts[:k]]
    person = int(rng.integers(len(labellers)))
    seen = {"total": gold[row, distinct], "apparent": apparent[row, distinct]}
    ranks[row, distinct] = rank(labellers[person], traits_of(seen, [texts[k] for k in distinct]), rng, judged[person])
    judged[person] += 1
  return {
    "clear_accuracy": pair_accuracy(proxy, gold, min_gap=min_gap)._asdict(),
    "accuracy": pair_accuracy(proxy, gold)._asdict(),
    "label_accuracy": ranking_accuracy(proxy, ranks, gold)._asdict(),
    "label_ceiling": ranking_accuracy(gold, ranks, gold)._asdict(),
    "min_gap": min_gap,
  }


def _load_prompts(config: Config, stage: Stage, tokenizer: data.Tokenizer) -> tuple[PromptSet, list[str], set[str]]:
  """The prompts of both files, the cluster of each ("" for none), and the clusters of the held-out file."""
  texts: list[str] = []
  cluster_of: dict[str, str] = {}
  held_out: set[str] = set()
  for path, outside in ((config.prompts, False), (config.held_out_prompts, True)):
    if not path:
      continue
    found = data.read_prompts(stage.path(path))[0][: config.num_prompts]
    texts += found
    for _, row in data.read_rows(stage.path(path)):
      if "cluster" in row:
        cluster_of[row["prompt"]] = row["cluster"]
        held_out |= {row["cluster"]} if outside else set()
  prompts = encode_prompts(texts, tokenizer, config.sampling.max_prompt_tokens, stage.name)
  return prompts, [cluster_of.get(text, "") for text in prompts.texts], held_out


def _answerer(
  config: Config,
  stage: Stage,
  model: LanguageModel,
  tokenizer: data.Tokenizer,
  prompts: PromptSet,
  reference: Params,
  proxy: Scorer | None,
  gold: MeasureFunction | None,
) -> Callable[[Params, jax.Array, Sequence[int]], dict[str, Any]]:
  """`answer(params, key, chosen) -> {"responses": N texts, measure: f[N]}` for the prompts with N indices `chosen`.

  The measures are length (tokens), finished, kl (nats, to the reference), and proxy, gold and its parts if known.
  """
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)
  temperature = config.sampling.temperature or 1.0

  @jit
  def sequence_kl(params: Params, reference: Params, rollout: Rollout) -> jax.Array:  # f32[B]
    logp, logp_ref = (
      token_logprobs(model.apply(p, rollout.tokens) / temperature, rollout.tokens, mask=rollout.mask)
      for p in (params, reference)
    )
    return (logp - logp_ref).sum(axis=1)

  def answer(params: Params, key: jax.Array, chosen: Sequence[int]) -> dict[str, Any]:
    columns: dict[str, Any] = collections.defaultdict(list)
    for start, rows, kept in fixed_batches(len(chosen), config.batch_size):
      texts, batch = prompts.take(np.take(chosen, rows))
      rollout, responses = sample(params, batch, jax.random.fold_in(key, start))
      columns["responses"] += responses[:kept]
      columns["length"] += np.asarray(rollout.mask.sum(axis=1), np.float32)[:kept].tolist()
      columns["finished"] += np.asarray(rollout.finished, np.float32)[:kept].tolist()
      columns["kl"] += np.asarray(sequence_kl(params, reference, rollout))[:kept].tolist()
      if proxy:
        columns["proxy"] += proxy(rollout, texts, responses)[:kept].tolist()
    if gold:
      parts = gold([prompts.texts[index] for index in chosen], columns["responses"])
      columns |= {"gold" if name == "total" else name: values for name, values in parts.items()}
    return {name: values if name == "responses" else np.asarray(values) for name, values in columns.items()}

  return answer


def _write_samples(
  config: Config, stage: Stage, prompts: Sequence[str], clusters: Sequence[str], answers: dict[str, dict[str, Any]]
) -> None:
  """Writes the answers to `num_samples` prompts, drawn at random, as rows and as tables in Markdown."""
  rows = []
  for i in np.random.default_rng(stage.stage_seed).permutation(len(prompts))[: config.num_samples]:
    row: dict[str, Any] = {"prompt": prompts[i]}
    if clusters[i]:
      row["cluster"] = clusters[i]
    row["responses"] = {name: answer["responses"][i] for name, answer in answers.items()}
    for measure in ("proxy", "gold"):
      if all(measure in answer for answer in answers.values()):
        row[measure] = {name: round(float(answer[measure][i]), 3) for name, answer in answers.items()}
    rows.append(row)
  data.write_rows(stage.directory / "samples.jsonl", rows)
  lines = ["# Samples", ""]
  for row in rows:
    lines += [f"**{_cell(row['prompt'])}**", "", "| model | answer | proxy | gold |", "|---|---|---|---|"]
    for name, response in row["responses"].items():
      numbers = [f"{row[m][name]:.2f}" if m in row else "" for m in ("proxy", "gold")]
      lines.append(f"| {name} | {_cell(response)} | {' | '.join(numbers)} |")
    lines.append("")
  (stage.directory / "samples.md").write_text("\n".join(lines))


def _cell(text: str) -> str:
  return text.replace("|", "\\|").replace("\n", " ⏎ ").replace("<", "&lt;")
