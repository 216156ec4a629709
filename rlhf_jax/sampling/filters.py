"""The draw of the next token: temperature, truncation, and a draw without a sort or noise for every word."""

from __future__ import annotations

import jax
import jax.numpy as jnp

BLOCK = 128  # words in a block; a draw finds its block first, then the word in it
ONE = 0x3F800000  # the bits of 1.0; as integers, the bits of floats in [0, 1] are in the order of the floats


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

  The token is drawn from softmax(logits / temperature) after `truncate`. Temperature 0 takes the likeliest token, the
  first of equals, and ignores `uniform`, which may be None. logp is always the token's log-prob under the whole
  softmax(logits / temperature), or under the plain softmax at temperature 0: training evaluates that distribution, and
  truncation changes only which tokens are drawn.

  Raises:
    ValueError: `uniform` is None at a temperature above 0.
  """
  logits = logits / (temperature if temperature > 0 else 1.0)
  highest = jnp.max(logits, axis=-1, keepdims=True)
  weights = jnp.exp(logits - highest)  # [S, V], at most 1
  if temperature > 0:
    if uniform is None:
      raise ValueError(f"sample_tokens needs random numbers at temperature={temperature}: uniform is None")
    action = draw(uniform, truncate(weights, top_k=top_k, top_p=top_p, min_p=min_p))
  else:
    action = draw(jnp.zeros(logits.shape[0]), (logits == highest).astype(jnp.float32))
  return action, _logp(logits, action, highest, weights)


def sample_supported(
  uniform: jax.Array, logits: jax.Array, *, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The draw of `sample_tokens` as an action of the truncated policy: (tokens i32[S], logp f32[S], support).

  logp is the token's log-prob under the softmax(logits / temperature) over the tokens that `truncate` keeps, the
  distribution that it was drawn from. support u8[S, ceil(V / 8)] has a bit for each of these tokens (`numpy.packbits`):
  with the same support masked, training has the gradient of the policy that sampled
  (`rlhf_jax.objectives.truncated_logits`). The temperature is above 0.
  """
  logits = logits / temperature
  highest = jnp.max(logits, axis=-1, keepdims=True)
  weights = truncate(jnp.exp(logits - highest), top_k=top_k, top_p=top_p, min_p=min_p)
  action = draw(uniform, weights)
  return action, _logp(logits, action, highest, weights), jnp.packbits(weights > 0, axis=-1)


def _logp(logits: jax.Array, action: jax.Array, highest: jax.Array, weights: jax.Array) -> jax.Array:
  """log(exp(logits[s, action] - highest) / sum of weights[s]): f32[S]."""
  log_total = highest[:, 0] + jnp.log(jnp.sum(weights, axis=-1))
  return jnp.take_along_axis(logits, action[:, None], axis=1)[:, 0] - log_total


def truncate(weights: jax.Array, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> jax.Array:
  """Puts 0 in the place of improbable words: weights[S, V], at most 1, in proportion to probabilities -> the same.

  There are three steps, each on the result of the step before. top_k keeps the k likeliest words (0: all). top_p keeps
  the fewest words that together have the share p (Holtzman et al. 2020, arXiv 1904.09751). min_p keeps words of at
  least min_p times the largest probability (Nguyen et al. 2025, arXiv 2407.01082). Words as likely as the last one kept
  are kept too.
  """
  if 0 < top_k < weights.shape[-1]:
    weights = _keep_largest(weights, jnp.ones_like(weights), jnp.full((weights.shape[0], 1), float(top_k)))
  if top_p < 1:
    weights = _keep_largest(weights, weights, top_p * jnp.sum(weights, axis=-1, keepdims=True))
  if min_p > 0:
    weights = jnp.where(weights >= min_p * jnp.max(weights, axis=-1, keepdims=True), weights, 0.0)
  return weights


def draw(uniform: jax.Array, weights: jax.Array) -> jax.Array:
  """Draws a word in proportion to weights: uniform[S] in [0, 1), weights[S, V] >= 0 -> i32[S], never of weight 0.

  The cumulated weights are inverted, first for a block of the vocabulary, then for a word in it. The Gumbel trick would
  need noise for every word, which on a CPU takes as long as the forward of a small model.
  """
  rows, words = weights.shape
  blocks = jnp.pad(weights, [(0, 0), (0, -words % BLOCK)]).reshape(rows, -1, BLOCK)
  sums = jnp.sum(blocks, axis=-1)  # [S, V / BLOCK]
  block, rest = _first_beyond(uniform * jnp.sum(sums, axis=-1), sums)
  inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]  # [S, BLOCK]
  return block * BLOCK + _first_beyond(rest, inside)[0]


def _first_beyond(target: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(index of the first weight at which the sum of weights[S, V] exceeds target[S], target less the sum before it).

  Sums are rounded: where none exceeds the target, the index is that of the last positive weight. It is never that of a
  weight of 0.
  """
  sums = jnp.cumsum(weights, axis=-1)
  beyond = (weights > 0) & (sums > target[:, None])
  last = weights.shape[1] - 1 - jnp.argmax(weights[:, ::-1] > 0, axis=-1)
  index = jnp.where(jnp.any(beyond, axis=-1), jnp.argmax(beyond, axis=-1), last).astype(jnp.int32)
  before = jnp.take_along_axis(sums - weights, index[:, None], axis=1)[:, 0]
  return index, target - before


def _keep_largest(weights: jax.Array, counts: jax.Array, least: jax.Array) -> jax.Array:
  """Keeps the fewest of the largest weights[S, V] whose counts[S, V] sum to least[S, 1]; the rest become 0.

  The smallest weight kept is found bit by bit, by 31 sums over the vocabulary, which cost far less than a sort.
  """

  def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    low, high = bounds  # the counts of weights >= low sum to enough, those of weights >= high do not
    middle = (low + high) // 2
    bound = jax.lax.bitcast_convert_type(middle, jnp.float32)
    enough = jnp.sum(jnp.where(weights >= bound, counts, 0.0), axis=-1, keepdims=True) >= least
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  bounds = jnp.zeros_like(least, jnp.int32), jnp.full_like(least, ONE + 1, jnp.int32)
  low, _ = jax.lax.fori_loop(0, 31, halve, bounds)
  return jnp.where(weights >= jax.lax.bitcast_convert_type(low, jnp.float32), weights, 0.0)
