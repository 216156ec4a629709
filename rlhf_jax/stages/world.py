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
  """Settings of `rlhf_jax.world.write_world`; demonstrator_flaw is the share of demonstrations with a bad habit."""

  algorithm: str
  seed: int
  num_documents: int
  num_demonstrations: int
  num_prompts: int
  num_eval_prompts: int
  demonstrator_flaw: float
  held_out: tuple[str, ...]


def run(config: Config, stage: Stage) -> None:
  """Writes the files and says how many rows each has."""
  settings = dataclasses.asdict(config)
  del settings["algorithm"]
  counts = write_world(stage.directory, **settings)
  console.print(", ".join(f"{count} {name}" for name, count in counts.items()), markup=False)
