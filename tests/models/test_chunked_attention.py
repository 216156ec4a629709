"""Attention by chunks has the numbers and gradients of all scores at once, and neither their memory nor their work."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoder_families import FAMILIES, shallow_of
from jax.sharding import PartitionSpec

from rlhf_jax.models import add_lora, chunked_attention, decoder, language_model, stack_layers
from rlhf_jax.models.attention import attend
from rlhf_jax.models.chunked_attention import Seen
from rlhf_jax.packing import pack
from tests.models.test_response_positions import AT, WHOLE, loss_and_gradients
from tests.models.test_stacked import REMAT, SEGMENTS, TOKENS, close, equations, with_head

pytestmark = pytest.mark.usefixtures("unoptimised")
LENGTH, SCALE = 22, 0.3  # the last of six chunks is half full
PACKED = np.arange(LENGTH) // np.array([[5], [40]])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
  """Rows of few tokens have several chunks."""
  monkeypatch.setattr(chunked_attention, "CHUNK", 4)
  monkeypatch.setattr(decoder, "WHOLE", 4)
  decoder._layer_function.cache_clear()  # what was traced with other chunks


def inputs(dtype="float32", dim=8, length=LENGTH):
  keys = jax.random.split(jax.random.key(0), 3)
  return [4 * jax.random.normal(key, (2, length, n, dim), dtype) for key, n in zip(keys, (4, 2, 2), strict=True)]


def near(found, expected):
  """Equal to 1e-5 of the largest number of each array."""

  def one(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * float(np.abs(theirs).max()))

  jax.tree.map(one, found, expected)


def seen_by(window=0, segments=None, length=LENGTH):
  """(the same as a mask, what each of the tokens sees)."""
  index = np.arange(length)
  segments = np.zeros((2, length), int) if segments is None else segments
  visible = (index[None] <= index[:, None]) & (segments[:, :, None] == segments[:, None])
  if window:
    visible &= index[:, None] - index[None] < window
  return visible, Seen(jnp.argmax(visible, axis=2), jnp.broadcast_to(index, visible.shape[:2]))


def with_gradients(attention, *arrays):
  """The values, and the gradients of a sum of their sines."""

  def loss(*arrays):
    y = attention(*arrays)
    return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

  return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)


@pytest.mark.parametrize("window, packed, softcap", [(0, False, 0.0), (7, False, 2.0), (3, True, 0.0)])
def test_attention_is_that_of_all_scores_at_once(window, packed, softcap):
  visible, seen = seen_by(window, PACKED if packed else None)
  settings = dict(scale=SCALE, softcap=softcap)
  expected = with_gradients(lambda *arrays: attend(*arrays, visible, **settings), *inputs())
  by_chunks = functools.partial(chunked_attention.chunked_attention, **settings)
  found = with_gradients(lambda *arrays: by_chunks(*arrays, seen, window=window), *inputs())
  near(found, expected)
  if packed:
    promised_nothing = with_gradients(lambda *arrays: by_chunks(*arrays, seen), *inputs())
    near(promised_nothing, expected)
    over_lanes = jax.vmap(lambda *row: by_chunks(*jax.tree.map(lambda x: x[None], row), window=window)[0])
    near(with_gradients(lambda *arrays: over_lanes(*arrays, seen), *inputs()), expected)


def test_bfloat16_is_as_exact_as_all_scores_at_once():
  visible, seen = seen_by()
  exact = with_gradients(
    lambda *arrays: attend(*arrays, visible, scale=SCALE), *(x.astype("float32") for x in inputs("bfloat16"))
  )
  plain = with_gradients(lambda *arrays: attend(*arrays, visible, scale=SCALE), *inputs("bfloat16"))
  found = with_gradients(
    lambda *arrays: chunked_attention.chunked_attention(*arrays, seen, scale=SCALE, window=0), *inputs("bfloat16")
  )
  for ours, theirs, truth in zip(*map(jax.tree.leaves, (found, plain, exact)), strict=True):
    assert ours.dtype == theirs.dtype
    error = [float(jnp.max(jnp.abs(x.astype("float32") - truth))) for x in (ours, theirs)]
    assert error[0] <= 1.5 * error[1] + 1e-3


@pytest.mark.parametrize("window, packed, run", [(0, False, 21), (0, True, 10), (5, False, 11)])
def test_pairs_of_chunks_that_see_nothing_are_not_computed(window, packed, run):
  """21 of 36 pairs are not in the future; of these, run pairs are in the window and of one sequence."""
  visible, seen = seen_by(window, PACKED[:1] if packed else None)
  visible, seen = visible[:1], Seen(*(x[:1] for x in seen))
  chunks = np.pad(visible, [(0, 0), (0, 2), (0, 2)]).reshape(6, 4, 6, 4).any(axis=(1, 3))
  pairs = chunked_attention._pairs(6, 6, window)
  cut = Seen(chunked_attention._cut(seen.first, 0), chunked_attention._cut(seen.last, -1))
  steps = chunked_attention._steps(pairs, cut, 4)
  found = [(int(i), int(j)) for i, j, some in zip(*steps, strict=True) if some]
  assert found == [(int(i), int(j)) for i, j in np.argwhere(chunks)] and len(found) == run
  if not packed:
    assert list(pairs) == found


def test_no_array_has_a_size_of_the_square_of_the_length():
  length = 64
  _, seen = seen_by(length=length)

  def loss(*arrays):
    return jnp.sum(chunked_attention.chunked_attention(*arrays, seen, scale=SCALE, window=0))

  jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(*inputs(dim=2, length=length)).jaxpr
  largest = max(np.prod(x.aval.shape) for equation in equations(jaxpr) for x in equation.outvars)
  assert largest <= 2 * 4 * 2 * length < length**2  # as many as features of all queries


def test_devices_with_rows_and_heads_of_their_own():
  visible, seen = seen_by(3, PACKED)
  mesh = jax.make_mesh((2, 2), ("rows", "heads"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  rows = PartitionSpec("rows")
  cut = jax.shard_map(
    lambda query, key, value, seen: chunked_attention.chunked_attention(query, key, value, seen, scale=SCALE, window=3),
    mesh=mesh, in_specs=rows, out_specs=rows, axis_names={"rows"}, check_vma=False,
  )  # fmt: skip
  heads = jax.NamedSharding(mesh, PartitionSpec("rows", None, "heads"))
  arrays = jax.device_put(inputs(), heads)
  expected = with_gradients(lambda *arrays: attend(*arrays, visible, scale=SCALE), *inputs())
  near(with_gradients(lambda *arrays: cut(*arrays, seen), *arrays), expected)


@functools.cache
def whole(family):
  """Loss and gradients with all scores at once, of the whole forward."""
  params, model = with_head(shallow_of(family)), language_model(shallow_of(family))
  return loss_and_gradients(model, params, segments_of(family), None, family in WHOLE)


def segments_of(family):
  return SEGMENTS if family in ("llama", "gemma2", "gpt2") else None


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_same_numbers(family, monkeypatch):
  """The queries of some positions in an order of their own, and scanned layers."""
  monkeypatch.setattr(chunked_attention, "CHUNK", 3)
  params, model = with_head(shallow_of(family)), language_model(shallow_of(family), REMAT[family], "chunked")
  tolerance = 5e-6  # some numbers cancel to a tenth of the largest
  close(loss_and_gradients(model, params, segments_of(family), AT, family in WHOLE), whole(family), tolerance)
  if family not in WHOLE:  # scans are made of the same layers in all
    return
  loss, gradients = whole(family)
  scanned = loss_and_gradients(model, stack_layers(params), segments_of(family), None)
  close(scanned, (loss, stack_layers(gradients)), tolerance)


def test_adapters_and_a_prompt_in_the_cache():
  config = shallow_of("llama")
  params = add_lora(jax.random.key(3), with_head(config), rank=2, alpha=4.0, targets=("query", "up"))
  params["lora"] = jax.tree.map(lambda x: x + 0.1, params["lora"])

  def run(attention):
    model = language_model(config, attention=attention)
    prefill = jax.jit(model.prefill)(params, TOKENS, jnp.array([9, 0, 4]))
    return prefill, loss_and_gradients(model, params, SEGMENTS, AT)

  close(run("chunked"), run("xla"), 4e-6)  # adapters of large numbers round more


def test_rows_that_share_a_prompt_have_all_scores_at_once():
  config, tokens = shallow_of("llama"), jnp.where(jnp.arange(10) < 4, TOKENS[:1], TOKENS)
  (packing,) = pack(np.full(3, 9), np.full(3, 4), [[np.arange(3)]], width=19, room=15, size=3, prompts=np.zeros(3))
  assert packing.rows == 1 and packing.width > decoder.WHOLE
  found, expected = (
    jax.jit(language_model(config, attention=attention).apply)(with_head(config), tokens, None, packing)
    for attention in ("chunked", "xla")
  )
  np.testing.assert_array_equal(found, expected)


def test_short_rows_have_all_scores_at_once(monkeypatch):
  monkeypatch.setattr(decoder, "WHOLE", 9)
  params = with_head(shallow_of("llama"))
  found, expected = (
    jax.jit(language_model(shallow_of("llama"), attention=attention).apply)(params, TOKENS)
    for attention in ("chunked", "xla")
  )
  np.testing.assert_array_equal(found, expected)
