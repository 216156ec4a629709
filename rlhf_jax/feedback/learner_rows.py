"""Judgements as the rows that learners read. Only current judgements count, and skips have no rows.

Every row carries "annotator", "item" and "group", the id of its judgement: the rows of a judgement
are not independent, so that a learner keeps them in one batch element (Ouyang et al. 2022, arXiv 2203.02155, sec. 3.5).
`row_records` makes records of the rows again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rlhf_jax.data import prompt_value
from rlhf_jax.feedback.ranks import ranked_pairs
from rlhf_jax.feedback.records import Item, Judgement, Records, current

Row = dict[str, Any]


def rankings(records: Records) -> list[Row]:
  """{"prompt", "responses", "ranks", ...}, one row for each ranking; a preference has its "strength" beside it."""
  return [
    {**_head(item, judgement), "responses": _texts(item), "ranks": list(judgement.ranks), **_ranking_tail(judgement)}
    for item, judgement in _said(records)
    if judgement.ranks is not None
  ]


def pairs(records: Records) -> list[Row]:
  """The rankings of K responses as pairs, one row for every two ranked responses; a tie has the ranks [0, 0].

  `rlhf_jax.data.read_comparisons` skips ties and counts them.
  """
  rows = []
  for item, judgement in _said(records):
    ranks, texts = judgement.ranks or (), _texts(item)
    for i, j in zip(*ranked_pairs(np.array([ranks]))[1:], strict=True):
      two = {"responses": [texts[i], texts[j]], "ranks": [int(ranks[i] > ranks[j]), int(ranks[j] > ranks[i])]}
      rows.append({**_head(item, judgement), **two, **_ranking_tail(judgement)})
  return rows


def ratings(records: Records) -> list[Row]:
  """{"prompt", "response", "rating", ...}, one row for each rated response; 1 is the worst, 7 the best."""
  return [
    {**_head(item, judgement), "response": response.text, "rating": rating, **_tail(judgement)}
    for item, judgement in _said(records)
    for response, rating in zip(item.responses, judgement.ratings or (), strict=False)
    if rating is not None
  ]


def yes_no(records: Records) -> list[Row]:
  """{"prompt", "response", "label", ...}, one row for each response with an answer: true for yes, false for no."""
  return [
    {**_head(item, judgement), "response": response.text, "label": answer, **_tail(judgement)}
    for item, judgement in _said(records)
    for response, answer in zip(item.responses, judgement.yes_no or (), strict=False)
    if answer is not None
  ]


def critiques(records: Records) -> list[Row]:
  """{"prompt", "response", "critique", "rewrite", "flags", ...}, one row for each response with any of the three.

  A response with marked spans has a row too, with its "spans" [[start, end, label], ...] beside them.
  """
  rows = []
  for item, judgement in _said(records):
    size = len(item.responses)
    columns = zip(
      item.responses,
      judgement.critiques or [""] * size,
      judgement.rewrites or [""] * size,
      judgement.flags or [()] * size,
      judgement.spans or [()] * size,
      strict=True,
    )
    for response, critique, rewrite, flags, spans in columns:
      if critique or rewrite or flags or spans:
        words: Row = {"response": response.text, "critique": critique, "rewrite": rewrite, "flags": list(flags)}
        words |= {"spans": [list(span) for span in spans]} if spans else {}
        rows.append({**_head(item, judgement), **words, **_tail(judgement)})
  return rows


SHAPES: dict[str, Callable[[Records], list[Row]]] = {
  "rankings": rankings,
  "pairs": pairs,
  "ratings": ratings,
  "yes_no": yes_no,
  "critiques": critiques,
}


def _said(records: Records) -> Iterator[tuple[Item, Judgement]]:
  _, items, judgements = records
  by_id = {item.id: item for item in items}
  return ((by_id[judgement.item], judgement) for judgement in current(judgements) if judgement.skipped is None)


def _texts(item: Item) -> list[str]:
  return [response.text for response in item.responses]


def _head(item: Item, judgement: Judgement) -> Row:
  return {"prompt": prompt_value(item.prompt), "annotator": judgement.annotator}


def _tail(judgement: Judgement) -> Row:
  return {"item": judgement.item, "group": judgement.id}


def _ranking_tail(judgement: Judgement) -> Row:
  strength = {} if judgement.strength is None else {"strength": judgement.strength}
  return {**_tail(judgement), **strength}
