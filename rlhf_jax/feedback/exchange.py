"""Records in and out of files: SQLite, JSONL, Parquet and `datasets.Dataset`, all lossless; rows for learners; CSV.

The same records always give the same bytes.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.data import DataError, read_rows, write_rows
from rlhf_jax.feedback.events import read_events
from rlhf_jax.feedback.filters import Filter, select
from rlhf_jax.feedback.learner_rows import SHAPES
from rlhf_jax.feedback.questions import stored_questions
from rlhf_jax.feedback.record_rows import record_of, to_row
from rlhf_jax.feedback.records import Record, Records, collect_records, content_id
from rlhf_jax.feedback.row_records import records_of_rows
from rlhf_jax.feedback.store import add_records, located_records, opened, read_guidelines
from rlhf_jax.writing import write_bytes

FORMULA = tuple("=+-@＝＋－＠")  # the characters that make a spreadsheet take a cell for a formula
JSON_COLUMNS = {"aspects", "spans"}  # mixed types, which no column of a table holds
ALL = Filter()
NAMES = ("annotators", "items", "judgements")


def read_records(*paths: str | Path) -> Records:
  """(annotators, items, judgements) of all the files, each in the order of the files.

  A file of records is a .db, .jsonl, .jsonl.gz or .parquet file or the directory of a dataset, as `convert` writes
  them. A .jsonl file may instead hold the rows of any shape that `convert` writes for learners, or the comparisons of a
  run; see `row_records`.

  Raises:
    DataError: naming file and line (for Parquet the row): the file cannot be read, a row is malformed, an id occurs
      twice with different content, or a judgement does not fit its item or names an unknown one.
  """
  located: list[tuple[str, Record]] = []
  rows: list[tuple[Path, list[tuple[int, dict]]]] = []
  for path in map(Path, paths):
    if path.suffix == ".db":
      located += located_records(path)
    elif path.is_dir():
      located += _of_columns(_open_dataset(path), str(path))
    elif path.suffix == ".parquet":
      located += _of_columns(_parquet_rows(path), str(path))
    elif path.suffix == ".csv":
      raise DataError(f"{path}: a .csv is for spreadsheets, its cells are altered; convert to .jsonl and read that")
    else:
      found = read_rows(path)
      if any("type" in row for _, row in found):
        located += [(f"{path}:{line}", record_of(row, f"{path}:{line}")) for line, row in found]
      else:
        rows.append((path, found))
  return collect_records(itertools.chain(located, records_of_rows(rows)))


def write_records(path: str | Path, records: Records) -> None:
  """Writes a .jsonl (or .jsonl.gz), .parquet or .db file; into a .db, records are added to those it holds.

  Raises:
    DataError: another suffix, or a record that contradicts the .db.
  """
  path = Path(path)
  if path.suffix == ".db":
    with opened(path, create=True) as store:
      add_records(store, records, str(path))
  elif path.suffix == ".parquet":
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(_table(records), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())
  elif path.name.endswith((".jsonl", ".jsonl.gz")):
    write_rows(path, _rows(records))
  else:
    raise DataError(f"{path}: the name of a file of records ends in .db, .jsonl, .jsonl.gz or .parquet")


def convert(source: str | Path, target: str | Path, shape: str = "records", wanted: Filter = ALL) -> str:
  """Writes the records of `source`, a file that `read_records` reads, in another form; returns the counts in words.

  wanted: conditions that judgements must meet. shape: "records"; "events" of a store, its settings, questions and
  guidelines as they changed; "dataset", a directory that `datasets.load_from_disk` opens; or a name of
  `learner_rows.SHAPES`, as .jsonl for learners or as .csv for spreadsheets. These rows are of the answers to items: a
  final judgement stands alone there, whatever `wanted` says.

  Raises:
    DataError: as `read_records` and `write_records`; there are no rows of that shape; the directory exists already.
  """
  if shape == "events":
    return _write_events(source, target)
  if shape in SHAPES:
    wanted = dataclasses.replace(wanted, final=True)
  records, left_out = select(read_records(source), wanted, source)
  told = _convert(records, source, target, shape)
  return told + "".join(f"; left out {count} judgements {reason}" for reason, count in sorted(left_out.items()))


def _convert(records: Records, source: str | Path, target: str | Path, shape: str) -> str:
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


def _write_events(source: str | Path, target: str | Path) -> str:
  if Path(source).suffix != ".db" or not Path(target).name.endswith((".jsonl", ".jsonl.gz")):
    raise DataError(f"{source}: events are those of a store, a .db, and are written as .jsonl")
  with opened(source) as store:
    texts, events = read_guidelines(store), list(read_events(store))
  rows: list[dict[str, Any]] = [{"kind": "guidelines", "version": version, "text": text} for version, text in texts]
  for event in events:
    version = {"version": stored_questions(event.value).version} if event.kind == "questions" else {}
    rows.append({**dataclasses.asdict(event), **version})
  write_rows(target, rows)
  return f"{len(rows)} events"


def _counts(records: Records) -> str:
  annotators, items, judgements = records
  sizes = (len(annotators), len(items), len(judgements))
  return ", ".join(f"{size} {name}" for name, size in zip(NAMES, sizes, strict=True))


def _rows(records: Records) -> list[dict[str, Any]]:
  return [to_row(record) for kind in records for record in kind]


def to_dataset(records: Records) -> Any:
  """A `datasets.Dataset` with a row for each record: the columns of all types, null where a type lacks the field."""
  import datasets

  # The library's own fingerprint would differ from one export of the same records to the next.
  return datasets.Dataset(_table(records), fingerprint=content_id(_rows(records)))


def from_dataset(dataset: Iterable[Mapping[str, Any]], where: str = "dataset") -> Records:
  """The records of such a dataset, or of any rows of its columns. Raises DataError naming the row, from 1."""
  return collect_records(_of_columns(dataset, where))


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes rows for a spreadsheet: lists become JSON, and a cell that would be a formula gets a "'" in front."""
  columns = list(dict.fromkeys(column for row in rows for column in row))
  buffer = io.StringIO()
  writer = csv.writer(buffer)  # ends rows with RFC 4180's "\r\n", and quotes a lone \r, which readers take for an end
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
    "prompt": pa.string(), "messages": pa.string(),
    "responses": pa.list_(pa.struct({"text": pa.string(), "source": pa.string()}.items())),
    "gold_ranks": ints, "cluster": pa.string(),
    "item": pa.string(), "annotator": pa.string(), "order": ints, "ratings": ints, "ranks": ints,
    "strength": pa.int64(), "all_bad": pa.bool_(), "yes_no": pa.list_(pa.bool_()), "aspects": pa.string(),
    "spans": pa.string(), "questions": pa.string(), "final": pa.bool_(), "flags": pa.list_(texts), "critiques": texts,
    "rewrites": texts, "skipped": pa.string(), "seconds": pa.float64(), "guidelines": pa.string(),
    "created": pa.string(), "supersedes": pa.string(),
  }  # fmt: skip
  rows = _rows(records)
  for row in rows:
    if "responses" in row:
      # A struct would need the same keys in every source, and would fill the missing ones with null.
      row["responses"] = [{**response, "source": json.dumps(response["source"])} for response in row["responses"]]
    for name in JSON_COLUMNS & row.keys():
      row[name] = json.dumps(row[name], ensure_ascii=False)
    if isinstance(row.get("prompt"), list):
      row["messages"] = json.dumps(row.pop("prompt"), ensure_ascii=False)
  return pa.Table.from_pylist(rows, schema=pa.schema(columns.items()))


def _open_dataset(path: Path) -> Any:
  import datasets

  try:
    return datasets.load_from_disk(str(path))
  except FileNotFoundError as error:
    raise DataError(f"{path}: is a directory, and no dataset ({error})") from error


def _parquet_rows(path: Path) -> list[dict]:
  import pyarrow as pa
  import pyarrow.parquet

  try:
    return pyarrow.parquet.read_table(path).to_pylist()
  except (OSError, pa.ArrowException) as error:
    raise DataError(f"{path}: cannot be read as Parquet ({error})") from error


def _of_columns(rows: Iterable[Mapping[str, Any]], where: str) -> Iterator[tuple[str, Record]]:
  """Rows with the columns of `_table` -> ("where, row N", record)."""
  for number, columns in enumerate(rows, start=1):
    place = f"{where}, row {number}"
    row = {name: value for name, value in columns.items() if value is not None}
    if isinstance(row.get("responses"), list):
      try:
        row["responses"] = [{**one, "source": json.loads(one["source"])} for one in row["responses"]]
      except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place}: 'responses' must be a list of {{text, source as JSON}} ({error!r})") from error
    for name in JSON_COLUMNS & row.keys():
      try:
        row[name] = json.loads(row[name])
      except (TypeError, ValueError) as error:
        raise DataError(f"{place}: {name!r} must be JSON ({error})") from error
    if "messages" in row:
      try:
        row["prompt"] = json.loads(row.pop("messages"))
      except ValueError as error:
        raise DataError(f"{place}: 'messages' must be a list of messages as JSON ({error})") from error
    yield place, record_of(row, place)
