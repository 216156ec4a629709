"""Checks of the fields of a record: each raises ValueError, naming the field, what was found and what is accepted."""

from __future__ import annotations

import datetime
import math
from typing import Any

MAX_ID = 200  # characters
RATINGS = range(1, 8)  # 1 worst, 7 best
STRENGTHS = range(1, 4)  # 1 slightly better, 2 better, 3 much better


def check_type(name: str, value: Any, kind: type) -> Any:
  """Returns the value, whose type must be `kind` itself and no subclass: true is no integer here."""
  if type(value) is not kind:
    wanted = {str: "a string", bool: "true or false", tuple: "a list", list: "a list", dict: "an object"}[kind]
    raise ValueError(f"{name!r} must be {wanted}, found {value!r:.60}")
  return value


def check_text(name: str, value: Any) -> None:
  """A string that can be encoded as UTF-8."""
  check_type(name, value, str)
  try:
    value.encode()
  except UnicodeEncodeError as error:
    found = f"{value[error.start]!r} (character {error.start})"
    raise ValueError(f"{name!r} holds the unpaired surrogate {found}; write the whole character") from error


def check_id(name: str, value: Any) -> None:
  """1 to MAX_ID printable characters."""
  check_text(name, value)
  if not value.strip() or len(value) > MAX_ID or not value.isprintable():
    raise ValueError(f"{name!r} must be 1 to {MAX_ID} printable characters, found {value!r:.60}")


def check_length(name: str, values: Any, size: int) -> None:
  """A tuple with one entry for each of `size` responses."""
  check_type(name, values, tuple)
  if len(values) != size:
    raise ValueError(f"{name!r} has {len(values)} entries for {size} responses; give one per response")


def check_order(name: str, order: Any) -> int:
  """A permutation of 0..K-1 with K >= 1; returns K."""
  size = len(check_type(name, order, tuple))
  if not size or any(type(i) is not int for i in order) or sorted(order) != list(range(size)):
    raise ValueError(f"{name!r} must be a permutation of 0..K-1, found {list(order)}")
  return size


def check_ranks(name: str, ranks: Any, size: int) -> None:
  """A ranking of `size` responses: 0 is the best, equal ranks tie, -1 is absent; at least two are ranked."""
  check_length(name, ranks, size)
  if any(type(rank) is not int or rank < -1 for rank in ranks):
    raise ValueError(f"{name!r} must be integers from 0 (best), -1 for absent; found {list(ranks)}")
  if sum(rank >= 0 for rank in ranks) < 2:
    raise ValueError(f"{name!r} must rank at least two responses, found {list(ranks)}")


def check_ratings(name: str, ratings: Any, size: int) -> None:
  """Ratings of `size` responses: 1 to 7, None where a response is not rated."""
  check_length(name, ratings, size)
  for i, rating in enumerate(ratings):
    if rating is not None and (type(rating) is not int or rating not in RATINGS):
      raise ValueError(f"'{name}[{i}]' must be 1 to 7 or null, found {rating!r}")


def check_yes_no(name: str, answers: Any, size: int) -> None:
  """Answers for `size` responses: true, false, or None where there is none."""
  check_length(name, answers, size)
  for i, answer in enumerate(answers):
    if answer is not None and type(answer) is not bool:
      raise ValueError(f"'{name}[{i}]' must be true, false or null, found {answer!r:.60}")


def check_spans(name: str, spans: Any, size: int) -> None:
  """A tuple of spans (start, end, label) with 0 <= start < end for each of `size` responses."""
  check_length(name, spans, size)
  for i, of_response in enumerate(spans):
    for j, span in enumerate(check_type(f"{name}[{i}]", of_response, tuple)):
      if type(span) is not tuple or [type(part) for part in span] != [int, int, str] or not 0 <= span[0] < span[1]:
        raise ValueError(f"'{name}[{i}][{j}]' must be [start, end, label] with 0 <= start < end, found {span!r:.60}")
      check_id(f"{name}[{i}][{j}]", span[2])


def check_strength(name: str, strength: Any, ranks: Any) -> None:
  """A strength of 1 to 3, which only a ranking of two responses with a winner can have."""
  if type(strength) is not int or strength not in STRENGTHS:
    raise ValueError(f"{name!r} must be 1 to 3 or null, found {strength!r}")
  if ranks is None or len(ranks) != 2 or ranks[0] == ranks[1]:
    raise ValueError(f"{name!r} needs two responses and a winner: set it to null for a tie or a longer ranking")


def check_texts(name: str, texts: Any, size: int) -> None:
  """One text for each of `size` responses."""
  check_length(name, texts, size)
  for i, text in enumerate(texts):
    check_text(f"{name}[{i}]", text)


def check_flags(name: str, flags: Any, size: int) -> None:
  """A tuple of flags, each an id, for each of `size` responses."""
  check_length(name, flags, size)
  for i, of_response in enumerate(flags):
    for j, flag in enumerate(check_type(f"{name}[{i}]", of_response, tuple)):
      check_id(f"{name}[{i}][{j}]", flag)


def check_seconds(name: str, seconds: Any) -> None:
  """A finite number >= 0."""
  if type(seconds) not in (int, float) or not math.isfinite(seconds) or seconds < 0:
    raise ValueError(f"{name!r} must be a finite number >= 0, found {seconds!r}")


def check_time(name: str, time: Any) -> None:
  """A time in ISO 8601, in UTC."""
  check_type(name, time, str)
  try:
    offset = datetime.datetime.fromisoformat(time).utcoffset()
  except ValueError as error:
    raise ValueError(f"{name!r} must be a time in ISO 8601, found {time!r}") from error
  if offset != datetime.timedelta():
    raise ValueError(f"{name!r} must be in UTC (end in Z), found {time!r}")
