"""A float of the config that differs between the members of a population."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

_trace = threading.local()  # its attribute `index` is the member's index i32[], an array of the trace of this thread


def at_index(function: Callable) -> Callable:
  """The function of `(index, *args)` in which every `Varying` has the value of member `index`."""

  def traced(index, *args):
    _trace.index = index
    try:
      return function(*args)
    finally:
      del _trace.index

  return traced


def is_traced() -> bool:
  """Whether a function of `at_index` is running in this thread."""
  return hasattr(_trace, "index")


class Varying:
  """A float of the config with a value for each member.

  On the host it is this member's number; inside a function of `at_index` it is values[index]. Arithmetic with numbers
  gives another `Varying`; a comparison with a number compares this member's number.
  """

  __array_ufunc__ = None  # makes numpy leave the arithmetic to this class

  def __init__(self, values: Sequence[float], number: int):
    self.values, self.number = tuple(values), number

  def __float__(self) -> float:
    return float(self.values[self.number])

  def __jax_array__(self) -> jax.Array:
    if not is_traced():
      return jnp.asarray(float(self), jnp.float32)
    return jax.lax.dynamic_index_in_dim(jnp.asarray(self.values, jnp.float32), _trace.index, keepdims=False)

  def __bool__(self) -> bool:
    return bool(float(self))

  def __round__(self, digits: int | None = None) -> float:
    return round(float(self), digits)

  def __hash__(self) -> int:
    return hash(self.values)

  def __neg__(self) -> Varying:
    return Varying([0.0 - value for value in self.values], self.number)

  def __repr__(self) -> str:
    return repr(float(self))

  def __format__(self, spec: str) -> str:
    return format(float(self), spec)


def _values(x, like: Varying) -> Sequence[float] | None:
  """The value of each member, for a number or a `Varying`; None for an array."""
  if isinstance(x, Varying):
    return x.values
  return [x] * len(like.values) if isinstance(x, (int, float)) else None


def _arithmetic(operate, swap: bool):
  def method(self, other):
    others = _values(other, self)
    if others is None:
      pair = (self.__jax_array__(), other)
      return operate(*(pair[::-1] if swap else pair))
    pairs = zip(others, self.values, strict=True) if swap else zip(self.values, others, strict=True)
    return Varying([operate(a, b) for a, b in pairs], self.number)

  return method


def _comparison(operate):
  def method(self, other):
    own = self.__jax_array__() if _values(other, self) is None else float(self)
    return operate(own, float(other) if isinstance(other, Varying) else other)

  return method


for _name in ("add", "sub", "mul", "truediv", "pow"):
  setattr(Varying, f"__{_name}__", _arithmetic(getattr(operator, _name), swap=False))
  setattr(Varying, f"__r{_name}__", _arithmetic(getattr(operator, _name), swap=True))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
  setattr(Varying, f"__{_name}__", _comparison(getattr(operator, _name)))
# Functions of jax.numpy are jitted and take pytrees: as a pytree, a Varying reaches their inside as an array.
jax.tree_util.register_pytree_node(Varying, lambda x: ((x.__jax_array__(),), None), lambda _, leaves: leaves[0])
