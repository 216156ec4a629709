"""Stage: buy labels of the oldest kind: demonstrators of the world answer prompts; writes `demonstrations.jsonl`."""

from __future__ import annotations

import dataclasses

import numpy as np

from rlhf_jax import data
from rlhf_jax.stage import Stage
from rlhf_jax.world import demonstrate, make_world, parse_prompt

WRITES = ("demonstrations.jsonl",)


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage. seed: the world's. prompts: a file; num of them. flaw: the share with a bad habit."""

  algorithm: str
  seed: int
  prompts: str
  num: int
  flaw: float


def run(config: Config, stage: Stage) -> None:
  """Writes rows {prompt, response, habit}, in an order of the stage's own. Raises DataError for a foreign prompt."""
  prompts, _ = data.read_prompts(stage.path(config.prompts))
  world, rng, rows = make_world(config.seed), np.random.default_rng(stage.stage_seed), []
  for index in data.batch_indices(len(prompts), config.num, 0, stage.stage_seed):
    task = parse_prompt(world, prompts[index])
    if task is None:
      raise data.DataError(f"{stage.path(config.prompts)}: {prompts[index]!r} is none of the world's requests")
    response, habit = demonstrate(world, task, rng, config.flaw)
    rows.append({"prompt": task.prompt, "response": response, "habit": habit})
  data.write_rows(stage.directory / "demonstrations.jsonl", rows)
