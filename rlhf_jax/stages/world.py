"""Stage: write the embedded world's text, demonstrations and prompts into the run, in the formats of real data."""

from __future__ import annotations

import dataclasses

from rlhf_jax.ranges import NonNegativeFloat, NonNegativeInt
from rlhf_jax.stage import Stage
from rlhf_jax.train.progress import console
from rlhf_jax.world import write_world

_ROWS = "demonstrations prompts answers eval_prompts held_out_prompts contrasts"
WRITES = ("corpus.txt", *(f"{name}.jsonl" for name in _ROWS.split()), "world.json")
ON_LEADER = True  # it computes nothing on the devices: one process of a job carries it out


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of `rlhf_jax.world.write_world`."""

  algorithm: str
  """Module that carries out the stage."""
  seed: NonNegativeInt
  """Seed of the world: of its facts, and of everything that is drawn."""
  difficulty: str
  """Size of the world and depth of its tasks: "easy", "medium" or "hard" (see `rlhf_jax.world.DIFFICULTIES`)."""
  num_documents: NonNegativeInt
  """Number of documents in `corpus.txt`."""
  num_demonstrations: NonNegativeInt
  """Number of rows in `demonstrations.jsonl`."""
  num_prompts: NonNegativeInt
  """Number of rows in `prompts.jsonl`."""
  num_eval_prompts: NonNegativeInt
  """Number of rows in `eval_prompts.jsonl`, shared equally by clusters and cells; a held-out cluster has one share."""
  demonstrators: dict[str, NonNegativeFloat]
  """Weight of each habit of the people who write the demonstrations (see `rlhf_jax.world.demonstrate`)."""
  num_answers: NonNegativeInt
  """Number of answers that people write to each prompt of `prompts.jsonl`, to be compared with those of a model."""
  answers: dict[str, NonNegativeFloat]
  """Weight of each habit of the people who write these answers."""
  held_out: tuple[str, ...]
  """Clusters of tasks that are in `held_out_prompts.jsonl` alone."""


def run(config: Config, stage: Stage) -> None:
  """Writes the files and prints their numbers of rows."""
  settings = dataclasses.asdict(config)
  del settings["algorithm"]
  counts = write_world(stage.directory, **settings)
  console.print(", ".join(f"{count} {name}" for name, count in counts.items()), markup=False)
