"""Files of text and of JSON rows, plain or gzipped, with errors that name the file and the line."""

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

PathLike = str | os.PathLike[str]

_SPACE = re.compile(r"\s*")


class DataError(ValueError):
  """A data file the user can repair: the message names file and line, what was found and what to do."""


def read_text(path: PathLike) -> str:
  """The text of a UTF-8 file; a path that ends in `.gz` is decompressed.

  Raises:
    DataError: the file is missing, empty, not UTF-8, or its gzip stream is damaged or cut short.
  """
  try:
    data = Path(path).read_bytes()
    if data and Path(path).suffix == ".gz":
      data = gzip.decompress(data)
  except EOFError as error:
    raise DataError(f"{path}: the gzip stream ends early; copy or download the file again") from error
  except (gzip.BadGzipFile, zlib.error) as error:
    raise DataError(f"{path}: not a valid gzip file ({error}); copy it again, or drop the .gz") from error
  except OSError as error:
    raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = data.count(b"\n", 0, error.start) + 1
    raise DataError(
      f"{path}:{line}: byte 0x{data[error.start]:02x} is not valid UTF-8; convert the file to UTF-8 "
      f"(for a Latin-1 file: iconv -f latin1 -t utf-8)"
    ) from error
  if not text.strip():
    raise DataError(f"{path}: the file is empty; expected text")
  return text


def read_rows(path: PathLike) -> list[tuple[int, dict]]:
  """The rows of a JSONL file, or of a file that holds one JSON array, each with its line number (from 1).

  Raises:
    DataError: as `read_text`; a line is not a JSON object, or there are no rows.
  """
  text = read_text(path)
  numbered = _array_rows(text, path) if text.lstrip().startswith("[") else _line_rows(text, path)
  for line, row in numbered:
    if not isinstance(row, dict):
      raise DataError(f"{path}:{line}: found {type_name(row)}; a row must be a JSON object {{column: value}}")
  if not numbered:
    raise DataError(f"{path}: holds no rows; expected one JSON object a line, or an array of them")
  return numbered


def write_rows(path: PathLike, rows: Iterable[Mapping]) -> None:
  """Writes one JSON object a line, all or nothing; a path that ends in `.gz` is compressed.

  Raises:
    DataError: a row is not JSON (its number is named); the file that stood there before is untouched.
  """
  lines = []
  for number, row in enumerate(rows, start=1):
    try:
      lines.append(json.dumps(dict(row), ensure_ascii=False, allow_nan=False).encode() + b"\n")
    except (TypeError, ValueError) as error:
      raise DataError(f"{path}:{number}: the row cannot be written as JSON ({error})") from error
  data = b"".join(lines)
  # mtime=0: equal rows give equal bytes, so that a content hash of a written file is reproducible.
  write_bytes(path, gzip.compress(data, mtime=0) if Path(path).suffix == ".gz" else data)


def write_bytes(path: PathLike, data: bytes) -> None:
  """Writes a whole file through a temporary neighbour, so that a reader never sees half of it."""
  target = Path(path)
  target.parent.mkdir(parents=True, exist_ok=True)
  temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
  try:
    with open(temporary, "wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, target)
  finally:
    temporary.unlink(missing_ok=True)


def type_name(value: object) -> str:
  """The JSON name of a value's type, for error messages."""
  names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
  return names.get(type(value), "a number")


def _line_rows(text: str, path: PathLike) -> list[tuple[int, object]]:
  rows = []
  # Not splitlines(): it also cuts at U+2028 and U+0085, which JSON strings may hold unescaped.
  for number, line in enumerate(text.split("\n"), start=1):
    if not line.strip():
      continue
    try:
      rows.append((number, json.loads(line)))
    except (json.JSONDecodeError, RecursionError) as error:
      raise DataError(
        f"{path}:{number}: not one JSON object ({error}), found {line[:60]!r}; "
        f"repair or remove the line (a cut last line often means an interrupted copy)"
      ) from error
  return rows


def _array_rows(text: str, path: PathLike) -> list[tuple[int, object]]:
  """The elements of one JSON array, decoded one by one to know the line each of them starts on."""
  decode = json.JSONDecoder().raw_decode
  rows, line, counted = [], 1, 0
  position = _SPACE.match(text, text.index("[") + 1).end()
  try:
    while not text.startswith("]", position):
      line, counted = line + text.count("\n", counted, position), position
      value, position = decode(text, position)
      rows.append((line, value))
      position = _SPACE.match(text, position).end()
      if text.startswith(",", position):
        position = _SPACE.match(text, position + 1).end()
      elif not text.startswith("]", position):
        raise json.JSONDecodeError("Expecting ',' or ']'", text, position)
    if text[position + 1 :].strip():
      raise json.JSONDecodeError("Text after the end of the array", text, position + 1)
  except json.JSONDecodeError as error:
    raise DataError(
      f"{path}:{error.lineno}: not a valid JSON array ({error.msg} at column {error.colno}); "
      f"repair the file there (an error at its end often means an interrupted copy)"
    ) from error
  except RecursionError as error:
    raise DataError(f"{path}:{line}: the row is nested too deeply to be read; remove it") from error
  return rows
