"""A forward of the positions that count has the numbers and the gradients of the whole forward, in every family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoder_families import FAMILIES, shallow_of

from rlhf_jax.models import add_lora, language_model, layer, stack_layers
from rlhf_jax.models.attention import attend
from rlhf_jax.packing import pack
from rlhf_jax.positions import put_at
from tests.models.test_stacked import REMAT, SEGMENTS, TOKENS, close, with_head

pytestmark = pytest.mark.usefixtures("unoptimised")
AT = np.array([[5, 6, 7, 10], [9, 0, 3, 1], [4, 8, 5, 2]])  # 10 is no position; 0 and, in packed rows, 4 have no past
MASK = np.arange(10) < np.array([[8], [10], [9]])
WHOLE = (
  "llama",
  "gemma2",
)  # families whose values alone and scores, which are made of the same layers, are compared too


def results(model, params, segments, at, alone=True):
  """Logits and values at the positions AT, values alone and the score; by the forward of `at`."""
  logits, values = model.apply_with_value(params, TOKENS, segments, at)
  if at is None:
    logits = jnp.where((AT < 10)[..., None], logits[jnp.arange(3)[:, None], np.minimum(AT, 9)], 0)
    held = (np.arange(10) == AT[..., None]).any(axis=1)
    values = jnp.where(held, values, 0)
  logits = jnp.where((AT < 10)[..., None], logits, 0)
  if not alone:
    return logits, values
  return logits, values, model.value(params, TOKENS, segments, at) * (values != 0), model.score(params, TOKENS, MASK)


def loss_and_gradients(model, params, segments, at, alone=True):
  def loss(params):
    found = results(model, params, segments, at, alone)
    return sum(jnp.sum(jnp.sin(x)) for x in found), found

  return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_numbers_of_the_whole_forward(family):
  segments = SEGMENTS if family in ("llama", "gemma2", "gpt2") else None
  params = with_head(shallow_of(family))
  alone = family in WHOLE
  whole = loss_and_gradients(language_model(shallow_of(family)), params, segments, None, alone)
  close(loss_and_gradients(language_model(shallow_of(family), REMAT[family]), params, segments, AT, alone), whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_numbers_of_rows_in_packed_rows(family):
  """Logits and values of the tokens behind a prompt, and scores of whole sequences, with their gradients."""
  lengths, skipped = np.array([5, 4, 9]), np.array([2, 1, 3])
  asked = (np.arange(10) > skipped[:, None]) & (np.arange(10) <= lengths[:, None])
  params = with_head(shallow_of(family))
  params["head"]["likelihood"] = jnp.float32(0.5)

  def results(model, params, predicted, scored):
    logits, values = model.apply_with_value(params, TOKENS, None, predicted)
    logits = logits if predicted is None else put_at(logits, predicted, 10)
    logits, values = jnp.where(asked[..., None], logits, 0), jnp.where(asked, values, 0)
    if family not in WHOLE:
      return logits, values
    alone = jnp.where(asked, model.value(params, TOKENS, None, predicted), 0)
    return logits, values, alone, model.score(params, TOKENS, asked, scored)

  def loss(params, model, *at):
    found = results(model, params, *at)
    return sum(jnp.sum(jnp.sin(x)) for x in found), found

  parts = [[np.arange(3)]]
  (predicted,) = pack(lengths, skipped, parts, width=9, room=8, size=3)
  (scored,) = pack(lengths + 1, skipped, parts, width=11, room=10, size=3)
  assert predicted.rows == scored.rows == 2
  step = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
  whole = step(params, language_model(shallow_of(family)), None, None)
  close(step(params, language_model(shallow_of(family), REMAT[family]), predicted, scored), whole)
  if family in WHOLE:
    stacked = jax.jit(lambda params: results(language_model(shallow_of(family), scan=True), params, predicted, scored))
    close(stacked(stack_layers(params)), whole[0][1])


def test_stacked_layers_and_adapters():
  config = shallow_of("llama")
  params = add_lora(jax.random.key(3), with_head(config), rank=2, alpha=4.0, targets=("query", "up"))
  params["lora"] = jax.tree.map(lambda x: x + 0.1, params["lora"])
  whole = loss_and_gradients(language_model(config), params, SEGMENTS, None)
  close(loss_and_gradients(language_model(config), params, SEGMENTS, AT), whole)
  stacked = jax.jit(lambda params: results(language_model(config, scan=True), params, SEGMENTS, AT))(
    stack_layers(params)
  )
  close(stacked, whole[0][1])


def test_a_kernel_gets_the_queries_of_whole_rows(monkeypatch):
  def kernel(fused, query, key, value, segments, *, window, scale, softcap):
    assert query.shape[1] == key.shape[1] == 9
    seen = jnp.broadcast_to(jnp.tril(jnp.ones((9, 9), bool)), (3, 9, 9))
    return attend(query, key, value, seen, scale=scale, softcap=softcap)

  monkeypatch.setattr(layer, "fused_attention", kernel)
  params = with_head(shallow_of("llama"))
  found = language_model(shallow_of("llama"), attention="splash").apply(params, TOKENS, at=AT)
  whole = language_model(shallow_of("llama")).apply(params, TOKENS)
  np.testing.assert_allclose(found[0, :3], whole[0, 5:8], atol=1e-5)


@pytest.mark.parametrize("likelihood", [0.0, 0.5])
def test_a_score_of_the_positions_of_the_mask(likelihood):
  config = shallow_of("gpt_neox")
  model = language_model(config)
  params = model.init_head(jax.random.key(1), with_head(config), likelihood)
  mask = (np.arange(10) > 3) & MASK
  at = 4 + np.broadcast_to(np.arange(6), (3, 6))  # beyond the end of the mask, as of a response that ended early
  score = jax.jit(jax.value_and_grad(lambda params, at: jnp.sum(jnp.sin(model.score(params, TOKENS, mask, at)))))
  close(score(params, at), score(params, None))


def test_the_last_layer_multiplies_what_is_asked_for():
  config = shallow_of("llama", num_layers=1)
  params = with_head(config)

  def flops(at):
    apply = jax.jit(lambda params: language_model(config).apply(params, TOKENS, None, at))
    return apply.lower(params).cost_analysis()["flops"]

  assert flops(AT[:, :1]) < 0.5 * flops(None)
