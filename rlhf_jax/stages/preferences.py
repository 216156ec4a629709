"""Stage: sample responses from a policy and have simulated labellers rank them; writes `comparisons.jsonl`.

Each prompt gets K responses and one labeller, drawn at random. A labeller orders them by the gold reward
through a Bradley-Terry choice with their own noise and habits (see `rlhf_jax.world.labellers`), and never sees the gold
reward's value: the rows carry it beside the ranks for the evaluation of labels, and no learner reads it.
"""

from __future__ import annotations

import collections
import dataclasses

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import (
  Function,
  Sampling,
  load_policy,
  load_prompts,
  make_sampler,
  make_score_function,
  open_workspace,
  report_skips,
  stage_key,
)
from rlhf_jax.train.progress import StageProgress
from rlhf_jax.world import make_labellers, rank

WRITES = ("comparisons.jsonl",)


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  policy: the stage that is sampled. prompts: a file; num_prompts of them. responses: K for each prompt. gold: the
  function the labellers judge by. labellers: number of each kind, as in `rlhf_jax.world.make_labellers`.
  """

  algorithm: str
  policy: StageName
  prompts: str
  num_prompts: int
  responses: int
  batch_size: int
  sampling: Sampling
  gold: Function
  labellers: dict[str, int]


def run(config: Config, stage: Stage) -> None:
  """Samples, judges and writes; a group whose responses are all the same text is skipped and counted."""
  tokenizer, model = open_workspace(stage)
  params = load_policy(stage, config.policy, model, tokenizer)
  prompts = load_prompts(stage.path(config.prompts), tokenizer, config.sampling.max_prompt_tokens)
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)
  gold = make_score_function(config.gold, stage)
  labellers = make_labellers(config.labellers)
  num_prompts = min(config.num_prompts, len(prompts.texts))
  rows, skips = [], collections.Counter()
  with StageProgress(stage.name, num_prompts) as progress:
    for start in range(0, num_prompts, config.batch_size):
      indices = np.arange(start, start + config.batch_size) % num_prompts  # one shape for every batch
      _, batch = prompts.take(indices)
      _, responses = sample(params, batch, jax.random.fold_in(stage_key(stage), start), config.responses)
      for offset, index in enumerate(indices[: num_prompts - start]):
        group = responses[offset * config.responses : (offset + 1) * config.responses]
        row = _judge(prompts.texts[index], group, gold, labellers, np.random.default_rng((stage.stage_seed, index)))
        if row is None:
          skips["all responses are the same text, or empty"] += 1
        else:
          rows.append(row)
      progress.update(min(start + config.batch_size, num_prompts), {})
  report_skips(stage.name, skips, num_prompts)
  if not rows:
    raise data.DataError(f"{stage.name}: {config.policy} gave no prompt two different responses to compare")
  data.write_rows(stage.directory / "comparisons.jsonl", rows)


def _judge(prompt, responses, gold, labellers, rng):
  distinct = [response for response in dict.fromkeys(responses) if response]
  if len(distinct) < 2:
    return None
  labeller = labellers[rng.integers(len(labellers))]
  scores = gold([prompt] * len(distinct), distinct)
  ranks = rank(labeller, scores, np.array([len(response.split()) for response in distinct]), rng)
  return {
    "prompt": prompt,
    "responses": distinct,
    "ranks": [int(r) for r in ranks],
    "annotator": labeller.name,
    "gold": [round(float(score), 4) for score in scores],
  }
