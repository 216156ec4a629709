"""The mesh and its rules: one table for parameters, gradients and moments of every family."""

import dataclasses
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from rlhf_jax.models import DecoderConfig, add_lora, language_model
from rlhf_jax.stage import Transport
from rlhf_jax.train import mesh as mesh_module
from rlhf_jax.train.mesh import make_gather, make_mesh, put_rows, rows, shardings, specs, using_devices

LLAMA = DecoderConfig(64, 2, 16, 2, 2, 24, 16, tied=False, query_key_norm=True)
GPT2 = DecoderConfig(
  64, 2, 16, 2, 2, 24, 16, norm="layer", gated=False, activation="gelu_tanh", qkv_bias=True,
  attention_out_bias=True, mlp_bias=True, learned_positions=16,
)  # fmt: skip


def shapes_of(config):
  model = language_model(config)
  return jax.eval_shape(lambda key: model.init_head(key, model.init(key)), jax.random.key(0))


def table(tree, mesh):
  """{path: axes} of the arrays that are cut, of the first layer for all."""
  found = jax.tree_util.tree_flatten_with_path(specs(mesh, tree))[0]
  paths = {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(spec) for path, spec in found}
  return {path: spec for path, spec in paths.items() if spec and "layers_1" not in path}


MESH = Transport("jit", 2, 1, data=2, tensor=2)
MATRICES = {
  "decoder/embedding/embedding": ("tensor", "fsdp"),
  "decoder/layers_0/query/kernel": ("fsdp", "tensor"),
  "decoder/layers_0/key/kernel": ("fsdp", "tensor"),
  "decoder/layers_0/value/kernel": ("fsdp", "tensor"),
  "decoder/layers_0/up/kernel": ("fsdp", "tensor"),
  "decoder/layers_0/attention_out/kernel": ("tensor", "fsdp"),
  "decoder/layers_0/mlp_out/kernel": ("tensor", "fsdp"),
}


@pytest.mark.parametrize(
  "config, more",
  [
    (LLAMA, {"decoder/layers_0/gate/kernel": ("fsdp", "tensor"), "decoder/unembedding/kernel": ("fsdp", "tensor")}),
    (GPT2, {"decoder/position_embedding/embedding": (None, "fsdp")}),
  ],
  ids=["llama", "gpt2"],
)
def test_the_table_of_a_family(config, more):
  """Matrices are cut over both axes; norms, biases and the head are whole."""
  assert table(shapes_of(config), make_mesh(MESH)) == MATRICES | more


def test_moments_lie_as_their_parameters():
  shapes, mesh = shapes_of(LLAMA), make_mesh(MESH)
  state = jax.eval_shape(optax.adam(1e-3).init, shapes)
  of_params = specs(mesh, shapes)
  assert specs(mesh, state[0].mu) == of_params and specs(mesh, state)[0].nu == of_params
  assert specs(mesh, state)[0].count == P()


def test_the_axis_of_stacked_layers_is_not_cut():
  stacked = {"decoder": {"layers": {"up": {"kernel": jax.ShapeDtypeStruct((8, 16, 24), jnp.float32)}}}}
  assert table(stacked, make_mesh(MESH)) == {"decoder/layers/up/kernel": (None, "fsdp", "tensor")}


def test_an_axis_that_does_not_divide_cuts_nothing():
  shapes = shapes_of(dataclasses.replace(LLAMA, vocab_size=63))
  found = table(shapes, make_mesh(MESH))
  assert found["decoder/embedding/embedding"] == (None, "fsdp") and found["decoder/unembedding/kernel"] == ("fsdp",)
  assert table(shapes, make_mesh(Transport("jit", 1, 1))) == {}


def test_adapters_are_whole():
  model = language_model(LLAMA)
  params = jax.eval_shape(lambda key: add_lora(key, model.init(key), rank=4, alpha=4.0), jax.random.key(0))
  assert table(params["lora"], make_mesh(MESH)) == {}


def test_one_of_the_axes_is_the_rest():
  assert dict(make_mesh(Transport("jit", 1, 1)).shape) == dict(data=8, fsdp=1, tensor=1)
  assert dict(make_mesh(Transport("jit", -1, 1, data=1, tensor=2)).shape) == dict(data=1, fsdp=4, tensor=2)
  with using_devices(jax.devices()[:4]):
    assert dict(make_mesh(Transport("jit", 2, 1)).shape) == dict(data=2, fsdp=2, tensor=1)
  assert make_mesh(Transport("jit", 1, 1), jax.devices()[:2]).size == 2
  with pytest.raises(ValueError, match=r"transport.fsdp=3 x transport.tensor=1 does not divide the 8 devices"):
    make_mesh(Transport("jit", 3, 1))
  with pytest.raises(ValueError, match=r"data=2 x .* is 4 devices, and JAX has 8: set one of them to -1"):
    make_mesh(Transport("jit", 2, 1, data=2))


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(fsdp=-1), "data=-1, fsdp=-1, tensor=1: only one"),
    (dict(kind="pmap", tensor=2), "tensor=2 needs kind='jit', not 'pmap'"),
  ],
)
def test_sizes_that_say_nothing_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    Transport(**(dict(kind="jit", fsdp=1, microbatches=1) | changes))


def device(number, slice_index, platform="tpu"):
  coords = (number % 2, number // 2 % 2, 0)
  return SimpleNamespace(
    id=number, slice_index=slice_index, platform=platform, device_kind="chip", coords=coords, core_on_chip=0,
    process_index=slice_index,
  )  # fmt: skip


def test_slices_are_in_front_of_data(monkeypatch):
  monkeypatch.setattr(mesh_module, "Mesh", lambda grid, names, axis_types: grid)
  devices = [device(number, number // 4) for number in range(8)]
  grid = make_mesh(Transport("jit", 2, 1), devices)
  assert grid.shape == (4, 2, 1)
  assert [[d.slice_index for d in row.flat] for row in grid] == [[0, 0], [0, 0], [1, 1], [1, 1]]
  with pytest.raises(ValueError, match="transport.data is 1, and must be a multiple of the 2 slices"):
    make_mesh(Transport("jit", 8, 1), devices)
  assert make_mesh(Transport("jit", 8, 1), [device(n, n // 4, "gpu") for n in range(8)]).shape == (1, 8, 1)


def test_what_xla_cannot_compile_is_refused():
  with pytest.raises(ValueError, match="gradient_dtype='bfloat16' does not work with transport.tensor on CPUs"):
    make_mesh(Transport("jit", 1, 1, tensor=2, gradient_dtype="bfloat16"))


def test_rows_are_cut_over_data_and_fsdp():
  mesh = make_mesh(MESH)
  x = put_rows(mesh, {"x": np.arange(16.0).reshape(8, 2)})["x"]
  assert x.sharding == rows(mesh) and x.addressable_shards[0].data.shape == (2, 2)
  np.testing.assert_array_equal(x, np.arange(16.0).reshape(8, 2))


@pytest.mark.parametrize("gradient_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stacked", [False, True])
def test_gathered_weights_are_whole_and_their_gradients_cut(gradient_dtype, stacked):
  """Inside shard_map the product sees all of the matrix, and each device gets the sum over fsdp of its own part."""
  mesh = make_mesh(Transport("jit", 2, 1, data=1, tensor=-1) if gradient_dtype == "float32" else Transport("jit", 8, 1))
  weights = {"decoder": {"layers_0": {"up": {"kernel": jnp.arange(64.0).reshape(8, 8), "bias": jnp.ones(8)}}}}
  shapes = weights
  if stacked:
    shapes = {"decoder": {"layers": jax.tree.map(lambda x: jnp.stack([x, x]), weights["decoder"]["layers_0"])}}
  gather = make_gather(shapes, "bfloat16", gradient_dtype)
  x = jnp.arange(64.0).reshape(8, 8)

  def local(params, x):
    def loss(params):
      whole = gather("decoder/layers", params["decoder"]["layers_0"])["up"]
      assert whole["kernel"].shape == (8, 8) and whole["bias"].dtype == jnp.float32
      assert whole["kernel"].dtype == jnp.bfloat16
      return jnp.sum(x @ whole["kernel"].astype(jnp.float32) + whole["bias"])

    value, grads = jax.value_and_grad(loss)(params)
    kernel = grads["decoder"]["layers_0"]["up"]["kernel"]
    return jax.lax.psum(value, "fsdp"), kernel

  cut = specs(mesh, weights, ("fsdp",))
  assert cut["decoder"]["layers_0"]["up"]["kernel"] == P("fsdp")
  step = jax.shard_map(
    local, mesh=mesh, in_specs=(cut, P(("data", "fsdp"))), out_specs=(P(), P("fsdp")), check_vma=False,
    axis_names={"data", "fsdp"} if mesh.shape["tensor"] > 1 else set(mesh.axis_names),
  )  # fmt: skip
  value, kernel = jax.jit(step)(jax.device_put(weights, shardings(mesh, weights)), x)
  assert float(value) == math.fsum((np.asarray(x) @ np.arange(64.0).reshape(8, 8) + 1).flat)
  np.testing.assert_array_equal(kernel, np.asarray(x).sum(axis=0)[:, None] * np.ones(8))
  jaxpr = str(jax.make_jaxpr(step)(weights, x))
  assert ("bf16[1,8] = reduce_scatter" if gradient_dtype == "bfloat16" else "f32[4,8] = reduce_scatter") in jaxpr
  assert gather("decoder/layers", weights) is weights  # outside of a shard_map
