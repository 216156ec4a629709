"""Stage: prompts of the embedded world as questions with choices, for the few-shot evaluation."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import numpy as np

from rlhf_jax import data
from rlhf_jax.ranges import AtLeast, NonNegativeInt
from rlhf_jax.stage import PromptFile, Stage
from rlhf_jax.train.progress import console
from rlhf_jax.world import make_world, parse_prompt, question

ON_LEADER = True  # it computes nothing on the devices: one process of a job carries it out


@dataclasses.dataclass(frozen=True)
class Part:
  """A file of questions."""

  prompts: PromptFile
  """File of prompts that become questions."""
  clusters: tuple[str, ...] = ()
  """Clusters whose prompts are kept; () for all."""
  kinds: tuple[str, ...] = ()
  """Kinds of task within a cluster that are kept, such as "plus minus" of problems with two steps; () for all."""


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  seed: NonNegativeInt
  """Seed of the world."""
  difficulty: str
  """Difficulty of the world."""
  parts: dict[str, Part]
  """Files of questions by name; NAME is written as `NAME.jsonl`."""
  num_choices: Annotated[int, AtLeast(2)]
  """Number of choices of a question, at least 2; fewer where the world knows fewer wrong answers."""


def run(config: Config, stage: Stage) -> None:
  """Writes the files and prints their numbers of rows."""
  world = make_world(config.seed, config.difficulty)
  for number, (name, part) in enumerate(config.parts.items()):
    path, rows = stage.path(part.prompts), list[dict[str, Any]]()
    rng = np.random.default_rng([config.seed, 4, number])
    for prompt in data.read_prompts(path)[0]:
      task = parse_prompt(world, data.prompt_value(prompt))
      if task is None:
        raise data.DataError(f"{path}: {prompt!r} is no request of the world with seed {config.seed}")
      if (not part.clusters or task.cluster in part.clusters) and (not part.kinds or task.kind in part.kinds):
        rows.append(question(world, task, config.num_choices, rng))
    if not rows:
      raise data.DataError(f"{path}: has no prompt of the clusters and kinds {part.clusters} {part.kinds}")
    data.write_rows(stage.directory / f"{name}.jsonl", rows)
    console.print(f"{name}: {len(rows)} questions", markup=False)
