"""Rows of one sequence each in fewer, fuller rows: where the tokens of each stand, and which of their answers are read.

An algorithm keeps its arrays in rows [B, T], one for each sequence. The forward of its model reads packed rows [R, W],
in which sequences stand one behind the other, and what it finds goes back to rows [B, T]. So weights, metrics and
objectives know nothing of packing. An answer is what a model says having read a token: its prediction of the next one,
or the value of the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike


class Rows(NamedTuple):
  """Packed rows, as a forward reads them."""

  tokens: jax.Array
  """i32[R, W], 0 where there is none."""
  segments: jax.Array
  """i32[R, W], the numbers of the sequences, from 1; 0 where there is no token."""
  at: jax.Array
  """i32[R, M], the indices of the tokens whose answers are asked for; W where there is none."""
  positions: jax.Array | None
  """i32[R, W], the position of each token in its sequence; None where sequences share no tokens, and so are stretches
  of their own."""
  prefix: jax.Array | None
  """i32[R, W], the segment that each token sees beside its own, that of the shared tokens before it; -1 for none."""


class Packing(struct.PyTreeNode):
  """Where the rows of a batch stand in packed rows. It takes the place of the positions that are asked for (`at`).

  A batch is cut into parts of `size` rows, those that a device reads at once, and each part has R packed rows of its
  own: a row's places are those in its part. So a batch may be cut, padded with zeros and put in order like its rows.
  First tokens whose answers are not asked for, those of a prompt, may be read once for all rows of a part that begin
  with them.
  """

  head: ArrayLike
  """i32[B], the index of a row's first token in the packed rows of its part, counted one behind the other."""
  place: ArrayLike
  """i32[B], the index of its first token behind the shared ones."""
  owner: ArrayLike
  """i32[B], the number in its part of the row as whose its shared tokens are read."""
  count: ArrayLike
  """i32[B], the number of the row's tokens that are read, from its first one on; 0 for a row that is left out."""
  shared: ArrayLike
  """i32[B], the number of its first tokens that are read as those of its owner; at most `skipped`."""
  skipped: ArrayLike
  """i32[B], the number of its first tokens whose answers are not asked for."""
  slot: ArrayLike
  """i32[B], the index of its first answer in the answers of its part, counted one behind the other."""
  rows: int = struct.field(pytree_node=False)
  """R, the number of packed rows of a part."""
  width: int = struct.field(pytree_node=False)
  """W, the number of tokens that a packed row has room for."""
  room: int = struct.field(pytree_node=False)
  """M, the number of answers that a packed row has room for."""
  size: int = struct.field(pytree_node=False)
  """Number of rows in a part."""
  shares: bool = struct.field(pytree_node=False)
  """Whether rows share their first tokens."""

  def __len__(self) -> int:
    return int(np.shape(self.place)[0])

  def lay_out(self, tokens: ArrayLike) -> Rows:
    """The packed rows of a part's tokens[B, T].

    Raises:
      ValueError (while tracing): B is not the size of a part, so that rows would stand on top of each other.
    """
    tokens = jnp.asarray(tokens)
    if len(tokens) != self.size:
      raise ValueError(f"{len(tokens)} rows are read at once, and they were packed in parts of {self.size}")
    index = jnp.arange(tokens.shape[1])
    first = index < jnp.asarray(self.shared)[:, None]  # [B, T]
    own_place = jnp.asarray(self.place)[:, None] + index - jnp.asarray(self.shared)[:, None]
    place = jnp.where(first, jnp.asarray(self.head)[:, None] + index, own_place)
    read = index < jnp.asarray(self.count)[:, None]
    numbers = jnp.broadcast_to(jnp.arange(1, self.size + 1)[:, None], tokens.shape)
    owners = jnp.asarray(self.owner)[:, None] + 1

    def packed(x: jax.Array, blank: int = 0) -> jax.Array:
      return _put(jnp.full(self.rows * self.width, blank, x.dtype), x, place, read).reshape(self.rows, self.width)

    at = _put(jnp.full(self.rows * self.room, self.width), place % self.width, self._slots(index), self._asked(index))
    at = at.reshape(self.rows, self.room)
    if not self.shares:
      return Rows(packed(tokens), packed(numbers), at, None, None)
    segments = jnp.where(first, owners, self.size + numbers)
    positions, prefix = jnp.broadcast_to(index, tokens.shape), jnp.where(first, -1, owners)
    return Rows(packed(tokens), packed(segments), at, packed(positions), packed(prefix, -1))

  def take(self, x: ArrayLike) -> jax.Array:
    """x[B, T, ...] at the tokens that the answers predict: [R, M, ...], 0 where there is no answer."""
    x = jnp.asarray(x)
    before = jnp.arange(x.shape[1]) - 1
    blank = jnp.zeros((self.rows * self.room, *x.shape[2:]), x.dtype)
    return _put(blank, x, self._slots(before), self._asked(before)).reshape(self.rows, self.room, *x.shape[2:])

  def put(self, x: jax.Array, length: int) -> jax.Array:
    """Answers x[R, M, ...] put at the tokens that they predict, of rows of `length` tokens: [B, length, ...]; 0
    elsewhere."""
    before = jnp.arange(length) - 1
    slots = jnp.where(self._asked(before), self._slots(before), self.rows * self.room)
    return x.reshape(-1, *x.shape[2:]).at[slots].get(mode="fill", fill_value=0)

  def last(self, x: jax.Array) -> jax.Array:
    """The answers x[R, M, ...] of the last token of each row: [B, ...]; 0 for a row that is left out."""
    count = jnp.asarray(self.count)
    slots = jnp.where(count > 0, self.slot + count - 1 - self.skipped, self.rows * self.room)
    return x.reshape(-1, *x.shape[2:]).at[slots].get(mode="fill", fill_value=0)

  def _asked(self, index: jax.Array) -> jax.Array:
    """Whether the answers of the tokens at index[T] are asked for: bool[B, T]."""
    return (index >= jnp.asarray(self.skipped)[:, None]) & (index < jnp.asarray(self.count)[:, None])

  def _slots(self, index: jax.Array) -> jax.Array:
    """The places of the answers of the tokens at index[T]: i32[B, T]."""
    return jnp.asarray(self.slot)[:, None] + index - jnp.asarray(self.skipped)[:, None]


def pack(
  count: np.ndarray,
  skipped: np.ndarray,
  passes: Sequence[Sequence[np.ndarray]],
  *,
  width: int,
  room: int,
  size: int,
  least: int = 1,
  step: int = 1,
  prompts: np.ndarray | None = None,
  shared: np.ndarray | None = None,
) -> list[Packing]:
  """A packing of a batch for each of its passes, all of one shape.

  Args:
    count, skipped: i32[B] as in `Packing`, with skipped < count <= width where count is not 0.
    passes: for each pass, the indices of the rows of each part, at most `size` of them.
    width, room: the numbers of tokens and of answers that a packed row has room for; those of any row at least.
    least, step: the least number of packed rows, and the number of which it is a multiple.
    prompts: i32[B], equal for rows whose first `shared` tokens are the same, which are then read once for as many of
      them as a packed row has room for; None for rows that share nothing.
    shared: i32[B], at most `skipped`, which is the default.

  Returns:
    Packings whose arrays are those of the rows in their order in the batch.

  >>> pack(np.array([3, 2, 4]), np.array([1, 1, 1]), [[np.arange(3)]], width=5, room=3, size=3)[0].head.tolist()
  [5, 8, 0]
  """
  count = count.astype(np.int32)
  skipped = np.where(count > 0, skipped, 0).astype(np.int32)
  shared = skipped if shared is None else np.minimum(shared, skipped).astype(np.int32)
  own, answers = count - shared, count - skipped
  found, rows = [], max(least, 1)
  for parts in passes:
    head, place, owner, slot = (np.zeros_like(count) for _ in range(4))
    for part in parts:
      bundles = [[i] for i in part]
      if prompts is not None:
        bundles = _bundles(part, prompts, shared, own, answers, width, room)
      first = np.array([shared[bundle].max() for bundle in bundles])
      tokens, asked = (np.array([x[bundle].sum() for bundle in bundles]) for x in (own, answers))
      starts, slots, needed = first_fit(first + tokens, asked, width=width, room=room)
      order = {row: number for number, row in enumerate(part)}
      for bundle, start, begin, lead in zip(bundles, starts, slots, first, strict=True):
        head[bundle], owner[bundle] = start, order[bundle[0]]
        place[bundle] = start + lead + np.cumsum(own[bundle]) - own[bundle]
        slot[bundle] = begin + np.cumsum(answers[bundle]) - answers[bundle]
      rows = max(rows, needed)
    found.append((head, place, owner, slot))
  rows = -(-rows // step) * step
  return [
    Packing(head, place, owner, count, shared, skipped, slot, rows, width, room, size, prompts is not None)
    for head, place, owner, slot in found
  ]


def _bundles(
  part: np.ndarray,
  prompts: np.ndarray,
  shared: np.ndarray,
  own: np.ndarray,
  answers: np.ndarray,
  width: int,
  room: int,
) -> list[list[int]]:
  """The rows of a part in bundles that share their first tokens and fit into a packed row."""
  bundles: list[list[int]] = []
  open_bundles: dict[int, list[int]] = {}  # {prompt: the last bundle of its rows}
  for row in part:
    bundle = open_bundles.get(prompts[row], [])
    together = [*bundle, row]
    full = shared[row] + own[together].sum() > width or answers[together].sum() > room
    if not bundle or full or not answers[row]:
      bundle = []
      bundles.append(bundle)
    bundle.append(row)
    if answers[row]:
      open_bundles[prompts[row]] = bundle
  return bundles


def first_fit(count: np.ndarray, answers: np.ndarray, *, width: int, room: int) -> tuple[np.ndarray, np.ndarray, int]:
  """(place and slot of each sequence, number of rows): first fit by decreasing length (Johnson 1973).

  count, answers: i32[N], the numbers of tokens and of answers of each sequence, at most `width` and `room`.
  """
  place, slot = np.zeros_like(count), np.zeros_like(count)
  used, answered = np.zeros(len(count), np.int64), np.zeros(len(count), np.int64)
  for i in np.argsort(-count, kind="stable"):
    row = np.argmax((used + count[i] <= width) & (answered + answers[i] <= room))
    place[i], slot[i] = row * width + used[row], row * room + answered[row]
    used[row] += count[i]
    answered[row] += answers[i]
  return place, slot, int(np.count_nonzero(used))


def _put(blank: jax.Array, x: jax.Array, index: jax.Array, on: jax.Array) -> jax.Array:
  """blank[N, ...] with x[B, T, ...] at index[B, T] where on[B, T]."""
  return blank.at[jnp.where(on, index, len(blank))].set(x.astype(blank.dtype), mode="drop")
