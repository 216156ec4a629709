"""Adam steps on parameters in both forms of the layers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlhf_jax.models import DecoderConfig, add_lora, language_model, stack_layers
from rlhf_jax.train import Optimizer
from rlhf_jax.train.optimizer import make_optimizer

pytestmark = pytest.mark.usefixtures("unoptimised")
SETTINGS = Optimizer(1e-2, 0.0, "constant", 0.9, 0.99, 1e-8, False, 0.1, 1.0)
MODEL = language_model(DecoderConfig(13, 3, 16, 2, 2, 24, 8))


@functools.cache
def params():
  trained = MODEL.init_head(jax.random.key(1), MODEL.init(jax.random.key(0)))
  return add_lora(jax.random.key(2), trained, rank=2, alpha=4.0)


@pytest.mark.parametrize("tensorflow_eps", [False, True])
def test_stacked_layers_take_the_same_steps(tensorflow_eps):
  optimizer = make_optimizer(dataclasses.replace(SETTINGS, tensorflow_eps=tensorflow_eps), 10)

  def after_two_steps(tree):
    state = optimizer.init(tree)
    for _ in range(2):
      updates, state = optimizer.update(jax.tree.map(jnp.sin, tree), state, tree)
      tree = optax.apply_updates(tree, updates)
    return tree

  expected = stack_layers(jax.jit(after_two_steps)(params()))
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7),
    expected,
    jax.jit(after_two_steps)(stack_layers(params())),
  )


@pytest.mark.parametrize("change", [lambda tree: tree, stack_layers])
def test_norms_and_biases_do_not_decay(change):
  tree = change(params())
  optimizer = make_optimizer(SETTINGS, 10)
  zeros = jax.tree.map(jnp.zeros_like, tree)
  updates, _ = jax.jit(optimizer.update)(zeros, optimizer.init(tree), tree)
  moved = {
    jax.tree_util.keystr(path, simple=True, separator="/"): bool(jnp.any(x))
    for path, x in jax.tree_util.tree_flatten_with_path(updates)[0]
  }
  assert all(now == path.endswith(("kernel", "embedding", "/a")) for path, now in moved.items() if "head" not in path)
  assert not moved["head/kernel"] and not moved["head/bias"]
