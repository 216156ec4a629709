"""Stage: the best response of each comparison as a demonstration; writes `demonstrations.jsonl`.

It is all that supervised fine-tuning can take from comparisons: the responses that were ranked below are left out. Of
several best ones the first is taken.
"""

from __future__ import annotations

import dataclasses

from rlhf_jax import data
from rlhf_jax.data.row_formats import COMPARISONS
from rlhf_jax.stage import Stage
from rlhf_jax.train.row_sources import ComparisonRows, read_given

WRITES = ("demonstrations.jsonl",)
ON_LEADER = True  # it computes nothing on the devices: one process of a job carries it out


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  comparisons: ComparisonRows
  """File of rows with ranked responses."""


def run(config: Config, stage: Stage) -> None:
  """Writes a row {"prompt", "response"} for each comparison."""
  rows = [
    {"prompt": data.prompt_value(comparison.prompt), "response": best_response(comparison)}
    for comparison in read_given(config.comparisons, stage, COMPARISONS)
  ]
  data.write_rows(stage.directory / "demonstrations.jsonl", rows)


def best_response(comparison: data.Comparison) -> str:
  """The response of the lowest rank that is no absent one."""
  present = [(rank, place) for place, rank in enumerate(comparison.ranks) if rank >= 0]
  return data.response_text(comparison.responses[min(present)[1]])
