"""Stage: demonstrations of refinement beside those of a file; writes `demonstrations.jsonl` for an SFT stage.

A model can rewrite its answers by a critique only if it has seen rewrites. Demonstrators of the embedded world answer
with bad habits, are criticised, and rewrite their answers (see `rlhf_jax.world.refinements`).
"""

from __future__ import annotations

import dataclasses

from rlhf_jax import data
from rlhf_jax.ranges import NonNegativeInt, PositiveInt
from rlhf_jax.stage import DemonstrationFile, PromptFile, Stage
from rlhf_jax.train.progress import console
from rlhf_jax.world import refinements

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
  """File of prompts that the refined answers respond to."""
  num: PositiveInt
  """Number of refinements."""
  template: str
  """Prompt of a refinement, with {prompt}, {response} and {critique}; the same as in the stage that refines."""
  demonstrations: DemonstrationFile
  """File of demonstrations that are written before the refinements."""


def run(config: Config, stage: Stage) -> None:
  """Writes the rows of the file, then those of the refinements."""
  others, _ = data.read_demonstrations(stage.path(config.demonstrations))
  prompts, _ = data.read_prompts(stage.path(config.prompts))
  rows = [{"prompt": data.prompt_value(row.prompt), "response": data.response_value(row.response)} for row in others]
  for row in refinements(config.seed, [data.prompt_value(prompt) for prompt in prompts], config.num, config.difficulty):
    rows.append({"prompt": config.template.format(**row), "response": row["rewrite"]})
  data.write_rows(stage.directory / "demonstrations.jsonl", rows)
  console.print(f"{len(others)} demonstrations and {config.num} refinements", markup=False)
