"""A run: its stages one after the other, each done once, each continued where it was.

`config.stages` names the stages in order; `config.<stage>.algorithm` is the module that carries the stage out (a dotted
name or the path of a .py file) with its dataclass `Config` and its `run(config, stage)`. A stage is marked done, with a
fingerprint of its config and of the stages it reads from, only when it has returned.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rlhf_jax.data.files import write_json
from rlhf_jax.pipeline.old_names import current_names, first_names
from rlhf_jax.pipeline.references import Reference, check_names, check_path, read_references, stages_read
from rlhf_jax.population import varied
from rlhf_jax.report.report import write_report
from rlhf_jax.settings import ConfigError, import_module, nearest, parse
from rlhf_jax.stage import ImportedModel, Model, Stage, Transport
from rlhf_jax.train.progress import console
from rlhf_jax.train.provenance import provenance

SHARED = ("seed", "stages", "tokenizer", "model", "transport")
OPTIONAL = ("seeds",)  # seeds of single stages, instead of the run's seed


@dataclasses.dataclass(frozen=True)
class Step:
  """A stage that is ready to run."""

  module: ModuleType
  """Module that carries out the stage."""
  config: Any
  """Config of the stage, parsed into the module's `Config`."""
  given: dict[str, Any]
  """Config of the stage as it was given."""
  references: tuple[Reference, ...]
  """Texts of the config that may name stages, files and functions."""
  stage: Stage
  """Place of the stage in its run, and the settings that all stages share."""


def run(config: Mapping[str, Any], workdir: Path, command: str = "") -> None:
  """Carries out every stage that is not done yet; `config` is a plain nested mapping.

  Everything in the config is checked before anything starts. `command`, the command line that asked for the run, is
  kept for the report: in command.txt the last one, in done.json that of each stage. So are the versions and the
  hardware, in environment.json and in done.json.

  Raises:
    ConfigError: a mistake in the config, or a finished stage that was made with another config.
    Interrupted: on a signal, after saving; the same call continues.
  """
  workdir = Path(workdir).absolute()
  steps = plan(config, workdir)
  check_done(steps)
  check_references(config, steps)
  workdir.mkdir(parents=True, exist_ok=True)
  write_json(workdir / "config.json", config)
  write_json(workdir / "environment.json", provenance())
  if command:
    (workdir / "command.txt").write_text(command + "\n")
  for number, step in enumerate(steps, 1):
    label = f"[{number}/{len(steps)}] {step.stage.name}"
    if is_done(step):
      console.print(f"{label}: done already", markup=False)
      continue
    console.print(label, markup=False)
    seconds = _carry_out(step, command)
    console.print(f"{label}: done in {seconds:.0f} s", markup=False)
    write_report(workdir)
  if not (workdir / "report.html").exists():
    write_report(workdir)


def _carry_out(step: Step, command: str) -> float:
  """Runs a stage and marks it done; returns the seconds it took."""
  start = time.monotonic()
  step.stage.directory.mkdir(parents=True, exist_ok=True)
  write_json(step.stage.directory / "config.json", step.given)
  step.module.run(varied(step.stage.name, step.config), step.stage)
  seconds = round(time.monotonic() - start, 1)
  record = {"fingerprint": step.stage.fingerprint, "seconds": seconds, "command": command}
  write_json(_done_path(step.stage), {**record, "environment": provenance()})
  return seconds


def plan(config: Mapping[str, Any], workdir: Path) -> list[Step]:
  """Parses the whole config, in today's names or in old ones, into steps; touches no file. Raises ConfigError."""
  config = current_names(config)
  _check_keys(config)
  stages = tuple(config["stages"])
  model, transport = parse_shared(config)
  steps: list[Step] = []
  fingerprints: dict[str, str] = {}
  tokenizer = stages_read(read_references(config["tokenizer"], "tokenizer"))
  sections = [key for key in config if key not in SHARED + OPTIONAL]
  for name in stages:
    if name not in sections:
      raise ConfigError(f"config.stages names {name!r}, but there is no config.{name}.{nearest(name, sections)}")
    if name in fingerprints:
      raise ConfigError(f"config.stages names {name!r} twice")
    given = config[name]
    module = _stage_module(given["algorithm"], name)
    parsed = parse(module.Config, given, name)
    references = read_references(parsed, name)
    read = stages_read(references)
    upstream = {other: fingerprints.get(other) for other in stages if other != name and other in read}
    later = [other for other, fingerprint in upstream.items() if fingerprint is None]
    if later:
      raise ConfigError(f"config.{name} reads from {later[0]!r}, which config.stages puts after it")
    # Token ids mean nothing without their tokenizer: whatever comes after the stage that trains it depends on it.
    upstream |= {other: mark for other, mark in fingerprints.items() if other in tokenizer}
    seed = config.get("seeds", {}).get(name, config["seed"])
    shared = {"seed": seed, "tokenizer": config["tokenizer"], "model": config["model"]}
    fingerprints[name] = _fingerprint(first_names([name, given, shared, upstream]))
    stage = Stage(name, Path(workdir), seed, config["tokenizer"], model, transport, fingerprints[name])
    steps.append(Step(module, parsed, given, references, stage))
  return steps


def parse_shared(config: Mapping[str, Any]) -> tuple[Model | ImportedModel, Transport]:
  """The settings of a config that all stages share. Raises ConfigError."""
  kind: type[Model] | type[ImportedModel] = ImportedModel if "path" in config["model"] else Model
  return parse(kind, config["model"], "model"), parse(Transport, config["transport"], "transport")


def _check_keys(config: Mapping[str, Any]) -> None:
  missing = [key for key in SHARED if key not in config]
  if missing:
    raise ConfigError(f"config lacks the key {missing[0]!r}.")
  for key, kind in (("seed", int), ("tokenizer", str), ("model", Mapping), ("transport", Mapping)):
    if not isinstance(config[key], kind) or isinstance(config[key], bool):
      wanted = "a mapping" if kind is Mapping else kind.__name__
      raise ConfigError(f"config.{key} must be {wanted}, not {config[key]!r}.")
  seeds = config.get("seeds", {})
  if not isinstance(seeds, Mapping) or not all(type(seed) is int for seed in seeds.values()):
    raise ConfigError(f"config.seeds must be a mapping from stages to their seeds, not {seeds!r}.")
  stages = config["stages"]
  if not isinstance(stages, (list, tuple)) or not all(isinstance(name, str) for name in stages):
    raise ConfigError(f"config.stages must be a tuple of names, not {stages!r}.")
  for key, section in config.items():
    if key in SHARED + OPTIONAL or (isinstance(section, Mapping) and "algorithm" in section):
      continue
    if key in stages:
      raise ConfigError(f"config.{key} must be a mapping with the key 'algorithm', not {section!r}.")
    raise ConfigError(f"config has no key {key!r}.{nearest(key, {*SHARED, *stages})}")


def _stage_module(algorithm: Any, name: str) -> ModuleType:
  if not isinstance(algorithm, str) or not algorithm:
    raise ConfigError(f"config.{name}.algorithm must be the name of a module or the path of a .py file")
  try:
    module = import_module(algorithm)
  except ModuleNotFoundError as error:
    raise ConfigError(f"config.{name}.algorithm: {algorithm} cannot be imported: {error}") from error
  lacking = [attribute for attribute in ("Config", "run") if not hasattr(module, attribute)]
  if lacking:
    raise ConfigError(f"config.{name}.algorithm: {algorithm} has no {lacking[0]!r}, so it is no stage")
  for library in getattr(module, "NEEDS", ()):
    if importlib.util.find_spec(library) is None:
      raise ConfigError(f"config.{name}.algorithm: {algorithm} needs the library {library}: pip install {library}")
  return module


def is_done(step: Step) -> bool:
  """Whether the stage has run to its end."""
  return _done_path(step.stage).exists()


def check_done(steps: Iterable[Step]) -> None:
  """Raises ConfigError where a stage is done that was made with another config."""
  for step in steps:
    _check_done(step)


def check_references(config: Mapping[str, Any], steps: Sequence[Step]) -> None:
  """Raises ConfigError where a stage that is still to run names a stage, file or function that is not there."""
  writes = {step.stage.name: getattr(step.module, "WRITES", None) for step in steps}
  for number, step in enumerate(steps):
    if not is_done(step):
      check_names(step.references, step.stage, {other.stage.name: writes[other.stage.name] for other in steps[:number]})
  if config["tokenizer"].startswith("{run}/") and not all(map(is_done, steps)):
    sections = {
      key: writes.get(key) for key in config if key not in SHARED
    }  # the stage that trains it may come in a later run
    check_path("tokenizer", config["tokenizer"], steps[0].stage, sections)


def _check_done(step: Step) -> None:
  path = _done_path(step.stage)
  if not path.exists() or json.loads(path.read_text())["fingerprint"] == step.stage.fingerprint:
    return
  before = dict(_flatten(current_names(json.loads((step.stage.directory / "config.json").read_text()))))
  now = dict(_flatten(json.loads(json.dumps(step.given))))
  changed = [
    f"{step.stage.name}.{key}: {before.get(key)!r} then, {now.get(key)!r} now"
    for key in sorted({*before, *now})
    if before.get(key) != now.get(key)
  ]
  what = "; ".join(changed) or "something it reads from (an earlier stage, seed, model or tokenizer) has changed"
  raise ConfigError(
    f"stage {step.stage.name!r} in {step.stage.root} was made with another config ({what}). "
    f"Choose another --workdir, or delete {step.stage.directory} and the stages that read from it to make them anew"
  )


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
  if isinstance(value, Mapping):
    for key, item in value.items():
      yield from _flatten(item, f"{prefix}.{key}" if prefix else key)
  else:
    yield prefix, value


def _done_path(stage: Stage) -> Path:
  return stage.directory / "done.json"


def _fingerprint(value: Any) -> str:
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
