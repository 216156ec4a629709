"""Numbers that libraries differ in: here they are pinned, and both are to be had."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from miniature import ADAM, experience_of, rollout_by_hand

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
