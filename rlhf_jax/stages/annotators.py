"""Stage: judge the judges, before a reward model learns from them; writes `annotators.jsonl` of weights with reasons.

Two measures, alone or together. `set_aside`: whoever screening advises to set aside weighs 0 (see
`rlhf_jax.agreement.screening`: an interval beyond a limit, on gold items or against what the others agree on).
`reliability`: the others weigh in proportion to the reliability that a noisy Bradley-Terry model has learnt from how
they agree (`rlhf_jax.agreement.consensus`). Both see the records alone. The file is meant to be read, and may be
edited: screening recommends, a person decides.
"""

from __future__ import annotations

import dataclasses

from rlhf_jax import data
from rlhf_jax.agreement.annotator_bias import habits
from rlhf_jax.agreement.consensus import annotator_weights, noisy_bradley_terry
from rlhf_jax.agreement.screening import SET_ASIDE, screen
from rlhf_jax.agreement.tables import judgement_table, pairs_of
from rlhf_jax.stage import Stage
from rlhf_jax.train.judgements import read_feedback
from rlhf_jax.train.progress import console

WRITES = ("annotators.jsonl",)
NEEDS = ("statsmodels",)


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage. feedback: files of records (.db, .jsonl, .parquet, or comparisons)."""

  algorithm: str
  feedback: tuple[str, ...]
  set_aside: bool
  reliability: bool


def run(config: Config, stage: Stage) -> None:
  """Screens the annotators, weighs them, and writes rows {annotator, weight, advice, num_items, reasons}.

  Raises:
    DataError: nobody is left, or no judgement orders two responses.
  """
  table = judgement_table(*read_feedback([stage.path(name) for name in config.feedback]))
  pairs = pairs_of(table)
  if not len(pairs.outcome):
    raise data.DataError(f"{stage.name}: no judgement orders two responses, so that nobody can be compared with others")
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
  stage.directory.mkdir(parents=True, exist_ok=True)
  data.write_rows(stage.directory / "annotators.jsonl", rows)
  gone = sum(row["weight"] == 0 for row in rows)
  console.print(f"{stage.name}: {len(rows)} annotators, {gone} of them weigh 0", markup=False)
