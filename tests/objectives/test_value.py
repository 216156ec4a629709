"""Advantages, returns and the value loss: by hand, against a numpy loop and against rlax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.objectives import discounted_returns, gae, value_loss

jitted_gae = jax.jit(gae)
jitted_returns = jax.jit(discounted_returns)


def loop_gae(rewards, values, mask, discount, lam):
  """The forward definition, A_t = sum_l (discount lam)^l delta_{t+l}, over the masked positions of one sequence."""
  (where,) = np.nonzero(mask)
  r, v = rewards[where].astype(np.float64), np.append(values[where], 0.0).astype(np.float64)
  deltas = [r[i] + discount * v[i + 1] - v[i] for i in range(len(r))]
  out = np.zeros(len(rewards))
  for i, t in enumerate(where):
    out[t] = sum((discount * lam) ** (j - i) * deltas[j] for j in range(i, len(r)))
  return out


def batch():
  rng = np.random.default_rng(0)
  mask = np.array(
    [
      [1, 1, 1, 1, 1, 1, 1],  # whole
      [0, 0, 1, 1, 1, 1, 1],  # starts late
      [1, 1, 1, 0, 0, 0, 0],  # ends early
      [0, 1, 1, 1, 0, 0, 0],  # both
      [0, 0, 0, 1, 0, 0, 0],  # one token
      [0, 1, 1, 0, 0, 1, 0],  # stepped over in the middle
      [0, 0, 0, 0, 0, 0, 0],  # empty
    ]
  )
  rewards, values = rng.normal(size=(2, 7, 7)).astype(np.float32)
  return rewards, values, mask


@pytest.mark.parametrize(
  "lam, expected", [(0.0, [-0.1, -0.1, 0.7]), (0.95, [0.43675, 0.565, 0.7]), (1.0, [0.5, 0.6, 0.7])]
)
def test_gae_by_hand(lam, expected):
  rewards, values = np.array([0.0, 0.0, 1.0]), np.array([0.5, 0.4, 0.3])
  np.testing.assert_allclose(jitted_gae(rewards, values, np.ones(3), lam=lam), expected, rtol=1e-5)
  # The same stretch between a prompt and padding, where values stand that must never be bootstrapped from.
  pad = functools.partial(np.pad, pad_width=(2, 3), constant_values=99.0)
  padded = jitted_gae(pad(rewards), pad(values), np.pad(np.ones(3), (2, 3)), lam=lam)
  np.testing.assert_allclose(padded, np.pad(expected, (2, 3)), rtol=1e-5)


@pytest.mark.parametrize("discount, lam", [(1.0, 0.95), (0.9, 0.7), (0.5, 0.0), (0.99, 1.0)])
def test_gae_and_returns_equal_a_loop(discount, lam):
  rewards, values, mask = batch()
  advantages = jitted_gae(rewards, values, mask, discount=discount, lam=lam)
  returns = jitted_returns(rewards, mask, discount=discount)
  for i in range(len(mask)):
    np.testing.assert_allclose(advantages[i], loop_gae(rewards[i], values[i], mask[i], discount, lam), atol=1e-5)
    expected = loop_gae(rewards[i], np.zeros(7), mask[i], discount, 1.0)
    np.testing.assert_allclose(returns[i], expected, atol=1e-5)
  if lam == 1.0:
    np.testing.assert_allclose(advantages, np.where(mask, returns - values, 0), atol=1e-5)


def test_gae_with_a_discount_and_a_lambda_for_each_step_and_a_value_after_the_end():
  # A_t = delta_t + discount_t lam_t A_{t+1} (VAPO's lambda differs by sequence, a time limit has a value after it).
  rewards, values, mask = batch()
  draw = np.random.default_rng(1)
  discount, lam = draw.uniform(0.5, 1.0, (2, 7, 7)).astype(np.float32)
  bootstrap = draw.normal(size=7).astype(np.float32)
  poison = np.where(mask, 0.0, np.nan).astype(np.float32)
  found = jitted_gae(rewards, values, mask, discount=discount + poison, lam=lam + poison, bootstrap=bootstrap)
  for i in range(7):
    (where,) = np.nonzero(mask[i])
    v, expected, advantage = np.append(values[i, where], bootstrap[i]), np.zeros(7), 0.0
    for k in reversed(range(len(where))):
      t = where[k]
      advantage = rewards[i, t] + discount[i, t] * v[k + 1] - v[k] + discount[i, t] * lam[i, t] * advantage
      expected[t] = advantage
    np.testing.assert_allclose(found[i], expected, atol=1e-5)


def test_returns_by_hand():
  # 1 + 0.5 * (0 + 0.5 * 2), 0 + 0.5 * 2, 2
  np.testing.assert_allclose(jitted_returns(np.array([1, 0, 2]), np.ones(3), discount=0.5), [1.5, 1, 2])
  np.testing.assert_allclose(jitted_returns(np.array([9, 2, 9]), np.array([0, 1.0, 0]), discount=0.5), [0, 2, 0])


def test_integer_rewards_do_not_truncate():
  # Rewards built with zeros_like(token_ids) are integers: 0.7 becomes 0. [tunix ppo_learner]
  advantages = jitted_gae(np.array([0, 0, 1]), np.array([0, 0, 0]), np.ones(3), discount=0.5, lam=0.5)
  returns = jitted_returns(np.array([0, 0, 1]), np.ones(3), discount=0.5)
  assert advantages.dtype == returns.dtype == jnp.float32
  np.testing.assert_allclose(advantages, [0.0625, 0.25, 1.0])
  np.testing.assert_allclose(returns, [0.25, 0.5, 1.0])


def test_gae_equals_rlax():
  rlax = pytest.importorskip("rlax")
  rewards, values, _ = batch()
  theirs = jax.jit(jax.vmap(lambda r, v: rlax.truncated_generalized_advantage_estimation(r, jnp.full(7, 0.9), 0.8, v)))
  ours = jitted_gae(rewards, values, np.ones_like(rewards), discount=0.9, lam=0.8)
  np.testing.assert_allclose(ours, theirs(rewards, np.pad(values, ((0, 0), (0, 1)))), atol=1e-6)


def test_any_leading_shape_and_no_token():
  rewards, values, mask = batch()
  stacked = jitted_gae(rewards.reshape(7, 1, 7), values.reshape(7, 1, 7), mask.reshape(7, 1, 7))
  np.testing.assert_allclose(stacked[:, 0], jitted_gae(rewards, values, mask), atol=1e-6)
  assert jitted_gae(np.zeros((2, 0)), np.zeros((2, 0)), np.zeros((2, 0))).shape == (2, 0)


def value_and_slope(values, values_old, returns, clip):
  function = jax.vmap(jax.value_and_grad(functools.partial(value_loss, clip=clip)))
  return jax.jit(function)(*map(np.float32, (values, values_old, returns)))


def test_value_loss_has_its_half():
  loss, slope = value_and_slope([1, 3], [0, 0], [3, 3], None)
  np.testing.assert_array_equal(loss, [2, 0])
  np.testing.assert_array_equal(slope, [-2, 0])


def test_clipped_value_loss_takes_the_larger_error():
  # Moved 1 from the old value 0, clip 0.5. Towards the returns: the clipped error is larger and stops the gradient.
  # Away from them: the plain error is larger and pulls back. Within the clip: as without it.
  loss, slope = value_and_slope([1, 1, 0.25], [0, 0, 0], [3, 0, 3], 0.5)
  np.testing.assert_allclose(loss, [3.125, 0.5, 0.5 * 2.75**2])
  np.testing.assert_allclose(slope, [0, 1, -2.75])


def test_value_loss_on_integers_and_low_precision():
  jitted = jax.jit(value_loss)
  assert jitted(np.array([1]), np.array([0]), np.array([2])) == 0.5
  low = jitted(jnp.array([256.0], jnp.bfloat16), None, jnp.array([1.0], jnp.bfloat16))
  assert low.dtype == jnp.float32 and low == 0.5 * 255**2
