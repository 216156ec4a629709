"""The agreement report: every statistic of a set of judgements, and the files that hold them.

agreement.json     all numbers; what is undefined says why
consensus.jsonl    the order of each item by majority, Dawid-Skene and noisy Bradley-Terry, and the latter's scores
annotators.png, pairs.png, items.png
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_jax.feedback import consensus, habits
from rlhf_jax.feedback.agreement import (
  Pairwise,
  agreement_with_experts,
  agreement_with_others,
  group_agreement,
  item_disagreement,
  pairwise,
)
from rlhf_jax.feedback.coefficients import Estimate, undefined
from rlhf_jax.feedback.records import Annotator, Item, Judgement
from rlhf_jax.feedback.screening import DEFAULT, Limits, Verdict, screen
from rlhf_jax.feedback.tables import Pairs, Table, judgement_table, pairs_of


@dataclasses.dataclass(frozen=True)
class Findings:
  """Everything the report says. Lists by annotator are in the order of `table.annotators`; disagreement: f64[M]."""

  table: Table
  pairs: Pairs
  source: str
  experts: list[Estimate]
  others: list[Estimate]
  first_shown: list[Estimate]
  longer: list[Estimate]
  timing: list[habits.Timing]
  verdicts: list[Verdict]
  weights: dict[str, float]
  two_by_two: list[Pairwise]
  group: dict[str, Estimate]
  disagreement: np.ndarray
  majority: consensus.Consensus
  dawid_skene: consensus.DawidSkene
  model: consensus.NoisyBradleyTerry


def analyse(
  annotators: Sequence[Annotator], items: Sequence[Item], judgements: Sequence[Judgement], limits: Limits = DEFAULT
) -> Findings:
  """All statistics of the records. Raises ValueError where no judgement orders two responses."""
  table = judgement_table(annotators, items, judgements)
  pairs = pairs_of(table)
  if not len(pairs.unit):
    raise ValueError(
      f"none of the {len(judgements)} judgements orders two responses: there is nothing to compare; "
      "agreement needs rankings, choices, or ratings of two responses or more"
    )
  model = consensus.noisy_bradley_terry(table, pairs)
  experts, everyone, source = agreement_with_experts(table, pairs)
  two_by_two = pairwise(table, pairs)
  return Findings(
    table, pairs, source, experts,
    others=agreement_with_others(table, pairs),
    first_shown=habits.first_shown_wins(table, pairs),
    longer=habits.longer_wins(table, pairs),
    timing=habits.timing(table),
    verdicts=screen(table, pairs, habits.habits(table, pairs, model), limits),
    weights=consensus.annotator_weights(table, model),
    two_by_two=two_by_two,
    group={f"agreement with experts ({source})": everyone} | _means(two_by_two) | group_agreement(table, pairs),
    disagreement=item_disagreement(table, pairs),
    majority=consensus.majority(table, pairs),
    dawid_skene=consensus.dawid_skene(table, pairs),
    model=model,
  )  # fmt: skip


def write_findings(findings: Findings, directory: str | Path) -> list[Path]:
  """Writes the files named above and returns their paths; the same findings give the same text files."""
  from rlhf_jax.feedback.agreement_plots import plot_annotators, plot_items, plot_pairs

  directory = Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  paths = [directory / name for name in ("agreement.json", "consensus.jsonl")]
  text = json.dumps(summary(findings), indent=2, ensure_ascii=False, allow_nan=False)
  paths[0].write_text(text + "\n", encoding="utf-8")
  rows = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in consensus_rows(findings))
  paths[1].write_text("".join(rows), encoding="utf-8")
  for name, plot in (("annotators", plot_annotators), ("pairs", plot_pairs), ("items", plot_items)):
    paths.append(directory / f"{name}.png")
    plot(findings, paths[-1])
  return paths


def summary(findings: Findings) -> dict[str, Any]:
  """agreement.json: JSON values alone."""
  table = findings.table
  people = []
  for i, name in enumerate(table.annotators):
    verdict = findings.verdicts[i]
    people.append(
      {
        "annotator": name,
        "expert": bool(table.expert[i]),
        "items": verdict.num_items,
        "skips": int(table.num_skips[i]),
        "agreement_with_experts": _json(findings.experts[i]),
        "agreement_with_others": _json(findings.others[i]),
        "first_shown_wins": _json(findings.first_shown[i]),
        "longer_wins": _json(findings.longer[i]),
        "seconds": dataclasses.asdict(findings.timing[i]),
        "reliability": round(float(findings.model.reliability[i]), 4),
        "weight": round(findings.weights[name], 4),
        "confusion": np.round(findings.dawid_skene.confusion[i], 4).tolist(),
        "advice": verdict.advice,
        "checks": [
          {"name": c.name, "status": c.status, "limit": c.limit, "evidence": c.evidence, **_json(c.estimate)}
          for c in verdict.checks
        ],
      }
    )
  order = np.argsort(-np.nan_to_num(findings.disagreement, nan=-1.0), kind="stable")
  return {
    "judgements": len(table.item),
    "left_out": list(table.left_out),
    "group": {name: _json(estimate) for name, estimate in findings.group.items()},
    "annotators": people,
    "pairs": [
      {
        "annotators": [table.annotators[two.first], table.annotators[two.second]],
        **{name: _json(getattr(two, name)) for name in ("raw", "kappa", "spearman", "kendall")},
      }
      for two in findings.two_by_two
    ],
    "items": [
      {"item": table.items[i], "disagreement": round(float(findings.disagreement[i]), 4)}
      for i in order
      if not np.isnan(findings.disagreement[i])
    ],
  }


def consensus_rows(findings: Findings) -> list[dict[str, Any]]:
  """consensus.jsonl: a row for each item that was judged, ranks as in a judgement (0 best, ties equal, -1 absent)."""
  table = findings.table
  rows = []
  for i in np.unique(table.item):
    size = int((~np.isnan(table.num_words[i])).sum())
    scores = findings.model.scores[i, :size]
    rows.append(
      {
        "item": table.items[i],
        "majority": findings.majority.ranks[i, :size].tolist(),
        "dawid_skene": findings.dawid_skene.ranks[i, :size].tolist(),
        "noisy_bradley_terry": findings.model.ranks[i, :size].tolist(),
        "scores": [None if np.isnan(score) else round(float(score), 4) for score in scores],
      }
    )
  return rows


def _means(two_by_two: Sequence[Pairwise]) -> dict[str, Estimate]:
  """Means over every two annotators, weighted by what they judged in common; those undefined are left out."""
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
      reasons = {getattr(two, field).undefined for two in two_by_two} or {"no two annotators judged one item"}
      result[name] = undefined("; ".join(sorted(reasons)))
  return result


def _json(estimate: Estimate) -> dict[str, Any]:
  if estimate.value is None:
    return {"undefined": estimate.undefined, "num": estimate.num}
  values = {name: getattr(estimate, name) for name in ("value", "low", "high")}
  return {name: round(x, 4) for name, x in values.items() if x is not None} | {"num": estimate.num}
