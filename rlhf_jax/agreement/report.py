"""The files of an agreement report.

agreement.json     all numbers; an undefined one is replaced by the reason. "models" says who won, null where no
                   judgement compares two known models
consensus.jsonl    the ranking of each item by majority, Dawid-Skene and noisy Bradley-Terry, the scores of the last,
                   and whether a final judgement settles it, which is then all three rankings
annotators.png, pairs.png, items.png
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_jax.agreement.coefficients import Estimate
from rlhf_jax.agreement.findings import Findings
from rlhf_jax.agreement.plots import plot_annotators, plot_items, plot_pairs
from rlhf_jax.agreement.winners import Board, Winners
from rlhf_jax.data import write_rows
from rlhf_jax.writing import write_bytes


def write_findings(findings: Findings, directory: str | Path) -> list[Path]:
  """Writes the files named above and returns their paths. The same findings give the same text files."""
  directory = Path(directory)
  paths = [directory / name for name in ("agreement.json", "consensus.jsonl")]
  text = json.dumps(summary(findings), indent=2, ensure_ascii=False, allow_nan=False)
  write_bytes(paths[0], f"{text}\n".encode())
  write_rows(paths[1], consensus_rows(findings))
  for name, plot in (("annotators", plot_annotators), ("pairs", plot_pairs), ("items", plot_items)):
    paths.append(directory / f"{name}.png")
    plot(findings, paths[-1])
  return paths


def summary(findings: Findings) -> dict[str, Any]:
  """The content of agreement.json, JSON values alone."""
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
    "final": table.num_final,
    "left_out": list(table.left_out),
    "models": None if findings.winners is None else _winners(findings.winners),
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
  """The rows of consensus.jsonl, one for each judged item; ranks: 0 is the best, equal ranks tie, -1 is absent."""
  table = findings.table
  settled = np.any(table.final >= 0, axis=1)
  rows = []
  for i in np.union1d(table.item, np.flatnonzero(settled)):
    size = int((~np.isnan(table.num_words[i])).sum())
    scores = findings.model.scores[i, :size]
    rows.append(
      {
        "item": table.items[i],
        "majority": findings.majority.ranks[i, :size].tolist(),
        "dawid_skene": findings.dawid_skene.ranks[i, :size].tolist(),
        "noisy_bradley_terry": findings.model.ranks[i, :size].tolist(),
        "scores": [None if np.isnan(score) else round(float(score), 4) for score in scores],
        "settled": bool(settled[i]),
      }
    )
  return rows


def _winners(winners: Winners) -> dict[str, Any]:
  return {
    "overall": _board(winners.overall),
    "clusters": {name: _board(board) for name, board in winners.clusters.items()},
  }


def _board(board: Board) -> dict[str, Any]:
  estimates = ("win_rate", "rating", "controlled", "controlled_win_rate")
  return {
    "standings": [
      {
        **{name: getattr(standing, name) for name in ("model", "wins", "ties", "losses")},
        **{name: _json(getattr(standing, name)) for name in estimates},
      }
      for standing in board.standings
    ],
    "head_to_head": [{"models": [a, b], **_json(share)} for a, b, share in board.head_to_head],
    "tie": round(board.tie, 4),
    "position": _json(board.position),
    "length": _json(board.length),
    "typical_words": round(board.typical_words, 2),
  }


def _json(estimate: Estimate) -> dict[str, Any]:
  if estimate.value is None:
    return {"undefined": estimate.undefined, "num": estimate.num}
  values = {name: getattr(estimate, name) for name in ("value", "low", "high")}
  return {name: round(x, 4) for name, x in values.items() if x is not None} | {"num": estimate.num}
