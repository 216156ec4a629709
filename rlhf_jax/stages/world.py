"""Stage: write the embedded world's text, demonstrations and prompts into the run, in the formats of real data."""

from __future__ import annotations

import dataclasses

from rlhf_jax.stage import Stage
from rlhf_jax.train.progress import console
from rlhf_jax.world import write_world

_ROWS = ("demonstrations.jsonl", "prompts.jsonl", "eval_prompts.jsonl", "held_out_prompts.jsonl")
WRITES = ("corpus.txt", *_ROWS, "world.json")


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of `rlhf_jax.world.write_world`."""

  algorithm: str
  """Module that carries out the stage."""
  seed: int
  """Seed of the world: of its facts, and of everything that is drawn."""
  num_documents: int
  """Number of documents in `corpus.txt`."""
  num_demonstrations: int
  """Number of rows in `demonstrations.jsonl`."""
  num_prompts: int
  """Number of rows in `prompts.jsonl`."""
  num_eval_prompts: int
  """Number of rows in `eval_prompts.jsonl`; each held-out cluster gets as many prompts as a cluster has there."""
  demonstrator_flaw: float
  """Share of demonstrations with a bad habit, between 0 and 1."""
  held_out: tuple[str, ...]
  """Clusters of tasks that are in `held_out_prompts.jsonl` alone."""


def run(config: Config, stage: Stage) -> None:
  """Writes the files and prints their numbers of rows."""
  settings = dataclasses.asdict(config)
  del settings["algorithm"]
  counts = write_world(stage.directory, **settings)
  console.print(", ".join(f"{count} {name}" for name, count in counts.items()), markup=False)
