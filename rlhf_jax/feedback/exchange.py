"""Records in and out of files: JSONL, Parquet and `datasets.Dataset` (all lossless), CSV of the derived rows.

The same records always give the same bytes. What learners read is derived from the records: see `derived.py`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.data import DataError, read_rows, write_rows
from rlhf_jax.data.files import write_bytes
from rlhf_jax.feedback.learner_rows import SHAPES
from rlhf_jax.feedback.records import (
  Annotator,
  Judgement,
  Record,
  Records,
  Response,
  collect_records,
  content_id,
  make_item,
  record_of,
)

FORMULA = tuple("=+-@＝＋－＠")  # what a spreadsheet takes for the start of one
NAMES = ("annotators", "items", "judgements")


def read_records(path: str | Path) -> Records:
  """(annotators, items, judgements) of a .db, .jsonl (or .jsonl.gz) or .parquet file, each in the order of the file,
  or of the directory that `convert` writes as a dataset.

  A .jsonl file holds records or, as the stages of a run write them, comparisons {"prompt", "responses", "ranks",
  "annotator"}; a column "gold" of scores becomes the item's gold ranks. Of comparisons neither the time nor the order
  of display is known: `seconds` is 0, `created` is 1970, `order` that of the file.

  Raises:
    DataError: naming file and line (for Parquet the row): the file cannot be read, a row is malformed, an id occurs
      twice with different content, or a judgement does not fit its item or names an unknown one.
  """
  path = Path(path)
  if path.suffix == ".db":
    from rlhf_jax.feedback.store import read_store

    return read_store(path)
  if path.is_dir():
    return from_dataset(_open_dataset(path), str(path))
  if path.suffix == ".parquet":
    return collect_records((where, record_of(row, where)) for where, row in _parquet_rows(path))
  rows = read_rows(path)
  if any("type" in row for _, row in rows):
    return collect_records((f"{path}:{line}", record_of(row, f"{path}:{line}")) for line, row in rows)
  return collect_records(located for line, row in rows for located in _comparisons(path, line, row))


def write_records(path: str | Path, records: Records) -> None:
  """Writes a .jsonl (or .jsonl.gz), .parquet or .db file; into a .db, records are added to those it holds.

  Raises:
    DataError: another suffix, or a record that contradicts the .db.
  """
  path = Path(path)
  if path.suffix == ".db":
    from rlhf_jax.feedback.store import add_records, open_store

    with contextlib.closing(open_store(path, create=True)) as store:
      add_records(store, records, str(path))
  elif path.suffix == ".parquet":
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(_table(records), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())
  elif path.name.endswith((".jsonl", ".jsonl.gz")):
    write_rows(path, (record.to_row() for kind in records for record in kind))
  else:
    raise DataError(f"{path}: the name of a file of records ends in .db, .jsonl, .jsonl.gz or .parquet")


def convert(source: str | Path, target: str | Path, shape: str = "records") -> str:
  """Writes the records of `source`, or a shape of `derived.SHAPES` as .jsonl or .csv, and says how many.

  The shape "dataset" is the records again, as a directory that `datasets.load_from_disk` opens.

  Raises:
    DataError: as `read_records` and `write_records`; there are no rows of that shape; the directory exists already.
  """
  records = read_records(source)
  if shape == "dataset":
    if Path(target).exists():
      raise DataError(f"{target}: exists already; choose another name for the directory, or delete it")
    to_dataset(records).save_to_disk(str(target))
    return _counts(records)
  if shape == "records":
    write_records(target, records)
    return _counts(records)
  rows = SHAPES[shape](records)
  if not rows:
    raise DataError(f"{source}: none of its judgements holds {shape}")
  if Path(target).suffix == ".csv":
    write_csv(target, rows)
  elif Path(target).name.endswith((".jsonl", ".jsonl.gz")):
    write_rows(target, rows)
  else:
    raise DataError(f"{target}: the name of a file of {shape} ends in .jsonl, .jsonl.gz or .csv")
  return f"{len(rows)} {shape}"


def _counts(records: Records) -> str:
  return ", ".join(f"{len(rows)} {name}" for name, rows in zip(NAMES, records, strict=True))


def to_dataset(records: Records) -> Any:
  """A `datasets.Dataset` with a row per record: the columns of all types, null where a type has no such field."""
  import datasets

  rows = [record.to_row() for kind in records for record in kind]
  # Its own fingerprint would differ from one export of the same records to the next.
  return datasets.Dataset(_table(records), fingerprint=content_id(rows))


def from_dataset(dataset: Iterable[Mapping[str, Any]], where: str = "dataset") -> Records:
  """The records of such a dataset, or of any rows of its columns. Raises DataError naming the row, from 1."""
  return collect_records((place, record_of(row, place)) for place, row in _unflattened(dataset, where))


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Rows for a spreadsheet; lists are written as JSON, and no cell is a formula there."""
  columns = list(dict.fromkeys(column for row in rows for column in row))
  buffer = io.StringIO()
  writer = csv.writer(buffer)  # with RFC 4180's "\r\n", so that a lone \r is quoted: readers take it for a row's end
  writer.writerow(columns)
  writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
  write_bytes(path, buffer.getvalue().encode())


def _cell(value: Any) -> Any:
  if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
    return value
  text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
  # A spreadsheet would run =HYPERLINK(...) from a model's answer (OWASP, CSV injection); leading space does not help.
  return f"'{text}" if text.lstrip()[:1] in FORMULA or text[:1] in ("\t", "\r", "\n") else text


def _table(records: Records) -> Any:
  import pyarrow as pa

  texts = pa.list_(pa.string())
  ints = pa.list_(pa.int64())
  columns = {
    "type": pa.string(), "schema": pa.int64(), "id": pa.string(), "kind": pa.string(), "expert": pa.bool_(),
    "prompt": pa.string(), "responses": pa.list_(pa.struct({"text": pa.string(), "source": pa.string()}.items())),
    "gold_ranks": ints, "item": pa.string(), "annotator": pa.string(), "order": ints, "ratings": ints, "ranks": ints,
    "strength": pa.int64(), "flags": pa.list_(texts), "critiques": texts, "rewrites": texts, "skipped": pa.string(),
    "seconds": pa.float64(), "guidelines": pa.string(), "created": pa.string(), "supersedes": pa.string(),
  }  # fmt: skip
  rows = [record.to_row() for kind in records for record in kind]
  for row in rows:
    if "responses" in row:
      # A struct would need the same keys in every source, and would fill the missing ones with null.
      row["responses"] = [{**response, "source": json.dumps(response["source"])} for response in row["responses"]]
  return pa.Table.from_pylist(rows, schema=pa.schema(columns.items()))


def _open_dataset(path: Path) -> Any:
  import datasets

  try:
    return datasets.load_from_disk(str(path))
  except FileNotFoundError as error:
    raise DataError(f"{path}: is a directory, and no dataset ({error})") from error


def _parquet_rows(path: Path) -> list[tuple[str, dict]]:
  import pyarrow as pa
  import pyarrow.parquet

  try:
    rows = pyarrow.parquet.read_table(path).to_pylist()
  except (OSError, pa.ArrowException) as error:
    raise DataError(f"{path}: cannot be read as Parquet ({error})") from error
  return list(_unflattened(rows, str(path)))


def _unflattened(rows: Iterable[Mapping[str, Any]], where: str) -> Iterator[tuple[str, dict]]:
  """Rows of all columns -> ("where, row N", the JSON row of a record): without nulls, the sources parsed."""
  for number, columns in enumerate(rows, start=1):
    place = f"{where}, row {number}"
    row = {name: value for name, value in columns.items() if value is not None}
    if isinstance(row.get("responses"), list):
      try:
        row["responses"] = [{**one, "source": json.loads(one["source"])} for one in row["responses"]]
      except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place}: 'responses' must be a list of {{text, source as JSON}} ({error!r})") from error
    yield place, row


def _comparisons(path: Path, line: int, row: Mapping[str, Any]) -> Iterator[tuple[str, Record]]:
  """One row of comparisons.jsonl as its annotator, its item and its judgement."""
  where = f"{path}:{line}"
  for column, kind in (("prompt", str), ("responses", list), ("ranks", list)):
    if type(row.get(column)) is not kind:
      found = f"{column!r} is {row.get(column)!r:.60}"
      raise DataError(f"{where}: {found}; a row is a record with a 'type', or has 'prompt', 'responses' and 'ranks'")
  gold = row.get("gold")
  name = row.get("annotator") or "unknown"
  try:
    annotator = Annotator(name, "human" if gold is None else "simulated")
    responses = [Response(text, {"file": path.name}) for text in row["responses"]]
    item = make_item(row["prompt"], responses, None if gold is None else _ranks(gold))
    order = tuple(range(len(responses)))
    judgement = Judgement(content_id([item.id, name, line]), item.id, name, order, ranks=tuple(row["ranks"]))
  except (TypeError, ValueError) as error:
    raise DataError(f"{where}: {error}") from error
  yield from ((where, record) for record in (annotator, item, judgement))


def _ranks(scores: Sequence[float]) -> list[int]:
  """Dense ranks of scores: 0 for the highest, equal scores tie."""
  ladder = sorted(set(scores), reverse=True)
  return [ladder.index(score) for score in scores]
