"""A population of runs: what its members are, where they live, and that they are trained together.

The stages up to the first one that is trained anew are the run's own and shared; from there on each member has its own
seed or its own values of floats of the config. RUN/members/NAME is a run directory like any other (its shared stages
are links), so that every command works on it: NAME is "seed=3", or "ppo.kl_coef=0.1,seed=3".
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.data.files import write_json
from rlhf_jax.pipeline.run import check_done, check_references, is_done, plan
from rlhf_jax.pipeline.run import run as run_stages
from rlhf_jax.population import Population, Varying
from rlhf_jax.report.report import write_report
from rlhf_jax.settings import ConfigError, nearest
from rlhf_jax.train import Interrupted
from rlhf_jax.train.loop import stop_on_signal

DIRECTORY = "members"


def run(
  config: Mapping[str, Any], workdir: Path, seeds: int, vary: Mapping[str, Sequence[float]], command: str = ""
) -> None:
  """Runs the shared stages, then all members that are not done as one population, and writes the report.

  seeds: seeds of each member of the grid of `vary`, counted from config.seed; 0 keeps config.seed. vary: key of the
  config -> its values.

  Raises:
    ConfigError: a mistake in the config or in `vary`, or a finished stage that was made with another one.
    Interrupted: on a signal, after every member has saved; the same call continues.
    MemberError: where members failed; the others have finished.
  """
  workdir = Path(workdir).absolute()
  check_references(config, plan(config, workdir))  # names what is wrong with it as for a single run
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
  """Members of a population that failed: which, and why."""


def members(config: Mapping[str, Any], seeds: int, vary: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
  """Name -> config of each member: the grid of `vary` times the seeds. Raises ConfigError."""
  own = list(config["stages"])[_first_stage(config, vary) :]
  found = {}
  for values in itertools.product(*vary.values()):
    chosen = dict(zip(vary, values, strict=True))
    for seed in range(config["seed"], config["seed"] + seeds) if seeds else [None]:
      member = copy.deepcopy(dict(config))
      for key, value in chosen.items():
        _section(member, key)[key.rpartition(".")[2]] = value
      if seed is not None:
        member["seeds"] = {**config.get("seeds", {}), **dict.fromkeys(own, seed)}
      parts = [f"{key}={value!r}" for key, value in chosen.items()] + ([f"seed={seed}"] if seed is not None else [])
      found[",".join(parts)] = member
  return found


def _first_stage(config, vary) -> int:
  """Index of the first stage that members have of their own: the last one trained, or an earlier one that varies."""
  if config["transport"]["kind"] == "pmap":
    raise ConfigError("config.transport.kind is 'pmap', whose programs cannot be stacked: a population needs 'jit'")
  if DIRECTORY in config["stages"]:
    raise ConfigError(f"config.stages has a stage {DIRECTORY!r}, which is where a population keeps its runs")
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


def _section(config, key) -> dict[str, Any]:
  """The mapping that the last name of a dotted key is in."""
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
  """The run's own stages, as if they were the member's. Relative, so that the run can be moved."""
  directory.mkdir(parents=True, exist_ok=True)
  for name in stages:
    link = directory / name
    if not link.is_symlink():
      link.symlink_to(os.path.relpath(workdir / name, directory), target_is_directory=True)


def _train(todo, everyone, directories, vary, command) -> dict[str, int]:
  """Trains the members named in `todo`; how many programs each function was compiled to."""
  values = {key: [_section(everyone[name], key)[key.rpartition(".")[2]] for name in todo] for key in vary}
  with stop_on_signal() as stop:
    population = Population(len(todo), stop)
    errors = population.run(
      [lambda name=name: run_stages(everyone[name], directories[name], command) for name in todo],
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
