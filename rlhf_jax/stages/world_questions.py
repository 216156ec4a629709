"""Stage: prompts of the embedded world as questions with choices, for the few-shot evaluation."""

from __future__ import annotations

import dataclasses

import numpy as np

from rlhf_jax import data
from rlhf_jax.stage import Stage
from rlhf_jax.train.progress import console
from rlhf_jax.world import make_world, parse_prompt, question


@dataclasses.dataclass(frozen=True)
class Part:
  """A file of questions. prompts: the file of prompts they ask. clusters, kinds: the ones that are kept; () is all. A
  kind is what tells the tasks of a cluster apart, such as "plus minus" of the problems with two steps.
  """

  prompts: str
  clusters: tuple[str, ...] = ()
  kinds: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage. seed: the world's. parts: name -> what is written as <name>.jsonl."""

  algorithm: str
  seed: int
  parts: dict[str, Part]
  num_choices: int


def run(config: Config, stage: Stage) -> None:
  """Writes the files and says how many rows each has."""
  world = make_world(config.seed)
  for number, (name, part) in enumerate(config.parts.items()):
    path, rows = stage.path(part.prompts), []
    rng = np.random.default_rng([config.seed, 4, number])
    for prompt in data.read_prompts(path)[0]:
      task = parse_prompt(world, prompt)
      if task is None:
        raise data.DataError(f"{path}: {prompt!r} is no request of the world of seed {config.seed}")
      if (not part.clusters or task.cluster in part.clusters) and (not part.kinds or task.kind in part.kinds):
        rows.append(question(world, task, config.num_choices, rng))
    if not rows:
      raise data.DataError(f"{path}: has no prompt of the clusters and kinds {part.clusters} {part.kinds}")
    data.write_rows(stage.directory / f"{name}.jsonl", rows)
    console.print(f"{name}: {len(rows)} questions", markup=False)
