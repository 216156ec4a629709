"""Stage: a part of the world's demonstrations, to tune on fewer clusters or on answers without their rationale."""

from __future__ import annotations

import dataclasses

from rlhf_jax import data
from rlhf_jax.stage import Stage
from rlhf_jax.train.progress import console

WRITES = ("demonstrations.jsonl",)
_ANSWER = "The answer is "


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  demonstrations: rows with a column "cluster". clusters: the ones that are kept; () is all. num_demonstrations: the
  first so many of those, so that every selection is as long. rationale: False leaves of a response with steps only its
  last sentence, "The answer is ...".
  """

  algorithm: str
  demonstrations: str
  clusters: tuple[str, ...]
  num_demonstrations: int
  rationale: bool


def run(config: Config, stage: Stage) -> None:
  """Writes demonstrations.jsonl."""
  path = stage.path(config.demonstrations)
  rows = [row for _, row in data.read_rows(path) if not config.clusters or row.get("cluster") in config.clusters]
  if len(rows) < config.num_demonstrations:
    raise data.DataError(f"{path}: has {len(rows)} such demonstrations, not {config.num_demonstrations}")
  rows = rows[: config.num_demonstrations]
  if not config.rationale:
    rows = [{**row, "response": answer_alone(row["response"])} for row in rows]
  data.write_rows(stage.directory / "demonstrations.jsonl", rows)
  console.print(f"{len(rows)} demonstrations of {len({row['cluster'] for row in rows})} clusters", markup=False)


def answer_alone(response: str) -> str:
  """The response from its last "The answer is" on, if it has one."""
  return response[response.rindex(_ANSWER) :] if _ANSWER in response else response
