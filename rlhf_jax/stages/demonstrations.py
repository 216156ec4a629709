"""Stage: simulated demonstrators of the world answer prompts; writes `demonstrations.jsonl`."""

from __future__ import annotations

import dataclasses

import numpy as np

from rlhf_jax import data
from rlhf_jax.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt
from rlhf_jax.stage import PromptFile, Stage
from rlhf_jax.world import demonstrate, make_world, parse_prompt

WRITES = ("demonstrations.jsonl",)
ON_LEADER = True  # it computes nothing on the devices: one process of a job carries it out


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  seed: NonNegativeInt
  """Seed of the world."""
  difficulty: str
  """Difficulty of the world."""
  prompts: PromptFile
  """File of prompts."""
  num: PositiveInt
  """Number of demonstrations; prompts recur where the file has fewer."""
  habits: dict[str, NonNegativeFloat]
  """Weight of each habit of the demonstrators (see `rlhf_jax.world.demonstrate`)."""


def run(config: Config, stage: Stage) -> None:
  """Writes rows {prompt, response, habit} in an order that the stage's seed decides.

  Raises:
    DataError: a prompt is no request of the world.
  """
  prompts, _ = data.read_prompts(stage.path(config.prompts))
  world, rng = make_world(config.seed, config.difficulty), np.random.default_rng(stage.stage_seed)
  rows = []
  for index in data.batch_indices(len(prompts), config.num, 0, stage.stage_seed):
    task = parse_prompt(world, data.prompt_value(prompts[index]))
    if task is None:
      raise data.DataError(f"{stage.path(config.prompts)}: {prompts[index]!r} is no request of the world")
    response, habit = demonstrate(world, task, rng, config.habits)
    rows.append({"prompt": task.prompt, "response": response, "habit": habit})
  data.write_rows(stage.directory / "demonstrations.jsonl", rows)
