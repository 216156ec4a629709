"""The fused kernels are given the same attention: checked by running them, or what they stand for, on the CPU."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rlhf_jax.models import DecoderConfig, UnsupportedModelError, language_model
from rlhf_jax.models.attention import attend
from rlhf_jax.models.fused_attention import cudnn, over_heads, splash

pytestmark = pytest.mark.usefixtures("unoptimised")
CONFIG = DecoderConfig(17, 1, 16, 2, 1, 24, 16)
SCALE = 0.3


def inputs(length, heads=4, groups=2, dim=8):
  keys = jax.random.split(jax.random.key(0), 3)
  return [jax.random.normal(key, (2, length, n, dim)) for key, n in zip(keys, (heads, groups, groups), strict=True)]


@functools.partial(jax.jit, static_argnames=("window", "softcap"))
def expected(query, key, value, segments, window, softcap=0.0):
  index = jnp.arange(query.shape[1])
  visible = jnp.broadcast_to(index[None] <= index[:, None], (2, len(index), len(index)))
  if window:
    visible &= index[:, None] - index[None] < window
  if segments is not None:
    visible &= segments[:, :, None] == segments[:, None, :]
  return attend(query, key, value, visible, scale=SCALE, softcap=softcap)


@pytest.mark.parametrize("window, packed", [(0, False), (3, True)])
def test_cudnn_is_asked_for_the_same_attention(window, packed):
  """By the same function's implementation "xla", which takes the same mask, window and scale."""
  arrays = inputs(10)
  segments = jnp.arange(10)[None] // jnp.array([[4], [7]]) if packed else None
  got = jax.jit(functools.partial(cudnn, window=window, scale=SCALE, implementation="xla"))(*arrays, segments)
  np.testing.assert_allclose(got, expected(*arrays, segments, window), atol=1e-5)


@pytest.mark.parametrize(
  "window, packed, softcap", [(5, True, 2.0), pytest.param(0, False, 0.0, marks=pytest.mark.slow)]
)
def test_splash_is_the_same_attention(window, packed, softcap):
  """Its kernel itself, interpreted."""
  query, key, value = inputs(128)
  segments = jnp.arange(128)[None] // jnp.array([[40], [70]]) if packed else None
  settings = dict(window=window, softcap=softcap, interpret=True)
  got = jax.jit(functools.partial(splash, **settings))(query * SCALE, key, value, segments)
  np.testing.assert_allclose(got, expected(query, key, value, segments, window, softcap), atol=1e-5)


def test_inside_a_mesh_each_device_has_its_own_rows_and_heads():
  shapes = []

  def kernel(query, key, value, segments):
    shapes.append((query.shape, key.shape))
    return cudnn(query, key, value, segments, window=3, scale=SCALE, implementation="xla")

  arrays = inputs(10)
  segments = jnp.arange(10)[None] // jnp.array([[4], [7]])
  mesh = jax.make_mesh((2, 2), ("rows", "heads"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  rows = PartitionSpec("rows")
  cut = jax.shard_map(
    lambda *arrays: over_heads(kernel)(*arrays), mesh=mesh, in_specs=rows, out_specs=rows, axis_names={"rows"},
    check_vma=False,
  )  # fmt: skip
  got = jax.jit(cut)(*arrays, segments)
  np.testing.assert_allclose(got, expected(*arrays, segments, 3), atol=1e-5)
  assert shapes == [((1, 10, 2, 8), (1, 10, 1, 8))], shapes
  assert over_heads(kernel) is kernel


def test_what_a_kernel_cannot_do_is_named():
  with pytest.raises(UnsupportedModelError, match="attention_softcap=50.0: use 'xla' or 'splash'"):
    language_model(dataclasses.replace(CONFIG, attention_softcap=50.0), attention="cudnn")
  with pytest.raises(UnsupportedModelError, match="needs dtype='bfloat16', not 'float32'"):
    language_model(CONFIG, attention="cudnn")
  odd = dataclasses.replace(CONFIG, dtype="bfloat16", head_size=12)
  with pytest.raises(UnsupportedModelError, match="not 12"):
    language_model(odd, attention="cudnn")


@pytest.mark.parametrize("remat", ["full", pytest.param("dots", marks=pytest.mark.slow)])
def test_rematerialisation_changes_no_gradient(remat):
  tokens = jax.random.randint(jax.random.key(1), (2, 10), 0, 17)
  params = language_model(CONFIG).init(jax.random.key(0))

  def gradient(model):
    return jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(model.apply(params, tokens)))))(params)

  plain, saving = gradient(language_model(CONFIG)), gradient(language_model(CONFIG, remat))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain, saving)
