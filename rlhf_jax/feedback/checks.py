"""What the fields of a record may hold: each check raises ValueError, naming the field and what was found."""

from __future__ import annotations

from typing import Any

MAX_ID = 200


def check_type(name: str, value: Any, kind: type) -> Any:
  """The value, whose type must be `kind` itself."""
  if type(value) is not kind:
    wanted = {str: "a string", bool: "true or false", tuple: "a list", list: "a list", dict: "an object"}[kind]
    raise ValueError(f"{name!r} must be {wanted}, found {value!r:.60}")
  return value


def check_text(name: str, value: Any) -> None:
  """A string that can be written down."""
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


def check_ranks(name: str, ranks: Any, size: int) -> None:
  """A ranking of `size` responses: 0 the best, -1 absent, at least two ranked."""
  check_length(name, ranks, size)
  if any(type(rank) is not int or rank < -1 for rank in ranks):
    raise ValueError(f"{name!r} must be integers from 0 (best), -1 for absent; found {list(ranks)}")
  if sum(rank >= 0 for rank in ranks) < 2:
    raise ValueError(f"{name!r} must rank at least two responses, found {list(ranks)}")
