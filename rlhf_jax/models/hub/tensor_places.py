"""Where a parameter stands in a family's tensors, and how it lies there: one map, used to read and to write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np

from rlhf_jax.models.hub.family import Family

Index = tuple[slice, ...]
# How a parameter of shape [*, d] lies in its tensor: as it is; transposed; as [1, d]; beside others as [*, parts * d];
# or transposed as [parts * d, *], where each head's rows of all parts are together.
Layout = Literal["same", "transposed", "row", "columns", "heads"]

_QKV = ("query", "key", "value")


class Tensors(Protocol):
  """Named arrays in files."""

  @property
  def shapes(self) -> Mapping[str, tuple[int, ...]]:
    """Name -> shape of every tensor."""

  def read(self, name: str, index: Index) -> np.ndarray:
    """The part `index` of a tensor; only this part is read from the file."""


class Place(NamedTuple):
  """The place of a parameter in a file."""

  name: str
  """Name of the tensor."""
  layout: Layout
  """Layout of the parameter in the tensor."""
  part: int = 0
  """Number of the parameter among those that share the tensor."""
  parts: int = 1
  """Number of parameters that share the tensor."""


def locate(family: Family, leaf: str) -> Place:
  """The place of a parameter, named by its path such as "decoder/layers_0/query/kernel", in a file of the family."""
  if leaf == "head/kernel":
    return Place("score.weight", "row")
  path, kind = leaf.removeprefix("decoder/").rsplit("/", 1)
  layer = re.match(r"layers_(\d+)/", path)
  pattern = f"layers_{{i}}/{path[layer.end() :]}" if layer else path
  suffix = "bias" if kind == "bias" else "weight"
  layout: Layout = "transposed" if kind == "kernel" and not (layer and family.input_first) else "same"
  part, parts = 0, 1
  name = pattern.removeprefix("layers_{i}/")
  if family.fused and name in _QKV:
    pattern, layout, part, parts = "layers_{i}/qkv", family.fused, _QKV.index(name), len(_QKV)
  module = family.modules[pattern].format(i=layer and layer[1])
  return Place(f"{module}.{suffix}", layout, part, parts)


def read_leaf(tensors: Tensors, place: Place, shape: Sequence[int], num_heads: int, index: Index) -> np.ndarray:
  """The part `index` of a parameter of `shape`, in the dtype of the file."""
  if place.layout == "row":  # [d] from [1, d]
    return tensors.read(place.name, (slice(0, 1), *index))[0]
  if place.layout == "transposed":
    return tensors.read(place.name, index[::-1]).T
  if place.layout == "columns":  # [..., 3d]: all queries, all keys, all values
    start, stop, _ = index[-1].indices(shape[-1])
    offset = place.part * shape[-1]
    return tensors.read(place.name, (*index[:-1], slice(offset + start, offset + stop)))
  if place.layout == "heads":  # [3d, ...]: query, key and value of one head after the other
    whole = tensors.read(place.name, (slice(None),) * len(shape))
    per_head = whole.reshape(num_heads, place.parts, -1, *whole.shape[1:])[:, place.part]
    return per_head.reshape(shape[-1], *whole.shape[1:]).T[index]
  return tensors.read(place.name, index)


def join_leaves(leaves: Sequence[np.ndarray], layout: Layout, num_heads: int) -> np.ndarray:
  """The tensor of the parameters that share it, in the order of their parts: the inverse of `read_leaf`."""
  first = leaves[0]
  if layout == "row":
    return first[None]
  if layout == "transposed":
    return first.T
  if layout == "columns":
    return np.concatenate(leaves, axis=-1)
  if layout == "heads":
    stacked = np.stack([leaf.T.reshape(num_heads, -1, *leaf.shape[:-1]) for leaf in leaves], axis=1)
    return stacked.reshape(-1, *first.shape[:-1])
  return first


def file_shape(layout: Layout, parts: int, shape: Sequence[int]) -> tuple[int, ...]:
  """The shape of a tensor that `parts` parameters of `shape` share."""
  if layout == "row":
    return (1, *shape)
  if layout == "transposed":
    return tuple(shape[::-1])
  if layout == "columns":
    return (*shape[:-1], parts * shape[-1])
  return (parts * shape[-1], *shape[:-1]) if layout == "heads" else tuple(shape)


def leaf_paths(tree: Any) -> Iterator[tuple[str, Any]]:
  """The path and the array of every parameter, as ("decoder/final_norm/scale", array)."""
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf
