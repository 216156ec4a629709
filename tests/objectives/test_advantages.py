"""Baselines of groups: by hand, by enumeration of every group, and the variance that they leave."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.objectives import (
  gae,
  group_centre,
  leave_one_out,
  length_adaptive_lambda,
  optimal_baseline,
  optimal_token_baseline,
  score_energy,
)

LOGITS = np.array([0.5, -0.2, 0.1], np.float32)
REWARDS = np.array([1.0, 0.0, 2.0], np.float32)
GRADIENT = np.array([-0.0370004316546368, -0.247541842250097, 0.28454227390473374])


def mean_gradient(advantages_of, size):
  """Over all groups of `size` of three actions, with their probabilities."""
  groups = np.array(list(itertools.product(range(3), repeat=size)))
  p = np.exp(LOGITS) / np.exp(LOGITS).sum()
  scores = np.eye(3) - p  # gradient of each action's log-prob
  each = np.mean(scores[groups] * np.asarray(advantages_of(REWARDS[groups]))[..., None], axis=1)
  return p[groups].prod(axis=1) @ each


@pytest.mark.parametrize("size", [2, 3])
def test_the_groups_mean_shrinks_the_gradient(size):
  np.testing.assert_allclose(mean_gradient(group_centre, size), (size - 1) / size * GRADIENT, atol=1e-6)


def test_the_length_weighted_mean_of_equal_lengths_is_the_mean():
  rewards = np.array([[1.0, 2.0, 3.0, 6.0], [0.3, 0.3, 0.3, 0.3]])
  np.testing.assert_allclose(optimal_baseline(rewards, np.full((2, 4), 7)), group_centre(rewards), atol=1e-6)
  assert not np.any(optimal_baseline(rewards, np.array([1, 5, 2, 9]) * np.ones((2, 1)))[1])
  np.testing.assert_allclose(optimal_baseline(rewards, np.zeros((2, 4))), group_centre(rewards), atol=1e-6)


def test_the_length_weighted_mean_by_hand():
  # (2 * 1 + 1 * 2 + 1 * 3) / 4 = 1.75
  np.testing.assert_allclose(optimal_baseline(np.array([1, 2, 3]), np.array([2, 1, 1])), [-0.75, 0.25, 1.25])


def test_the_energy_is_the_squared_norm_of_the_score():
  logits = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
  tokens = np.array([0, 3, 4, 1])

  def squared(row, token):
    return jnp.sum(jnp.square(jax.grad(lambda x: jax.nn.log_softmax(x)[token])(row)))

  np.testing.assert_allclose(score_energy(logits, tokens), jax.vmap(squared)(logits, tokens), rtol=1e-5)
  assert score_energy(logits, tokens, mask=np.array([1, 0, 1, 1]))[1] == 0


def test_the_token_baseline_by_a_loop():
  rng = np.random.default_rng(1)
  returns, energies = rng.normal(size=(2, 3, 4)), rng.uniform(0.1, 1, size=(2, 3, 4))
  mask = np.arange(4) < np.array([[[4], [2], [3]], [[1], [1], [4]]])
  found = optimal_token_baseline(returns, energies, mask)
  for group, row, t in np.ndindex(2, 3, 4):
    if not mask[group, row, t]:
      assert found[group, row, t] == 0
      continue
    there = [i for i in range(3) if mask[group, i, t]]
    weights = [energies[group, i, : t + 1].sum() for i in there]
    baseline = np.dot(weights, returns[group, there, t]) / np.sum(weights)
    assert found[group, row, t] == pytest.approx(returns[group, row, t] - baseline, abs=1e-5)


def test_the_weight_of_the_token_baseline_is_that_of_least_variance():
  """Of one action with the weights E[energy G] / E[energy] the variance is the least that a constant can leave."""
  p = np.exp(LOGITS) / np.exp(LOGITS).sum()
  scores = np.eye(3) - p
  energies = np.asarray(score_energy(np.tile(LOGITS, (3, 1)), np.arange(3)))

  def spread(baseline):
    rows = scores * (REWARDS - baseline)[:, None]
    return p @ np.sum((rows - p @ rows) ** 2, axis=1)

  best = np.sum(p * energies * REWARDS) / np.sum(p * energies)
  assert best == pytest.approx(1.0356639935550636)
  around = np.linspace(best - 0.5, best + 0.5, 101)
  assert around[np.argmin([spread(b) for b in around])] == pytest.approx(best, abs=1e-6)
  # With many copies of each action, in proportion, the estimate from the group is that baseline.
  counts = np.round(1000 * p).astype(int)
  group = np.repeat(np.arange(3), counts)
  found = optimal_token_baseline(REWARDS[group][:, None], energies[group][:, None], np.ones((len(group), 1)))
  np.testing.assert_allclose(REWARDS[group] - found[:, 0], best, atol=2e-3)


def test_lambda_by_length_and_what_gae_makes_of_it():
  mask = np.arange(40) < np.array([[40], [10], [0]])
  lam = length_adaptive_lambda(mask, alpha=0.05)
  np.testing.assert_allclose(lam[:, 0], [0.5, 0.0, 0.0])  # 1 - 1 / (0.05 * 40); 10 tokens would be below 0
  rewards, zeros = np.zeros((3, 40)), np.zeros((3, 40))
  rewards[0, 39] = rewards[1, 9] = 1.0
  found = gae(rewards, zeros, mask, lam=lam)
  np.testing.assert_allclose(found[0], 0.5 ** np.arange(39, -1, -1), rtol=1e-5)
  np.testing.assert_allclose(found[1], rewards[1])


def test_a_group_of_one_has_no_baseline_of_others():
  assert not np.any(group_centre(np.array([[3.0]]))) and not np.any(
    optimal_baseline(np.array([[3.0]]), np.ones((1, 1)))
  )
  with pytest.raises(ValueError, match="at least 2"):
    leave_one_out(np.array([[3.0]]))
