"""Files of text and of JSON rows, plain or gzipped, with errors that name the file and the line."""

import codecs
import contextlib
import gzip
import io
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rlhf_jax.writing import write_bytes

PathLike = str | os.PathLike[str]
Row = dict[str, Any]  # {column: value}

MAX_ROW = 64 << 20  # bytes of a line, or of an element of a JSON array: more is taken for a fault of the file
# A .gz file may unpack to so many bytes, or else to so many times what was read of it. Deflate reaches a ratio of 1032,
# texts hardly 20.
UNPACKED_BYTES, UNPACKED_RATIO = 1 << 20, 100
_CHUNK = 1 << 16  # bytes of a JSON array that are read at once
_PACKED = 1 << 13  # bytes of a .gz file that are read at once


class DataError(ValueError):
  """A fault of a data file that the user can repair: the message names file and line, what was found and what to do."""


class EmptyFileError(DataError):
  """A file holds nothing, which is no fault of one file among several."""


class _Unpacked(io.RawIOBase):
  """The bytes of a gzip stream, up to a bound: 1 MB that unpacks to 1 GB is no data but an attack, or a mistake.

  `gzip` reads ahead (by 128 KB for every member of the stream, from Python 3.12 on), which may unpack to 1032 times as
  much; the bound here is of the bytes that were unpacked.
  """

  def __init__(self, packed: BinaryIO, path: PathLike) -> None:
    self.packed, self.path = packed, path
    self.rest, self.used, self.done = b"", 0, 0  # bytes read and not unpacked; number of bytes unpacked; of the result
    self.member: Any = None  # the decompressor of the current member of the stream

  def readable(self) -> bool:
    """Always."""
    return True

  def readinto(self, buffer: Any) -> int:
    """Raises DataError beyond the bound, zlib.error and EOFError for a damaged and for a cut stream."""
    piece = b""
    while not piece:
      data = self.rest or self.packed.read(_PACKED)
      if self.member is None or self.member.eof:
        if not data:
          return 0
        data = self.rest = data.lstrip(b"\0") if self.used else data  # zeros may stand behind a member
        if not data:
          continue
        self.member = zlib.decompressobj(zlib.MAX_WBITS | 16)
      if not data:
        raise EOFError
      piece = self.member.decompress(data, len(buffer))
      self.rest = self.member.unused_data if self.member.eof else self.member.unconsumed_tail
      self.used += len(data) - len(self.rest)
    self.done += len(piece)
    if self.done > max(UNPACKED_BYTES, UNPACKED_RATIO * self.used):
      raise DataError(
        f"{self.path}: unpacks to more than {UNPACKED_RATIO} times its size; if that is meant, unpack it and name the "
        "unpacked file"
      )
    buffer[: len(piece)] = piece
    return len(piece)


class RowError(DataError):
  """A fault of one row. A source may leave out rows with faults of some `kind` ("malformed", "schema", ...)."""

  def __init__(self, message: str, kind: str) -> None:
    super().__init__(message)
    self.kind = kind


def read_text(path: PathLike) -> str:
  """The text of a UTF-8 file; a path that ends in `.gz` is decompressed.

  Raises:
    DataError: the file is missing, empty, not UTF-8, or its gzip stream is damaged or cut short.
  """
  with open_file(path) as file:
    data = file.read()
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise not_utf8(path, data.count(b"\n", 0, error.start) + 1, data[error.start]) from error
  if not text.strip():
    raise _empty(path)
  return text


@contextlib.contextmanager
def open_file(path: PathLike) -> Iterator[io.BufferedIOBase]:
  """Opens a file of bytes; one that is compressed by gzip, or named `.gz`, is decompressed as it is read.

  Raises:
    DataError: here, or while the bytes are read: the file is missing, or its gzip stream is damaged or cut short, or
      unpacks to more than UNPACKED_BYTES and more than UNPACKED_RATIO times its size.
  """
  try:
    with open(path, "rb") as file:
      yield io.BufferedReader(_Unpacked(file, path), _CHUNK) if _is_packed(path, file) else file
  except EOFError as error:
    raise DataError(f"{path}: the gzip stream ends early; copy or download the file again") from error
  except zlib.error as error:
    raise DataError(f"{path}: not a valid gzip file ({error}); copy it again, or drop the .gz") from error
  except OSError as error:
    raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _is_packed(path: PathLike, file: io.BufferedReader) -> bool:
  """Whether an open file is, or by its name should be, compressed by gzip, whose sign begins no text and no table."""
  return Path(path).suffix == ".gz" or file.peek(2)[:2] == b"\x1f\x8b"


def read_rows(path: PathLike) -> list[tuple[int, Row]]:
  """The rows of a JSONL file, or of a file that holds one JSON array, each with its line number (from 1).

  Raises:
    DataError: as `read_text`; a line is not a JSON object, or there are no rows.
  """
  rows = []
  for line, row in stream_rows(path):
    if isinstance(row, RowError):
      raise row
    rows.append((line, row))
  return rows


def stream_rows(path: PathLike, start: int = 0) -> Iterator[tuple[int, Row | RowError]]:
  """The rows of `read_rows` without the first `start`, read one by one; a faulty line gives its RowError.

  Raises:
    DataError: while the file is read: it cannot be read or holds no rows, or its JSON array is broken.
  """
  as_array = is_array(path)
  with open_file(path) as file:
    if as_array:
      rows = itertools.islice(_array_rows(file, path), start, None)
      yield from ((line, _checked(row, path, line)) for line, row in rows)
      return
    for number, line in itertools.islice(_numbered_lines(file, path), start, None):
      yield number, _line_row(line, path, number)


def is_array(path: PathLike) -> bool:
  """Whether a JSON file holds one array, rather than one row a line. Raises DataError, also for an empty file."""
  with open_file(path) as file:
    head = next((line for _, line in _numbered_lines(file, path)), None)
  if head is None:
    raise _empty(path)
  return head.lstrip().startswith(b"[")


def stream_lines(path: PathLike, start: int = 0) -> Iterator[tuple[int, str | RowError]]:
  """(line number, text) of the lines of a text file that are not blank, without the first `start` of them.

  A line that is not UTF-8 gives its RowError. Raises DataError while the file is read.
  """
  with open_file(path) as file:
    for number, line in itertools.islice(_numbered_lines(file, path), start, None):
      try:
        yield number, line.rstrip(b"\r\n").decode()
      except UnicodeDecodeError as error:
        yield number, not_utf8(path, number, line[error.start])


def count_lines(path: PathLike) -> int:
  """The number of rows of a file with one row a line: its lines that are not blank. Raises DataError."""
  with open_file(path) as file:
    return sum(1 for _ in _numbered_lines(file, path))


def write_rows(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
  """Writes one JSON object a line, all or nothing; a path that ends in `.gz` is compressed.

  Raises:
    DataError: a row is not JSON (the message names its number); a file that stood there before is untouched.
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


def write_json(path: PathLike, value: object) -> None:
  """Writes one JSON value, at once or not at all."""
  write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: PathLike) -> Any:
  """The JSON value that a file holds.

  Raises:
    DataError: the file cannot be read, or it is no whole JSON value: it was cut, or edited by hand.
  """
  with open_file(path) as file:
    data = file.read()
  try:
    return json.loads(data.decode())
  except (ValueError, RecursionError) as error:
    raise DataError(f"{path} is not valid JSON ({error}): it is cut or damaged; restore it from a copy") from error


def write_text(path: PathLike, text: str) -> None:
  """Writes a text as UTF-8, at once or not at all."""
  write_bytes(path, text.encode())


def type_name(value: object) -> str:
  """The JSON name of a value's type, for error messages."""
  names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
  return names.get(type(value), "a number")


def not_utf8(path: PathLike, line: int, byte: int) -> RowError:
  """The error of a line that holds a byte which is not UTF-8."""
  message = (
    f"{path}:{line}: byte 0x{byte:02x} is not valid UTF-8; convert the file to UTF-8 "
    f"(for a Latin-1 file: iconv -f latin1 -t utf-8)"
  )
  return RowError(message, "malformed")


def _too_long(what: str) -> str:
  return f"a {what} of more than {MAX_ROW >> 20} MB; split the file into rows, one JSON object a line"


def _empty(path: PathLike) -> DataError:
  return EmptyFileError(f"{path}: the file is empty; expected text")


def _numbered_lines(file: io.BufferedIOBase, path: PathLike) -> Iterator[tuple[int, bytes]]:
  """(number from 1, bytes) of the lines that are not blank, without a byte order mark. Raises DataError.

  Lines end at a line feed alone: str.splitlines also cuts at U+2028 and U+0085, which JSON strings may hold unescaped.
  """
  for number, line in enumerate(iter(lambda: file.readline(MAX_ROW + 1), b""), start=1):
    if len(line) > MAX_ROW:
      raise DataError(f"{path}:{number}: {_too_long('line')}")
    line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    if line.strip():
      yield number, line


def _line_row(line: bytes, path: PathLike, number: int) -> Row | RowError:
  try:
    text = line.decode()
  except UnicodeDecodeError as error:
    return not_utf8(path, number, line[error.start])
  try:
    return _checked(json.loads(text), path, number)
  except (ValueError, RecursionError) as error:  # a ValueError alone for a number of more than 4,300 digits
    message = (
      f"{path}:{number}: not one JSON object ({error}), found {text[:60].rstrip()!r}; "
      f"repair or remove the line (a cut last line often means an interrupted copy)"
    )
    return RowError(message, "malformed")


def _checked(row: object, path: PathLike, line: int) -> Row | RowError:
  if isinstance(row, dict):
    return row
  message = f"{path}:{line}: found {type_name(row)}; a row must be a JSON object {{column: value}}"
  return RowError(message, "malformed")


def _array_rows(file: io.BufferedIOBase, path: PathLike) -> Iterator[tuple[int, object]]:
  """(line it starts on, value) of each element of a JSON array, decoded one by one; memory holds a few at a time."""
  unread = _UnreadText(file, path)
  try:
    unread.skip_sign("[")
    if unread.peek() == "]":
      raise EmptyFileError(f"{path}: holds no rows; expected one JSON object a line, or an array of them")
    while True:
      line = unread.line
      yield line, unread.decode_value()
      if unread.peek() == "]":
        break
      unread.skip_sign(",")
    unread.skip_sign("]")
    if unread.peek():
      raise json.JSONDecodeError("Text after the end of the array", unread.text, 0)
  except json.JSONDecodeError as error:
    raise DataError(
      f"{path}:{unread.line + error.doc.count(chr(10), 0, error.pos)}: not a valid JSON array ({error.msg}); "
      f"repair the file there (an error at its end often means an interrupted copy)"
    ) from error
  except RecursionError as error:
    raise DataError(f"{path}:{unread.line}: the row is nested too deeply to be read; remove it") from error
  except DataError:
    raise
  except ValueError as error:  # a number of more than 4,300 digits
    raise DataError(f"{path}:{unread.line}: the row is not valid JSON ({error}); repair or remove it") from error


class _UnreadText:
  """The part of a JSON file that is read from disk but not yet decoded; `line` is the line it starts on."""

  def __init__(self, file: io.BufferedIOBase, path: PathLike) -> None:
    self.file, self.path, self.line, self.text = file, path, 1, ""
    self.utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    self.decode: Callable[[str], tuple[object, int]] = json.JSONDecoder().raw_decode
    self.ended = False

  def read(self, size: int = _CHUNK) -> None:
    """Appends the next `size` bytes of the file. Raises RowError."""
    data = self.file.read(size)
    self.ended = not data
    try:
      self.text += self.utf8.decode(data, final=self.ended)
    except UnicodeDecodeError as error:
      line = self.line + self.text.count("\n") + error.object.count(b"\n", 0, error.start)
      raise not_utf8(self.path, line, error.object[error.start]) from error

  def drop(self, end: int) -> None:
    """Removes the first `end` characters."""
    self.line += self.text.count("\n", 0, end)
    self.text = self.text[end:]

  def peek(self) -> str:
    """Drops leading white space and returns the next character; "" at the end of the file."""
    while True:
      self.drop(len(self.text) - len(self.text.lstrip()))
      if self.text or self.ended:
        return self.text[:1]
      self.read()

  def skip_sign(self, sign: str) -> None:
    """Drops `sign` and the white space after it. Raises JSONDecodeError where another character stands there."""
    if self.peek() != sign:
      raise json.JSONDecodeError(f"Expecting {sign!r}", self.text, 0)
    self.drop(1)
    self.peek()

  def decode_value(self) -> object:
    """Decodes and drops the value that starts here; reads on, twice the text each time, until it is whole.

    Raises:
      JSONDecodeError: the rest of the file starts with no whole value.
    """
    while True:
      try:
        value, end = self.decode(self.text)
      except json.JSONDecodeError:
        if self.ended:
          raise
        if len(self.text) > MAX_ROW:
          raise DataError(f"{self.path}:{self.line}: {_too_long('row')}") from None
        self.read(max(len(self.text), _CHUNK))
        continue
      self.drop(end)
      return value
