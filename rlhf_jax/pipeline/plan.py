"""What a config asks for: its stages as steps that are ready to run, checked as a whole before anything starts."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Set
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from rlhf_jax.pipeline.field_types import OPTIONAL
from rlhf_jax.pipeline.lengths import fill_lengths
from rlhf_jax.pipeline.old_names import current_names, first_names
from rlhf_jax.pipeline.references import Reference, load, read_references, stages_read
from rlhf_jax.ranges import EVALUATION, NEUTRAL, STEPS
from rlhf_jax.settings import ConfigError, fitting_option, import_module, nearest, parse, values
from rlhf_jax.stage import ImportedModel, Model, Stage, Transport
from rlhf_jax.train.writers import check_writers

SHARED = ("seed", "stages", "tokenizer", "model", "transport")


@dataclasses.dataclass(frozen=True)
class Step:
  """A stage that is ready to run."""

  module: ModuleType
  """Module that carries out the stage."""
  config: Any
  """Config of the stage, parsed into the module's `Config`; lengths that it leaves to the run are filled in."""
  given: dict[str, Any]
  """Config of the stage as it was given."""
  references: tuple[Reference, ...]
  """Texts of the config that may name stages, files and functions."""
  inert: frozenset[str]
  """Places of the config whose values cannot change the result."""
  stage: Stage
  """Place of the stage in its run, and the settings that all stages share."""
  upstream: tuple[str, ...]
  """Stages of the config that this one reads from, that of the tokenizer included."""
  first_fingerprint: str
  """Fingerprint as versions before 0.3 took it, of every key of the config."""


def plan(config: Mapping[str, Any], workdir: Path) -> list[Step]:
  """Parses the whole config, in today's names or in old ones, into steps; touches no file. Raises ConfigError."""
  config = current_names(config)
  _check_keys(config)
  stages = tuple(config["stages"])
  shapes, transport = parse_shared(config, stages)
  writers = check_writers(config.get("writers", Stage.writers))
  steps: list[Step] = []
  fingerprints: dict[str, str] = {}
  first: dict[str, str] = {}
  tokenizer = stages_read(read_references(config["tokenizer"], "tokenizer"))
  sections = [key for key in config if key not in (*SHARED, *OPTIONAL)]
  for name in stages:
    if name not in sections:
      raise ConfigError(f"config.stages names {name!r}, but there is no config.{name}.{nearest(name, sections)}")
    if name in fingerprints:
      raise ConfigError(f"config.stages names {name!r} twice")
    given = config[name]
    module = _stage_module(given["algorithm"], name)
    model = shapes[name]
    longest = config.get("max_length", 0) or (model.max_length if isinstance(model, Model) else 0)
    parsed, has_run_length = fill_lengths(parse(module.Config, given, name), name, longest)
    references = read_references(parsed, name)
    neutral = _neutral_marks(parsed)
    inert = frozenset(where for where, _, marks in values(parsed, name) if neutral & set(marks))
    read = stages_read(references)
    later = [other for other in stages if other != name and other in read and other not in fingerprints]
    if later:
      raise ConfigError(f"config.{name} reads from {later[0]!r}, which config.stages puts after it")
    # Token ids mean nothing without their tokenizer: whatever comes after the stage that trains it depends on it.
    felt = stages_read(found for found in references if found.where not in inert)
    upstream = tuple(other for other in fingerprints if other in felt | tokenizer)
    seed = config.get("seeds", {}).get(name, config["seed"])
    shared = {"seed": seed, "tokenizer": config["tokenizer"], "model": _shape(config, name)}
    first[name] = _fingerprint([name, given, shared, {other: first[other] for other in upstream}])
    counted = _without(module.Config, given, neutral)
    if has_run_length and "max_length" in config:
      counted["max_length"] = longest
    if steps_field(parsed):
      del counted[steps_field(parsed)]
    fingerprints[name] = _fingerprint([name, counted, shared, {other: fingerprints[other] for other in upstream}])
    stage = Stage(name, Path(workdir), seed, config["tokenizer"], model, transport, fingerprints[name], writers)
    steps.append(Step(module, parsed, given, references, inert, stage, upstream, first[name]))
  return steps


def steps_field(config: Any) -> str:
  """The field of a parsed config, marked `STEPS`, of which a larger value goes on where a finished stage ended.

  "" where the stage has none, where its learning rate at a step depends on the number of steps, or where it ends with
  its best state rather than with its last.
  """
  optimizer, loop = getattr(config, "optimizer", None), getattr(config, "loop", None)
  if optimizer is None or optimizer.decay != "constant" or optimizer.warmup or (loop and loop.keep_best):
    return ""
  return next((name for name, hint in _hints(type(config)).items() if STEPS in _marks(hint)), "")


def check_redo(redo: Iterable[str], stages: Collection[str]) -> None:
  """Raises ConfigError where `redo` names no stage."""
  for name in redo:
    if name not in stages:
      raise ConfigError(f"--redo {name}: config.stages has no such stage.{nearest(name, stages)}")


def with_dependants(names: Iterable[str], steps: Iterable[Step]) -> list[str]:
  """The stages `names` and those that depend on them, in the order of the config."""
  found, ordered = set(names), []
  for step in steps:
    if step.stage.name in found or found & set(step.upstream):
      found.add(step.stage.name)
      ordered.append(step.stage.name)
  return ordered


def _neutral_marks(config: Any) -> set[str]:
  """The marks of the fields that cannot change the result of a stage with this config."""
  loop = getattr(config, "loop", None)
  neutral = {NEUTRAL, EVALUATION}
  if loop and loop.nonfinite == "rollback":  # training goes back to a checkpoint: how often it saves then matters
    neutral.remove(NEUTRAL)
  if loop and loop.keep_best:
    neutral.remove(EVALUATION)
  return neutral


def _without(kind: type, given: Mapping[str, Any], marks: Set[str]) -> dict[str, Any]:
  """A section of a config, of the dataclass `kind`, without the keys that have one of the marks."""
  hints = _hints(kind)
  found = {}
  for key, value in given.items():
    if marks & set(_marks(hints[key])):
      continue
    is_union = typing.get_origin(hints[key]) in (types.UnionType, typing.Union)
    inner = fitting_option(typing.get_args(hints[key]), value) if is_union else hints[key]
    if dataclasses.is_dataclass(inner) and isinstance(inner, type) and isinstance(value, Mapping):
      value = _without(inner, value, marks)
      if not value and not is_union:  # the same as a section that is not given
        continue
    found[key] = value
  return found


def _hints(kind: type) -> dict[str, Any]:
  return typing.get_type_hints(kind, include_extras=True)


def _marks(hint: Any) -> tuple[Any, ...]:
  return hint.__metadata__ if typing.get_origin(hint) is Annotated else ()


def parse_shared(
  config: Mapping[str, Any], stages: Iterable[str]
) -> tuple[dict[str, Model | ImportedModel], Transport]:
  """({stage: its model} of the `stages`, the transport that all of them share). Raises ConfigError."""
  whole = _parse_model(config["model"], "model")
  own = config.get("models", {})
  shapes = {name: _parse_model(_shape(config, name), f"models.{name}") if name in own else whole for name in stages}
  return shapes, parse(Transport, config["transport"], "transport")


def _parse_model(given: Mapping[str, Any], where: str) -> Model | ImportedModel:
  kind: type[Model] | type[ImportedModel] = ImportedModel if "path" in given else Model
  return parse(kind, given, where)


def _shape(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
  """The section `model` of a stage: that of the run, with what config.models says of the stage."""
  whole, own = config["model"], config.get("models", {}).get(stage, {})
  is_other_kind = "path" in own or ("path" in whole and "num_layers" in own)
  return dict(own) if is_other_kind else {**whole, **own}


def _check_keys(config: Mapping[str, Any]) -> None:
  missing = [key for key in SHARED if key not in config]
  if missing:
    raise ConfigError(f"config lacks the key {missing[0]!r}.")
  for key, kind in (("seed", int), ("tokenizer", str), ("model", Mapping), ("transport", Mapping)):
    if not isinstance(config[key], kind) or isinstance(config[key], bool):
      wanted = "a mapping" if kind is Mapping else kind.__name__
      raise ConfigError(f"config.{key} must be {wanted}, not {config[key]!r}.")
  longest = config.get("max_length", 1)
  if type(longest) is not int or longest < 1:
    raise ConfigError(f"config.max_length must be a number of tokens, at least 1, not {longest!r}.")
  seeds = config.get("seeds", {})
  if not isinstance(seeds, Mapping) or not all(type(seed) is int for seed in seeds.values()):
    raise ConfigError(f"config.seeds must be a mapping from stages to their seeds, not {seeds!r}.")
  models = config.get("models", {})
  if not isinstance(models, Mapping) or not all(isinstance(shape, Mapping) for shape in models.values()):
    raise ConfigError(f"config.models must be a mapping from stages to changes of config.model, not {models!r}.")
  for name in models:
    if name not in config or name in (*SHARED, *OPTIONAL):
      sections = [key for key in config if key not in (*SHARED, *OPTIONAL)]
      raise ConfigError(f"config.models names {name!r}, but there is no config.{name}.{nearest(name, sections)}")
  stages = config["stages"]
  if not isinstance(stages, (list, tuple)) or not all(isinstance(name, str) for name in stages):
    raise ConfigError(f"config.stages must be a tuple of names, not {stages!r}.")
  for key, section in config.items():
    if key in (*SHARED, *OPTIONAL) or (isinstance(section, Mapping) and "algorithm" in section):
      continue
    if key in stages:
      raise ConfigError(f"config.{key} must be a mapping with the key 'algorithm', not {section!r}.")
    raise ConfigError(f"config has no key {key!r}.{nearest(key, {*SHARED, *stages})}")


def _stage_module(algorithm: Any, name: str) -> ModuleType:
  if not isinstance(algorithm, str) or not algorithm:
    raise ConfigError(f"config.{name}.algorithm must be the name of a module or the path of a .py file")
  module = load(f"{name}.algorithm", import_module, algorithm)
  lacking = [attribute for attribute in ("Config", "run") if not hasattr(module, attribute)]
  if lacking:
    raise ConfigError(f"config.{name}.algorithm: {algorithm} has no {lacking[0]!r}, so it is no stage")
  for library in getattr(module, "NEEDS", ()):
    if importlib.util.find_spec(library) is None:
      raise ConfigError(f"config.{name}.algorithm: {algorithm} needs the library {library}: pip install {library}")
  return module


def _fingerprint(value: Any) -> str:
  return hashlib.sha256(json.dumps(first_names(value), sort_keys=True).encode()).hexdigest()[:16]
