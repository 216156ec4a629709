"""The cells of a sweep: the resolved config of each, its name, and the values in which it differs from the others."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rlhf_jax.pipeline.catalogue import provide_configs
from rlhf_jax.pipeline.recipe import plain
from rlhf_jax.settings import ConfigError, import_module

NAME_LENGTH = 96  # characters of a cell's name at most, since file systems end at 255 bytes


@dataclasses.dataclass(frozen=True)
class Cell:
  """One run of a sweep."""

  name: str
  """Name of the directory: the hash, and the values that differ."""
  hash: str
  """First 10 hexadecimal digits of the SHA-256 of the resolved config."""
  config: dict[str, Any]
  """Resolved config."""
  values: dict[str, Any]
  """Swept values by dotted key, or the labels that the file gave to `add`; None where the cell lacks the key."""
  resources: dict[str, Any]
  """Resources of a scheduler, in submitit's names."""


def load_file(path: Path, *names: str) -> ModuleType:
  """The module of a sweep's file, which has one of the functions `names`.

  Raises:
    ConfigError: there is no such file or function, or the file has a mistake, which is named with its line.
  """
  provide_configs()
  module = called(path, lambda: import_module(str(path)) if path.suffix == ".py" else None)
  if module is None:
    raise ConfigError(f"{path}: a sweep is a .py file with a function {names[0]}(...)")
  if not any(callable(getattr(module, name, None)) for name in names):
    raise ConfigError(f"{path} has no function {' or '.join(f'{name}()' for name in names)}")
  return module


def called(path: Path, function: Callable[[], Any]) -> Any:
  """`function()`, whose errors become one line with the line of the file `path`. Raises ConfigError."""
  try:
    return function()
  except ConfigError:
    raise
  except SyntaxError as error:
    raise ConfigError(f"{error.filename}:{error.lineno}: {error.msg}") from error
  except Exception as error:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    raise ConfigError(f"{path}{f':{lines[-1]}' if lines else ''}: {type(error).__name__}: {error}") from error


def read_cells(path: Path, arg: str = "") -> list[Cell]:
  """The cells that `sweep(add)` of a file adds, or `sweep(add, arg)` where there is an argument.

  Raises:
    ConfigError: a mistake in the file, no cell, or two cells with the same config; the file takes no argument.
  """
  path = Path(path).absolute()
  module = load_file(path, "sweep")
  found: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = []

  def add(config: Any, resources: Mapping[str, Any] | None = None, **labels: Any) -> None:
    """Adds a cell. labels: names and values of columns, in the place of the keys of the config that differ."""
    if not hasattr(config, "items"):
      raise ConfigError(f"{path}: add() takes a config, as get_config() returns it, not {config!r}")
    found.append((plain(config), dict(resources or {}), labels))

  if arg and len(inspect.signature(module.sweep).parameters) < 2:
    raise ConfigError(f"{path}: sweep(add) takes no argument, and {arg!r} was given")
  called(path, lambda: module.sweep(add, arg) if arg else module.sweep(add))
  if not found:
    raise ConfigError(f"{path}: sweep(add) has added no cell")
  return make_cells(*(list(column) for column in zip(*found, strict=True)))


def make_cells(
  configs: Sequence[dict[str, Any]], resources: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]]
) -> list[Cell]:
  """Cells of resolved configs. labels: the columns of each in the place of the keys that differ; {} for none.

  Raises:
    ConfigError: two configs are the same.
  """
  columns = swept_values(configs, labels)
  hashes = [config_hash(config) for config in configs]
  cells = []
  for number, (config, digest) in enumerate(zip(configs, hashes, strict=True)):
    if digest in hashes[:number]:
      same = hashes.index(digest) + 1
      raise ConfigError(f"cells {same} and {number + 1} of the sweep have the same config: add it once")
    values = {key: column[number] for key, column in columns.items()}
    cells.append(Cell(_name(digest, values), digest, config, values, resources[number]))
  return cells


def config_hash(config: Mapping[str, Any]) -> str:
  """The first 10 hexadecimal digits of the SHA-256 of a resolved config."""
  return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:10]


def swept_values(
  configs: Sequence[Mapping[str, Any]], labels: Sequence[Mapping[str, Any]] = ()
) -> dict[str, list[Any]]:
  """{column: its value in each config}: the labels and the seeds, or without labels all keys that differ.

  A section that some configs lack is no difference of its own: `stages` says so already.
  """
  flat = [dict(flatten(config)) for config in configs]
  keys = [key for key in dict.fromkeys(key for config in flat for key in config) if _differs(key, configs, flat)]
  named = list(dict.fromkeys(name for given in labels for name in given))
  found = {name: [given.get(name) for given in labels] for name in named}
  kept = [key for key in keys if not named or is_seed(key)]
  return found | {key: [config.get(key) for config in flat] for key in kept}


def _differs(key: str, configs: Sequence[Mapping[str, Any]], flat: Sequence[Mapping[str, Any]]) -> bool:
  section = key.partition(".")[0]
  known = [json.dumps(values.get(key)) for config, values in zip(configs, flat, strict=True) if section in config]
  return len(set(known)) > 1


def is_seed(key: str) -> bool:
  """Whether a column holds seeds, over which cells are grouped."""
  return key == "seed" or key.startswith("seeds.")


def flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
  """(dotted key, value) of each value of nested mappings; a list is a value."""
  if isinstance(value, Mapping) and value:
    return [pair for key, item in value.items() for pair in flatten(item, f"{prefix}.{key}" if prefix else key)]
  return [(prefix, value)]


def short_names(keys: Sequence[str]) -> dict[str, str]:
  """The shortest ends of dotted keys that tell them apart; "seeds.ppo" stays as it is."""
  found = {}
  for key in keys:
    if is_seed(key):
      found[key] = key
      continue
    parts = key.split(".")
    ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
    found[key] = next(
      end for end in ends if end == key or not any(other != key and f".{other}".endswith(f".{end}") for other in keys)
    )
  return found


def value_text(value: Any) -> str:
  """A value in a name or a table."""
  return "+".join(map(value_text, value)) if isinstance(value, (list, tuple)) else str(value)


def _name(digest: str, values: Mapping[str, Any]) -> str:
  short = short_names(list(values))
  text = ",".join(f"{short[key]}={value_text(value)}" for key, value in values.items() if value is not None)
  text = re.sub(r"[^\w.,=+-]+", "_", text)
  return f"{digest}-{text}"[:NAME_LENGTH].rstrip(".-,") if text else digest
