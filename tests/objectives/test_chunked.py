"""Logits in chunks are the same numbers, and the same gradients, as logits all at once, in less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.objectives import (
  ChunkedLogits,
  collision_entropy,
  lm_loss,
  logprobs_and_entropy,
  token_entropy,
  token_logprobs,
)
from rlhf_jax.positions import positions_of, put_at, take_at

B, T, D, V, TEMPERATURE = 2, 7, 5, 23, 0.7
KEYS = jax.random.split(jax.random.key(0), 4)
HIDDEN = jax.random.normal(KEYS[0], (B, T, D))
MATRIX = jax.random.normal(KEYS[1], (V, D))
TOKENS = jax.random.randint(KEYS[2], (B, T), 0, V)
MASK = jnp.arange(T) < jnp.array([[7], [4]])

FUNCTIONS = {
  "logprobs": lambda logits, mask: token_logprobs(logits, TOKENS, mask=mask),
  "collision": lambda logits, mask: collision_entropy(logits, mask=mask),
  "entropy": lambda logits, mask: token_entropy(logits, mask=mask),
  "both": lambda logits, mask: logprobs_and_entropy(logits, TOKENS, mask=mask),
  "lm_loss": lambda logits, mask: lm_loss(logits, TOKENS, mask=mask, z_loss=0.1, label_smoothing=0.2),
}


def unembed(hidden, matrix):
  """With a soft cap, as Gemma 2 has it."""
  return 3.0 * jnp.tanh(hidden @ matrix.T / 3.0)


def weighted(tree):
  """A scalar in which every element has a weight of its own."""
  return sum(jnp.sum(x * jnp.arange(1.0, x.size + 1).reshape(x.shape)) for x in jax.tree.leaves(tree))


@functools.cache
def results(chunk):
  """Of every function, with and without a mask: values and gradients, in one program."""

  def one(function, mask, hidden, matrix):
    logits = ChunkedLogits(hidden, lambda h: unembed(h, matrix), chunk) if chunk else unembed(hidden, matrix)
    values = function(logits / TEMPERATURE, mask)
    return weighted(values), values

  def all_of_them(hidden, matrix):
    return {
      (name, masked): jax.value_and_grad(functools.partial(one, function, mask), argnums=(0, 1), has_aux=True)(
        hidden, matrix
      )
      for name, function in FUNCTIONS.items()
      for masked, mask in (("all", None), ("masked", MASK))
    }

  return jax.jit(all_of_them)(HIDDEN, MATRIX)


@pytest.mark.parametrize("masked", ["all", "masked"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_are_the_same(name, masked):
  got, expected = (results(chunk)[name, masked] for chunk in (3, 0))  # 3 does not divide 7
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_what_is_masked_stays_out():
  hidden = HIDDEN.at[1, 5].set(jnp.nan)

  def loss(hidden, chunk):
    logits = ChunkedLogits(hidden, lambda h: unembed(h, MATRIX), chunk) if chunk else unembed(hidden, MATRIX)
    return jnp.sum(token_logprobs(logits, TOKENS, mask=MASK))

  np.testing.assert_allclose(loss(hidden, 2), loss(HIDDEN, 0), rtol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_hidden_states_that_are_masked_leave_the_gradient_of_the_unembedding_finite(name):
  # The mask on the logits alone leaves 0 * NaN in the product that is the unembedding's gradient.
  hidden = HIDDEN.at[1, 5].set(jnp.nan).at[1, 6].set(jnp.inf)

  def loss(hidden, matrix):
    return weighted(FUNCTIONS[name](ChunkedLogits(hidden, lambda h: unembed(h, matrix), 3), MASK))

  found, expected = (jax.jit(jax.grad(loss, argnums=(0, 1)))(x, MATRIX) for x in (hidden, HIDDEN))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_leading_axes_and_a_chunk_longer_than_the_row():
  single = token_logprobs(ChunkedLogits(HIDDEN[0], lambda h: unembed(h, MATRIX), 100), TOKENS[0])
  np.testing.assert_allclose(single, token_logprobs(unembed(HIDDEN[0], MATRIX), TOKENS[0]), rtol=1e-5)


def test_the_logits_are_never_all_there():
  """Temporary memory of the compiled gradient, 512 positions of 4,096 words: less than one array of logits."""
  shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 512, 8), (4096, 8))]

  def gradient(chunk):
    def loss(hidden, matrix):
      logits = ChunkedLogits(hidden, lambda h: h @ matrix.T, chunk) if chunk else hidden @ matrix.T
      return jnp.sum(token_logprobs(logits, jnp.zeros((1, 512), jnp.int32)))

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  logits = 4 * 512 * 4096
  assert gradient(0) > logits > 4 * gradient(32)


@pytest.mark.parametrize("chunk", [0, 2])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_positions_that_count_give_the_values_and_gradients_of_all(name, chunk):
  at = positions_of(np.asarray(MASK))
  hidden = jnp.where(MASK[..., None], HIDDEN, jnp.nan)  # what is left out may be anything

  def value(hidden, matrix, picked):
    given = ChunkedLogits(hidden, lambda h: unembed(h, matrix), 3)
    if picked:
      given = given._replace(hidden=take_at(hidden, at), chunk=chunk, at=at, length=hidden.shape[1])
    return weighted(FUNCTIONS[name](given / 0.7, MASK))

  def both(picked):
    return jax.jit(jax.value_and_grad(lambda *given: value(*given, picked), argnums=(0, 1)))(hidden, MATRIX)

  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), both(True), both(False))


def test_a_counted_position_that_is_left_out_is_not_a_number():
  mask = jnp.asarray(MASK).at[1, :].set(True)
  at = positions_of(np.asarray(MASK))
  held = np.asarray(put_at(jnp.ones(at.shape, bool), at, MASK.shape[1]))
  logits = ChunkedLogits(take_at(HIDDEN, at), lambda h: unembed(h, MATRIX), 0, at=at, length=MASK.shape[1])
  found = np.asarray(token_logprobs(logits, TOKENS, mask=mask))
  np.testing.assert_array_equal(np.isnan(found), np.asarray(mask) & ~held)
  assert np.isnan(found).sum() == 3
