"""Matrices in int8: the numbers of the rounded model, in every way of reading it and on every mesh."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.models import DecoderConfig, add_lora, language_model, quantize, stack_layers
from rlhf_jax.models.int8 import dequantize
from rlhf_jax.objectives import token_logprobs
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import Transport
from rlhf_jax.train import frozen
from rlhf_jax.train.mesh import make_mesh, shardings
from rlhf_jax.train.rows import make_logprobs
from rlhf_jax.train.workspace import select_model

qwix = pytest.importorskip("qwix", reason="needs the extra int8")

LLAMA = DecoderConfig(64, 2, 32, 2, 2, 48, 16, tied=False, query_key_norm=True)
GPT2 = DecoderConfig(
  64, 2, 32, 2, 2, 48, 16, norm="layer", gated=False, activation="gelu_tanh", qkv_bias=True,
  attention_out_bias=True, mlp_bias=True, learned_positions=16,
)  # fmt: skip
TOKENS = np.random.default_rng(0).integers(3, 64, (8, 16)).astype(np.int32)
MASK = np.ones_like(TOKENS, bool)


@functools.cache
def drawn(config):
  model = language_model(config)
  params = model.init_head(jax.random.key(1), model.init(jax.random.key(0)))
  return jax.tree.map(lambda x: x + 0.05 * jnp.sin(jnp.arange(x.size).reshape(x.shape)), params)


def bytes_of(tree):
  return sum(x.nbytes for x in jax.tree.leaves(tree))


def test_a_matrix_worked_by_hand():
  """Each output has a scale, its largest absolute value / 127.5, which itself becomes 127 or -128."""
  kernel, table = np.array([[1.275, 50.0], [-0.5, -255.0]]), np.array([[2.55, 1.0], [0.0, 0.0]])
  found = quantize({"up": {"kernel": jnp.asarray(kernel)}, "embedding": {"embedding": jnp.asarray(table)}})
  kernel, table = found["up"]["kernel"], found["embedding"]["embedding"]
  np.testing.assert_array_equal(kernel.qvalue, [[127, 25], [-50, -128]])
  np.testing.assert_allclose(kernel.scale, [[0.01, 2.0]], rtol=1e-6)
  np.testing.assert_array_equal(table.qvalue, [[127, 50], [0, 0]])
  np.testing.assert_allclose(table.scale, [[0.02], [1.0]], rtol=1e-6)  # a channel of zeros stays 0
  assert kernel.qvalue.dtype == table.qvalue.dtype == jnp.int8 and kernel.scale.dtype == jnp.float32


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_the_error_of_an_entry_is_half_a_step_of_its_channel(config):
  decoder = drawn(config)["decoder"]
  rounded = dequantize(quantize(decoder))
  for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(decoder)[0], jax.tree.leaves(rounded), strict=True):
    axis = {"kernel": 0, "embedding": 1}.get(path[-1].key)
    if axis is None:
      assert x is y  # norms and biases are not touched
    else:
      bound = np.abs(x).max(axis, keepdims=True) / 255 * (1 + 1e-4)
      assert y.dtype == jnp.float32 and np.all(np.abs(x - y) <= bound) and np.any(x != y)


@pytest.mark.parametrize(
  "base, scan, dtype",
  [(LLAMA, False, "float32"), (GPT2, True, "float32"), pytest.param(LLAMA, True, "bfloat16", marks=pytest.mark.slow)],
  ids=["llama", "gpt2-scanned", "llama-scanned-bfloat16"],
)
def test_every_reading_is_that_of_the_rounded_model(base, scan, dtype):
  config = dataclasses.replace(base, dtype=dtype)
  params = stack_layers(drawn(base)) if scan else drawn(base)
  model = language_model(config, "full" if scan else "none", scan=scan)
  low = {**params, "decoder": quantize(params["decoder"])}
  whole = {**params, "decoder": dequantize(low["decoder"])}
  positions = jnp.broadcast_to(jnp.arange(16), (8, 16))
  for read in (
    lambda params: model.apply(params, TOKENS),
    lambda params: model.score(params, TOKENS, MASK),
    lambda params: model.extend(params, TOKENS, positions, model.init_cache(8, 16))[0],
  ):
    np.testing.assert_allclose(
      *(np.asarray(jax.jit(read)(params), np.float32) for params in (low, whole)), rtol=0,
      atol=1e-5 if dtype == "float32" else 0.1,
    )  # fmt: skip


def test_memory_and_the_gap_of_log_probs():
  """A matrix has a quarter of the bytes of float32, and 4 for each output."""
  config = DecoderConfig(512, 2, 256, 4, 4, 768, 16)
  model = language_model(config)
  params = jax.jit(model.init)(jax.random.key(0))
  low = frozen(model, params, "int8")
  assert bytes_of(low["decoder"]["layers_0"]["up"]["kernel"]) == 256 * 768 + 4 * 768
  assert bytes_of(low) / bytes_of(params) < 0.26
  tokens = np.random.default_rng(0).integers(3, 512, (8, 16)).astype(np.int32)
  logp = jax.jit(lambda params: token_logprobs(model.apply(params, tokens), tokens)[:, 1:])
  gap = np.abs(logp(low) - logp(params))
  print(f"bytes {bytes_of(low) / bytes_of(params):.4f} of float32; gap mean {gap.mean():.1e}, largest {gap.max():.1e}")
  assert 0 < gap.mean() < 0.1 and gap.max() < 0.5


@pytest.mark.parametrize(
  "config, layers, mesh",
  [
    (LLAMA, "scanned", dict(fsdp=4, tensor=2)),
    (GPT2, "unrolled", dict(fsdp=2)),
    (GPT2, "scanned", dict(tensor=2)),
  ],
  ids=["fsdp-tensor", "fsdp", "tensor"],
)
def test_a_mesh_has_the_numbers_of_one_device(config, layers, mesh):
  transport = Transport("jit", mesh.get("fsdp", 1), 1, tensor=mesh.get("tensor", 1), layers=layers)
  if jax.device_count() % math.prod(mesh.values()):
    pytest.skip(f"needs {math.prod(mesh.values())} devices")
  model = select_model(config, transport)
  params = stack_layers(drawn(config)) if model.scan else drawn(config)
  expected = jax.jit(lambda params: token_logprobs(language_model(config).apply(params, TOKENS), TOKENS, mask=MASK))(
    frozen(language_model(config), drawn(config), "int8")
  )
  placed = jax.device_put(params, shardings(make_mesh(transport), params))
  low = frozen(model, placed, "int8")
  kernel = low["decoder"]["layers" if model.scan else "layers_0"]["up"]["kernel"]
  size = kernel.qvalue.addressable_shards[0].data.size
  assert size * math.prod(mesh.values()) == kernel.qvalue.size  # cut as its float was
  places = shardings(make_mesh(transport), low)
  assert all(x.sharding.is_equivalent_to(s, x.ndim) for x, s in zip(*map(jax.tree.leaves, (low, places)), strict=True))
  found = jax.jit(make_logprobs(model.apply, 1.0, transport))(low, TOKENS, MASK)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_adapters_are_refused():
  model = language_model(LLAMA)
  params = add_lora(jax.random.key(1), model.init(jax.random.key(0)), rank=2, alpha=2.0)
  with pytest.raises(ConfigError, match="frozen_dtype='int8' does not work with a model with adapters"):
    frozen(model, params, "int8")
