"""Stage: weigh annotators before a reward model learns from them; writes `annotators.jsonl`, weights with reasons.

Two measures, alone or together, which see nothing but the records. `set_aside` gives weight 0 to annotators whom
screening advises to set aside (`rlhf_jax.agreement.screening`: an interval beyond a limit, on gold items or against the
consensus of all others). `reliability` weighs annotators in proportion to the reliability that a noisy Bradley-Terry
model learns from their agreement (`rlhf_jax.agreement.consensus`). The file is meant to be read, and may be edited:
screening recommends, a person decides.
"""

from __future__ import annotations

import dataclasses

from rlhf_jax import data
from rlhf_jax.agreement.annotator_bias import habits
from rlhf_jax.agreement.consensus import annotator_weights, noisy_bradley_terry
from rlhf_jax.agreement.screening import SET_ASIDE, screen
from rlhf_jax.agreement.tables import judgement_table, pairs_of
from rlhf_jax.feedback.exchange import read_records
from rlhf_jax.stage import RecordFile, Stage
from rlhf_jax.train.progress import console

WRITES = ("annotators.jsonl",)
NEEDS = ("statsmodels",)

ON_LEADER = True  # it computes nothing on the devices: one process of a job carries it out


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  feedback: tuple[RecordFile, ...]
  """Files of records: .db, .jsonl or .parquet, or comparisons."""
  set_aside: bool
  """Switch that gives weight 0 to annotators whom screening advises to set aside."""
  reliability: bool
  """Switch that weighs annotators by their learnt reliability; off, all weigh 1."""


def run(config: Config, stage: Stage) -> None:
  """Screens the annotators, weighs them, and writes rows {annotator, weight, advice, num_items, reasons}.

  Raises:
    DataError: every weight is 0, or no judgement orders two responses.
  """
  table = judgement_table(*read_records(*(stage.path(name) for name in config.feedback)))
  pairs = pairs_of(table)
  if not len(pairs.outcome):
    raise data.DataError(f"{stage.name}: no judgement orders two responses, so that annotators cannot be compared")
  model = noisy_bradley_terry(table, pairs)
  verdicts = screen(table, pairs, habits(table, pairs, model))
  weights = dict.fromkeys(table.annotators, 1.0)
  if config.reliability:
    weights = annotator_weights(table, model)
  rows = [
    {
      "annotator": verdict.annotator,
      "weight": 0.0 if config.set_aside and verdict.advice == SET_ASIDE else round(weights[verdict.annotator], 4),
      "advice": verdict.advice,
      "num_items": verdict.num_items,
      "reasons": list(verdict.reasons),
    }
    for verdict in verdicts
  ]
  if not any(row["weight"] for row in rows):
    raise data.DataError(f"{stage.name}: no annotator of {len(rows)} is left with a weight above 0")
  data.write_rows(stage.directory / "annotators.jsonl", rows)
  num_without = sum(row["weight"] == 0 for row in rows)
  console.print(f"{stage.name}: {len(rows)} annotators, {num_without} of them weigh 0", markup=False)
