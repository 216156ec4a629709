"""The types of a config's keys, from the dataclasses that its sections are parsed into.

They let the command line set a key that a recipe leaves to its default, or to None.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from ml_collections import ConfigDict, config_dict

from rlhf_jax.pipeline.old_names import current_names
from rlhf_jax.pipeline.references import load
from rlhf_jax.settings import ConfigError, import_module, nearest
from rlhf_jax.stage import ImportedModel, Model, Transport

OPTIONAL: dict[str, Any] = {  # keys of a whole run that it may leave out
  "seeds": dict[str, int],  # seeds of single stages, instead of the run's seed
  "models": dict[str, Model],  # shapes of the models of single stages, in what they differ from the run's
  "writers": tuple[str, ...],  # destinations of metrics
  "max_length": int,  # tokens of a row, and of prompt and response together
}


def provide_key(config: ConfigDict, path: Sequence[str], algorithm: str = "") -> None:
  """Makes sure that `config` has the key `path` with a type; a key that is absent or None becomes a typed None.

  A mapping on the way that is absent or None becomes a mapping that holds this key alone; parsing gives its other keys
  their defaults, or names those that have none. algorithm: module of the stage, where the command line names it.

  Raises:
    ConfigError: there is no such key (with the nearest one), or no type is known for a key that is None.
  """
  here: Any = config
  for number, key in enumerate(path):
    where = ".".join(["config", *path[:number]])
    if not isinstance(here, ConfigDict):
      raise ConfigError(f"{where} is {here!r} and has no keys, so there is no {key!r} in it.")
    if key not in here or here.get_type(key) is type(None):
      fields = _fields(config, path[:number], algorithm)
      if key not in here and key not in fields:
        raise ConfigError(f"{where} has no key {key!r}.{nearest(key, {*here, *fields})}")
      if key not in fields:
        raise ConfigError(f"{where}.{key} is None, so its type is not known here: set it in the config file.")
      is_last = number == len(path) - 1
      with here.unlocked(), here.ignore_type():
        here[key] = _typed_none(fields[key]) if is_last else ConfigDict()
    here = here[key]


def _fields(config: ConfigDict, path: Sequence[str], algorithm: str) -> dict[str, Any]:
  """The keys of the section `path` with their types, from its dataclass; {} for a section without one."""
  if not path:
    return OPTIONAL
  here, hint = config[path[0]], _section_type(config, path[0], algorithm)
  for key in path[1:]:
    here = here[key]
    inner = _mapping(hint)
    hint = typing.get_args(inner)[1] if typing.get_origin(inner) is dict else _hints(inner).get(key)
  return _hints(_mapping(hint))


def _section_type(config: ConfigDict, name: str, algorithm: str) -> Any:
  section = config[name]
  if name == "model":
    return ImportedModel if "path" in section else Model
  if name == "transport":
    return Transport
  if not isinstance(section, ConfigDict) or not (algorithm or "algorithm" in section):
    return None
  return getattr(
    load(f"{name}.algorithm", import_module, current_names(algorithm or section.algorithm)), "Config", None
  )


def _hints(hint: Any) -> dict[str, Any]:
  return typing.get_type_hints(hint, include_extras=True) if dataclasses.is_dataclass(hint) else {}


def _options(hint: Any) -> list[Any]:
  """The types that a value may have, but for None, without their marks."""
  if typing.get_origin(hint) is Annotated:
    return _options(typing.get_args(hint)[0])
  if typing.get_origin(hint) in (types.UnionType, typing.Union):
    return [option for inner in typing.get_args(hint) for option in _options(inner)]
  return [] if hint is type(None) else [hint]


def _mapping(hint: Any) -> Any:
  """The dataclass or dict among the types that a value may have; None where it can be no mapping."""
  found = [option for option in _options(hint) if dataclasses.is_dataclass(option) or typing.get_origin(option) is dict]
  return found[0] if found else None


def _typed_none(hint: Any) -> Any:
  """A placeholder from which absl knows how to read the value."""
  option = _options(hint)[0]
  origin = typing.get_origin(option) or option
  if dataclasses.is_dataclass(option) or origin is dict:
    return config_dict.placeholder(ConfigDict)
  if origin is Literal:
    return config_dict.placeholder(type(typing.get_args(option)[0]))
  return config_dict.placeholder(object if option is Any else origin)
