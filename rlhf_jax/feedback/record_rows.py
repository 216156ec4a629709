"""Records as JSON rows: {"type": "annotator" | "item" | "judgement", "schema": 1, ...the fields of the record}."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rlhf_jax.data import DataError, prompt_of, prompt_value
from rlhf_jax.feedback.checks import check_type
from rlhf_jax.feedback.records import Annotator, AnyRecord, Item, Judgement, Record, Response
from rlhf_jax.settings import nearest

SCHEMA = 1
# Fields of a judgement that the first stores did not have: a row without them is the same row as before.
LATER = ("all_bad", "yes_no", "aspects", "spans", "questions", "final")
TYPES: dict[str, type[Record]] = {"annotator": Annotator, "item": Item, "judgement": Judgement}


def to_row(record: Record) -> dict[str, Any]:
  """The row of a record, with lists for tuples, as JSON gives them back."""
  values = {
    name: value
    for name, value in dataclasses.asdict(record).items()
    if name not in LATER or value not in (None, False, "")
  }
  row = {"type": _type_name(type(record)), "schema": SCHEMA, **_with_lists(values)}
  return {**row, "prompt": prompt_value(record.prompt)} if isinstance(record, Item) else row


def record_of(row: Mapping[str, Any], where: str) -> Record:
  """The record of a row of any type. Raises DataError, which starts with `where`."""
  name = row.get("type")
  if not isinstance(name, str) or name not in TYPES:
    raise DataError(f"{where}: 'type' is {name!r}.{nearest(str(name), TYPES)}")
  return from_row(TYPES[name], row, where)


def from_row(cls: type[AnyRecord], row: Mapping[str, Any], where: str) -> AnyRecord:
  """The record of a row of a known type, whose "type" may be absent. Raises DataError, which starts with `where`."""
  name = _type_name(cls)
  if row.get("type", name) != name:
    raise DataError(f"{where}: 'type' is {row['type']!r}, expected {name!r}")
  if row.get("schema", SCHEMA) != SCHEMA:
    raise DataError(f"{where}: 'schema' is {row['schema']!r}, this version reads {SCHEMA}; convert the file")
  fields = {field.name: field for field in dataclasses.fields(cls)}
  values = {key: value for key, value in row.items() if key not in ("type", "schema")}
  for key in values:
    if key not in fields:
      raise DataError(f"{where}: a row of type {name!r} has no {key!r}.{nearest(str(key), fields)}")
  for key, field in fields.items():
    if key not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      raise DataError(f"{where}: the row of type {name!r} lacks {key!r}; add it")
  try:
    if cls is Item:
      values["responses"] = _responses(values["responses"])
      prompt = prompt_of(values, where)
    if isinstance(values.get("aspects"), dict):
      values["aspects"] = {name: _with_tuples(ratings) for name, ratings in values["aspects"].items()}
    values = {key: _with_tuples(value) for key, value in values.items()}
    return cls(**(values | {"prompt": prompt} if cls is Item else values))
  except DataError:
    raise
  except ValueError as error:
    raise DataError(f"{where}: {error}") from error


def _type_name(cls: type) -> str:
  return next(name for name, known in TYPES.items() if known is cls)


def _responses(rows: Any) -> tuple[Response, ...]:
  check_type("responses", rows, list)
  for i, row in enumerate(rows):
    check_type(f"responses[{i}]", row, dict)
    if unknown := row.keys() - {"text", "source"}:
      raise ValueError(f"'responses[{i}]' has no {min(unknown)!r}. Known: source, text.")
    if "text" not in row:
      raise ValueError(f"'responses[{i}]' lacks 'text'; add it")
  return tuple(Response(**row) for row in rows)


def _with_lists(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _with_lists(item) for key, item in value.items()}
  return [_with_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _with_tuples(value: Any) -> Any:
  return tuple(_with_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
