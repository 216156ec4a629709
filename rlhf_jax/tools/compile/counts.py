"""What a program asks for, counted in its jaxpr: arithmetic, traffic of its products with memory, and collectives.

All counts are of one chip. Inside `shard_map` shapes are those of one chip along the manual axes; along the others, and
outside of it, work is taken to be divided evenly among the chips. The length of a scan is known; that of a while loop
is not, and is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

# Collectives of jaxprs: their kind, and bytes that a chip sends among n chips per byte of (operand, result).
_GATHER, _SCATTER, _REDUCE = "all-gather", "reduce-scatter", "all-reduce"
KINDS = (_GATHER, _SCATTER, _REDUCE, "all-to-all", "collective-permute")


class Counts(NamedTuple):
  """Amounts of one chip in one call of a program."""

  products: tuple[tuple[float, float, float], ...] = ()
  """Of every product of matrices: operations, bytes of operands and result, times."""
  outputs: float = 0.0
  """Bytes of the results of all products, which the operations between products read and write."""
  collectives: Mapping[str, float] = {}
  """Bytes that a chip sends, by the kind of the collective."""

  @property
  def flops(self) -> float:
    """Floating-point operations of all products; those of other operations are not counted."""
    return sum(flops * times for flops, _, times in self.products)

  @property
  def sent(self) -> float:
    """Bytes that a chip sends in all collectives."""
    return sum(self.collectives.values())


def moved(kind: str, size: float, chips: int) -> float:
  """Bytes that a chip sends in a collective among `chips` chips, in rings.

  size: bytes of the larger one of operand and result, of one chip.
  """
  if kind == "collective-permute":
    return size
  return size * (chips - 1) / chips * (2 if kind == _REDUCE else 1)


def count(program: core.ClosedJaxpr, chips: int, trips: int = 1) -> Counts:
  """The counts of a jaxpr over `chips` chips. trips: the number of times that a while loop's body is taken to run."""
  products: list[tuple[float, float, float]] = []
  collectives: dict[str, float] = {}
  outputs = 0.0
  for equation, times, shared, sizes in _walk(program.jaxpr, 1.0, float(chips), {}, trips):
    name = equation.primitive.name
    if name in ("dot_general", "conv_general_dilated"):
      flops = _flops(equation) / shared
      size = sum(map(_size, (*equation.invars, *equation.outvars))) / shared
      products.append((flops, size, times))
      outputs += times * sum(map(_size, equation.outvars)) / shared
    elif name == "pallas_call":
      size = sum(map(_size, (*equation.invars, *equation.outvars))) / shared
      products.append((_kernel_flops(equation, trips) / shared, size, times))
      outputs += times * sum(map(_size, equation.outvars)) / shared
    elif kind := _kind(name):
      axes = equation.params.get("axes", equation.params.get("axis_name", ()))
      group = math.prod(sizes.get(axis, 1) for axis in (axes if isinstance(axes, tuple) else (axes,)))
      if group > 1:
        # A matrix that is cut along the other axes is gathered there piece by piece; a vector is whole on every chip.
        pairs = zip(equation.invars, equation.outvars, strict=True)
        size = sum(max(_size(i), _size(o)) / (shared if len(i.aval.shape) > 1 else 1) for i, o in pairs)
        collectives[kind] = collectives.get(kind, 0.0) + times * moved(kind, size, group)
  return Counts(tuple(products), outputs, collectives)


def kept(program: core.ClosedJaxpr, chips: int) -> float:
  """Bytes of the largest stack of results that a scan makes: what a backward pass reads of the layers.

  Along axes that are not manual it is taken to be whole, as hidden states are along a tensor axis.
  """

  def largest(jaxpr: Any, shared: float) -> float:
    found = 0.0
    for equation in jaxpr.eqns:
      params = equation.params
      if equation.primitive.name == "scan":
        steps = zip(equation.outvars, params["jaxpr"].jaxpr.outvars, strict=True)
        stacked = [whole for whole, part in steps if whole.aval.ndim > part.aval.ndim]
        found = max(found, sum(map(_size, stacked)) / shared)
      if equation.primitive.name == "shard_map":
        found = max(found, largest(params["jaxpr"], 1.0))
      else:
        found = max([found, *(largest(jaxpr, shared) for jaxpr in _inside(equation))])
    return found

  return largest(program.jaxpr, float(chips))


def _walk(jaxpr: Any, times: float, shared: float, sizes: Mapping[str, int], trips: int) -> Iterator[tuple]:
  """(equation, its times, chips that share it, sizes of the manual axes) of all equations without equations inside."""
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    if name == "scan":
      yield from _walk(params["jaxpr"].jaxpr, times * params["length"], shared, sizes, trips)
    elif name == "while":
      body = params["body_jaxpr"].jaxpr
      # Of nested loops the inner one decodes, `trips` times in all; the outer one refills slots, and counts once.
      repeated = times if _has_loop(body) else times * trips
      yield from _walk(body, repeated, shared, sizes, trips)
      yield from _walk(params["cond_jaxpr"].jaxpr, repeated, shared, sizes, trips)
    elif name == "cond":  # one branch runs: the largest one counts
      branches = [list(_walk(branch.jaxpr, times, shared, sizes, trips)) for branch in params["branches"]]
      yield from max(branches, key=lambda found: sum(_weight(*each[:2]) for each in found))
    elif name == "shard_map":
      manual = {axis: params["mesh"].shape[axis] for axis in params["newly_manual_axes"]}
      inner = params["jaxpr"]
      yield from _walk(inner, times, shared / math.prod(manual.values()), {**sizes, **manual}, trips)
    elif name == "pallas_call":
      yield equation, times, shared, sizes
    else:
      inside = _inside(equation)
      for jaxpr in inside[:1]:  # custom derivatives: the function itself comes first
        yield from _walk(jaxpr, times, shared, sizes, trips)
      if not inside:
        yield equation, times, shared, sizes


def _has_loop(jaxpr: Any) -> bool:
  return any(equation.primitive.name == "while" or any(map(_has_loop, _inside(equation))) for equation in jaxpr.eqns)


def _inside(equation: Any) -> list[Any]:
  """The jaxprs of an equation, but for those of branches."""
  values = equation.params.values()
  return [getattr(value, "jaxpr", value) for value in values if isinstance(value, (core.Jaxpr, core.ClosedJaxpr))]


def _weight(equation: Any, times: float) -> float:
  return times * sum(map(_size, equation.outvars))


def _kind(name: str) -> str | None:
  stem = name.removesuffix("_invariant").removesuffix("2")
  return {
    "all_gather": _GATHER, "reduce_scatter": _SCATTER, "psum_scatter": _SCATTER, "psum": _REDUCE, "pmax": _REDUCE,
    "pmin": _REDUCE, "all_to_all": "all-to-all", "ppermute": "collective-permute",
  }.get(stem)  # fmt: skip


def _size(variable: Any) -> float:
  shape, dtype = getattr(variable.aval, "shape", ()), getattr(variable.aval, "dtype", None)
  if dtype is None:
    return 0.0
  itemsize = 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else np.dtype(dtype).itemsize
  return float(math.prod(shape) * itemsize)


def _flops(equation: Any) -> float:
  """2 x size of the result x length of the sums."""
  result = math.prod(equation.outvars[0].aval.shape)
  shapes = [variable.aval.shape for variable in equation.invars]
  if equation.primitive.name == "dot_general":
    ((left, _), _) = equation.params["dimension_numbers"]
    return 2.0 * result * math.prod(shapes[0][axis] for axis in left)
  kernel = equation.params["dimension_numbers"].rhs_spec
  return 2.0 * result * math.prod(shapes[1][axis] for axis in kernel[1:])


def _kernel_flops(equation: Any, trips: int) -> float:
  """Those of a kernel: as it says, else its body's for every cell of its grid."""
  estimate = equation.params.get("cost_estimate")
  if estimate is not None:
    return float(estimate.flops)
  grid = math.prod(size for size in equation.params["grid_mapping"].grid if isinstance(size, int))
  body = equation.params["jaxpr"]
  found = _walk(body, float(grid), 1.0, {}, trips)
  return sum(_flops(inner) * times for inner, times, *_ in found if inner.primitive.name == "dot_general")
