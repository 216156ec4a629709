"""The decoder's contract: alignment, padding, packing, cache and heads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.objectives import token_logprobs

pytestmark = pytest.mark.usefixtures("unoptimised")

CONFIG = DecoderConfig(vocab_size=17, num_layers=2, d_model=32, num_heads=4, num_kv_heads=2, d_ff=48, max_length=16)
MODEL = language_model(CONFIG)
PARAMS = MODEL.init_head(jax.random.key(1), MODEL.init(jax.random.key(0)))
COMPILED = ("apply", "apply_with_value", "value", "score", "extend", "unembed")  # an operation at a time takes longer
MODEL = MODEL._replace(**{name: jax.jit(getattr(MODEL, name)) for name in COMPILED})
TOKENS = jax.random.randint(jax.random.key(2), (3, 10), 0, 17)


def test_logits_at_t_see_only_tokens_before_t():
  changed = TOKENS.at[:, 6].add(1) % 17
  before, after = MODEL.apply(PARAMS, TOKENS), MODEL.apply(PARAMS, changed)
  np.testing.assert_array_equal(before[:, :7], after[:, :7])
  assert np.abs(before[:, 7:] - after[:, 7:]).max() > 1e-3


def test_nothing_predicts_the_first_token():
  assert not MODEL.apply(PARAMS, TOKENS)[:, 0].any()
  assert not MODEL.value(PARAMS, TOKENS)[:, 0].any()


def test_value_at_t_reads_the_state_before_t():
  changed = TOKENS.at[:, 6].add(1) % 17
  before, after = MODEL.value(PARAMS, TOKENS), MODEL.value(PARAMS, changed)
  np.testing.assert_array_equal(before[:, :7], after[:, :7])
  assert np.abs(before[:, 7:] - after[:, 7:]).min() > 0


def test_one_forward_gives_the_same_logits_and_values():
  logits, values = MODEL.apply_with_value(PARAMS, TOKENS)
  np.testing.assert_allclose(logits, MODEL.apply(PARAMS, TOKENS), atol=1e-6)
  np.testing.assert_allclose(values, MODEL.value(PARAMS, TOKENS), atol=1e-6)


@pytest.mark.parametrize("garbage", [0, 16])
def test_padding_changes_nothing(garbage):
  padded = jnp.pad(TOKENS, [(0, 0), (0, 6)], constant_values=garbage)
  np.testing.assert_allclose(MODEL.apply(PARAMS, padded)[:, :10], MODEL.apply(PARAMS, TOKENS), atol=1e-5)
  mask = jnp.arange(16) < 10
  np.testing.assert_allclose(
    MODEL.score(PARAMS, padded, jnp.broadcast_to(mask, (3, 16))),
    MODEL.score(PARAMS, TOKENS, jnp.ones((3, 10), bool)),
    atol=1e-5,
  )


def test_score_reads_the_last_token_of_the_mask():
  # The score at index 6 is the value of the state that ends with token 6, which is the value at index 7.
  mask = jnp.broadcast_to((jnp.arange(10) >= 4) & (jnp.arange(10) <= 6), (3, 10))
  np.testing.assert_allclose(MODEL.score(PARAMS, TOKENS, mask), MODEL.value(PARAMS, TOKENS)[:, 7], atol=1e-5)


def test_a_head_that_weighs_the_likelihood_adds_the_mean_log_probability_of_the_response():
  """The reward of SimPO (arXiv 2405.14734, eq. 4), beside the head's value; only the response is read."""
  plain = MODEL.init_head(jax.random.key(1), PARAMS)
  params = MODEL.init_head(jax.random.key(1), PARAMS, 2.5)
  assert set(plain["head"]) == {"kernel", "bias"} and params["head"]["likelihood"] == 2.5
  mask = (np.arange(10) >= 4) & (np.arange(10) < np.array([[10], [7], [5]]))
  logp = token_logprobs(MODEL.apply(params, TOKENS), TOKENS)
  expected = MODEL.score(plain, TOKENS, mask) + 2.5 * np.asarray(
    [logp[i, 4:end].mean() for i, end in ((0, 10), (1, 7), (2, 5))]
  )
  np.testing.assert_allclose(MODEL.score(params, TOKENS, mask), expected, atol=1e-5)
  other = np.where(np.arange(10) < np.array([[10], [7], [5]]), TOKENS, 1)
  np.testing.assert_allclose(MODEL.score(params, other, mask), expected, atol=1e-5)
  nothing = MODEL.score(params, TOKENS, np.zeros_like(mask))
  assert np.isfinite(nothing).all()


@pytest.mark.parametrize(
  "variant, remat",
  [
    ({}, "none"),
    (dict(windows=(0, 3), parallel_residual=True, qkv_bias=True, norm="layer"), "none"),
    (dict(windows=(4, 2), window_rope_theta=100.0, query_key_norm=True, post_norms=True), "full"),
    (dict(learned_positions=16), "dots"),
  ],
  ids=str,
)
def test_one_token_of_each_row_has_the_state_and_the_gradients_of_the_whole_forward(variant, remat):
  config = dataclasses.replace(CONFIG, **variant)
  model = language_model(config, remat)
  params = model.init_head(jax.random.key(1), model.init(jax.random.key(0)))
  last = jnp.array([9, 0, 4])
  upto = jnp.arange(10) <= last[:, None]
  positions = jnp.broadcast_to(jnp.arange(10), (3, 10))

  @jax.jit
  def run(params):
    full = model.hidden(params, jnp.pad(TOKENS, [(0, 0), (0, 1)]))[jnp.arange(3), last + 1]
    return full, model.prefill(params, TOKENS, last), model.extend(params, TOKENS, positions, model.init_cache(3, 10))

  full, (found, cache), (_, whole) = run(params)
  np.testing.assert_allclose(found, full, atol=1e-5)
  jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5), cache, whole)

  def by_value(params):
    values = model.value(params, jnp.pad(TOKENS, [(0, 0), (0, 1)]))
    return jnp.sum(jnp.sin(values[jnp.arange(3), last + 1]))

  ours = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(model.score(params, TOKENS, upto)))))(params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, jax.jit(jax.grad(by_value))(params))


def test_packed_equals_separate():
  lengths = (4, 3, 6)
  rows = [TOKENS[i, :n] for i, n in enumerate(lengths)]
  packed = jnp.concatenate(rows)[None]
  segments = jnp.repeat(jnp.arange(3), jnp.array(lengths), total_repeat_length=13)[None]
  logits, values = MODEL.apply_with_value(PARAMS, packed, segments)
  start = 0
  for row, n in zip(rows, lengths, strict=True):
    alone, value = MODEL.apply_with_value(PARAMS, row[None])
    np.testing.assert_allclose(logits[0, start : start + n], alone[0], atol=1e-5)
    np.testing.assert_allclose(values[0, start : start + n], value[0], atol=1e-5)
    start += n


def test_cache_equals_the_full_forward_in_any_cut():
  full = token_logprobs(MODEL.apply(PARAMS, TOKENS), TOKENS)[:, 1:]
  for cuts in ((10,), (4, 1, 1, 4), (1,) * 10):
    cache, start, logits = MODEL.init_cache(3, 12), 0, []
    for size in cuts:
      positions = jnp.broadcast_to(jnp.arange(start, start + size), (3, size))
      hidden, cache = MODEL.extend(PARAMS, TOKENS[:, start : start + size], positions, cache)
      logits.append(MODEL.unembed(PARAMS, hidden))
      start += size
    logits = jnp.concatenate(logits, axis=1)[:, :-1]
    np.testing.assert_allclose(token_logprobs(logits, TOKENS[:, 1:]), full, atol=1e-5)


def test_head_starts_as_in_the_n_implementation_details():
  wide = language_model(DecoderConfig(9, 1, 1024, 2, 2, 8, 4))
  head = wide.init_head(jax.random.key(0), {})["head"]
  assert head["bias"] == 0
  assert abs(float(head["kernel"].std()) * np.sqrt(1025) - 1) < 0.1


def test_impossible_shapes_are_refused():
  with pytest.raises(ValueError, match="num_kv_heads=3"):
    DecoderConfig(9, 1, 16, 4, 3, 8, 4)
  with pytest.raises(ValueError, match="d_model=18"):
    DecoderConfig(9, 1, 18, 4, 4, 8, 4)
