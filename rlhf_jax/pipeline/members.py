"""A population of runs: its members, their directories, and their training as one program.

Stages before the first one that differs run once and are shared. After it each member has its own seed, or its own
values of floats of the config. RUN/members/NAME is a run directory like any other (its shared stages are links), so
that every command works on it: NAME is "seed=3", or "ppo.kl_coef=0.1,seed=3".
"""

from __future__ import annotations

import copy
import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.data.files import write_json
from rlhf_jax.pipeline.run import check_done, check_references, is_done, plan
from rlhf_jax.pipeline.run import run as run_stages
from rlhf_jax.population.program import Population
from rlhf_jax.population.varying import Varying
from rlhf_jax.report.report import write_report
from rlhf_jax.settings import ConfigError, nearest
from rlhf_jax.train import Interrupted
from rlhf_jax.train.loop import stop_on_signal

DIRECTORY = "members"


def run(
  config: Mapping[str, Any], workdir: Path, seeds: int, vary: Mapping[str, Sequence[float]], command: str = ""
) -> None:
  """Runs the shared stages, then all members that are not done as one population, and writes the report.

  seeds: number of seeds for each point of the grid of `vary`, counted from config.seed; 0 keeps config.seed. vary: keys
  of the config and their values; several keys make a grid.

  Raises:
    ConfigError: a mistake in the config or in `vary`, or a finished stage that was made with another config.
    Interrupted: on a signal, after every member has saved; the same call continues.
    MemberError: members failed; all members that did not fail have finished.
  """
  workdir = Path(workdir).absolute()
  check_references(config, plan(config, workdir))  # a mistake is named as for a single run
  first = _first_stage(config, vary)
  everyone = members(config, seeds, vary)
  stages = list(config["stages"])
  directories = {name: workdir / DIRECTORY / name for name in everyone}
  steps = {name: plan(everyone[name], directories[name]) for name in everyone}
  for planned in steps.values():
    check_done(planned[first:])
  run_stages({**config, "stages": stages[:first]}, workdir, command)
  write_json(workdir / "config.json", config)
  for directory in directories.values():
    _link(workdir, directory, stages[:first])
  todo = [name for name, planned in steps.items() if not all(map(is_done, planned))]
  try:
    programs = _train(todo, everyone, directories, vary, command)
  finally:
    record = {"stages": stages[first:], "vary": {key: list(values) for key, values in vary.items()}}
    write_json(workdir / "population.json", {**record, "members": list(everyone)})
    write_report(workdir)
  if todo:
    write_json(workdir / "programs.json", programs)


class MemberError(ValueError):
  """Members of a population failed; the message names them with their errors."""


def members(config: Mapping[str, Any], seeds: int, vary: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
  """The config of each member by its name, one for each point of the grid of `vary` and each seed.

  Raises:
    ConfigError: a mistake in `vary`, or a config that no population can be made of.
  """
  own = list(config["stages"])[_first_stage(config, vary) :]
  counted: list[int | None] = [*range(config["seed"], config["seed"] + seeds)]
  found = {}
  for values in itertools.product(*vary.values()):
    chosen = dict(zip(vary, values, strict=True))
    for seed in counted or [None]:
      member = copy.deepcopy(dict(config))
      for key, value in chosen.items():
        _section(member, key)[key.rpartition(".")[2]] = value
      if seed is not None:
        member["seeds"] = {**config.get("seeds", {}), **dict.fromkeys(own, seed)}
      parts = [f"{key}={value!r}" for key, value in chosen.items()] + ([f"seed={seed}"] if seed is not None else [])
      found[",".join(parts)] = member
  return found


def _first_stage(config: Mapping[str, Any], vary: Mapping[str, Sequence[float]]) -> int:
  """Index of the first stage that is each member's own: the last one trained, or an earlier one that varies."""
  if config["transport"]["kind"] == "pmap":
    raise ConfigError("config.transport.kind is 'pmap', whose programs cannot be stacked: a population needs 'jit'")
  if DIRECTORY in config["stages"]:
    raise ConfigError(
      f"config.stages has a stage {DIRECTORY!r}; a population keeps its runs in a directory of that name"
    )
  stages = list(config["stages"])
  trained = [index for index, name in enumerate(stages) if "optimizer" in config.get(name, {})]
  if not trained:
    raise ConfigError("config.stages has no stage with an optimizer, so there is nothing to train a population of")
  for key, values in vary.items():
    section = _section(config, key)
    name = key.rpartition(".")[2]
    if name not in section:
      raise ConfigError(f"--vary {key}: config.{key.rpartition('.')[0]} has no key {name!r}.{nearest(name, section)}")
    if not isinstance(section[name], float):
      raise ConfigError(f"--vary {key}: it is {section[name]!r}, and only floats vary within a population")
    if len(set(values)) < len(values) or not values:
      raise ConfigError(f"--vary {key}: its values must be one or more, and differ")
  return min([trained[-1], *(stages.index(key.split(".")[0]) for key in vary)])


def _section(config: Mapping[str, Any], key: str) -> dict[str, Any]:
  """The mapping that holds the last name of a dotted key."""
  stage, *path = key.split(".")[:-1] or [""]
  if stage not in config["stages"]:
    raise ConfigError(f"--vary {key}: {stage!r} is no stage.{nearest(stage, config['stages'])}")
  here = config[stage]
  for name in path:
    if not isinstance(here.get(name), dict):
      raise ConfigError(f"--vary {key}: there is no mapping {name!r}.{nearest(name, here)}")
    here = here[name]
  return here


def _link(workdir: Path, directory: Path, stages: Sequence[str]) -> None:
  """Links the shared stages into the member's directory; the links are relative, so that the run can be moved."""
  directory.mkdir(parents=True, exist_ok=True)
  for name in stages:
    link = directory / name
    if not link.is_symlink():
      link.symlink_to(os.path.relpath(workdir / name, directory), target_is_directory=True)


def _train(
  todo: Sequence[str],
  everyone: Mapping[str, dict[str, Any]],
  directories: Mapping[str, Path],
  vary: Mapping[str, Sequence[float]],
  command: str,
) -> dict[str, int]:
  """Trains the members named in `todo`; returns for each function the number of programs that it was compiled to."""
  values = {key: [_section(everyone[name], key)[key.rpartition(".")[2]] for name in todo] for key in vary}
  with stop_on_signal() as stop:
    population = Population(len(todo), stop)
    errors = population.run(
      [functools.partial(run_stages, everyone[name], directories[name], command) for name in todo],
      [{key: Varying(values[key], number) for key in vary} for number in range(len(todo))],
    )
  failed = {name: error for name, error in zip(todo, errors, strict=True) if error is not None}
  for name, error in failed.items():
    if not isinstance(error, (Interrupted, ValueError, OSError, FloatingPointError)):
      raise RuntimeError(f"member {name} failed") from error
  stopped = [name for name, error in failed.items() if isinstance(error, Interrupted)]
  broken: dict[str, list[str]] = {}
  for name, error in failed.items():
    if name not in stopped:
      broken.setdefault(str(error), []).append(name)
  if broken:
    told = "; ".join(f"{' and '.join(names)}: {message}" for message, names in broken.items())
    raise MemberError(f"{sum(map(len, broken.values()))} of {len(todo)} members failed ({told})")
  if stopped:
    raise failed[stopped[0]]
  return population.counts()
