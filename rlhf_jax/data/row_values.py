"""Values of a row, each checked for its type: what is wrong is told with the row's place and what was found there."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_jax.data.dialogue import ASSISTANT, HUMAN, SYSTEM, UnusableDialogue, join_dialogue, split_dialogue
from rlhf_jax.data.files import RowError, type_name

_ROLES = {"user": "Human", "assistant": "Assistant", "system": "System"}


def schema_error(message: str) -> RowError:
  """A row whose columns or types are wrong."""
  return RowError(message, "schema")


def rename(row: dict, columns: Mapping[str, str], where: str) -> dict:
  """The row with its columns under our names; theirs may lead into objects and lists, as in "answers.text.0".

  Raises:
    RowError: naming the column that the row lacks, and those it has.
  """
  return {**row, **{ours: _lookup(row, theirs, ours, where) for ours, theirs in columns.items()}}


def value(row: dict, column: str, kind: type, where: str) -> Any:
  """The value of a column, of the given type. Raises RowError; a string must be valid Unicode."""
  if column not in row:
    raise schema_error(f"{where}: no {column!r} among {listing(row)}; add it")
  found = row[column]
  if type(found) is not kind and not (kind is float and type(found) is int):  # not isinstance: True is no integer here
    kinds = {str: "a string", int: "an integer", float: "a number", list: "a list", dict: "an object"}
    raise schema_error(f"{where}: {column!r} must be {kinds[kind]}, found {type_name(found)} ({str(found)[:40]})")
  if kind is str:
    _check_unicode(found, column, where)
  return found


def elements(row: dict, column: str, kind: type, where: str) -> list:
  """The elements of a list column, each checked as in `value`."""
  values = value(row, column, list, where)
  return [value({f"{column}[{i}]": item}, f"{column}[{i}]", kind, where) for i, item in enumerate(values)]


def prompt(row: dict, where: str) -> str:
  """The column "prompt": a bare instruction, a dialogue up to the assistant's turn, or its messages."""
  if isinstance(row.get("prompt"), list):
    return messages(row, "prompt", where) + ASSISTANT
  found = value(row, "prompt", str, where)
  # Taken for a bare instruction it would be wrapped a second time, and nothing downstream would notice.
  if found.startswith((HUMAN, SYSTEM)) and not found.endswith(ASSISTANT):
    raise schema_error(f"{where}: 'prompt' is a dialogue that ends in {found[-20:]!r}; end it in {ASSISTANT!r}")
  return found


def response(row: dict, column: str, where: str) -> str:
  """A column with a bare answer, or with one message of the assistant."""
  if isinstance(row.get(column), list) and row[column] and isinstance(row[column][0], dict):
    turns = elements(row, column, dict, where)
    if len(turns) != 1 or turns[0].get("role") != "assistant":
      raise schema_error(f"{where}: {column!r} beside a prompt must be one message of the assistant")
    return value(turns[0], "content", str, f"{where}: {column}[0]")
  found = value(row, column, str, where)
  if found.startswith(HUMAN):
    raise schema_error(f"{where}: {column!r} repeats the dialogue; give the answer alone or drop 'prompt'")
  return found


def dialogue(row: dict, column: str, where: str) -> str:
  """A column with a whole dialogue in the form of HH, or with its messages."""
  if isinstance(row.get(column), list):
    return messages(row, column, where)
  found = value(row, column, str, where)
  try:
    split_dialogue(found)
  except ValueError as error:
    raise schema_error(f"{where}: {column!r} is {error}; for a bare answer add a 'prompt' column") from error
  return found


def messages(row: dict, column: str, where: str) -> str:
  """A column of messages {role, content} as one dialogue.

  Raises:
    RowError: a message has no text or another role than user, assistant or system.
    UnusableDialogue: what somebody wrote spells a turn of the dialogue, and would be taken for one.
  """
  turns = []
  for i, message in enumerate(elements(row, column, dict, where)):
    place = f"{where}: {column}[{i}]"
    role = value(message, "role", str, place)
    if role not in _ROLES:
      raise schema_error(f"{place}: 'role' must be {', '.join(_ROLES)}, found {role!r}")
    turns.append((_ROLES[role], value(message, "content", str, place)))
  if not turns:
    raise UnusableDialogue("no messages")
  try:
    return join_dialogue(turns)
  except UnusableDialogue:
    raise
  except ValueError as error:
    raise schema_error(f"{where}: {column!r}: {error}") from error


def annotator(row: dict, where: str) -> str:
  """The optional column "annotator"."""
  return value(row, "annotator", str, where) if "annotator" in row else ""


def listing(columns: Sequence[str] | Mapping) -> str:
  """{a, b, c}"""
  return "{" + ", ".join(columns) + "}"


def _lookup(row: dict, path: str, ours: str, where: str) -> Any:
  found: Any = row
  for part in [path] if path in row else path.split("."):
    if isinstance(found, dict) and part in found:
      found = found[part]
    elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
      found = found[int(part)]
    else:
      has = listing(found) if isinstance(found, dict) else type_name(found)
      raise schema_error(f"{where}: no column {path!r}, which the config names for {ours!r}; found {has}")
  return found


def _check_unicode(text: str, column: str, where: str) -> None:
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise schema_error(
      f"{where}: {column!r} holds the unpaired surrogate {text[error.start]!r} (character {error.start}); "
      f"remove it or write the whole character"
    ) from error
