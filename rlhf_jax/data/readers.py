"""Rows of local files and of published data sets, one by one, from any row on; memory holds a few of them at a time.

Hugging Face `datasets`, TFDS and pyarrow are imported where a source needs them.
"""

import contextlib
import dataclasses
import functools
import glob
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from rlhf_jax.data.files import (
  DataError,
  EmptyFileError,
  Row,
  RowError,
  count_lines,
  is_array,
  not_utf8,
  open_file,
  stream_lines,
  stream_rows,
)

SourceFormat = Literal["auto", "text", "lines", "tsv", "json", "parquet", "datasets", "datasets_streaming", "tfds"]
LocatedRow = tuple[str, Row | RowError]  # "file:line" and the row there, or the error of a faulty row

# Formats of published data sets, which a library reads.
PUBLISHED = {"datasets": "datasets", "datasets_streaming": "datasets", "tfds": "tensorflow_datasets"}
_SUFFIXES: dict[str, SourceFormat] = {
  ".txt": "text", ".tsv": "tsv", ".parquet": "parquet", ".json": "json", ".jsonl": "json", ".ndjson": "json",
}  # fmt: skip
_JSON = re.compile(rb'\s*(\[\s*)?\{\s*["}]|\s*\[\s*\]')  # the beginning of an object, or of an array of objects
_HEAD = 1 << 12  # bytes that tell the format of a file whose name does not
TEXT_ROW_BYTES = 1 << 13  # bytes of a long text that make one row, to which the rest of the last line is added


@dataclasses.dataclass(frozen=True)
class Rows:
  """The rows of a source, which are read when they are asked for."""

  stream: Callable[[int], Iterator[LocatedRow]]
  """Function from the number of rows to pass over to the rows after them, in order."""
  count: Callable[[], int | None]
  """Function that returns the number of rows; None where the source does not say it."""


@dataclasses.dataclass(frozen=True)
class _FileRows(Rows):
  """The rows of a file, whose number can always be counted."""

  count: Callable[[], int]


def open_rows(path: str, format: SourceFormat = "auto", split: str = "train", subset: str = "") -> Rows:
  """The rows of a file, of several ("part-*.jsonl", in the order of their names), of a directory or of a data set.

  Raises:
    DataError: here, or while the rows are read: a file or data set is absent, empty or damaged.
  """
  names = sorted(glob.glob(path)) if glob.has_magic(path) and not Path(path).exists() else [path]
  if not names:
    raise DataError(f"{path}: no file has such a name; check the path")
  formats = [format_of(name) if format == "auto" else format for name in names]
  published = {"datasets": _datasets, "datasets_streaming": _datasets_streaming, "tfds": _tfds}
  if formats[0] in published:
    return published[formats[0]](path, split, subset)
  files = [_open_file(name, format) for name, format in zip(names, formats, strict=True)]
  if len(files) == 1:
    return files[0]
  files = [_shard(file) for file in files]
  return Rows(functools.partial(_chain, path, files), lambda: sum(file.count() for file in files))


def format_of(path: str) -> SourceFormat:
  """The format of a file, of the files of a pattern or of a directory: by the last suffix of its name, under ".gz", and
  where that is none of the known ones, by the first bytes of the file.

  Raises:
    DataError: the file is a table for spreadsheets, or cannot be read.
  """
  found = Path(path)
  if found.is_dir():
    return "tfds" if (found / "features.json").exists() else "datasets"
  suffix = Path(path.removesuffix(".gz")).suffix.lower()
  if suffix == ".csv":
    raise DataError(f"{path}: a .csv is not read; write it as .tsv without quotes, or as .jsonl or .parquet")
  if suffix in _SUFFIXES:
    return _SUFFIXES[suffix]
  return _format_of_content(path) if found.is_file() else "json"


def _format_of_content(path: str) -> SourceFormat:
  with open_file(path) as file:
    head = file.read(_HEAD).removeprefix(b"\xef\xbb\xbf")
  if head.startswith(b"PAR1"):
    return "parquet"
  return "json" if _JSON.match(head) else "text"


def _shard(file: _FileRows) -> _FileRows:
  """The rows of one file of several, which may be empty."""

  def stream(start: int) -> Iterator[LocatedRow]:
    with contextlib.suppress(EmptyFileError):
      yield from file.stream(start)

  @functools.cache
  def count() -> int:
    try:
      return file.count()
    except EmptyFileError:
      return 0

  return _FileRows(stream, count)


def _chain(path: str, files: list[_FileRows], start: int) -> Iterator[LocatedRow]:
  is_empty = not start
  for file in files:
    if start:
      count = file.count()
      if start >= count:
        start -= count
        continue
    for row in file.stream(start):
      is_empty = False
      yield row
    start = 0
  if is_empty:
    raise EmptyFileError(f"{path}: none of the {len(files)} files of this name holds a row")


def _open_file(path: str, format: SourceFormat) -> _FileRows:
  if format == "parquet":
    return _FileRows(functools.partial(_parquet_rows, path), functools.partial(_count_parquet, path))
  streams = {"text": _text_rows, "lines": _line_rows, "tsv": _tsv_rows, "json": _json_rows}
  stream = functools.partial(streams[format], path)

  @functools.cache
  def count() -> int:
    if format == "text" or (format == "json" and is_array(path)):
      return sum(1 for _ in stream(0))
    return count_lines(path)

  return _FileRows(stream, count)


def _json_rows(path: str, start: int) -> Iterator[LocatedRow]:
  return ((f"{path}:{line}", row) for line, row in stream_rows(path, start))


def _text_rows(path: str, start: int) -> Iterator[LocatedRow]:
  """Pieces of a text as {"text"}, each cut behind the end of a line."""
  with open_file(path) as file:
    pieces = enumerate(iter(lambda: file.read(TEXT_ROW_BYTES) + file.readline(), b""))
    line = 1
    for number, piece in pieces:
      if number == 0:
        piece = piece.removeprefix(b"\xef\xbb\xbf")
      where, line = f"{path}:{line}", line + piece.count(b"\n")
      if number < start:
        continue
      try:
        yield where, {"text": piece.decode()}
      except UnicodeDecodeError as error:
        yield where, not_utf8(path, line - piece.count(b"\n", error.start), piece[error.start])


def _line_rows(path: str, start: int) -> Iterator[LocatedRow]:
  for line, text in stream_lines(path, start):
    yield f"{path}:{line}", text if isinstance(text, RowError) else {"text": text}


def _tsv_rows(path: str, start: int) -> Iterator[LocatedRow]:
  r"""Columns named "0", "1", ...; in a value, \n, \t and \\ stand for a line feed, a tab and a backslash."""
  signs = {"n": "\n", "t": "\t"}

  def unescape(text: str) -> str:
    if "\\" not in text:
      return text
    first, *rest = text.replace("\\\\", "\0").split("\\")
    text = first + "".join(signs[part[0]] + part[1:] if part[:1] in signs else "\\" + part for part in rest)
    return text.replace("\0", "\\")

  for line, text in stream_lines(path, start):
    if isinstance(text, RowError):
      yield f"{path}:{line}", text
    else:
      yield f"{path}:{line}", {str(i): unescape(value) for i, value in enumerate(text.split("\t"))}


@contextlib.contextmanager
def _parquet(path: str) -> Iterator[Any]:
  """A pyarrow.parquet.ParquetFile. Raises DataError."""
  import pyarrow
  import pyarrow.parquet

  with open_file(path) as file, tempfile.TemporaryFile() as copy:
    try:
      if not file.seekable():  # Parquet is read from its end, which a stream does not have
        shutil.copyfileobj(file, copy)
      yield pyarrow.parquet.ParquetFile(file if file.seekable() else copy)
    except pyarrow.ArrowInvalid as error:
      raise DataError(f"{path}: not a whole Parquet file ({error}); copy or download it again") from error


def _parquet_rows(path: str, start: int) -> Iterator[LocatedRow]:
  with _parquet(path) as file:
    number = 0
    for group in range(file.num_row_groups):
      size = file.metadata.row_group(group).num_rows
      if number + size <= start:
        number += size
        continue
      for batch in file.iter_batches(1024, row_groups=[group]):
        for row in batch.to_pylist():
          if number >= start:
            yield f"{path}:{number + 1}", row
          number += 1


def _count_parquet(path: str) -> int:
  with _parquet(path) as file:
    return file.metadata.num_rows


def _datasets(path: str, split: str, subset: str) -> Rows:
  """A data set of the Hugging Face hub, or one saved on disk, as `datasets` loads it."""

  @functools.cache
  def load() -> Any:
    import datasets

    with _library_errors(path):
      if any((Path(path) / name).exists() for name in ("state.json", "dataset_dict.json")):
        found = datasets.load_from_disk(path)
        return found[split] if isinstance(found, datasets.DatasetDict) else found
      return datasets.load_dataset(path, subset or None, split=split)

  def stream(start: int) -> Iterator[LocatedRow]:
    found = load()
    for i in range(start, len(found)):
      yield f"{path}[{i}]", found[i]

  return Rows(stream, lambda: len(load()))


def _datasets_streaming(path: str, split: str, subset: str) -> Rows:
  """A data set of the Hugging Face hub, downloaded while it is read."""

  @functools.cache
  def load() -> Any:
    import datasets

    with _library_errors(path):
      return datasets.load_dataset(path, subset or None, split=split, streaming=True)

  def stream(start: int) -> Iterator[LocatedRow]:
    with _library_errors(path):
      for i, row in enumerate(load().skip(start), start):
        yield f"{path}[{i}]", row

  def count() -> int | None:
    splits = load().info.splits or {}
    return splits[split].num_examples or None if split in splits else None

  return Rows(stream, count)


def _tfds(path: str, split: str, subset: str) -> Rows:
  """A prepared data set of array_record files: its directory, or its name in TFDS_DATA_DIR. Needs no TensorFlow."""

  @functools.cache
  def load() -> Any:
    import tensorflow_datasets as tfds

    with _library_errors(path):
      if Path(path).is_dir():
        return tfds.builder_from_directory(path).as_data_source(split)
      return tfds.data_source(f"{path}/{subset}" if subset else path, split=split)

  def stream(start: int) -> Iterator[LocatedRow]:
    found = load()
    for i in range(start, len(found)):
      where = f"{path}[{i}]"
      try:
        yield where, _json_value(found[i])
      except UnicodeDecodeError:
        yield where, RowError(f"{where}: holds text that is not valid UTF-8", "malformed")

  return Rows(stream, lambda: len(load()))


@contextlib.contextmanager
def _library_errors(path: str) -> Iterator[None]:
  """Turns a library's error about a data set that it cannot load into a DataError."""
  try:
    yield
  except (DataError, ImportError):
    raise
  except Exception as error:  # each library has its own errors, without a common base
    reason = f"{type(error).__name__}: {error}"
    raise DataError(f"{path}: cannot be loaded ({reason}); check name, split and subset") from error


def _json_value(value: Any) -> Any:
  """A value with bytes as text, and with arrays and their scalars as lists and numbers."""
  if isinstance(value, bytes):
    return value.decode()
  if isinstance(value, dict):
    return {key: _json_value(item) for key, item in value.items()}
  if hasattr(value, "tolist"):
    value = value.tolist()
    return _json_value(value) if isinstance(value, (bytes, list)) else value
  return [_json_value(item) for item in value] if isinstance(value, (list, tuple)) else value
