"""The usual grids of a sweep, as lists of changes: {dotted key of the config: value}."""

from __future__ import annotations

import builtins
import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from rlhf_jax.pipeline.field_types import provide_key
from rlhf_jax.settings import ConfigError

Changes = dict[str, Any]


def product(*parts: Mapping[str, Sequence[Any]] | Sequence[Changes]) -> list[Changes]:
  """Every combination of the parts: a mapping {key: values} varies each of its keys, a list of changes is one axis.

  product({"ppo.kl_coef": (0.1, 0.2), "ppo.epochs": (1, 2)}, seeds(3)) has 12 elements.
  """
  axes: list[Sequence[Changes]] = []
  for part in parts:
    if isinstance(part, Mapping):
      axes += [[{key: value} for value in values] for key, values in part.items()]
    else:
      axes.append(part)
  return [{key: value for change in chosen for key, value in change.items()} for chosen in itertools.product(*axes)]


def zip(values: Mapping[str, Sequence[Any]]) -> list[Changes]:
  """The values of several keys side by side: the n-th element has the n-th value of each.

  Raises:
    ConfigError: the keys have different numbers of values.
  """
  counts = {key: len(found) for key, found in values.items()}
  if len(set(counts.values())) > 1:
    raise ConfigError(f"zip needs as many values of each key, and got {counts}")
  return [dict(builtins.zip(values, row, strict=True)) for row in builtins.zip(*values.values(), strict=True)]


def seeds(count: int, *stages: str, first: int = 0) -> list[Changes]:
  """`count` seeds from `first` on: of the whole run, or of `stages` alone, whose earlier stages are then shared."""
  keys = [f"seeds.{stage}" for stage in stages] or ["seed"]
  return [dict.fromkeys(keys, seed) for seed in range(first, first + count)]


def changed(config: ConfigDict, changes: Changes) -> ConfigDict:
  """A copy of the config with the changes made.

  Raises:
    ConfigError: a key that there is not, with the nearest one.
  """
  found = copy.deepcopy(config)
  for key, value in changes.items():
    *path, name = key.split(".")
    if path == ["seeds"]:
      with found.unlocked():
        found.seeds = found.get("seeds", ConfigDict())
    else:
      provide_key(found, [*path, name])
    here = found
    for part in path:
      here = here[part]
    with here.unlocked(), here.ignore_type():
      here[name] = value
  return found
