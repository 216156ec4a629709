"""The first rows of a user's files, read before anything runs by the readers that the stages will use."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from rlhf_jax.data import DataError, row_formats
from rlhf_jax.data.files import Row, RowError, read_text, stream_rows
from rlhf_jax.data.readers import PUBLISHED, format_of
from rlhf_jax.data.source_stream import template_columns
from rlhf_jax.data.sources import Source, check_rows, stream_corpus
from rlhf_jax.data.templates import load_templates
from rlhf_jax.evaluation.questions import question_formats
from rlhf_jax.evaluation.reward_models import CONTRASTS
from rlhf_jax.feedback.exchange import read_records
from rlhf_jax.feedback.questions import read_questions
from rlhf_jax.feedback.record_rows import record_of
from rlhf_jax.feedback.row_records import records_of_rows
from rlhf_jax.train.judgements import read_weights

COUNT = 20  # rows of each file


def check_file(path: Path, kind: str) -> None:
  """Reads the first rows of a file. kind: a mark of `rlhf_jax.stage`, such as "prompt file". Raises DataError."""
  if kind in ROW_FORMATS and kind != "text file":
    check_rows(path, ROW_FORMATS[kind], COUNT)
  else:
    _OTHERS[kind](path)


def check_source(source: Source, kind: str) -> None:
  """Reads the first rows of a source; of a data set that is not on this disk, only its library is looked for.

  kind: as in `check_file`; "text file" admits demonstrations too.

  Raises:
    DataError: the source or its templates cannot be read, or its library is not installed.
  """
  formats = template_columns(load_templates(source.templates)) if source.templates else ROW_FORMATS[kind]
  format = format_of(source.path) if source.format == "auto" else source.format
  library = PUBLISHED.get(format, "")
  if library and importlib.util.find_spec(library) is None:
    raise DataError(f"{source.path}: a source of the format {format!r} needs the library {library}")
  if not library or Path(source.path).exists():
    check_rows(source, formats, COUNT)


def _first(path: Path) -> Iterator[tuple[int, Row]]:
  for line, row in itertools.islice(stream_rows(path), COUNT):
    if isinstance(row, RowError):
      raise row
    yield line, row


def _text(path: Path) -> None:
  if format_of(str(path)) in ("json", "parquet"):
    check_rows(path, row_formats.STREAMED, COUNT)
  elif next(stream_corpus(path), None) is None:
    read_text(path)  # which names an empty file


def _records(path: Path) -> None:
  """Rows one by one; a database or a table as a whole."""
  if path.suffix not in (".jsonl", ".json", ".gz"):
    read_records(path)
    return
  found = list(_first(path))
  if any("type" in row for _, row in found):
    for line, row in found:
      record_of(row, f"{path}:{line}")
  else:
    list(records_of_rows([(path, found)]))


ROW_FORMATS = {
  "prompt file": row_formats.PROMPTS,
  "demonstration file": row_formats.DEMONSTRATIONS,
  "comparison file": row_formats.COMPARISONS,
  "step file": row_formats.STEPWISE,
  "unpaired file": row_formats.UNPAIRED,
  "contrast file": CONTRASTS,
  "question file": question_formats(False),
  "text file": row_formats.STREAMED,
}
_OTHERS: dict[str, Callable[[Path], object]] = {
  "record file": _records,
  "page file": read_questions,
  "text file": _text,
  "weight file": read_weights,
}
KINDS = frozenset({*ROW_FORMATS, *_OTHERS})
