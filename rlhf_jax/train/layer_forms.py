"""The arrays of a checkpoint in the other form of the layers (see `rlhf_jax.models.stacked`), by their paths.

A checkpoint has the form that it was trained in, and is read in the form that a stage computes with: one layer of a
stacked array, or arrays of layers as a stack, are views that read and verify what is asked of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from rlhf_jax.models.stacked import STACKED

Index = tuple[slice, ...]
_LAYER = re.compile(r"((?:.*/)?)layers_(\d+)/(.*)")
_STACK = re.compile(rf"((?:.*/)?){STACKED}/(.*)")


class Part(Protocol):
  """An array on a disk, of which parts can be read."""

  @property
  def shape(self) -> tuple[int, ...]:
    """The lengths of its dimensions."""

  @property
  def dtype(self) -> str:
    """The name of its dtype."""

  def block(self, index: Index | None) -> np.ndarray:
    """The part at `index`, one slice for each dimension; None for all of it."""


class Shape(NamedTuple):
  """The shape of a `Part`, of which nothing can be read."""

  shape: tuple[int, ...]
  dtype: str

  def block(self, index: Index | None) -> np.ndarray:
    """Raises TypeError."""
    raise TypeError("a shape has no contents")


class Layer:
  """One layer of a stacked array."""

  def __init__(self, stacked: Part, number: int):
    self.shape, self.dtype = stacked.shape[1:], stacked.dtype
    self._stacked, self._number = stacked, number

  def block(self, index: Index | None) -> np.ndarray:
    """As of any `Part`."""
    rest = (slice(None),) * len(self.shape) if index is None else index
    return self._stacked.block((slice(self._number, self._number + 1), *rest))[0]


class Stack:
  """The arrays of all layers as one."""

  def __init__(self, layers: Sequence[Part]):
    self.shape, self.dtype = (len(layers), *layers[0].shape), layers[0].dtype
    self._layers = layers

  def block(self, index: Index | None) -> np.ndarray:
    """As of any `Part`."""
    first, *rest = (slice(None),) * len(self.shape) if index is None else index
    return np.stack([layer.block(tuple(rest)) for layer in self._layers[first]])


def in_form(arrays: Mapping[str, Part], stacked: bool | None) -> dict[str, Part]:
  """The arrays of a tree of models by their paths in one form, whichever they have; others as they are.

  stacked: True for stacked layers, False for unrolled ones, None for those that there are.

  Raises:
    ValueError: layers to be stacked are missing, or their arrays have different shapes.
  """
  if stacked is None:
    return dict(arrays)
  return _stack(arrays) if stacked else _unstack(arrays)


def _unstack(arrays: Mapping[str, Part]) -> dict[str, Part]:
  found: dict[str, Part] = {}
  for path, array in arrays.items():
    match = _STACK.fullmatch(path)
    if not match:
      found[path] = array
      continue
    before, after = match.groups()
    found |= {f"{before}layers_{i}/{after}": Layer(array, i) for i in range(array.shape[0])}
  return found


def _stack(arrays: Mapping[str, Part]) -> dict[str, Part]:
  found: dict[str, Part] = {}
  layers: dict[str, dict[int, Part]] = {}
  for path, array in arrays.items():
    match = _LAYER.fullmatch(path)
    if not match:
      found[path] = array
      continue
    before, number, after = match.groups()
    layers.setdefault(f"{before}{STACKED}/{after}", {})[int(number)] = array
  for path, parts in layers.items():
    ordered = [parts[i] for i in sorted(parts)]
    if sorted(parts) != [*range(len(parts))] or len({(part.shape, part.dtype) for part in ordered}) > 1:
      raise ValueError(f"{path}: layers {sorted(parts)} are not whole, or differ in shape")
    found[path] = Stack(ordered)
  return found
