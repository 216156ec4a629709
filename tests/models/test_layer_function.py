"""A layer as a function of its own within a program: the same bits, traced once for all layers of a shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.models import decoder as module
from rlhf_jax.models.layer import Layer

TOKENS = np.random.default_rng(0).integers(0, 40, (2, 12))
AT = np.tile(np.arange(6, 10), (2, 1))


def shape(**changes):
  settings = dict(num_layers=3, d_model=16, num_heads=2, num_kv_heads=1, d_ff=24, max_length=16)
  return DecoderConfig(40, **{**settings, **changes})


def loss_of(model):
  return jax.jit(jax.value_and_grad(lambda params, at: model.apply(params, TOKENS, at=at).var()))


@pytest.mark.parametrize("at", [None, AT], ids=["all_positions", "some_positions"])
def test_the_bits_are_those_of_the_layers_written_out(at, monkeypatch):
  model = language_model(shape())
  params = model.init(jax.random.key(0))
  found = loss_of(model)(params, at)

  def written_out(config, window, attention):
    layer = Layer(config, window, attention)
    return lambda weights, *inputs: layer.apply({"params": weights}, *inputs)

  monkeypatch.setattr(module, "_layer_function", written_out)
  expected = loss_of(model)(params, at)
  assert all(jnp.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (found, expected)), strict=True))


def test_layers_of_one_shape_are_traced_once_for_all_programs(monkeypatch):
  traced = []
  mlp = Layer.mlp
  monkeypatch.setattr(Layer, "mlp", lambda self, x: traced.append(self.window) or mlp(self, x))
  model = language_model(shape(d_ff=27))  # a shape of no other test
  params = jax.eval_shape(model.init, jax.random.key(0))
  traced.clear()
  loss_of(model).trace(params, None)
  jax.jit(lambda params: model.apply(params, TOKENS) * 2).trace(params)
  assert traced == [0]


def test_layers_with_different_windows_are_different_functions(monkeypatch):
  traced = []
  mlp = Layer.mlp
  monkeypatch.setattr(Layer, "mlp", lambda self, x: traced.append(self.window) or mlp(self, x))
  model = language_model(shape(d_ff=29, num_layers=4, windows=(4, 0, 4, 0)))
  params = jax.eval_shape(model.init, jax.random.key(0))
  traced.clear()
  jax.jit(lambda params: model.apply(params, TOKENS)).trace(params)
  assert sorted(traced) == [0, 4]
