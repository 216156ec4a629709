"""Log-probs, entropy and the language-model loss: by hand and against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.objectives import lm_loss, token_entropy, token_logprobs

LOG2 = 0.6931471805599453
logprobs, entropy = jax.jit(token_logprobs), jax.jit(token_entropy)
rng = np.random.default_rng(0)
LOGITS = rng.normal(0, 3, (2, 4, 5)).astype(np.float32)
TOKENS = rng.integers(0, 5, (2, 4))


def numpy_logprobs(logits, tokens):
  out = np.zeros(tokens.shape)
  for index in np.ndindex(tokens.shape):
    row = logits[index].astype(np.float64)
    out[index] = row[tokens[index]] - np.log(np.sum(np.exp(row)))
  return out


def test_logprobs_equal_numpy():
  expected = numpy_logprobs(LOGITS, TOKENS)
  np.testing.assert_allclose(logprobs(LOGITS, TOKENS), expected, rtol=1e-5)
  low = jnp.asarray(LOGITS, jnp.bfloat16)
  found = logprobs(low, TOKENS)
  assert found.dtype == jnp.float32
  # The only error left is that of the inputs: nothing is subtracted or summed in bfloat16.
  np.testing.assert_allclose(found, numpy_logprobs(np.asarray(low, np.float32), TOKENS), rtol=1e-5)


def test_logits_are_the_prediction_for_the_token_at_the_same_index():
  certain = np.float32(30) * np.eye(5, dtype=np.float32)[TOKENS]
  np.testing.assert_allclose(logprobs(certain, TOKENS), 0, atol=1e-6)
  assert np.all(logprobs(certain, (TOKENS + 1) % 5) < -29)


def test_logprobs_are_those_of_one_distribution():
  every = [logprobs(LOGITS, np.full((2, 4), token)) for token in range(5)]
  np.testing.assert_allclose(np.exp(every).sum(0), 1, rtol=1e-5)


def test_a_token_outside_the_vocabulary_is_nan_not_another_token():
  logp = logprobs(LOGITS, np.array([[5, -1, -100, 4], [0, 4, 10**6, 2]]))
  np.testing.assert_array_equal(np.isnan(logp), [[True, True, True, False], [False, False, True, False]])


def test_tokens_ruled_out_by_a_logit_of_minus_infinity():
  logits = np.array([[0.0, -np.inf, 0.0], [0.0, 0.0, -np.inf]], np.float32)

  @jax.jit
  def everything(logits):
    def total(logits):
      parts = token_logprobs(logits, np.array([0, 2])), token_entropy(logits), lm_loss(logits, np.array([0, 1]))
      return sum(map(jnp.sum, parts)), parts

    return jax.grad(total, has_aux=True)(logits)

  gradient, (logp, entropy, loss) = everything(logits)
  np.testing.assert_allclose(logp, [-LOG2, -np.inf], rtol=1e-6)
  np.testing.assert_allclose(entropy, [LOG2, LOG2], rtol=1e-6)
  np.testing.assert_allclose(loss, [LOG2, LOG2], rtol=1e-6)
  assert np.all(np.isfinite(gradient))


def test_entropy_by_hand():
  logits = np.array([[0.0] * 4, [0.0, -200, -200, -200], np.log([0.5, 0.25, 0.125, 0.125])], np.float32)
  for shift in (0, 7):
    np.testing.assert_allclose(entropy(logits + shift), [2 * LOG2, 0, 1.75 * LOG2], rtol=1e-5, atol=1e-5)


def test_loss_by_hand():
  # p = (1/2, 1/4, 1/4): -log p is (1, 2, 2) log 2, its mean 5/3 log 2; all logits shifted by log 3, so Z = 3.
  logits, tokens = np.log([[1.5, 0.75, 0.75]]).astype(np.float32), np.array([0])
  options = {}, {"label_smoothing": 0.1}, {"z_loss": 0.5}
  plain, smoothed, kept_small = jax.jit(lambda *a: [lm_loss(*a, **option)[0] for option in options])(logits, tokens)
  assert plain == pytest.approx(LOG2, rel=1e-6)
  assert smoothed == pytest.approx((0.9 + 0.1 * 5 / 3) * LOG2, rel=1e-6)
  assert kept_small == pytest.approx(LOG2 + 0.5 * np.log(3) ** 2, rel=1e-6)


def test_label_smoothing_may_be_traced():
  sweep = jax.jit(jax.vmap(lambda e: lm_loss(LOGITS, TOKENS, label_smoothing=e)))(np.array([0.0, 0.3]))
  nll = -numpy_logprobs(LOGITS, TOKENS)
  uniform = -np.mean([numpy_logprobs(LOGITS, np.full_like(TOKENS, token)) for token in range(5)], axis=0)
  np.testing.assert_allclose(sweep, [nll, 0.7 * nll + 0.3 * uniform], rtol=1e-5)


def test_gradient_is_softmax_less_one_hot():
  gradient = jax.jit(jax.grad(lambda logits: lm_loss(logits, TOKENS).sum()))(LOGITS)
  p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
  np.testing.assert_allclose(gradient, p - np.eye(5)[TOKENS], atol=1e-6)


def test_one_token_and_no_token():
  np.testing.assert_allclose(logprobs(LOGITS[0, 0], TOKENS[0, 0]), numpy_logprobs(LOGITS, TOKENS)[0, 0], rtol=1e-5)
  assert logprobs(np.zeros((2, 0, 5), np.float32), np.zeros((2, 0), int)).shape == (2, 0)
