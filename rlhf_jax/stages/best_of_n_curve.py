"""Stage: proxy and gold reward of best-of-n over n, by one or more reward models; writes `results.json`.

N responses to each prompt are sampled once. For n = 1, 2, 4, ... up to N, the best of n by each reward model has a mean
proxy reward, a mean gold reward and a KL to the policy (`rlhf_jax.evaluation.best_of_n`): the curves of Gao et al. 2022
(arXiv 2210.10760). A response without <eos> has the score `missing_eos_score`, as in RL.

`results.json` has, for each model and n, "kl" in nats, the mean over prompts with ties taken into account; "kl_bound",
log n - (n - 1) / n; and "proxy" and "gold" with 95 % intervals over prompts. `samples.jsonl` has a row for each prompt:
its different responses, how often each was sampled ("counts"), whether it ended ("finished"), its gold reward ("gold")
and its score by each model ("scores").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.evaluation.best_of_n import best_of_n_kl, best_of_n_kl_bound, best_of_n_weights
from rlhf_jax.evaluation.results import write_results
from rlhf_jax.intervals import mean_interval
from rlhf_jax.ranges import PositiveInt
from rlhf_jax.stage import Stage, StageName, StageOfAnyShape
from rlhf_jax.train import (
  Function,
  Sampling,
  load_prompts,
  load_reward_model,
  load_served,
  make_sampler,
  model_scorer,
  open_workspace,
  stage_key,
)
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.parts import open_parts
from rlhf_jax.train.processes import host
from rlhf_jax.train.reward_functions import Responses
from rlhf_jax.train.rewards import make_judge
from rlhf_jax.train.row_sources import PromptRows
from rlhf_jax.train.timeline import counted_as

WRITES = ("samples.jsonl",)
SCORED = 256  # responses scored at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  policy: StageName
  """Stage whose model is sampled."""
  prompts: PromptRows
  """File of prompts that were in no training data."""
  num_prompts: PositiveInt
  """Number of prompts, taken from the start of the file."""
  responses: PositiveInt
  """Number of responses to each prompt, N, which is the largest n."""
  batch_size: PositiveInt
  """Number of prompts sampled at once."""
  sampling: Sampling
  """Sampling of the responses."""
  models: tuple[StageOfAnyShape, ...]
  """Stages whose reward models choose the best."""
  missing_eos_score: float | None = None
  """Score by every reward model of a response without EOS; None keeps the model's."""
  gold: Function = Function("")
  """Function of the texts that gives the gold rewards; the name "" where `gold_checkpoint` does."""
  gold_checkpoint: StageOfAnyShape = ""
  """Reward-model stage that gives the gold rewards; "" where `gold` does."""

  def __post_init__(self) -> None:
    if not self.models:
      raise ValueError("models is empty: name at least one reward model")
    if bool(self.gold.function) == bool(self.gold_checkpoint):
      raise ValueError("the gold reward is either gold.function or gold_checkpoint: give exactly one of the two")


@counted_as("evaluation")
def run(config: Config, stage: Stage) -> None:
  """Samples, scores each different response once, and writes the files."""
  tokenizer, model = open_workspace(stage)
  policy = load_served(stage, config.policy, model, tokenizer)
  prompts = load_prompts(config.prompts, stage, tokenizer, config.sampling.max_prompt_tokens)
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)
  judges = {name: load_reward_model(stage, name, model, tokenizer, "models") for name in config.models}
  scorers = {name: model_scorer(*judge, stage.transport) for name, judge in judges.items()}
  gold = make_judge(config.gold, config.gold_checkpoint, stage, model, tokenizer, "gold_checkpoint")
  assert gold is not None, "the settings name a gold reward"
  num_prompts = min(config.num_prompts, len(prompts.texts))

  def sampled_rows(start: int, indices: np.ndarray, kept: int) -> list[dict[str, Any]]:
    asked, batch = prompts.take(np.asarray(indices))
    given = prompts.rows_of(indices)
    rollout, texts = sample(policy, batch, jax.random.fold_in(stage_key(stage), start), config.responses)
    rollout = jax.tree.map(host, rollout)
    first, counts = different(rollout.tokens.reshape(len(indices), config.responses, -1))
    owner = first // config.responses  # of each different response, the number of its prompt
    found: dict[str, list[float]] = {name: [] for name in ("gold", *scorers)}
    for scored in fixed_batches(len(first), SCORED):
      rows, of_prompt = first[scored.rows], owner[scored.rows]
      part = jax.tree.map(lambda x, rows=rows: x[rows], rollout)
      responses = Responses(
        part, [asked[i] for i in of_prompt], [texts[row] for row in rows], [given[i] for i in of_prompt if given]
      )
      found["gold"] += host(gold(responses).total)[: scored.kept].tolist()
      for name, scorer in scorers.items():
        scores = host(scorer(part, responses.prompts, responses.texts))
        if config.missing_eos_score is not None:
          scores = np.where(part.finished, scores, np.float32(config.missing_eos_score))
        found[name] += scores[: scored.kept].tolist()

    def row_of(number: int) -> dict[str, Any]:
      mine = np.flatnonzero(owner == number)
      return {
        "prompt": data.prompt_value(asked[number]),
        "responses": [texts[row] for row in first[mine]],
        "finished": rollout.finished[first[mine]].tolist(),
        "counts": counts[mine].tolist(),
        "gold": [found["gold"][i] for i in mine],
        "scores": {name: [found[name][i] for i in mine] for name in scorers},
      }

    return [row_of(number) for number in range(kept)]

  rows: list[dict[str, Any]] = []
  with open_parts(stage, num_prompts) as parts:
    for batch in fixed_batches(num_prompts, config.batch_size):
      rows += parts(sampled_rows, *batch)
      parts.update(batch.start + batch.kept)
    data.write_rows(stage.directory / "samples.jsonl", rows)
    curves = {name: curve(rows, name) for name in config.models}
    write_results(stage, "results.json", {"prompts": num_prompts, "responses": config.responses, "curves": curves})


def different(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(the first row of each different response to a prompt, how often it occurs): both i64[D], prompts in their order.

  tokens: i32[B, N, T], N responses to each of B prompts; rows are numbered through all prompts.
  """
  counts: dict[tuple[int, bytes], int] = {}
  first: dict[tuple[int, bytes], int] = {}
  for number, responses in enumerate(tokens):
    for place, response in enumerate(responses):
      key = number, response.tobytes()
      first.setdefault(key, number * len(responses) + place)
      counts[key] = counts.get(key, 0) + 1
  return np.array([*first.values()]), np.array([*counts.values()])


def curve(rows: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
  """The points of the model `name`, for n = 1, 2, 4, ... up to the number of samples.

  rows: those of samples.jsonl.
  """
  scores, gold = (
    np.array([np.repeat(values, row["counts"]) for row, values in zip(rows, columns, strict=True)])  # [M, N]
    for columns in ([row["scores"][name] for row in rows], [row["gold"] for row in rows])
  )
  points = []
  for n in 2 ** np.arange(scores.shape[1].bit_length()):
    weights = best_of_n_weights(scores, int(n))
    means = {key: (weights * values).sum(axis=1) for key, values in (("proxy", scores), ("gold", gold))}  # [M]
    points.append(
      {
        "n": int(n),
        "kl": round(float(best_of_n_kl(scores, int(n)).mean()), 6),
        "kl_bound": round(float(best_of_n_kl_bound(n)), 6),
        **{key: mean_interval(values)._asdict() for key, values in means.items()},
      }
    )
  return points
