"""Adapters: nothing at first, exactly the low-rank change later, and one base in memory for everything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.models import DecoderConfig, init_lora, language_model, merge_lora

MODEL = language_model(DecoderConfig(17, 2, 32, 4, 2, 48, 16))
BASE = MODEL.init(jax.random.key(0))
TOKENS = jax.random.randint(jax.random.key(2), (2, 8), 0, 17)


def moved(adapters):
  """The adapters after a step that leaves no b at 0."""
  return jax.tree.map(lambda x: x + 0.1, adapters)


def test_fresh_adapters_change_nothing():
  adapters = init_lora(jax.random.key(1), BASE, rank=3)
  jax.tree.map(np.testing.assert_array_equal, merge_lora(BASE, adapters, scale=2.0), BASE)
  shapes = jax.tree.map(jnp.shape, adapters["decoder"]["layers_1"]["key"])
  assert shapes == {"a": (32, 3), "b": (3, 16)}
  assert set(adapters["decoder"]) == {"layers_0", "layers_1"}
  assert set(adapters["decoder"]["layers_0"]) == {"query", "key", "value", "attention_out"}


def test_no_two_matrices_start_alike():
  adapters = init_lora(jax.random.key(1), BASE, rank=3, targets=("query",))
  first, second = (adapters["decoder"][f"layers_{i}"]["query"]["a"] for i in range(2))
  assert np.abs(first - second).max() > 0.01
  assert np.abs(first).max() <= 32**-0.5


def test_the_merged_matrix_is_the_sum():
  adapters = moved(init_lora(jax.random.key(1), BASE, rank=3, targets=("gate",)))
  merged = merge_lora(BASE, adapters, scale=0.5)
  pair, kernel = adapters["decoder"]["layers_0"]["gate"], BASE["decoder"]["layers_0"]["gate"]["kernel"]
  expected = np.asarray(kernel) + 0.5 * np.asarray(pair["a"]) @ np.asarray(pair["b"])
  np.testing.assert_allclose(merged["decoder"]["layers_0"]["gate"]["kernel"], expected, atol=1e-6)
  assert np.linalg.matrix_rank(np.asarray(merged["decoder"]["layers_0"]["gate"]["kernel"] - kernel), tol=1e-4) <= 3
  assert merged["decoder"]["layers_0"]["query"]["kernel"] is BASE["decoder"]["layers_0"]["query"]["kernel"]


def test_only_adapters_get_gradients_and_state():
  adapters = init_lora(jax.random.key(1), BASE, rank=2)

  @jax.jit
  def gradient(adapters, base):
    return jax.grad(lambda adapters: jnp.sum(MODEL.apply(merge_lora(base, adapters, scale=1.0), TOKENS) ** 2))(adapters)

  gradients = gradient(adapters, BASE)
  assert jax.tree.structure(gradients) == jax.tree.structure(adapters)
  pair = gradients["decoder"]["layers_0"]["query"]
  assert np.abs(pair["b"]).max() > 0 and not pair["a"].any()  # b starts at 0, so a does not move first


def test_policy_reference_reward_and_value_share_one_base():
  """Four models cost one base and four sets of adapters: the bytes of the arrays that are alive."""

  def alive():
    return sum(array.nbytes for array in jax.live_arrays())

  keys = [jax.random.key(i) for i in range(3)]  # before the count: keys are arrays too
  before = alive()
  sets = [init_lora(key, BASE, rank=2) for key in keys]
  own = sum(leaf.nbytes for leaf in jax.tree.leaves(sets))
  assert alive() - before == own
  compiled = jax.jit(lambda base, adapters: MODEL.apply(merge_lora(base, adapters, scale=1.0), TOKENS))
  outputs = [compiled(BASE, adapters) for adapters in sets] + [compiled(BASE, {})]
  assert alive() - before == own + sum(x.nbytes for x in outputs)
  assert own < 0.5 * sum(leaf.nbytes for leaf in jax.tree.leaves(BASE))


def test_an_unknown_target_is_refused():
  with pytest.raises(ValueError, match="no layer has a matrix 'qeury'. Known: attention_out, gate, key"):
    init_lora(jax.random.key(1), BASE, rank=2, targets=("qeury",))
