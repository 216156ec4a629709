"""The files of a table: table.csv, table.parquet, table.json, groups.csv; and a table.csv read again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from rlhf_jax.data.files import write_json, write_text
from rlhf_jax.settings import ConfigError
from rlhf_jax.sweep.cells import value_text
from rlhf_jax.sweep.measures import Measured
from rlhf_jax.sweep.tables import Estimate, Group, Row, warnings_of
from rlhf_jax.writing import whole_file


def write_tables(directory: Path, rows: Sequence[Row], metrics: Sequence[str], groups: Sequence[Group]) -> None:
  """Writes table.csv, table.parquet and table.json, a row for each run, and groups.csv, a row for each setting."""
  columns = _columns(rows)
  write_text(directory / "table.csv", _csv(list(columns), list(zip(*columns.values(), strict=True))))
  table = pyarrow.table({name: _array(column) for name, column in columns.items()})
  with whole_file(directory / "table.parquet") as file:
    pyarrow.parquet.write_table(table, file)
  names = list(columns)
  records = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
  notes = warnings_of(groups, metrics)
  write_json(directory / "table.json", {"runs": records, "groups": [_record(g) for g in groups], "warnings": notes})
  heads = ["runs", *(f"{metric}:{part}" for metric in metrics for part in _PARTS)]
  lines = [[*group.values.values(), len(group.rows), *_cells(group, metrics)] for group in groups]
  write_text(directory / "groups.csv", _csv([*(groups[0].values if groups else ()), *heads], lines))


def read_table(path: Path) -> list[Row]:
  """The rows of a table.csv, without curves: columns with a "/" are metrics, the others swept values.

  Raises:
    ConfigError: the file is no such table.
  """
  try:
    lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    return [_row(line) for line in lines]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ConfigError(f"{path} is no table.csv of a sweep: {error!r}") from error


def _row(line: Mapping[str, str]) -> Row:
  own = {name: text for name, text in line.items() if name not in ("hash", "run", "state", "error")}
  values = {name: _value(text) for name, text in own.items() if "/" not in name}
  finals = {name: float(text) for name, text in own.items() if "/" in name and text}
  return Row(line["hash"], line["run"], line["state"], values, Measured(finals, {}), line["error"])


def _value(text: str) -> Any:
  try:
    return json.loads(text)
  except ValueError:
    return text or None


_PARTS: dict[str, Callable[[Estimate], float | None]] = {
  "mean": lambda found: found.mean,
  "iqm": lambda found: found.middle.mean,
  "low": lambda found: found.middle.low,
  "high": lambda found: found.middle.high,
  "difference": lambda found: found.difference.mean if found.difference else None,
  "difference_low": lambda found: found.difference.low if found.difference else None,
  "difference_high": lambda found: found.difference.high if found.difference else None,
}


def _cells(group: Group, metrics: Sequence[str]) -> list[float | None]:
  return [
    part(group.estimates[metric]) if metric in group.estimates else None
    for metric in metrics
    for part in _PARTS.values()
  ]


def _record(group: Group) -> dict[str, Any]:
  estimates = {
    metric: {name: part(found) for name, part in _PARTS.items() if part(found) is not None}
    for metric, found in group.estimates.items()
  }
  return {"values": group.values, "runs": [row.name for row in group.rows], "metrics": estimates}


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
  values = list(dict.fromkeys(key for row in rows for key in row.values))
  metrics = sorted({name for row in rows for name in row.measured.finals})
  return {
    "hash": [row.hash for row in rows],
    "run": [row.name for row in rows],
    "state": [row.state for row in rows],
    "error": [row.error for row in rows],
    **{key: [row.values.get(key) for row in rows] for key in values},
    **{name: [row.measured.finals.get(name) for row in rows] for name in metrics},
  }


def _array(column: list[Any]) -> pyarrow.Array:
  try:
    return pyarrow.array(column)
  except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):  # values of several types, or lists beside texts
    return pyarrow.array([None if value is None else value_text(value) for value in column])


def _csv(heads: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(heads)
  writer.writerows([["" if value is None else value_text(value) for value in line] for line in lines])
  return text.getvalue()
