"""`rlhf-jax sweep` and `rlhf-jax compare`: from a file of cells to a table, and from run directories to a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.data.files import read_json, write_json
from rlhf_jax.pipeline.costs import Cost, size
from rlhf_jax.settings import ConfigError
from rlhf_jax.sweep.attempts import State
from rlhf_jax.sweep.cells import Cell, config_hash, swept_values
from rlhf_jax.sweep.commands import write_commands
from rlhf_jax.sweep.drive import drive
from rlhf_jax.sweep.engines import Engine, Inline, Local, default_workers
from rlhf_jax.sweep.measures import measure
from rlhf_jax.sweep.page import write_page
from rlhf_jax.sweep.slurm import Slurm
from rlhf_jax.sweep.table_files import read_table, write_tables
from rlhf_jax.sweep.tables import Row, choose_metrics, groups_of, markdown, warnings_of
from rlhf_jax.sweep.units import Unit, check_units, plan_units, write_units
from rlhf_jax.train.progress import console

PLAN = "sweep.json"


class SweepError(ValueError):
  """Cells of a sweep have failed; the message names them."""


def prepare(cells: Sequence[Cell], root: Path) -> tuple[list[Unit], dict[str, list[Cost]]]:
  """The units of all cells, checked, and what their stages will cost. Raises ConfigError for a mistake in any cell."""
  units = plan_units(cells, root)
  return units, check_units(units, root)


def plan_text(cells: Sequence[Cell], units: Sequence[Unit], costs: dict[str, list[Cost]], root: Path) -> str:
  """The plan in lines: every unit with its stages and what they cost."""
  lines = []
  for unit in units:
    own = costs[unit.name]
    state = " (done)" if unit.is_done(root) else ""
    lines.append(f"{unit.name}{state}: {', '.join(unit.stages) or 'all of it is shared'}")
    details = [cost.steps for cost in own if cost.steps]
    stored = sum(cost.checkpoint_bytes for cost in own)
    lines += [f"  {', '.join(details)}; checkpoints {size(stored)}"] if details else []
    lines += [f"  after {', '.join(unit.after)}"] if unit.after else []
  shared = sum(unit.name.startswith("shared/") for unit in units)
  total = sum(cost.checkpoint_bytes for own in costs.values() for cost in own)
  lines.append(f"{len(cells)} cells, {shared} sets of shared stages; the checkpoints will take {size(total)}")
  return "\n".join(lines)


def record(cells: Sequence[Cell], root: Path) -> None:
  """Keeps the names, hashes and values of the cells in DIR/sweep.json, which tables are made from."""
  write_json(root / PLAN, {"cells": [{"name": c.name, "hash": c.hash, "values": c.values} for c in cells]})


def choose_engine(
  name: str, root: Path, workers: int | None, costs: dict[str, list[Cost]], parameters: dict[str, Any]
) -> Engine:
  """The engine "inline", "local" or "slurm". workers: runs at a time, None for as many as there is room for.

  parameters: of jobs of SLURM, in submitit's names.
  """
  if name == "inline":
    return Inline(root)
  if name == "slurm":
    return Slurm(root, parameters, workers)
  state = max((cost.state_bytes for own in costs.values() for cost in own), default=0)
  return Local(root, workers or default_workers(state))


def read_parameters(given: Sequence[str]) -> dict[str, Any]:
  """["timeout_min=60", ...] -> {"timeout_min": 60, ...}; what is no number or true or false stays a text.

  Raises:
    ConfigError: an element without "=".
  """
  found: dict[str, Any] = {}
  for text in given:
    key, equals, value = text.partition("=")
    if not equals:
      raise ConfigError(f"--slurm {text}: it must be KEY=VALUE")
    try:
      found[key] = json.loads(value)
    except ValueError:
      found[key] = value
  return found


def hand_out(cells: Sequence[Cell], units: Sequence[Unit], root: Path, metrics: Sequence[str]) -> Path:
  """Writes the command lines of all runs that are not done, and the tables of what is there; returns their path."""
  write_units(units, root)
  record(cells, root)
  tell(rows_of_sweep(root), root, metrics)
  return write_commands(units, root)


def run_cells(
  cells: Sequence[Cell], root: Path, units: Sequence[Unit], engine: Engine, retries: int, metrics: Sequence[str] = ()
) -> None:
  """Carries out all cells and writes the tables, also where some have failed.

  Raises:
    SweepError: cells have failed; they are named with their errors.
    SweepStopped: on a signal.
  """
  write_units(units, root)
  record(cells, root)
  states: dict[str, State] = {}
  try:
    states = drive(units, root, engine, retries)
  finally:
    tell(rows_of_sweep(root, states), root, metrics)
  failed = {name: state for name, state in states.items() if state.status == "failed"}
  if failed:
    told = "; ".join(f"{name}: {state.error} (log: {root / name / 'log.txt'})" for name, state in failed.items())
    blocked = sum(state.status == "blocked" for state in states.values())
    behind = f", and {blocked} that need them were not run" if blocked else ""
    raise SweepError(f"{len(failed)} of {len(units)} runs failed{behind}: {told}")


def rows_of_sweep(root: Path, states: dict[str, State] | None = None) -> list[Row]:
  """A row for each cell of a sweep's directory. states: by unit, where they are known."""
  rows = []
  for cell in read_json(root / PLAN)["cells"]:
    directory = root / "cells" / cell["name"]
    state = (states or {}).get(f"cells/{cell['name']}") or _state(directory)
    rows.append(Row(cell["hash"], cell["name"], state.status, cell["values"], measure(directory), state.error))
  return rows


def _state(directory: Path) -> State:
  if not (directory / "config.json").is_file():
    return State("waiting")
  stages = read_json(directory / "config.json")["stages"]
  return State("done" if all((directory / stage / "done.json").exists() for stage in stages) else "unfinished")


def compare(directories: Sequence[Path]) -> list[Row]:
  """A row for each run of `directories`; a sweep's directory, or that of a run with --seeds, stands for its runs.

  A table.csv that was kept stands for the runs that it was made from; it has their numbers, not their curves.

  Raises:
    ConfigError: a directory is no run and no sweep, or a table is not the only argument or no table.
  """
  if any(directory.suffix == ".csv" for directory in directories):
    if len(directories) > 1:
      raise ConfigError("a table is compared alone: it has the columns of its own runs")
    return read_table(directories[0])
  if len(directories) == 1 and (directories[0] / PLAN).is_file():
    return rows_of_sweep(directories[0])
  runs: list[Path] = []
  for directory in directories:
    inner = [*sorted((directory / "cells").glob("*")), *sorted((directory / "members").glob("*"))]
    runs += inner or [directory]
  configs: list[dict[str, Any]] = []
  for run in runs:
    if not (run / "config.json").is_file():
      raise ConfigError(f"{run} is no run directory: it has no config.json")
    configs.append(read_json(run / "config.json"))
  columns = swept_values(configs)
  return [
    Row(config_hash(config), run.name, _state(run).status, {k: v[number] for k, v in columns.items()}, measure(run))
    for number, (run, config) in enumerate(zip(runs, configs, strict=True))
  ]


def tell(rows: Sequence[Row], directory: Path, wanted: Sequence[str] = ()) -> None:
  """Writes the tables to `directory`, and prints the grouped one with its warnings."""
  metrics = choose_metrics(rows, wanted)
  groups = groups_of(rows, metrics)
  write_tables(directory, rows, metrics, groups)
  write_page(directory, rows, metrics, groups)
  console.print(markdown(groups, metrics), markup=False)
  for warning in warnings_of(groups, metrics):
    console.print(warning, markup=False)
