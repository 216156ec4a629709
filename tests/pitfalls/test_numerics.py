"""Numbers that libraries differ in: here they are pinned, and both are to be had."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from miniature import ADAM, experience_of, rollout_by_hand

from rlhf_jax.models import DecoderConfig, chunked_attention, decoder, language_model
from rlhf_jax.objectives import group_normalize
from rlhf_jax.reduce import whiten
from rlhf_jax.train import make_optimizer


@pytest.mark.parametrize("tensorflow_eps, first_step", [(False, 0.0909), (True, 0.00315)])
def test_adams_epsilon(tensorflow_eps, first_step):
  """With g = 1e-6, eps = 1e-5, lr = 1, the first step is 0.0909 (torch, optax) or 0.00315 (TensorFlow)."""
  settings = dataclasses.replace(ADAM, learning_rate=1.0, eps=1e-5, tensorflow_eps=tensorflow_eps)
  optimizer, params = make_optimizer(settings, 1), {"w": jnp.zeros(())}
  updates, _ = optimizer.update({"w": jnp.asarray(1e-6)}, optimizer.init(params), params)
  assert -float(updates["w"]) == pytest.approx(first_step, rel=2e-3)


def test_ddof_of_whitening_and_of_group_normalisation():
  """Whitening with ddof 0 or 1; group normalisation with ddof 0 or 1. The default of both, and of PPO, is 0."""
  x, root = jnp.array([[1.0, 3.0]]), np.sqrt(0.5)
  for normalise in (group_normalize, lambda x, **ddof: whiten(x, np.ones((1, 2)), **ddof)):
    np.testing.assert_allclose(normalise(x), [[-1, 1]], atol=1e-5)
    np.testing.assert_allclose(normalise(x, ddof=0), [[-1, 1]], atol=1e-5)
    np.testing.assert_allclose(normalise(x, ddof=1), [[-root, root]], atol=1e-5)
  rollout = rollout_by_hand([1, 1])
  experience, _ = experience_of(rollout, rollout.logp, np.float32([1, 3]), whiten_advantages=True)
  np.testing.assert_allclose(experience.advantages[:, 1], [-1, 1], atol=1e-5)


def test_attention_by_chunks_of_keys_is_that_of_all_keys(monkeypatch):
  """Gradients too, of packed rows in a window, and of some positions in an order of their own."""
  monkeypatch.setattr(chunked_attention, "CHUNK", 4)
  monkeypatch.setattr(decoder, "WHOLE", 4)
  config = DecoderConfig(17, 2, 16, 2, 1, 24, 32, windows=(9, 9), query_scale=4.0)
  tokens = jax.random.randint(jax.random.key(0), (2, 24), 0, 17)
  segments = jnp.arange(24) // jnp.array([[11], [24]])
  at = jnp.array([[20, 3, 12, 8, 7, 22], [23, 1, 16, 9, 4, 5]])
  params = language_model(config).init(jax.random.key(1))

  def gradients(attention):
    model = language_model(config, attention=attention)

    def loss(params):
      logits = model.apply(params, tokens, segments), model.apply(params, tokens, segments, at)
      return sum(jnp.sum(jnp.sin(x)) for x in logits)

    return jax.jit(jax.value_and_grad(loss))(params)

  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-3), *map(gradients, ("chunked", "xla")))
