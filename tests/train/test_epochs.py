"""Epochs of minibatches: which rows an update is given, and that they never leave the devices."""

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.reduce import token_weights
from rlhf_jax.train.epochs import run_epochs
from rlhf_jax.types import Experience, Mean

ROWS = np.arange(12, dtype=np.int32)
MASK = np.arange(4) < 1 + ROWS[:, None] % 3
EXPERIENCE = Experience(jnp.tile(ROWS[:, None], 4), jnp.asarray(MASK), jnp.zeros((12, 4)), jnp.zeros((12, 4)))


def recorded(seen):
  def update(state, minibatch, weights):
    seen.append((minibatch, weights))
    return state + 1, {"loss": Mean(jnp.sum(weights), jnp.ones(()))}

  return update


def test_each_epoch_is_a_permutation_of_its_seed_in_minibatches():
  seen = []
  state, metrics = run_epochs(recorded(seen), 0, EXPERIENCE, token_weights, epochs=2, minibatches=3, seed=(5, 7))
  orders = [np.random.default_rng((5, 7, epoch)).permutation(12) for epoch in range(2)]
  np.testing.assert_array_equal([minibatch.tokens[:, 0] for minibatch, _ in seen], np.reshape(orders, (6, 4)))
  assert state == 6 and seen[0][0].values is None
  for minibatch, weights in seen:
    np.testing.assert_array_equal(minibatch.mask, MASK[minibatch.tokens[:, 0]])
    np.testing.assert_allclose(weights, token_weights(minibatch.mask))
  assert metrics["loss"].compute() == 1 and float(metrics["tokens/trained"]) == 2 * MASK.sum()


def test_only_the_order_of_rows_goes_to_the_devices():
  def update(state, minibatch, weights):
    return state, {"loss": one}

  one = Mean(jnp.ones(()), jnp.ones(()))
  settings = dict(epochs=2, minibatches=3, seed=(5, 7))
  run_epochs(update, 0, EXPERIENCE, token_weights, **settings)
  with jax.transfer_guard_host_to_device("disallow_explicit"):
    run_epochs(update, 0, EXPERIENCE, token_weights, **settings)
