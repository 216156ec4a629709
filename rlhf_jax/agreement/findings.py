"""All statistics of a set of judgements, for `report` to write, `text` to print and `plots` to draw."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rlhf_jax.agreement import annotator_bias, consensus
from rlhf_jax.agreement.agreement import (
  Pairwise,
  agreement_with_experts,
  agreement_with_others,
  group_agreement,
  item_disagreement,
  pairwise,
)
from rlhf_jax.agreement.coefficients import Estimate, undefined
from rlhf_jax.agreement.screening import DEFAULT, Limits, Verdict, screen
from rlhf_jax.agreement.tables import Pairs, Table, judgement_table, pairs_of
from rlhf_jax.agreement.winners import Winners, winners
from rlhf_jax.agreement.yes_no import yes_no_agreement
from rlhf_jax.feedback.records import Annotator, Item, Judgement


@dataclasses.dataclass(frozen=True)
class Findings:
  """All statistics. Lists by annotator are in the order of `table.annotators`."""

  table: Table
  """Judgements."""
  pairs: Pairs
  """Pairs of responses that the judgements compare."""
  source: str
  """Reference that stands for the experts: "gold items", "experts" or "nobody"."""
  experts: list[Estimate]
  """Agreement with the reference, by annotator."""
  others: list[Estimate]
  """Agreement with the other annotators, by annotator."""
  first_shown: list[Estimate]
  """Share of pairs that the response shown earlier wins, by annotator."""
  longer: list[Estimate]
  """Share of pairs that the longer response wins, by annotator."""
  timing: list[annotator_bias.Timing]
  """Time taken, by annotator."""
  verdicts: list[Verdict]
  """Advice of the screening, by annotator."""
  weights: dict[str, float]
  """Weight of an annotator's judgements in the loss of a reward model, by id."""
  two_by_two: list[Pairwise]
  """Agreement of every two annotators."""
  group: dict[str, Estimate]
  """Agreement of all annotators, by the name of the coefficient."""
  disagreement: np.ndarray
  """Share of unequal answers to an item: f64[M], NaN with fewer than two annotators."""
  majority: consensus.Consensus
  """Ranking of each item by majority."""
  dawid_skene: consensus.DawidSkene
  """Ranking of each item by Dawid and Skene."""
  model: consensus.NoisyBradleyTerry
  """Ranking of each item by the noisy Bradley-Terry model."""
  winners: Winners | None
  """Boards of the models that gave the responses, by the answers to the items; None where none compares two known
  models."""


def analyse(
  annotators: Sequence[Annotator], items: Sequence[Item], judgements: Sequence[Judgement], limits: Limits = DEFAULT
) -> Findings:
  """All statistics of the records.

  Annotators are measured on independent judgements. A final judgement is the answer to its item: in the consensus, and
  in who won, where it stands for all judgements of the item.

  Raises:
    ValueError: no judgement orders two responses.
  """
  table = judgement_table(annotators, items, judgements)
  pairs = pairs_of(table)
  if not len(pairs.unit):
    raise ValueError(
      f"none of the {len(judgements) - table.num_final} independent judgements orders two responses, so that there is "
      "nothing to compare; agreement needs rankings, choices between two responses, or ratings of two or more"
    )
  answered = judgement_table(annotators, items, judgements, answered=True)
  model = consensus.noisy_bradley_terry(table, pairs)
  experts, everyone, source = agreement_with_experts(table, pairs)
  two_by_two = pairwise(table, pairs)
  return Findings(
    table, pairs, source, experts,
    others=agreement_with_others(table, pairs),
    first_shown=annotator_bias.first_shown_wins(table, pairs),
    longer=annotator_bias.longer_wins(table, pairs),
    timing=annotator_bias.timing(table),
    verdicts=screen(table, pairs, annotator_bias.habits(table, pairs, model), limits),
    weights=consensus.annotator_weights(table, model),
    two_by_two=two_by_two,
    group={f"agreement with experts ({source})": everyone} | _means(two_by_two) | group_agreement(table, pairs)
    | yes_no_agreement(table),
    disagreement=item_disagreement(table, pairs),
    majority=consensus.majority(table, pairs),
    dawid_skene=consensus.dawid_skene(table, pairs),
    model=model,
    winners=winners(answered, pairs_of(answered)),
  )  # fmt: skip


def _means(two_by_two: Sequence[Pairwise]) -> dict[str, Estimate]:
  """Means over every two annotators, weighted by `num` of the estimates; undefined estimates are left out."""
  names = {
    "raw": "raw agreement of two annotators",
    "kappa": "Cohen's kappa of two annotators",
    "spearman": "Spearman's rho of two annotators, mean over items",
    "kendall": "Kendall's tau-b of two annotators, mean over items",
  }
  result = {}
  for field, name in names.items():
    defined = [estimate for two in two_by_two if (estimate := getattr(two, field)).value is not None]
    if defined:
      weights = [estimate.num for estimate in defined]
      mean = float(np.average([estimate.value for estimate in defined], weights=weights))
      result[name] = Estimate(mean, num=sum(weights))
    else:
      reasons = {getattr(two, field).undefined for two in two_by_two} or {"no two annotators judged the same item"}
      result[name] = undefined("; ".join(sorted(reasons)))
  return result
