"""Epochs of minibatches: which rows an update is given, and that they never leave the devices."""

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.reduce import token_weights
from rlhf_jax.train.epochs import run_epochs
from rlhf_jax.types import Experience, Max, Mean, Rollout

ROWS = np.arange(12, dtype=np.int32)
MASK = np.arange(4) < 1 + ROWS[:, None] % 3
ROLLOUT = Rollout(jnp.tile(ROWS[:, None], 4), jnp.asarray(MASK), jnp.zeros((12, 4)), jnp.ones(12, bool))
EXPERIENCE = Experience(ROLLOUT.tokens, ROLLOUT.mask, ROLLOUT.logp, jnp.zeros((12, 4)))


def made(state, rollout, order):
  return EXPERIENCE, {"order": order}


def recorded(seen):
  def update(state, minibatch, weights):
    seen.append((minibatch, weights))
    return state + 1, {"loss": Mean(jnp.sum(weights), jnp.ones(()))}

  return update


def test_each_epoch_is_a_permutation_of_its_seed_in_minibatches():
  seen = []
  state, experience, metrics = run_epochs(
    recorded(seen), 0, ROLLOUT, made, token_weights, epochs=2, minibatches=3, seed=(5, 7)
  )
  orders = [np.random.default_rng((5, 7, epoch)).permutation(12) for epoch in range(2)]
  np.testing.assert_array_equal([minibatch.tokens[:, 0] for minibatch, _ in seen], np.reshape(orders, (6, 4)))
  assert experience is EXPERIENCE
  np.testing.assert_array_equal(metrics["order"], np.reshape(orders[0], (3, 4)))
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
  run_epochs(update, 0, ROLLOUT, made, token_weights, **settings)
  with jax.transfer_guard_host_to_device("disallow_explicit"):
    run_epochs(update, 0, ROLLOUT, made, token_weights, **settings)


def test_the_rows_of_a_single_minibatch_stay_where_they_are():
  seen = []
  run_epochs(recorded(seen), 0, ROLLOUT, made, token_weights, epochs=2, seed=(5, 7))
  for minibatch, _ in seen:
    np.testing.assert_array_equal(minibatch.tokens, ROLLOUT.tokens)


def test_the_gap_that_is_told_is_that_of_the_first_update():
  """The later ones have moved: theirs is no error of the sampler."""

  def update(state, minibatch, weights):
    gap = jnp.asarray(float(state))
    return state + 1, {"sampling/logp_gap": Mean(gap, 1.0), "sampling/logp_gap_max": Max(gap), "loss": Mean(gap, 1.0)}

  def of_a_trainer(state, rollout, order):
    return EXPERIENCE, {"sampling/logp_gap": Mean(jnp.asarray(9.0), 1.0)}

  _, _, metrics = run_epochs(update, 3, ROLLOUT, made, token_weights, minibatches=2, seed=(5, 7))
  assert metrics["sampling/logp_gap"].compute() == 3 and metrics["policy/first_gap_max"].compute() == 3
  assert metrics["loss"].compute() == 3.5
  _, _, metrics = run_epochs(update, 0, ROLLOUT, of_a_trainer, token_weights, minibatches=2, seed=(5, 7))
  assert metrics["sampling/logp_gap"].compute() == 9 and metrics["policy/first_gap_max"].compute() == 0
