"""Which token comes next: truncation against sorted lists and transformers, draws against exact frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.sampling.filters import draw, sample_tokens, truncate

LOGITS = np.random.default_rng(0).normal(size=(6, 300)).astype(np.float32) * 3
WEIGHTS = np.exp(LOGITS - LOGITS.max(axis=1, keepdims=True))


def sorted_truncation(weights, top_k=0, top_p=1.0, min_p=0.0):
  """The indices that are left of one row, likeliest first, by the definitions."""
  order = [int(index) for index in np.argsort(-weights, kind="stable")]
  order = order[:top_k] if top_k else order
  share = np.cumsum(weights[order]) / weights[order].sum()
  order = order[: int(np.argmax(share >= top_p)) + 1] if top_p < 1 else order
  return {index for index in order if weights[index] >= min_p * weights.max()}


@pytest.mark.parametrize(
  "settings",
  [
    dict(),
    dict(top_k=1),
    dict(top_k=7),
    dict(top_k=1000),
    dict(top_p=0.5),
    dict(top_p=0.95),
    dict(top_p=1e-9),
    dict(min_p=0.1),
    dict(top_k=20, top_p=0.8, min_p=0.05),
  ],
  ids=str,
)
def test_truncation_by_the_definitions(settings):
  kept = np.asarray(truncate(jnp.asarray(WEIGHTS), **settings))
  for row in range(6):
    assert set(np.flatnonzero(kept[row])) == sorted_truncation(WEIGHTS[row].astype(np.float64), **settings)
  np.testing.assert_array_equal(kept[kept > 0], WEIGHTS[kept > 0])


@pytest.mark.parametrize("settings", [dict(top_k=7), dict(top_p=0.8), dict(min_p=0.1)], ids=str)
def test_truncation_is_that_of_transformers(settings):
  torch = pytest.importorskip("torch", reason="the peer is transformers with torch")
  transformers = pytest.importorskip("transformers", reason="the peer is transformers with torch")
  ((name, value),) = settings.items()
  warper = dict(
    top_k=transformers.TopKLogitsWarper, top_p=transformers.TopPLogitsWarper, min_p=transformers.MinPLogitsWarper
  )[name](value)
  theirs = np.isfinite(warper(None, torch.tensor(LOGITS)).numpy())
  np.testing.assert_array_equal(np.asarray(truncate(jnp.asarray(WEIGHTS), **settings)) > 0, theirs)


def test_words_that_tie_with_the_last_one_kept_are_kept():
  weights = jnp.array([[0.25, 1.0, 0.5, 0.5, 0.5]])
  assert truncate(weights, top_k=2).tolist() == [[0.0, 1.0, 0.5, 0.5, 0.5]]
  assert truncate(weights, top_p=0.5).tolist() == [[0.0, 1.0, 0.5, 0.5, 0.5]]


def test_draws_have_the_exact_frequencies():
  """Over an even grid of uniform numbers each word comes as often as its probability says, to two counts."""
  weights = WEIGHTS[0] * (np.arange(300) % 3 > 0)
  grid = (jnp.arange(20_000) + 0.5) / 20_000
  drawn = jax.vmap(lambda u: draw(u[None], jnp.asarray(weights)[None])[0])(grid)
  counts = np.bincount(np.asarray(drawn), minlength=300)
  assert np.abs(counts - 20_000 * weights / weights.sum()).max() < 2
  assert not counts[::3].any()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_a_word_of_weight_zero_is_never_drawn(uniform):
  """Not at the ends of the range either, where the rounding of sums would lead beyond the last word."""
  for row in range(200):
    rng = np.random.default_rng(row)
    weights = np.zeros(300, np.float32)
    support = rng.choice(300, size=rng.integers(1, 40), replace=False)
    weights[support] = rng.random(len(support)).astype(np.float32) + 1e-3
    drawn = int(DRAW(jnp.array([uniform], jnp.float32), jnp.asarray(weights)[None])[0])
    assert drawn == (support.min() if uniform == 0 else support.max())


DRAW = jax.jit(draw)


@pytest.mark.parametrize(
  "settings", [dict(), dict(top_k=5), dict(top_p=0.6), dict(min_p=0.2), dict(top_k=9, top_p=0.9, min_p=0.01)], ids=str
)
@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_logp_is_of_the_whole_softmax_and_the_draw_of_what_truncation_leaves(settings, temperature):
  logits = jnp.tile(jnp.asarray(LOGITS), (20, 1))
  uniform = jax.random.uniform(jax.random.key(0), (120,))
  tokens, logp = sample_tokens(uniform, logits, temperature=temperature, **settings)
  whole = jax.nn.log_softmax(logits / temperature)
  np.testing.assert_allclose(logp, whole[jnp.arange(120), tokens], atol=1e-5)
  weights = np.exp((LOGITS - LOGITS.max(axis=1, keepdims=True)).astype(np.float64) / temperature)
  left = [sorted_truncation(row, **settings) for row in weights]
  drawn = [set(np.asarray(tokens)[row::6].tolist()) for row in range(6)]
  assert all(some <= all_ for some, all_ in zip(drawn, left, strict=True))
  assert max(map(len, drawn)) > 1


def test_the_first_of_equals_is_greedy():
  logits = jnp.array([[1.0, 4.0, 4.0, -2.0], [0.0, -1.0, 0.0, 0.0]])
  tokens, logp = sample_tokens(None, logits, temperature=0.0)
  assert tokens.tolist() == [1, 0]
  np.testing.assert_allclose(logp, jax.nn.log_softmax(logits)[jnp.arange(2), tokens], atol=1e-6)
