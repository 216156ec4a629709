"""The work of a sweep: stages that cells share run once, each cell runs the rest of its own.

A unit is a run directory. DIR/cells/NAME is that of a cell; DIR/shared/HASH has the stages that several cells have in
common, and is linked into each of them. A stage is shared where everything it is made from is the same, by the
fingerprint of all keys of its config, of its seed and of the stages before it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.data.files import DataError, read_json, write_json
from rlhf_jax.pipeline.check import check_references, check_steps
from rlhf_jax.pipeline.costs import Cost
from rlhf_jax.pipeline.done import steps_to_run
from rlhf_jax.pipeline.plan import Step, plan, with_dependants
from rlhf_jax.pipeline.references import stages_read
from rlhf_jax.settings import ConfigError
from rlhf_jax.sweep.cells import Cell

FILE = "unit.json"


@dataclasses.dataclass(frozen=True)
class Unit:
  """A run that an engine carries out as a whole."""

  name: str
  """Path of the run directory below that of the sweep."""
  config: dict[str, Any]
  """Resolved config of the run."""
  stages: tuple[str, ...]
  """Names of the stages that this unit carries out; those of `links` are there when it starts."""
  links: dict[str, str]
  """Name of the unit that makes a stage, by the name of the stage; "." for the directory of the sweep, which has it."""
  resources: dict[str, Any]
  """Resources of a scheduler, in submitit's names."""

  @property
  def after(self) -> tuple[str, ...]:
    """The names of the units that must be done before this one starts."""
    return tuple(dict.fromkeys(name for name in self.links.values() if name != "."))

  def is_done(self, root: Path) -> bool:
    """Whether every stage has run to its end. root: the directory of the sweep."""
    return all((root / self.name / stage / "done.json").exists() for stage in self.config["stages"]) and (
      not self.stages or (root / self.name / "report.html").exists()
    )


def plan_units(cells: Sequence[Cell], root: Path) -> list[Unit]:
  """The units of a sweep, each behind those that it needs; nothing is written.

  Raises:
    ConfigError: a mistake in the config of a cell, which is named.
  """
  steps = [_named(cell, root) for cell in cells]
  keys = [_keys(planned) for planned in steps]
  users: dict[str, list[int]] = {}
  for number, own in enumerate(keys):
    for key in own.values():
      users.setdefault(key, []).append(number)
  makers: dict[tuple[int, ...], dict[str, str]] = {}  # cells -> {stage that they share: its key}
  for own in keys:
    for stage, key in own.items():
      if len(users[key]) > 1:
        makers.setdefault(tuple(users[key]), {})[stage] = key
  names = {group: f"shared/{_digest(sorted(own.values()))[:10]}" for group, own in makers.items()}
  units = []
  for group in sorted(makers, key=len, reverse=True):  # what a stage reads is shared by at least the same cells
    first = group[0]
    stages = [stage for stage in keys[first] if stage in makers[group]]
    needed = _needed(steps[first], stages)
    links = {stage: names[tuple(users[keys[first][stage]])] for stage in needed if stage not in stages}
    config = {**cells[first].config, "stages": needed}
    units.append(Unit(names[group], config, tuple(stages), links, cells[first].resources))
  for number, cell in enumerate(cells):
    links = {stage: names[tuple(users[key])] for stage, key in keys[number].items() if len(users[key]) > 1}
    remaining = tuple(stage for stage in keys[number] if stage not in links)
    units.append(Unit(f"cells/{cell.name}", cell.config, remaining, links, cell.resources))
  return units


def _named(cell: Cell, root: Path) -> list[Step]:
  try:
    return plan(cell.config, root / "cells" / cell.name)
  except ConfigError as error:
    raise ConfigError(f"cell {cell.name}: {error}") from error


def _keys(steps: Sequence[Step]) -> dict[str, str]:
  """{stage: what tells whether two cells can share it}."""
  return {
    step.stage.name: _digest([step.first_fingerprint, dataclasses.asdict(step.stage.transport), step.stage.writers])
    for step in steps
  }


def _needed(steps: Sequence[Step], stages: Iterable[str]) -> list[str]:
  """`stages` and everything before them that they read, in the order of the config."""
  needed = set(stages)
  for step in reversed(steps):
    if step.stage.name in needed:
      needed |= {*step.upstream, *stages_read(step.references)}
  return [step.stage.name for step in steps if step.stage.name in needed]


def check_units(
  units: Sequence[Unit], root: Path, redo: Collection[str] = (), accept_changes: bool = False
) -> dict[str, list[Cost]]:
  """Checks every unit as `rlhf-jax run --check` does, and returns what its stages will cost, by its name.

  redo and accept_changes: as `rlhf_jax.pipeline.run.run`.

  Raises:
    ConfigError: a mistake, with the unit in which it is.
  """
  found = {}
  for unit in units:
    try:
      found[unit.name] = check_steps(*own_steps(unit, root, redo, accept_changes))
    except ConfigError as error:
      raise ConfigError(f"{unit.name}: {error}") from error
  return found


def own_steps(
  unit: Unit, root: Path, redo: Collection[str] = (), accept_changes: bool = False
) -> tuple[list[Step], list[Step]]:
  """(the steps of a unit's run, those of its own that it is to run); checks what these refer to. Raises ConfigError."""
  steps = plan(unit.config, root / unit.name)
  own = [step for step in steps if step.stage.name in unit.stages]
  redone = [name for name in with_dependants(redo, steps) if name in unit.stages]
  todo = steps_to_run(own, redone, accept_changes)
  check_references(unit.config, steps, todo)
  return steps, todo


def write_units(units: Sequence[Unit], root: Path) -> None:
  """Makes the directory of every unit, with its unit.json and the links to what it shares; links are relative."""
  for unit in units:
    directory = root / unit.name
    directory.mkdir(parents=True, exist_ok=True)
    record = {**dataclasses.asdict(unit), "working_directory": os.getcwd()}
    if not (directory / FILE).exists() or read_json(directory / FILE) != record:
      write_json(directory / FILE, record)
    for stage, maker in unit.links.items():
      link = directory / stage
      if not os.path.lexists(link):  # else the cell made it for itself, before others came that share it
        with contextlib.suppress(FileExistsError):  # another sweep was faster
          link.symlink_to(os.path.relpath(root / maker / stage, directory), target_is_directory=True)


def read_unit(directory: Path) -> tuple[Unit, str]:
  """(the unit of a run directory, the directory in which its config's relative paths start). Raises ConfigError."""
  try:
    record: Mapping[str, Any] = read_json(directory / FILE)
    fields = {field.name: record[field.name] for field in dataclasses.fields(Unit)}
    return Unit(**{**fields, "stages": tuple(record["stages"])}), record["working_directory"]
  except (DataError, OSError, KeyError, TypeError) as error:
    raise ConfigError(f"{directory} is no run of a sweep: {error}") from error


def root_of(unit: Unit, directory: Path) -> Path:
  """The directory of the sweep that a unit's run directory belongs to."""
  return directory.parents[len(Path(unit.name).parts) - 1]


def _digest(value: Any) -> str:
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
