"""The positions of each row that count: arrays [B, N] of indices into rows of T tokens.

A forward that is told them leaves out what is asked of no other token, such as the logits of prompts. An index outside
of [0, T) is no position: it reads 0, and what is put there is dropped. All others of a row are different. A `Packing`
takes their place where rows are packed.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rlhf_jax.packing import Packing

STEPS = 16  # shares of a row's width that the number of positions is rounded up to, so that few programs are compiled


def positions_of(mask: np.ndarray, steps: int = STEPS) -> np.ndarray:
  """The indices at which mask bool[..., T] is on, in order, then T: i32[..., N].

  N is the largest count of a row, at least 1, up to a multiple of T / steps and at most T.

  >>> positions_of(np.array([[0, 1, 1, 0], [0, 0, 1, 0]]) > 0).tolist()
  [[1, 2], [2, 4]]
  """
  length = mask.shape[-1]
  largest = int(mask.sum(axis=-1).max(initial=1))
  step = max(length // steps, 1)
  size = min(-(-largest // step) * step, length)
  return np.sort(np.where(mask, np.arange(length), length), axis=-1)[..., :size].astype(np.int32)


def take_at(x: ArrayLike, at: ArrayLike | Packing) -> jax.Array:
  """x[B, T, ...] at the positions at[B, N]: [B, N, ...], 0 where an index is no position. Packed: [R, M, ...].

  >>> take_at(jnp.array([[1, 2, 3]]), jnp.array([[2, 3]])).tolist()
  [[3, 0]]
  """
  if isinstance(at, Packing):
    return at.take(x)
  x = jnp.asarray(x)
  at = _inside(at, x.shape[1])
  return x.at[_rows(at), at].get(mode="fill", fill_value=0)


def put_at(x: jax.Array, at: ArrayLike | Packing, length: int) -> jax.Array:
  """x[B, N, ...] put at the positions at[B, N] of rows of `length` tokens: [B, length, ...], 0 elsewhere. Packed, x is
  [R, M, ...].

  >>> put_at(jnp.array([[5, 6]]), jnp.array([[2, 3]]), 3).tolist()
  [[0, 0, 5]]
  """
  if isinstance(at, Packing):
    return at.put(x, length)
  at = _inside(at, length)
  return jnp.zeros((at.shape[0], length, *x.shape[2:]), x.dtype).at[_rows(at), at].set(x, mode="drop")


def only(at: Any) -> dict[str, Any]:
  """The keyword argument {"at": at} of a forward; none for None, so that any `apply(params, tokens)` serves there.

  >>> only(None)
  {}
  """
  return {} if at is None else {"at": at}


def _rows(at: jax.Array) -> jax.Array:
  return jnp.arange(at.shape[0])[:, None]


def _inside(at: ArrayLike, length: int) -> jax.Array:
  """A negative index would count from the end of a row."""
  at = jnp.asarray(at)
  return jnp.where(at < 0, length, at)
