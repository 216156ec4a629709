"""Stage: what each stage added. Samples every model on held-out prompts, scores the answers, and writes the report.

Writes `evaluation.json` (means with 95 % intervals), `samples.jsonl` and `samples.md` (prompt and every model's answer)
into the stage's directory, and `report.html` into the run's.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from typing import Any

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.evaluation.statistics import mean_interval, pair_accuracy, ranking_accuracy, wilson_interval, win_rate
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
from rlhf_jax.train.progress import StageProgress
from rlhf_jax.world import make_labellers, rank

WRITES = ("evaluation.json", "samples.jsonl")


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  models: stages to compare. reference: the one whose win rate is one half and that KL is measured to. prompts: a file;
  held_out_prompts: another, of tasks that were in no training data, or "". num_prompts: taken of each.
  reward_model: the stage that gives the proxy reward, or "". gold: a function that returns a dict of arrays, "total"
  and its parts; no gold reward is known where its name is "". responses, min_gap: the reward model is held against the
  gold order on `responses` answers of the reference to each prompt, on the pairs whose gold rewards differ by more than
  min_gap; labellers: who give the noisy labels it is also held against.
  """

  algorithm: str
  models: tuple[StageName, ...]
  reference: StageName
  prompts: str
  held_out_prompts: str
  num_prompts: int
  batch_size: int
  sampling: Sampling
  reward_model: StageName
  gold: Function
  responses: int
  min_gap: float
  labellers: dict[str, int]
  num_samples: int


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
      # Held-out tasks are for the policies: the reward model has seen no comparison of them.
      inside = [index for index in everything if clusters[index] not in held_out]
      groups = []
      for index in range(config.responses):
        groups.append(answer(reference, jax.random.fold_in(stage_key(stage), index + 1), inside))
        progress.update(len(answers) + len(groups), {})
      measured = judge_reward_model(groups, config.min_gap, make_labellers(config.labellers), stage.stage_seed)
      result["reward_model"] = {config.reward_model: measured}
  stage.directory.mkdir(parents=True, exist_ok=True)
  (stage.directory / "evaluation.json").write_text(json.dumps(result, indent=2, default=float) + "\n")
  _write_samples(config, stage, prompts.texts, clusters, answers)


def summarize(
  answers: dict[str, dict[str, np.ndarray]], reference: str, clusters: list[str], held_out: set[str]
) -> dict[str, Any]:
  """Per model and measure the mean with its interval, over the training clusters; per cluster the mean gold reward."""
  inside = np.array([cluster not in held_out for cluster in clusters])
  models: dict[str, Any] = {}
  by_cluster: dict[str, Any] = {c: {"held_out": c in held_out, "models": {}} for c in dict.fromkeys(clusters) if c}
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


def judge_reward_model(groups: list[dict], min_gap: float, labellers: list, seed: int) -> dict[str, Any]:
  """The reward model's order of K answers to each prompt against the gold order, and against noisy labels.

  groups: K answers to the same N prompts, each with "responses", "proxy" and "gold". The ceiling on noisy labels is
  what the gold reward itself reaches on them, answers of equal gold counting one half.
  """
  proxy = np.stack([group["proxy"] for group in groups], axis=1)  # [N, K]
  gold = np.stack([group["gold"] for group in groups], axis=1)
  texts = list(zip(*(group["responses"] for group in groups), strict=True))  # [N][K]
  words = np.array([[len(text.split()) for text in group] for group in texts])
  rng = np.random.default_rng(seed)
  ranks = [rank(labellers[rng.integers(len(labellers))], g, w, rng) for g, w in zip(gold, words, strict=True)]
  # Nobody is asked to compare a text with itself: an answer that occurs twice is judged once.
  repeated = np.array([[text in group[:k] for k, text in enumerate(group)] for group in texts])
  ranks = np.where(repeated, -1, np.stack(ranks))
  return {
    "clear_accuracy": pair_accuracy(proxy, gold, min_gap=min_gap)._asdict(),
    "accuracy": pair_accuracy(proxy, gold)._asdict(),
    "label_accuracy": ranking_accuracy(proxy, ranks)._asdict(),
    "label_ceiling": ranking_accuracy(gold, ranks)._asdict(),
    "min_gap": min_gap,
  }


def _load_prompts(config, stage, tokenizer) -> tuple[PromptSet, list[str], set[str]]:
  texts, cluster_of, held_out = [], {}, set()
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


def _answerer(config, stage, model, tokenizer, prompts, reference, proxy, gold):
  """`answer(params, key, chosen)` -> per prompt: responses, length, finished, kl, and proxy, gold and its parts."""
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)
  temperature = config.sampling.temperature or 1.0

  @jit
  def sequence_kl(params, reference, rollout):
    logp, logp_ref = (
      token_logprobs(model.apply(p, rollout.tokens) / temperature, rollout.tokens, mask=rollout.mask)
      for p in (params, reference)
    )
    return (logp - logp_ref).sum(axis=1)

  def answer(params, key, chosen):
    columns = collections.defaultdict(list)
    for start in range(0, len(chosen), config.batch_size):
      rows = np.arange(start, start + config.batch_size)  # one shape for every batch
      kept = int((rows < len(chosen)).sum())
      texts, batch = prompts.take(np.take(chosen, rows % len(chosen)))
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


def _write_samples(config, stage, prompts, clusters, answers):
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
