"""Judgements as the rows that learners read: those that answer their items (`records.answers`), and no skips.

Every row carries "annotator", "item" and "group", the id of its judgement: the rows of a judgement
are not independent, so that a learner keeps them in one batch element (Ouyang et al. 2022, arXiv 2203.02155, sec. 3.5).
Where they are known, it also carries the "source" of its response or the "sources" of its responses (`Response.source`:
which model and step gave them), and the "cluster" of its prompt; a final judgement has "final": true. `row_records`
makes records of the rows again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from rlhf_jax.data import prompt_value
from rlhf_jax.feedback.ranks import ranked_pairs
from rlhf_jax.feedback.records import Item, Judgement, Records, Response, answers

Row = dict[str, Any]


def rankings(records: Records) -> list[Row]:
  """{"prompt", "responses", "ranks", ...}, one row for each ranking; a preference has its "strength" beside it."""
  return [
    {**_head(item, judgement), **_compared(item, judgement, range(len(item.responses)), judgement.ranks)}
    for item, judgement in _said(records)
    if judgement.ranks is not None
  ]


def pairs(records: Records) -> list[Row]:
  """The rankings of K responses as pairs, one row for every two ranked responses; a tie has the ranks [0, 0].

  `rlhf_jax.data.read_comparisons` skips ties and counts them.
  """
  rows = []
  for item, judgement in _said(records):
    ranks = judgement.ranks or ()
    for i, j in zip(*ranked_pairs(np.array([ranks]))[1:], strict=True):
      order = (int(ranks[i] > ranks[j]), int(ranks[j] > ranks[i]))
      rows.append({**_head(item, judgement), **_compared(item, judgement, (i, j), order)})
  return rows


def ratings(records: Records) -> list[Row]:
  """{"prompt", "response", "rating", ...}, one row for each rated response; 1 is the worst, 7 the best."""
  return [
    {**_head(item, judgement), "response": response.text, "rating": rating, **_tail(item, judgement, response)}
    for item, judgement in _said(records)
    for response, rating in zip(item.responses, judgement.ratings or (), strict=False)
    if rating is not None
  ]


def yes_no(records: Records) -> list[Row]:
  """{"prompt", "response", "label", ...}, one row for each response with an answer: true for yes, false for no."""
  return [
    {**_head(item, judgement), "response": response.text, "label": answer, **_tail(item, judgement, response)}
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
        rows.append({**_head(item, judgement), **words, **_tail(item, judgement, response)})
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
  return ((by_id[judgement.item], judgement) for judgement in answers(judgements) if judgement.skipped is None)


def _head(item: Item, judgement: Judgement) -> Row:
  return {"prompt": prompt_value(item.prompt), "annotator": judgement.annotator}


def _compared(item: Item, judgement: Judgement, places: Iterable[int], ranks: Sequence[int]) -> Row:
  """The responses at some places of the item with their ranks, and what else a row of them has."""
  responses = [item.responses[place] for place in places]
  row: Row = {"responses": [response.text for response in responses], "ranks": list(ranks)}
  row |= {"item": item.id, "group": judgement.id}
  row |= {} if judgement.strength is None else {"strength": judgement.strength}
  sources = [response.source for response in responses]
  return {**row, **({"sources": sources} if any(sources) else {}), **_origin(item, judgement)}


def _tail(item: Item, judgement: Judgement, response: Response) -> Row:
  source = {"source": response.source} if response.source else {}
  return {"item": item.id, "group": judgement.id, **source, **_origin(item, judgement)}


def _origin(item: Item, judgement: Judgement) -> Row:
  return {**({"cluster": item.cluster} if item.cluster else {}), **({"final": True} if judgement.final else {})}
