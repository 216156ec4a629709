"""Stage: sample N responses to each prompt and keep the best by a reward; writes `demonstrations.jsonl`.

Best-of-n without training is the baseline of Stiennon et al. 2020 (arXiv 2009.01325) and Gao et al. 2022 (2210.10760);
its KL to the policy is at most log n - (n - 1) / n nats, with equality where no two responses tie (Beirami et al. 2024,
arXiv 2401.01879). An `sft` stage on the file is rejection-sampling fine-tuning (RAFT, Dong et al. 2023, arXiv
2304.06767; Llama 2, arXiv 2307.09288, section 3.2.3): supervised learning that moves the policy towards best-of-n.

DEVIATIONS: the best is taken for each prompt, as in Llama 2, rather than over all prompts, which would keep the easy
prompts. A response without <eos> cannot win, since as a demonstration it would teach the model to stop there; a prompt
whose responses are all unfinished or empty is skipped and counted.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.ranges import PositiveInt
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import (
  Reward,
  Sampling,
  load_prompts,
  load_served,
  make_sampler,
  make_scorer,
  open_workspace,
  report_skips,
  stage_key,
)
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.parts import open_parts
from rlhf_jax.train.processes import host
from rlhf_jax.train.row_sources import PromptRows

WRITES = ("demonstrations.jsonl",)


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  policy: StageName
  """Stage whose model is sampled."""
  prompts: PromptRows
  """File of prompts."""
  num_prompts: PositiveInt
  """Number of prompts, taken from the start of the file."""
  responses: PositiveInt
  """Number of responses to each prompt, N."""
  batch_size: PositiveInt
  """Number of prompts sampled at once."""
  sampling: Sampling
  """Sampling of the responses."""
  reward: Reward
  """Reward by which the best response is chosen."""


def run(config: Config, stage: Stage) -> None:
  """Samples, scores and writes rows {prompt, response, score, mean_score}: the best, its score, the mean of all N."""
  tokenizer, model = open_workspace(stage)
  params = load_served(stage, config.policy, model, tokenizer)
  prompts = load_prompts(config.prompts, stage, tokenizer, config.sampling.max_prompt_tokens)
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)
  score = make_scorer(config.reward, stage, model, tokenizer, where="reward")
  num_prompts = min(config.num_prompts, len(prompts.texts))

  def best_rows(start: int, indices: np.ndarray, kept: int) -> list[dict[str, Any]]:
    texts, batch = prompts.take(indices)
    texts = [text for text in texts for _ in range(config.responses)]
    given = [row for row in prompts.rows_of(indices) for _ in range(config.responses)]
    rollout, responses = sample(params, batch, jax.random.fold_in(stage_key(stage), start), config.responses)
    scores = np.reshape(score(rollout, texts, responses, given), (-1, config.responses))
    usable = np.reshape(host(rollout.finished) & np.array([r != "" for r in responses]), scores.shape)
    return [
      {
        "prompt": data.prompt_value(prompts.texts[indices[group]]),
        "response": responses[group * config.responses + winner],
        "score": float(scores[group, winner]),
        "mean_score": float(scores[group].mean()),
      }
      for group, winner in enumerate(best(scores, usable)[:kept])
      if winner >= 0
    ]

  rows: list[dict[str, Any]] = []
  with open_parts(stage, num_prompts) as parts:
    for batch in fixed_batches(num_prompts, config.batch_size):
      rows += parts(best_rows, *batch)
      means = {"reward/proxy": float(np.mean([row["score"] for row in rows]))} if rows else {}
      parts.update(batch.start + batch.kept, means)
    if skipped := num_prompts - len(rows):
      report_skips(stage.name, {"every response is unfinished or empty": skipped}, num_prompts)
    if not rows:
      raise data.DataError(f"{stage.name}: {config.policy} gave no prompt a response that ends; train it longer")
    data.write_rows(stage.directory / "demonstrations.jsonl", rows)


def best(scores: np.ndarray, usable: np.ndarray) -> np.ndarray:
  """Index of the highest usable score of each row, the first of equals, -1 where no score is usable: i64[B].

  scores: f[B, N]. usable: bool[B, N].
  """
  masked = np.where(usable, scores, -np.inf)
  return np.where(usable.any(axis=1), masked.argmax(axis=1), -1)
