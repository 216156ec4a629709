"""A weak cache of loaded arrays: models that stand on one base checkpoint share its arrays.

PPO's policy, reference, reward model and value function may all be adapters of one base. Every load of the base returns
the same arrays, as long as a model holds them, and a checkpoint of adapters names the checkpoint of its base.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rlhf_jax.types import Params


class Origin(NamedTuple):
  """The checkpoint that a decoder was loaded from."""

  checkpoint: Path
  """Directory of the checkpoint's step."""
  part: str
  """Name of the decoder's model within the checkpoint; "" for a checkpoint of one model."""
  digest: str
  """Digest of the decoder's shapes, dtypes and checksums."""


class _Loaded(NamedTuple):
  checkpoint: Path
  described: Mapping[str, list]
  leaves: dict[str, weakref.ref]


_loaded: list[_Loaded] = []  # a checkpoint has one entry for each sharding it was loaded with


def digest(described: Mapping[str, list], part: str) -> str:
  """The digest of the decoder of `part`, from a checkpoint's {path: [shape, dtype, checksum]}."""
  prefix = _prefix(part)
  entries = {path.removeprefix(prefix): entry for path, entry in described.items() if path.startswith(prefix)}
  return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]


def alive(checkpoint: Path, described: Mapping[str, list], shardings: Mapping[str, Any]) -> dict[str, jax.Array]:
  """The arrays of a checkpoint that are in memory with the description and the shardings asked for, by their paths."""
  found = {}
  for entry in _loaded:
    if entry.checkpoint != checkpoint or entry.described != described:
      continue
    for path, sharding in shardings.items():
      leaf = entry.leaves[path]() if path in entry.leaves else None
      if leaf is not None and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
        found[path] = leaf
  return found


def remember(checkpoint: Path, described: Mapping[str, list], leaves: Mapping[str, jax.Array]) -> None:
  """Enters the arrays loaded from a checkpoint, as weak references."""
  _loaded[:] = [entry for entry in _loaded if any(ref() is not None for ref in entry.leaves.values())]
  _loaded.append(_Loaded(checkpoint, described, {path: weakref.ref(leaf) for path, leaf in leaves.items()}))


def origin(decoder: Params) -> Origin:
  """The checkpoint that the arrays of a decoder were loaded from.

  Raises:
    ValueError: they were not loaded from a checkpoint.
  """
  path, leaf = jax.tree_util.tree_flatten_with_path(decoder)[0][0]
  name = jax.tree_util.keystr(path, simple=True, separator="/")
  for entry in _loaded:
    for place, ref in entry.leaves.items():
      if place.endswith(f"decoder/{name}") and ref() is leaf:
        part = place.removesuffix(f"decoder/{name}").removesuffix("/")
        return Origin(entry.checkpoint, part, digest(entry.described, part))
  raise ValueError("the base of adapters must be loaded from a checkpoint, by load_stage or load_policy")


def _prefix(part: str) -> str:
  return f"{part}/decoder/" if part else "decoder/"
