"""`rlhf-jax run --seeds N`: N seeds of the last stage that is trained, as a small sweep in the directory of a run.

The stages before it run once, in the run directory itself. RUN/members/seed=K is a run directory like any other, whose
shared stages are links.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rlhf_jax.data.files import write_json
from rlhf_jax.pipeline.check import check_references, describe
from rlhf_jax.pipeline.done import Books, steps_to_run
from rlhf_jax.pipeline.plan import check_redo, plan
from rlhf_jax.pipeline.run import run as run_stages
from rlhf_jax.settings import ConfigError
from rlhf_jax.sweep.attempts import State
from rlhf_jax.sweep.cells import config_hash
from rlhf_jax.sweep.command import SweepError, tell
from rlhf_jax.sweep.drive import drive
from rlhf_jax.sweep.engines import Local, default_workers
from rlhf_jax.sweep.measures import measure
from rlhf_jax.sweep.tables import Row
from rlhf_jax.sweep.units import Unit, check_units, own_steps, write_units

MEMBERS = "members"


def units_of(config: Mapping[str, Any], seeds: int) -> tuple[dict[str, Any], list[Unit]]:
  """(config of the shared stages, a unit for each seed, counted from config.seed).

  Raises:
    ConfigError: the config trains nothing, or has a stage called "members".
  """
  stages = list(config["stages"])
  if MEMBERS in stages:
    raise ConfigError(f"config.stages has a stage {MEMBERS!r}; --seeds keeps its runs in a directory of that name")
  trained = [index for index, name in enumerate(stages) if "optimizer" in config.get(name, {})]
  if not trained:
    raise ConfigError("config.stages has no stage with an optimizer, so there is nothing to train with several seeds")
  shared, own = stages[: trained[-1]], stages[trained[-1] :]
  units = []
  for seed in range(config["seed"], config["seed"] + seeds):
    member = {**config, "seeds": {**config.get("seeds", {}), **dict.fromkeys(own, seed)}}
    units.append(Unit(f"{MEMBERS}/seed={seed}", member, tuple(own), dict.fromkeys(shared, "."), {}))
  return {**config, "stages": shared}, units


def run(
  config: Mapping[str, Any], workdir: Path, seeds: int, command: str, redo: Collection[str], accept_changes: bool
) -> None:
  """Runs the shared stages, then the seeds in processes of this machine, and writes the tables of both.

  redo and accept_changes: as `rlhf_jax.pipeline.run.run`.

  Raises:
    ConfigError: a mistake in the config, or a stage that was made from something else.
    Interrupted: on a signal while the shared stages run; the same call continues.
    SweepStopped: on a signal after them.
    SweepError: seeds have failed; the others have finished.
  """
  workdir = Path(workdir).absolute()
  shared, units = units_of(config, seeds)
  costs = check_units(units, workdir, redo, accept_changes)
  for unit in units:
    Books(plan(unit.config, workdir / unit.name), workdir / unit.name, accept_changes).settle(redo)
  if shared["stages"]:
    run_stages(shared, workdir, command, set(redo) & set(shared["stages"]), accept_changes)
  write_json(workdir / "config.json", config)
  write_units(units, workdir)
  state = max((cost.state_bytes for own in costs.values() for cost in own), default=0)
  states: dict[str, State] = {}
  try:
    states = drive(units, workdir, Local(workdir, min(seeds, default_workers(state))), 0)
  finally:
    tell([_row(unit, workdir, states) for unit in units], workdir)
  failed = {name: found.error for name, found in states.items() if found.status == "failed"}
  if failed:
    told = "; ".join(f"{name}: {error}" for name, error in failed.items())
    raise SweepError(f"{len(failed)} of {len(units)} seeds failed ({told})")


def check(
  config: Mapping[str, Any], workdir: Path, seeds: int, redo: Collection[str] = (), accept_changes: bool = False
) -> str:
  """`rlhf_jax.pipeline.check.check_run` with --seeds: what the shared stages and those of every seed will cost.

  redo and accept_changes: as `rlhf_jax.pipeline.run.run`.

  Raises:
    ConfigError: a mistake, named with its key.
  """
  workdir = Path(workdir).absolute()
  check_redo(redo, config["stages"])
  shared, units = units_of(config, seeds)
  steps = plan(shared, workdir) if shared["stages"] else []
  todo = steps_to_run(steps, set(redo) & set(shared["stages"]), accept_changes)
  check_references(shared, steps, todo)
  for unit in units:
    planned, own = own_steps(unit, workdir, redo, accept_changes)
    steps += [step for step in planned if step.stage.name in unit.stages]
    todo += own
  return describe(steps, todo)


def _row(unit: Unit, workdir: Path, states: Mapping[str, State]) -> Row:
  name = unit.name.rpartition("/")[2]
  found = states.get(unit.name, State("unfinished"))
  values = {"seed": unit.config["seeds"][unit.stages[0]]}
  return Row(config_hash(unit.config), name, found.status, values, measure(workdir / unit.name), found.error)
