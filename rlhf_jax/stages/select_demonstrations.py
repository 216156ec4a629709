"""Stage: a part of the world's demonstrations, to train on fewer clusters or on answers without their rationale."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf_jax import data
from rlhf_jax.ranges import NonNegativeInt, PositiveInt
from rlhf_jax.stage import DemonstrationFile, Stage
from rlhf_jax.train.progress import console

WRITES = ("demonstrations.jsonl",)
_ANSWER = "The answer is "

ON_LEADER = True  # it computes nothing on the devices: one process of a job carries it out


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  demonstrations: DemonstrationFile
  """File of demonstrations with a column "cluster"."""
  clusters: tuple[str, ...]
  """Clusters whose demonstrations are kept; () for all."""
  num_demonstrations: PositiveInt
  """Number of demonstrations taken of those kept, so that all selections are of one length."""
  rationale: bool
  """Switch that keeps the steps of a response; off, only its last sentence stays, "The answer is ..."."""
  start: NonNegativeInt = 0
  """Index, among those kept, of the first demonstration taken."""
  shots: tuple[NonNegativeInt, ...] = (0,)
  """Numbers of solved examples of the same cluster as earlier turns; a number is drawn for each row."""


def run(config: Config, stage: Stage) -> None:
  """Writes demonstrations.jsonl."""
  path = stage.path(config.demonstrations)
  rows = [row for _, row in data.read_rows(path) if not config.clusters or row.get("cluster") in config.clusters]
  end = config.start + config.num_demonstrations
  if len(rows) < end:
    raise data.DataError(f"{path}: has {len(rows)} such demonstrations, not {end}")
  rows = rows[config.start : end]
  if not config.rationale:
    rows = [{**row, "response": answer_alone(row["response"])} for row in rows]
  if any(config.shots):
    rows = with_turns(rows, config.shots, np.random.default_rng(stage.stage_seed))
  data.write_rows(stage.directory / "demonstrations.jsonl", rows)
  console.print(f"{len(rows)} demonstrations of {len({row['cluster'] for row in rows})} clusters", markup=False)


def answer_alone(response: str) -> str:
  """The response from its last "The answer is" on, if it has one."""
  return response[response.rindex(_ANSWER) :] if _ANSWER in response else response


def _asked(row: dict[str, Any]) -> tuple[data.Message, ...]:
  return data.messages_of(data.prompt_of(row, "demonstrations"))


def with_turns(rows: Sequence[dict[str, Any]], shots: Sequence[int], rng: np.random.Generator) -> list[dict[str, Any]]:
  """The rows, with other rows of their cluster as earlier turns of the prompt; their number is drawn from `shots`.

  Raises:
    DataError: a cluster has too few rows.
  """
  by_cluster: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
  for row in rows:
    by_cluster[row["cluster"]].append(row)
  found = []
  for row, count in zip(rows, rng.choice(shots, size=len(rows)).tolist(), strict=True):
    pool = [other for other in by_cluster[row["cluster"]] if other["prompt"] != row["prompt"]]
    if len(pool) < count:
      raise data.DataError(f"{count} examples before {row['prompt']!r}: its cluster has {len(pool)} other prompts")
    chosen = [pool[i] for i in rng.choice(len(pool), size=count, replace=False)]
    turns = [message for other in chosen for message in (*_asked(other), data.Message("assistant", other["response"]))]
    prompt = data.prompt_value((*turns, *_asked(row)))
    found.append({**row, "prompt": prompt} if chosen else row)
  return found
