"""The two forms of the layers' parameters, a tree for each layer or one of all layers, and the scan over the latter.

  {"layers_0": layer, "layers_1": layer, ...}  unrolled: the arrays of one layer
  {"layers": layer}                            stacked: the same arrays with a leading axis of layers

A compiler sees a scanned layer once, however many there are. A scan needs layers that compute alike, so layers with
windows of attention are scanned in groups, each one period of the pattern of windows, which stays static.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.types import Params

STACKED = "layers"
_LAYER = re.compile(r"layers_(\d+)")


def is_stacked(tree: Params) -> bool:
  """Whether a tree of models has stacked layers anywhere."""
  return any(map(_has_stacked, jax.tree.leaves(tree, is_leaf=_has_stacked)))


def stack_layers(tree: Any) -> Any:
  """The tree with stacked layers in the place of unrolled ones; other parts are shared, not copied.

  tree: any tree that holds models, such as a model, a dict of models, gradients or the state of an optimiser. Arrays of
  NumPy stay on the host.
  """

  def convert(node: Any) -> Any:
    if not _has_unrolled(node):
      return node
    layers = [node[name] for name in sorted(filter(_LAYER.fullmatch, node), key=_number)]
    return {**_others(node), STACKED: jax.tree.map(_stack, *layers)}

  return jax.tree.map(convert, tree, is_leaf=_has_unrolled)


def unstack_layers(tree: Any) -> Any:
  """The inverse of `stack_layers`."""

  def convert(node: Any) -> Any:
    if not _has_stacked(node):
      return node
    layers = split_layers(node[STACKED])
    return {**_others(node), **{f"layers_{i}": layer for i, layer in enumerate(layers)}}

  return jax.tree.map(convert, tree, is_leaf=_has_stacked)


def split_layers(stacked: Params) -> list[Params]:
  """The trees of the layers [...] of a tree of [L, ...]."""
  leaves, structure = jax.tree.flatten(stacked)
  return [jax.tree.unflatten(structure, layer) for layer in zip(*map(_unstack, leaves), strict=True)]


class Group(NamedTuple):
  """Successive layers that one scan runs through: `repeats` times the layers of `pattern`."""

  pattern: tuple[int, ...]
  """Windows of the layers of one step of the scan."""
  repeats: int
  """Number of steps."""

  @property
  def size(self) -> int:
    """Number of layers."""
    return len(self.pattern) * self.repeats


@functools.lru_cache(maxsize=64)
def groups(windows: tuple[int, ...]) -> tuple[Group, ...]:
  """The groups, in order, that cover layers with these windows and have the fewest layers to compile in all.

  Gemma 3's 26 layers of the pattern (w, w, w, w, w, 0) are four steps of one group of six and two of a group of (w,).
  """
  best: list[tuple[int, tuple[Group, ...]]] = [(0, ())]  # for the first i layers: (layers to compile, groups)
  for end in range(1, len(windows) + 1):
    found = []
    for period in range(1, end + 1):
      pattern, start, count = windows[end - period : end], end - period, 1
      while start >= 0 and windows[start : start + period] == pattern:
        cost, before = best[start]
        found.append((cost + period, (*before, Group(pattern, count))))
        start, count = start - period, count + 1
    best.append(min(found, key=lambda plan: (plan[0], len(plan[1]))))
  return best[-1][1]


Step = Callable[[int, bool, jax.Array, Params], jax.Array]


def scan_layers(step: Step, x: jax.Array, stacked: Params, windows: Sequence[int]) -> jax.Array:
  """x after all layers.

  Args:
    step: step(window, alone, x, layer) -> x, one layer; alone says that it is the only layer in the body of a loop.
    stacked: the parameters of all layers, leaves [L, ...].
    windows: the window of each layer.
  """
  plan = groups(tuple(windows))
  for group, part in zip(plan, _cut(stacked, [group.size for group in plan]), strict=True):
    if group.repeats == 1:
      for window, layer in zip(group.pattern, split_layers(part), strict=True):
        x = step(window, False, x, layer)
      continue
    period = len(group.pattern)
    alone = period == 1

    def body(x: jax.Array, layers: Params, pattern: tuple[int, ...] = group.pattern, alone: bool = alone) -> Any:
      for window, layer in zip(pattern, [layers] if alone else split_layers(layers), strict=True):
        x = step(window, alone, x, layer)
      return x, None

    rows = part if alone else jax.tree.map(lambda y, n=group.repeats: y.reshape(n, -1, *y.shape[1:]), part)
    x = jax.lax.scan(body, x, rows)[0]
  return x


def _cut(stacked: Params, sizes: Sequence[int]) -> list[Params]:
  """The tree of [L, ...] as trees of sizes[i] layers."""
  if len(sizes) == 1:
    return [stacked]
  leaves, structure = jax.tree.flatten(stacked)
  return [jax.tree.unflatten(structure, part) for part in zip(*(jax.lax.split(y, sizes) for y in leaves), strict=True)]


def _stack(*layers: Any) -> Any:
  return (np if isinstance(layers[0], np.ndarray) else jnp).stack(layers)


def _unstack(x: Any) -> Sequence[Any]:
  """[L, ...] -> L times [...]."""
  if isinstance(x, np.ndarray):
    return list(x)
  # Not x[i]: the gradient of a split is one concatenation, that of L slices L sums of arrays of the whole size.
  return [y.reshape(y.shape[1:]) for y in jax.lax.split(x, (1,) * x.shape[0])]


def _has_unrolled(node: Any) -> bool:
  return isinstance(node, Mapping) and "layers_0" in node


def _has_stacked(node: Any) -> bool:
  return isinstance(node, Mapping) and STACKED in node


def _others(node: Mapping[str, Any]) -> dict[str, Any]:
  return {name: part for name, part in node.items() if name != STACKED and not _LAYER.fullmatch(name)}


def _number(name: str) -> int:
  return int(name.removeprefix("layers_"))
