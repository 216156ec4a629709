"""Attention without [B, H, T, T] scores, in plain JAX: a loop over pairs of a chunk of queries and one of keys.

The softmax of a query is summed up chunk by chunk of its keys, relative to the largest score so far (Rabe and Staats
2021, arXiv 2112.05682). The backward pass keeps the logarithm of each query's sum and makes the scores anew from it
(FlashAttention, arXiv 2205.14135). Memory is linear in the number of tokens. Pairs of which no query sees a key are not
in the loop, or skipped where only the data tell, so that time follows the arithmetic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.models.attention import attend

CHUNK = 64  # queries and keys of a pair: the scores of a few rows and heads then fit into a CPU's cache
WHOLE = 128  # keys up to which one product of all queries and keys is as fast, on a CPU

_HIDDEN = -1e30  # the score of a key that a query does not see, as in `rlhf_jax.models.attention.attend`
# The first value of the largest score, so far above it that exp(_HIDDEN - _LOWEST) is 0: a query that has seen no key
# yet has the sum 0.
_LOWEST = -1e29


class Seen(NamedTuple):
  """The keys that each query sees: those at first, first + 1, ... last, none where last < first; i32[B, N] each."""

  first: jax.Array
  last: jax.Array


def chunked_attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  seen: Seen,
  *,
  scale: float,
  softcap: float = 0.0,
  window: int | None = None,
) -> jax.Array:
  """Softmax attention: query[B, N, H, D], key, value[B, U, G, D] -> like query; anything for queries that see no key.

  The numbers are those of `rlhf_jax.models.attention.attend` to rounding. It has no forward-mode derivative.

  Args:
    scale, softcap: as in `attend`.
    window: promises that query n sees no key after n, and, where it is not 0, none before n - window + 1. None promises
      nothing.
  """
  if query.shape[1] <= CHUNK:  # the scores of few queries are no more than the keys are
    index = jnp.arange(key.shape[1])
    visible = (index >= seen.first[..., None]) & (index <= seen.last[..., None])
    return attend(query, key, value, visible, scale=scale, softcap=softcap)
  heads, groups, dim = query.shape[2], key.shape[2], query.shape[3]
  queries = _cut(query * scale, 0)  # [n, B, C, H, D]
  shape = (*queries.shape[:3], groups, heads // groups, dim)
  queries = queries.reshape(shape).transpose(0, 1, 3, 4, 2, 5)  # [n, B, G, R, C, D]
  keys, values = (_cut(x, 0).transpose(0, 1, 3, 2, 4) for x in (key, value))  # [m, B, G, C, D]
  first, last = _cut(seen.first, 0), _cut(seen.last, -1)
  pairs = _pairs(queries.shape[0], keys.shape[0], window)
  y = _attention(queries, keys, values, Seen(first, last), pairs, softcap)
  y = y.transpose(1, 0, 4, 2, 3, 5).reshape(query.shape[0], -1, heads, dim)
  return y[:, : query.shape[1]]


def _cut(x: jax.Array, fill: int) -> jax.Array:
  """x[B, T, ...] -> [n, B, CHUNK, ...]; the last chunk is filled up."""
  x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % CHUNK)] + [(0, 0)] * (x.ndim - 2), constant_values=fill)
  return jnp.moveaxis(x.reshape(x.shape[0], -1, CHUNK, *x.shape[2:]), 1, 0)


def _pairs(queries: int, keys: int, window: int | None) -> tuple[tuple[int, int], ...]:
  """The pairs (chunk of queries, chunk of keys) that are not hidden by what `window` promises."""

  def visible(i: int, j: int) -> bool:
    return window is None or (j <= i and (not window or (j + 1) * CHUNK - 1 >= i * CHUNK - window + 1))

  return tuple((i, j) for i in range(queries) for j in range(keys) if visible(i, j))


class _Pair(NamedTuple):
  """One step of the loop over pairs."""

  i: Any
  """Index of the chunk of queries."""
  j: Any
  """Index of the chunk of keys."""
  some: Any
  """Whether a query may see a key."""


def _steps(pairs: tuple[tuple[int, int], ...], seen: Seen, size: int) -> _Pair:
  """The pairs as arrays [P]; size: keys of a chunk."""
  i, j = np.array(pairs, np.int32).T
  lowest = jnp.min(jnp.where(seen.first <= seen.last, seen.first, jnp.iinfo(jnp.int32).max), axis=(1, 2))  # [n]
  highest = jnp.max(jnp.where(seen.first <= seen.last, seen.last, -1), axis=(1, 2))
  return _Pair(i, j, (lowest[i] < (j + 1) * size) & (highest[i] >= j * size))


def _scores(query: jax.Array, key: jax.Array, seen: Seen, pair: _Pair, softcap: float) -> jax.Array:
  """query[B, G, R, C, D], key[B, G, K, D] -> f32[B, G, R, C, K]."""
  scores = jnp.einsum("bgrcd,bgkd->bgrck", query, key, preferred_element_type=jnp.float32)
  if softcap:
    scores = softcap * jnp.tanh(scores / softcap)
  index = pair.j * key.shape[2] + jnp.arange(key.shape[2])
  visible = (index >= seen.first[pair.i][..., None]) & (index <= seen.last[pair.i][..., None])  # [B, C, K]
  return jnp.where(visible[:, None, None], scores, _HIDDEN)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(
  queries: jax.Array, keys: jax.Array, values: jax.Array, seen: Seen, pairs: tuple[tuple[int, int], ...], softcap: float
) -> jax.Array:
  return _forward(queries, keys, values, seen, pairs, softcap)[0]


def _forward(
  queries: jax.Array, keys: jax.Array, values: jax.Array, seen: Seen, pairs: tuple[tuple[int, int], ...], softcap: float
) -> tuple[jax.Array, tuple[jax.Array | Seen, ...]]:
  def step(pair: _Pair, largest: jax.Array, total: jax.Array, sums: jax.Array) -> tuple[jax.Array, ...]:
    scores = _scores(queries[pair.i], keys[pair.j], seen, pair, softcap)
    new = jnp.maximum(largest, scores.max(axis=-1))
    weights = jnp.exp(scores - new[..., None])
    rescale = jnp.exp(largest - new)  # of what was summed up relative to the largest score before
    found = jnp.einsum(
      "bgrck,bgkd->bgrcd", weights.astype(values.dtype), values[pair.j], preferred_element_type=jnp.float32
    )
    return new, total * rescale + weights.sum(axis=-1), sums * rescale[..., None] + found

  shape = queries.shape[:-1]
  state = (jnp.full(shape, _LOWEST), jnp.zeros(shape), jnp.zeros(queries.shape, jnp.float32))
  largest, total, sums = _loop(step, pairs, seen, state, ("i", "i", "i"))
  total = jnp.where(total > 0, total, 1.0)
  y = (sums / total[..., None]).astype(queries.dtype)
  return y, (queries, keys, values, seen, y, largest + jnp.log(total))


def _backward(
  pairs: tuple[tuple[int, int], ...], softcap: float, saved: tuple[Any, ...], gradient: jax.Array
) -> tuple[jax.Array | None, ...]:
  queries, keys, values, seen, y, log_total = saved
  # The gradient of a score is its weight times what the gradient of the weight has above the mean over all keys.
  mean = jnp.sum(y.astype(jnp.float32) * gradient.astype(jnp.float32), axis=-1)
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

  def step(pair: _Pair, d_query: jax.Array, d_key: jax.Array, d_value: jax.Array) -> tuple[jax.Array, ...]:
    query, key, d_y = queries[pair.i], keys[pair.j], gradient[pair.i]
    scores = _scores(query, key, seen, pair, softcap)
    weights = jnp.exp(scores - log_total[pair.i][..., None])
    d_weights = product("bgrcd,bgkd->bgrck", d_y, values[pair.j])
    d_scores = weights * (d_weights - mean[pair.i][..., None])
    if softcap:
      d_scores = jnp.where(scores == _HIDDEN, 0.0, d_scores * (1 - jnp.square(scores / softcap)))
    d_scores = d_scores.astype(query.dtype)
    return (
      d_query + product("bgrck,bgkd->bgrcd", d_scores, key),
      d_key + product("bgrck,bgrcd->bgkd", d_scores, query),
      d_value + product("bgrck,bgrcd->bgkd", weights.astype(d_y.dtype), d_y),
    )

  state = tuple(jnp.zeros(x.shape, jnp.float32) for x in (queries, keys, values))
  found = _loop(step, pairs, seen, state, ("i", "j", "j"))
  return *(x.astype(like.dtype) for x, like in zip(found, (queries, keys, values), strict=True)), None


def _loop(
  step: Callable[..., tuple[jax.Array, ...]],
  pairs: tuple[tuple[int, int], ...],
  seen: Seen,
  state: tuple[jax.Array, ...],
  of: tuple[str, ...],
) -> tuple[jax.Array, ...]:
  """The state after step(pair, *its chunks of the state) of all pairs; of: the index of a pair that chooses each chunk.

  Only chunks go through the condition, since a compiler may copy what does.
  """

  def body(state: tuple[jax.Array, ...], pair: _Pair) -> tuple[tuple[jax.Array, ...], None]:
    index = [getattr(pair, name) for name in of]
    chunks = tuple(x[n] for x, n in zip(state, index, strict=True))
    chunks = jax.lax.cond(pair.some, functools.partial(step, pair), lambda *chunks: chunks, *chunks)
    return tuple(x.at[n].set(chunk) for x, n, chunk in zip(state, index, chunks, strict=True)), None

  return jax.lax.scan(body, state, _steps(pairs, seen, seen.first.shape[2]))[0]


_attention.defvjp(_forward, _backward)
