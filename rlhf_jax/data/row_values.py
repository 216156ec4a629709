"""Values of a row, each checked for its type; an error names the row's place, the column and the value found there."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from rlhf_jax.data.dialogue import ASSISTANT, HUMAN, SYSTEM, UnusableDialogue, join_dialogue, split_dialogue
from rlhf_jax.data.files import Row, RowError, type_name

T = TypeVar("T")

_ROLES = {"user": "Human", "assistant": "Assistant", "system": "System"}


def schema_error(message: str) -> RowError:
  """The error of a row whose columns or types are wrong."""
  return RowError(message, "schema")


def rename(row: Row, columns: Mapping[str, str], where: str) -> Row:
  """The row with further columns: `columns` maps each new name to a column of the row, or to a path into its objects
  and lists, such as "answers.text.0".

  Raises:
    RowError: the row lacks one of these columns; the message names it and the columns that there are.
  """
  return {**row, **{name: _lookup(row, path, name, where) for name, path in columns.items()}}


def value(row: Row, column: str, kind: type[T], where: str) -> T:
  """The value of a column, which must have the type `kind`; a string must be valid Unicode. Raises RowError."""
  if column not in row:
    raise schema_error(f"{where}: no {column!r} among {listing(row)}; add it")
  found = row[column]
  given = type(found)  # not isinstance, to which True is an integer
  if given is not kind and not (kind is float and given is int):
    kinds = {str: "a string", int: "an integer", float: "a number", list: "a list", dict: "an object"}
    raise schema_error(f"{where}: {column!r} must be {kinds[kind]}, found {type_name(found)} ({str(found)[:40]})")
  if isinstance(found, str):
    _check_unicode(found, column, where)
  return found


def elements(row: Row, column: str, kind: type[T], where: str) -> list[T]:
  """The elements of a column of lists, each checked as in `value`."""
  values = value(row, column, list, where)
  return [value({f"{column}[{i}]": item}, f"{column}[{i}]", kind, where) for i, item in enumerate(values)]


def prompt(row: Row, where: str) -> str:
  """The column "prompt": a bare instruction, a dialogue up to the assistant's turn, or messages. Raises RowError."""
  if isinstance(row.get("prompt"), list):
    return messages(row, "prompt", where) + ASSISTANT
  found = value(row, "prompt", str, where)
  # Without this check such a dialogue is taken for a bare instruction and wrapped again, unnoticed.
  if found.startswith((HUMAN, SYSTEM)) and not found.endswith(ASSISTANT):
    raise schema_error(f"{where}: 'prompt' is a dialogue that ends in {found[-20:]!r}; end it in {ASSISTANT!r}")
  return found


def response(row: Row, column: str, where: str) -> str:
  """A column with a bare answer, or with one message of the assistant. Raises RowError."""
  if isinstance(row.get(column), list) and row[column] and isinstance(row[column][0], dict):
    turns = elements(row, column, dict, where)
    if len(turns) != 1 or turns[0].get("role") != "assistant":
      raise schema_error(f"{where}: {column!r} beside a prompt must be one message of the assistant")
    return value(turns[0], "content", str, f"{where}: {column}[0]")
  found = value(row, column, str, where)
  if found.startswith(HUMAN):
    raise schema_error(f"{where}: {column!r} repeats the dialogue; give the answer alone or drop 'prompt'")
  return found


def dialogue(row: Row, column: str, where: str) -> str:
  """A column with a whole dialogue, in the form of Anthropic's HH data or as messages. Raises RowError."""
  if isinstance(row.get(column), list):
    return messages(row, column, where)
  found = value(row, column, str, where)
  try:
    split_dialogue(found)
  except ValueError as error:
    raise schema_error(f"{where}: {column!r} is {error}; for a bare answer add a 'prompt' column") from error
  return found


def messages(row: Row, column: str, where: str) -> str:
  r"""A column of messages {role, content} as one dialogue.

  Raises:
    RowError: a message has no text, or its role is none of user, assistant and system.
    UnusableDialogue: there are no messages, or a text holds the mark of a turn ("\n\nHuman:") and would become two
    turns.
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


def annotator(row: Row, where: str) -> str:
  """The optional column "annotator"; "" where a row has none. Raises RowError."""
  return value(row, "annotator", str, where) if "annotator" in row else ""


def listing(columns: Iterable[str]) -> str:
  """The names of columns for a message: {a, b, c}."""
  return "{" + ", ".join(columns) + "}"


def _lookup(row: Row, path: str, name: str, where: str) -> Any:
  found: Any = row
  for part in [path] if path in row else path.split("."):
    if isinstance(found, dict) and part in found:
      found = found[part]
    elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
      found = found[int(part)]
    else:
      has = listing(found) if isinstance(found, dict) else type_name(found)
      raise schema_error(f"{where}: no column {path!r}, which the config names for {name!r}; found {has}")
  return found


def _check_unicode(text: str, column: str, where: str) -> None:
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise schema_error(
      f"{where}: {column!r} holds the unpaired surrogate {text[error.start]!r} (character {error.start}); "
      f"remove it or write the whole character"
    ) from error
