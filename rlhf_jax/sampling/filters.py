"""Which token comes next: temperature, truncation, and a draw that needs neither a sort nor noise for every word."""

from __future__ import annotations

import jax
import jax.numpy as jnp

BLOCK = 128  # words that a draw looks at once it knows where in the vocabulary it falls
ONE = 0x3F800000  # the bits of 1.0; those of floats in [0, 1] are ordered as integers


def sample_tokens(
  uniform: jax.Array | None,
  logits: jax.Array,
  *,
  temperature: float,
  top_k: int = 0,
  top_p: float = 1.0,
  min_p: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
  """Draws a token for each row: uniform f32[S] in [0, 1), logits[S, V] -> (tokens i32[S], logp f32[S]).

  The draw is from what `truncate` leaves of softmax(logits / temperature); temperature 0 takes the likeliest token, the
  first of equals. logp is always that of the token under the whole softmax(logits / temperature), or the plain softmax
  at temperature 0: it is the distribution that training evaluates, and truncation only chooses whom it is asked about.
  """
  logits = logits / (temperature if temperature > 0 else 1.0)
  highest = jnp.max(logits, axis=-1, keepdims=True)
  weights = jnp.exp(logits - highest)  # [S, V], at most 1
  if temperature > 0:
    action = draw(uniform, truncate(weights, top_k=top_k, top_p=top_p, min_p=min_p))
  else:
    action = draw(jnp.zeros(logits.shape[0]), (logits == highest).astype(jnp.float32))
  log_total = highest[:, 0] + jnp.log(jnp.sum(weights, axis=-1))
  return action, jnp.take_along_axis(logits, action[:, None], axis=1)[:, 0] - log_total


def truncate(weights: jax.Array, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> jax.Array:
  """Puts 0 in the place of improbable words: weights[S, V] in proportion to probabilities, at most 1 -> the same.

  One after the other, each on what the one before left: top_k keeps the k likeliest (0: all), top_p the fewest that
  together hold the share p (Holtzman et al. 2020, arXiv 1904.09751), min_p those of at least min_p times the likeliest
  (Nguyen et al. 2025, arXiv 2407.01082). Words as likely as the last one kept are kept too.
  """
  if 0 < top_k < weights.shape[-1]:
    weights = _keep_largest(weights, jnp.ones_like(weights), jnp.full((weights.shape[0], 1), float(top_k)))
  if top_p < 1:
    weights = _keep_largest(weights, weights, top_p * jnp.sum(weights, axis=-1, keepdims=True))
  if min_p > 0:
    weights = jnp.where(weights >= min_p * jnp.max(weights, axis=-1, keepdims=True), weights, 0.0)
  return weights


def draw(uniform: jax.Array, weights: jax.Array) -> jax.Array:
  """Inverts the cumulated weights: uniform[S] in [0, 1), weights[S, V] >= 0 -> i32[S], never of weight 0.

  First the block of the vocabulary, then the word in it. The Gumbel trick needs noise for every word instead, which on
  a CPU takes as long as the forward of a small model.
  """
  rows, words = weights.shape
  blocks = jnp.pad(weights, [(0, 0), (0, -words % BLOCK)]).reshape(rows, -1, BLOCK)
  sums = jnp.sum(blocks, axis=-1)  # [S, V / BLOCK]
  block, rest = _first_beyond(uniform * jnp.sum(sums, axis=-1), sums)
  inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]  # [S, BLOCK]
  return block * BLOCK + _first_beyond(rest, inside)[0]


def _first_beyond(target: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(index of the first weight at which the sum exceeds target[S], how much of the target was left in front of it).

  Sums are rounded, so the last positive weight answers where none exceeds it, and a weight of 0 never does.
  """
  sums = jnp.cumsum(weights, axis=-1)
  beyond = (weights > 0) & (sums > target[:, None])
  last = weights.shape[1] - 1 - jnp.argmax(weights[:, ::-1] > 0, axis=-1)
  index = jnp.where(jnp.any(beyond, axis=-1), jnp.argmax(beyond, axis=-1), last).astype(jnp.int32)
  before = jnp.take_along_axis(sums - weights, index[:, None], axis=1)[:, 0]
  return index, target - before


def _keep_largest(weights: jax.Array, counts: jax.Array, least: jax.Array) -> jax.Array:
  """Keeps the fewest of the largest weights[S, V] whose counts[S, V] sum to least[S, 1].

  The smallest weight kept is found bit by bit, which costs 30 sums over the vocabulary where a sort costs far more.
  """

  def halve(_, bounds):
    low, high = bounds  # the sum at `low` suffices, at `high` it does not
    middle = (low + high) // 2
    bound = jax.lax.bitcast_convert_type(middle, jnp.float32)
    enough = jnp.sum(jnp.where(weights >= bound, counts, 0.0), axis=-1, keepdims=True) >= least
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  bounds = jnp.zeros_like(least, jnp.int32), jnp.full_like(least, ONE + 1, jnp.int32)
  low, _ = jax.lax.fori_loop(0, 31, halve, bounds)
  return jnp.where(weights >= jax.lax.bitcast_convert_type(low, jnp.float32), weights, 0.0)
