"""Three public sets of human ratings as records of feedback, with the numbers that records do not hold beside them.

SQuALITY   squality_human_eval.jsonl.gz, a row for each story: answers of three systems to questions, each rated from 0
           to 100 and ranked by three of four workers, with comments on spans (Wang et al. 2022, arXiv 2205.11465)
WMT 2023   wmt23_zhen_side_by_side.jsonl.gz, a row for each segment: ten translations, each read by three of eight
           professionals, with the penalties of their MQM errors (Freitag et al. 2023); `rlhf_jax.data.wmt` reads it
VADER      vader_ratings.tsv.gz, a line for each snippet of four sources: its text and ratings from -4 to 4 by raters
           who are not linked between snippets (Hutto and Gilbert 2014); `rlhf_jax.data.vader` reads it
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.data import DataError
from rlhf_jax.data.wmt import Segment
from rlhf_jax.feedback.ranks import dense_ranks
from rlhf_jax.feedback.records import Annotator, Item, Judgement, Records, Response

ASPECTS = {"correctness": "correctness", "coverage": "selection", "overall": "overall"}  # -> its name in the file
NEGATIVE = "negative"  # flag of a rating below 0


class Squality(NamedTuple):
  """Rankings of Q questions' answers by S systems, each by W workers; ranks are those of the overall ratings."""

  records: Records
  systems: list[str]
  ratings: np.ndarray
  """Ratings from 0 to 100: f64[Q, S, W, 3], the aspects in the order of `ASPECTS`."""


def read_squality(path: Path) -> Squality:
  """The records and ratings of a file. Raises DataError naming file and line."""
  items, judgements, ratings = [], [], []
  people: dict[str, Annotator] = {}
  systems: list[str] = []
  for where, row in _json_rows(path):
    for number, answers in _checked(where, _questions, row):
      name = f"{row.get('passage-id')}/{number}"
      systems = systems or list(answers)
      item, said, given = _checked(where, _question, name, answers, systems)
      items.append(item)
      judgements += said
      ratings.append(given)
      people |= {judgement.annotator: Annotator(judgement.annotator) for judgement in said}
  if len({given.shape for given in ratings}) != 1:
    raise DataError(f"{path}: every question needs as many reviews as the first, which is not so")
  return Squality((list(people.values()), items, judgements), systems, np.array(ratings))


def _questions(row: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
  return list(row["questions"].items())


def _question(name: str, answers: dict[str, Any], systems: list[str]) -> tuple[Item, list[Judgement], np.ndarray]:
  if list(answers) != systems:
    raise ValueError(f"question {name} has answers of {', '.join(answers)}, not of {', '.join(systems)}")
  item = Item(name, f"Question {name}", tuple(Response(answers[s]["response"], {"model": s}) for s in systems))
  by_worker: dict[str, list[dict]] = {}
  for system in systems:
    for review in answers[system]["reviews"]:
      by_worker.setdefault(str(review["worker_id"]), []).append(review)
  judgements, ratings = [], []
  for worker, reviews in by_worker.items():
    if len(reviews) != len(systems):
      raise ValueError(f"question {name}: worker {worker} reviewed {len(reviews)} of {len(systems)} answers")
    given = np.array([[float(review[f"{key}-rating"]) for key in ASPECTS.values()] for review in reviews])  # [S, 3]
    if not ((given >= 0) & (given <= 100)).all():
      raise ValueError(f"question {name}: a rating of worker {worker} is not between 0 and 100")
    comments = tuple(
      "\n".join(f"{note['selection']}: {' '.join(note['annotation'])}" for note in review["annotations"])
      for review in reviews
    )
    ranks = tuple(dense_ranks(given[:, 2][None])[0].tolist())
    order = tuple(range(len(systems)))
    judgements.append(Judgement(f"{name}/{worker}", name, f"worker {worker}", order, ranks=ranks, critiques=comments))
    ratings.append(given)
  return item, judgements, np.array(ratings).swapaxes(0, 1)


def wmt_records(segments: Sequence[Segment]) -> Records:
  """The records of the segments: fewer penalty points rank higher, equal penalties tie."""
  people: dict[str, Annotator] = {}
  items, judgements = [], []
  for segment in segments:
    responses = tuple(Response(text, {"model": system}) for system, text in segment.translations.items())
    items.append(Item(segment.name, segment.source, responses))
    order = tuple(range(len(responses)))
    for rater, points in zip(segment.raters, segment.penalties, strict=True):
      people.setdefault(rater, Annotator(rater))
      ranks = tuple(dense_ranks(-points[None])[0].tolist())
      judgements.append(Judgement(f"{segment.name}/{rater}", segment.name, rater, order, ranks=ranks))
  return list(people.values()), items, judgements


def vader_records(source: str, snippets: dict[str, tuple[str, np.ndarray]]) -> Records:
  """The records of the snippets of a source.

  A rating of a record goes from 1 to 7, one of VADER from -4 to 4. It is kept as its strength, 1 for 0 up to 5 for 4,
  with the flag "negative" below 0, so that `valences` gives it back. The k-th rater of one snippet is not the k-th of
  the next: the annotators are places in the lists, and no person.
  """
  most = max(len(ratings) for _, ratings in snippets.values())
  people = [Annotator(f"rating {k + 1}") for k in range(most)]
  items, judgements = [], []
  for name, (text, ratings) in snippets.items():
    item = Item(f"{source}/{name}", "How positive is this text?", (Response(text, {"file": source}),))
    items.append(item)
    for k, rating in enumerate(ratings):
      flags = ((NEGATIVE,),) if rating < 0 else None
      strength = (1 + abs(int(rating)),)
      judgements.append(Judgement(f"{item.id}/{k}", item.id, people[k].id, (0,), ratings=strength, flags=flags))
  return people, items, judgements


def valences(records: Records) -> list[np.ndarray]:
  """The ratings from -4 to 4 of each item of `vader_records`, f64[n], in the order of the items."""
  found: dict[str, list[float]] = {item.id: [] for item in records[1]}
  for judgement in records[2]:
    strength = (judgement.ratings or (None,))[0]
    if strength is not None:
      found[judgement.item].append((1.0 - strength) if judgement.flags else strength - 1.0)
  return [np.array(ratings) for ratings in found.values()]


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
  for where, line in _lines(path):
    row = _checked(where, json.loads, line)
    if not isinstance(row, dict):
      raise DataError(f"{where}: expected a JSON object")
    yield where, row


def _lines(path: Path) -> Iterator[tuple[str, str]]:
  """("file:line", line without its end) of a gzipped file. Raises DataError where it cannot be read."""
  try:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
      for number, line in enumerate(file, start=1):
        yield f"{path}:{number}", line.rstrip("\n")
  except (OSError, EOFError, UnicodeDecodeError) as error:
    raise DataError(
      f"{path}: cannot be read ({error}); see experiments/real_annotators for where it is from"
    ) from error


def _checked(where: str, read: Callable[..., Any], *given: Any) -> Any:
  """What `read` returns for what is given; its errors are raised as DataError that starts with the place."""
  try:
    return read(*given)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
    raise DataError(f"{where}: {reason}") from error
