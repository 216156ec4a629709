"""From judgements to the rows that learners read; only current judgements count, and skips say nothing here.

Every row carries "annotator", "item" and "group", the id of its judgement: what one person said of one item in one
go is not independent, so that a learner keeps it in one batch element (Ouyang et al. 2022, arXiv 2203.02155, sec. 3.5).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from rlhf_jax.feedback.records import Item, Judgement, Records, current

Row = dict[str, Any]


def rankings(records: Records) -> list[Row]:
  """{"prompt", "responses", "ranks", ...}, one row per ranking, as `rlhf_jax.data.read_comparisons` reads them."""
  return [
    {**_head(item, judgement), "responses": _texts(item), "ranks": list(judgement.ranks), **_tail(judgement)}
    for item, judgement in _said(records)
    if judgement.ranks is not None
  ]


def pairs(records: Records) -> list[Row]:
  """The K-way rankings as pairs, one row for every two ranked responses; ties stay, with the ranks [0, 0].

  A reader of comparisons skips the ties and counts them; one that learns from ties or strengths finds them.
  """
  return [
    {**_head(item, judgement), "responses": [texts[i], texts[j]], "ranks": ranks, **_tail(judgement)}
    for item, judgement in _said(records)
    if judgement.ranks is not None
    for texts in [_texts(item)]
    for i, j in itertools.combinations(range(len(texts)), 2)
    if (ranks := _two_ranks(judgement.ranks[i], judgement.ranks[j])) is not None
  ]


def ratings(records: Records) -> list[Row]:
  """{"prompt", "response", "rating", ...}, one row per rated response; 1 is the worst, 7 the best."""
  return [
    {**_head(item, judgement), "response": response.text, "rating": rating, **_tail(judgement)}
    for item, judgement in _said(records)
    for response, rating in zip(item.responses, judgement.ratings or (), strict=False)
    if rating is not None
  ]


def critiques(records: Records) -> list[Row]:
  """{"prompt", "response", "critique", "rewrite", "flags", ...} of every response that something was written of."""
  rows = []
  for item, judgement in _said(records):
    columns = [column or [empty] * len(item.responses) for column, empty in (
      (judgement.critiques, ""), (judgement.rewrites, ""), (judgement.flags, ()))]  # fmt: skip
    for response, critique, rewrite, flags in zip(item.responses, *columns, strict=True):
      if critique or rewrite or flags:
        words = {"response": response.text, "critique": critique, "rewrite": rewrite, "flags": list(flags)}
        rows.append({**_head(item, judgement), **words, **_tail(judgement)})
  return rows


SHAPES = {"rankings": rankings, "pairs": pairs, "ratings": ratings, "critiques": critiques}


def _said(records: Records) -> Iterator[tuple[Item, Judgement]]:
  _, items, judgements = records
  by_id = {item.id: item for item in items}
  return ((by_id[judgement.item], judgement) for judgement in current(judgements) if judgement.skipped is None)


def _texts(item: Item) -> list[str]:
  return [response.text for response in item.responses]


def _two_ranks(first: int, second: int) -> list[int] | None:
  if first < 0 or second < 0:
    return None
  return [int(first > second), int(second > first)]


def _head(item: Item, judgement: Judgement) -> Row:
  return {"prompt": item.prompt, "annotator": judgement.annotator}


def _tail(judgement: Judgement) -> Row:
  strength = {} if judgement.strength is None else {"strength": judgement.strength}
  return {"item": judgement.item, "group": judgement.id, **strength}
