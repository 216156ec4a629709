"""Stage: answers of several policies to the same prompts, as the gold reward, reward models and people judge them.

For policies along training, such as "ppo@16" and "ppo@32": how often their answers are preferred to those of a
reference, by the gold reward, by each reward model and by simulated labellers, and how well each reward model orders
the answers of one policy. All judges see the same answers. Keys of sampling are the same for all policies, so that
answers differ only as the policies do.

Writes `results.json`, and `answers.jsonl` with a row for each policy and prompt.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.data.row_formats import COMPARISONS
from rlhf_jax.evaluation.calibration import answer_calibration, distinct_texts
from rlhf_jax.evaluation.results import write_results
from rlhf_jax.evaluation.reward_models import (
  answer_traits,
  exactly,
  expected_label_accuracy,
  label_probabilities,
)
from rlhf_jax.evaluation.statistics import pair_accuracy
from rlhf_jax.evaluation.style_baseline import fit_style_baseline
from rlhf_jax.intervals import mean_interval
from rlhf_jax.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt
from rlhf_jax.stage import Stage, StageName, StageOfAnyShape
from rlhf_jax.train import (
  Function,
  Sampling,
  load_policy,
  load_prompts,
  load_reward_model,
  load_served,
  make_logprobs,
  make_measure_function,
  make_sampler,
  model_scorer,
  open_workspace,
  score_scale,
  stage_key,
)
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.parts import open_parts
from rlhf_jax.train.processes import host
from rlhf_jax.train.row_sources import ComparisonRows, PromptRows, read_given
from rlhf_jax.train.timeline import counted_as
from rlhf_jax.types import Params, Rollout
from rlhf_jax.world import Labeller, Traits, choice_probability, make_labellers

WRITES = ("results.json", "answers.jsonl")


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  policies: tuple[StageName, ...]
  """Stages whose models are sampled, as "ppo", or as "ppo@16" for the checkpoint after 16 steps."""
  reference: StageName
  """Policy, one of `policies`, whose answers those of the others are compared with; the KL in nats is to it."""
  prompts: PromptRows
  """File of prompts that were in no training data."""
  num_prompts: PositiveInt
  """Number of prompts, taken from the start of the file."""
  responses: PositiveInt
  """Number of answers of a policy to each prompt, K, at least 2; the k-th answer is compared with the reference's k-th,
  and the K answers of one policy are the pairs that reward models order."""
  batch_size: PositiveInt
  """Number of prompts sampled at once."""
  sampling: Sampling
  """Sampling of the answers."""
  gold: Function
  """Function that returns a mapping with the gold reward "total" and, if known, "apparent", the gold reward as it looks
  to a labeller who checks no fact."""
  min_gap: NonNegativeFloat
  """Difference in gold reward above which a pair counts as clear."""
  reward_models: tuple[StageOfAnyShape, ...]
  """Reward-model stages that judge the answers."""
  labellers: dict[str, NonNegativeInt] = dataclasses.field(default_factory=dict)
  """Number of simulated labellers of each kind, who judge the answers too; {} for none."""
  comparisons: ComparisonRows = ""
  """File of comparisons that the style baseline is fitted on, which orders the same answers; "" for no baseline."""

  def __post_init__(self) -> None:
    if self.reference not in self.policies:
      raise ValueError(f"reference={self.reference!r} is none of the policies {', '.join(self.policies)}")
    if taken := {"gold", "labels", "style"} & {*self.reward_models}:
      raise ValueError(
        f"reward_models has {min(taken)!r}, which is the name of another judge: name the stage otherwise"
      )
    if self.responses < 2:
      raise ValueError(f"responses={self.responses}: a policy needs two answers to a prompt for a pair")


Answers = dict[str, Any]  # of one policy: "responses" [N][K] and "kl", "gold", ... f[N, K]


@counted_as("evaluation")
def run(config: Config, stage: Stage) -> None:
  """Samples every policy, has the answers judged, and writes the files."""
  tokenizer, model = open_workspace(stage)
  reference = load_policy(stage, config.reference, model, tokenizer)
  prompts = load_prompts(config.prompts, stage, tokenizer, config.sampling.max_prompt_tokens)
  prompts = prompts.first(config.num_prompts)
  num, size = len(prompts.texts), config.responses
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)
  logprobs = make_logprobs(model.apply, config.sampling.temperature or 1.0, stage.transport)
  scorers = {
    name: model_scorer(*load_reward_model(stage, name, model, tokenizer, "reward_models"), stage.transport)
    for name in config.reward_models
  }
  gold = make_measure_function(config.gold, stage)
  labellers = make_labellers(config.labellers) if config.labellers else []

  @jax.jit
  def kl_to(params: Params, rollout: Rollout) -> jax.Array:  # f32[B]
    logp = logprobs(params, rollout.tokens, rollout.mask, rollout.at)
    return (rollout.logp - logp).sum(axis=1)

  @functools.lru_cache(1)
  def policy(name: str) -> Params:
    return load_served(stage, name, model, tokenizer)

  def judged(name: str, start: int, rows: np.ndarray, kept: int) -> dict[str, list[Any]]:
    """{"responses": texts, measure: values} of a policy's answers to the prompts of a batch, [B][K] each."""
    texts, batch = prompts.take(np.repeat(rows, size))
    rollout, responses = sample(policy(name), batch, jax.random.fold_in(stage_key(stage), start))
    columns: dict[str, Any] = {"length": rollout.mask.sum(axis=1), "kl": np.zeros(len(texts))}
    columns |= {"kl": kl_to(reference, rollout)} if name != config.reference else {}
    columns |= {f"scores/{name}": scorer(rollout, texts, responses) for name, scorer in scorers.items()}
    columns |= {"gold" if name == "total" else name: values for name, values in gold(texts, responses).items()}
    found: dict[str, list[Any]] = {
      "responses": [responses[k : k + size] for k in range(0, len(responses), size)][:kept]
    }
    for name, values in columns.items():
      found[name] = host(values).astype(np.float32).reshape(-1, size)[:kept].tolist()
    return found

  answers: dict[str, Answers] = {}
  with open_parts(stage, num * len(config.policies)) as parts:
    for number, name in enumerate(config.policies):
      columns: Answers = collections.defaultdict(list)
      for batch in fixed_batches(num, config.batch_size):
        for column, values in parts(judged, name, *batch).items():
          columns[column] += values
        parts.update(number * num + batch.start + batch.kept)
      answers[name] = {key: rows if key == "responses" else np.array(rows) for key, rows in columns.items()}
    if config.comparisons:
      style = fit_style_baseline(read_given(config.comparisons, stage, COMPARISONS))
      asked = [text for text in prompts.texts for _ in range(size)]
      for found in answers.values():
        scores = style.score(asked, [text for row in found["responses"] for text in row])
        found["scores/style"] = scores.reshape(num, size)
    scales = {name: score_scale(stage, name) for name in config.reward_models}
    data.write_rows(stage.directory / "answers.jsonl", _rows(prompts.texts, answers))
    write_results(stage, "results.json", summarize(answers, config.reference, scales, labellers, config.min_gap))


def summarize(
  answers: Mapping[str, Answers],
  reference: str,
  scales: Mapping[str, float | None],
  labellers: Sequence[Labeller],
  min_gap: float,
) -> dict[str, Any]:
  """What the judges say of the answers of each policy, with 95 % intervals over prompts.

  answers: {policy: {"responses": [N][K], "gold", "scores/MODEL" and others f[N, K]}}. scales: {reward model: factor
  from its scores to logits of preference, None where it is unknown}.

  {"reference", "policies": {policy: {measure: mean, "preferred": {judge: share of answers that are preferred to the
  reference's, equal ones as halves}, "pairs": {judge: accuracies on pairs of the policy's own answers}}}}. Judges are
  "gold", "labels" (whose shares are expectations), reward models by their names and "style".
  """
  found: dict[str, Any] = {}
  for name, given in answers.items():
    means = {
      key: mean_interval(np.mean(values, axis=1))._asdict() for key, values in given.items() if key != "responses"
    }
    preferred = {
      judge: mean_interval(np.mean(values, axis=1))._asdict()
      for judge, values in preferences(given, answers[reference], labellers).items()
    }
    found[name] = {**means, "preferred": preferred, "pairs": _pairs(given, scales, labellers, min_gap)}
  return {"reference": reference, "policies": found}


def preferences(given: Answers, reference: Answers, labellers: Sequence[Labeller]) -> dict[str, np.ndarray]:
  """{judge: f64[N, K]}: 1 where the k-th answer is preferred to the reference's k-th, 0.5 where both are equal, else 0.

  Of "labels" it is the probability that a labeller drawn at random prefers it. The same text is 0.5 for all.
  """
  judges = {"gold": "gold"} | {key.removeprefix("scores/"): key for key in given if key.startswith("scores/")}
  found = {judge: (np.sign(given[key] - reference[key]) + 1) / 2 for judge, key in judges.items()}
  if labellers:
    mine, theirs = _traits(given), _traits(reference)
    found["labels"] = np.mean([choice_probability(labeller, mine, theirs) for labeller in labellers], axis=0)
  same = np.array(given["responses"]) == np.array(reference["responses"])
  return {judge: np.where(same, 0.5, values) for judge, values in found.items()}


def _traits(given: Answers) -> Traits:
  gold = {"total": given["gold"], "apparent": given.get("apparent", given["gold"])}
  return answer_traits(gold, given["responses"])


def _pairs(
  given: Answers, scales: Mapping[str, float | None], labellers: Sequence[Labeller], min_gap: float
) -> dict[str, Any]:
  """{judge: {"accuracy", "clear_accuracy", "label_accuracy", "calibration"}} of the pairs of K answers; "labels" has
  their ceiling."""
  gold, distinct = given["gold"], distinct_texts(given["responses"])
  labels = label_probabilities(labellers, _traits(given)) if labellers else None
  found: dict[str, Any] = {}
  for key in (key for key in given if key.startswith("scores/")):
    name, scores = key.removeprefix("scores/"), given[key]
    found[name] = {
      "accuracy": pair_accuracy(scores, gold)._asdict(),
      "clear_accuracy": pair_accuracy(scores, gold, min_gap=min_gap)._asdict(),
    }
    if labels is not None:
      found[name]["label_accuracy"] = expected_label_accuracy(scores, gold, labels)._asdict()
    scale = scales.get(name)
    if scale is not None:
      by_people = {} if labels is None else {"labels": labels}
      found[name]["calibration"] = answer_calibration(scores, gold, by_people, distinct, scale)
  if labels is not None:
    highest = expected_label_accuracy(gold, gold, labels)
    found["labels"] = {"ceiling": exactly(highest.mean, highest.num)._asdict()}
  return found


def _rows(prompts: Sequence[data.Prompt], answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
  """A row {"policy", "prompt", "responses", measure: K numbers} for each policy and prompt."""
  rows = []
  for name, given in answers.items():
    for place, prompt in enumerate(prompts):
      measures = {
        key: [round(float(x), 5) for x in values[place]] for key, values in given.items() if key != "responses"
      }
      row = {"policy": name, "prompt": data.prompt_value(prompt), "responses": given["responses"][place]}
      rows.append(row | measures)
  return rows
