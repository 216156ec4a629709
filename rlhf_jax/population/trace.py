"""A digest of the trace of a function: two functions with the same digest are the same program."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def digest(trace: ClosedJaxpr) -> str:
  """The digest of every equation that the result depends on, and of the bytes of every constant."""
  total = hashlib.sha256()
  for part in _parts(trace.jaxpr, trace.consts):
    total.update(part)
  return total.hexdigest()


def _parts(jaxpr: Jaxpr, constants: Sequence[Any]) -> Iterator[bytes]:
  # Not str(trace), which depends on jax's caches: on which inner functions it prints once and refers to by name, and on
  # equations that the result does not need, as reading a `Varying` leaves them.
  equations, live = [], _variables(jaxpr.outvars)
  for equation in reversed(jaxpr.eqns):
    if equation.effects or not live.isdisjoint(equation.outvars):
      equations.append(equation)
      live |= _variables(equation.invars)
  numbers: dict[Any, int] = {}

  def name(variable) -> str:
    if isinstance(variable, Literal):
      return f"{variable.aval}={_bytes(variable.val)!r}"
    return f"{variable.aval}#{numbers.setdefault(variable, len(numbers))}"

  yield repr([name(variable) for variable in jaxpr.invars]).encode()
  for variable, constant in zip(jaxpr.constvars, constants, strict=False):
    if variable in live:
      yield name(variable).encode() + _bytes(constant)
  for equation in reversed(equations):
    variables = [[name(variable) for variable in side] for side in (equation.invars, equation.outvars)]
    yield repr((equation.primitive.name, variables)).encode()
    for key, value in sorted(equation.params.items()):
      for item in value if isinstance(value, (tuple, list)) else (value,):
        if isinstance(item, ClosedJaxpr):
          yield from _parts(item.jaxpr, item.consts)
        elif isinstance(item, Jaxpr):
          yield from _parts(item, ())
        else:
          yield re.sub(r"0x[0-9a-f]+", "", f"{key}={item!r}").encode()
  yield repr([name(variable) for variable in jaxpr.outvars]).encode()


def _bytes(x) -> bytes:
  is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
  return np.asarray(jax.random.key_data(x) if is_key else x).tobytes()


def _variables(items) -> set:
  return {item for item in items if not isinstance(item, Literal)}
