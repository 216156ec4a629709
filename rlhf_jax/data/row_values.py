"""Values of a row, each checked for its type; an error names the row's place, the column and the value found there."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from rlhf_jax.data.files import Row, RowError, type_name

T = TypeVar("T")

MAX_INTEGER = (1 << 63) - 1

# Keys that change what a row or a message means and cannot be honoured: why, or what to do instead.
_MEDIA = dict.fromkeys(("image", "images", "video", "videos", "audio", "audios"), "models here read text alone")
REFUSED_OF_ROW = {
  **_MEDIA,
  "functions": "give them as 'tools'",
  "documents": "write them into the prompt",
  "chat_template": "a chat template belongs to the tokenizer",
  "chat_template_kwargs": "the chat template gets the same values for every row",
  "margin": "every pair counts alike; strengths of preference are learnt from records of feedback",
  "weight": "every row counts alike; a turn of the assistant may have a 'weight' of 0 or 1",
}
REFUSED_OF_MESSAGE = {
  **_MEDIA,
  "function_call": "give it as 'tool_calls'",
  **dict.fromkeys(("train", "training"), "turns that are not trained on are marked by 'weight': 0"),
}


def schema_error(message: str) -> RowError:
  """The error of a row whose columns or types are wrong."""
  return RowError(message, "schema")


def rename(row: Row, columns: Mapping[str, str], where: str) -> Row:
  """The row with further columns: `columns` maps each new name to a column of the row, to a path into its objects and
  lists, such as "answers.text.0", or to "", which leaves the column out.

  Raises:
    RowError: the row lacks one of these columns; the message names it and the columns that there are.
  """
  return {**row, **{name: _lookup(row, path, name, where) if path else None for name, path in columns.items()}}


def check_keys(row: Row, refused: Mapping[str, str], where: str) -> None:
  """Refuses the keys of `refused` ({key: reason}) that are not absent from a row or message. Raises RowError."""
  if refused.keys().isdisjoint(row):
    return
  for name in row:
    if name in refused and not is_absent(row[name]):
      found = f"{where}: {name!r} changes what is meant and cannot be honoured, found {str(row[name])[:40]}"
      raise schema_error(f"{found}: {refused[name]}; leave it out (of a source by columns={{{name!r}: ''}})")


def is_absent(found: Any) -> bool:
  """Whether a value of an optional key says nothing: null, or an empty text, list or object."""
  return found is None or (isinstance(found, (str, list, dict)) and not found)


def value(row: Row, column: str, kind: type[T], where: str) -> T:
  """The value of a column, which must have the type `kind`; a string must be valid Unicode. Raises RowError."""
  if column not in row:
    raise schema_error(f"{where}: no {column!r} among {listing(row)}; add it")
  found = row[column]
  given = type(found)  # not isinstance, to which True is an integer
  if given is not kind and not (kind is float and given is int):
    kinds = {
      str: "a string",
      int: "an integer",
      float: "a number",
      bool: "true or false",
      list: "a list",
      dict: "an object",
    }
    raise schema_error(f"{where}: {column!r} must be {kinds[kind]}, found {type_name(found)} ({str(found)[:40]})")
  if isinstance(found, str):
    _check_unicode(found, column, where)
  if given is int and abs(found) > MAX_INTEGER:
    raise schema_error(
      f"{where}: {column!r} is an integer of {len(str(abs(found)))} digits, beyond what a number holds"
    )
  return found


def elements(row: Row, column: str, kind: type[T], where: str) -> list[T]:
  """The elements of a column of lists, each checked as in `value`."""
  values = value(row, column, list, where)
  return [value({f"{column}[{i}]": item}, f"{column}[{i}]", kind, where) for i, item in enumerate(values)]


def annotator(row: Row, where: str) -> str:
  """The optional column "annotator"; "" where a row has none. Raises RowError."""
  return optional_text(row, "annotator", where)


def optional_text(row: Row, column: str, where: str) -> str:
  """The text of a column that a row may lack or have as null; "" where it does. Raises RowError."""
  return "" if row.get(column) is None else value(row, column, str, where)


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
