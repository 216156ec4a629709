"""Metrics of RL against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlhf_jax.stage import Transport
from rlhf_jax.train import experience_metrics, init_state, make_update, place, policy_metrics
from rlhf_jax.train.metrics import to_floats
from rlhf_jax.train.rl_metrics import explained_variance
from rlhf_jax.types import Experience, Max, Mean

MASK = np.array([[False, True, True], [False, True, False]])
NAN = np.where(MASK, 0.0, np.nan).astype(np.float32)  # whatever stands at masked positions changes nothing


def test_metrics_of_an_experience():
  logp = np.log(np.array([[1.0, 0.5, 0.25], [1.0, 0.5, 1.0]], np.float32)) + NAN
  logp_ref = np.log(np.array([[1.0, 0.25, 0.25], [1.0, 0.5, 1.0]], np.float32)) + NAN
  values = np.array([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]], np.float32) + NAN
  returns = np.array([[0.0, 2.0, 2.0], [0.0, 0.0, 0.0]], np.float32) + NAN
  advantages = np.array([[0.0, 3.0, 1.0], [0.0, -1.0, 0.0]], np.float32) + NAN
  tokens = np.zeros_like(MASK, np.int32)
  experience = Experience(tokens, MASK, logp, advantages, values, returns, logp_ref)
  found = to_floats(jax.jit(experience_metrics)(experience))
  assert found["kl/k2"] == pytest.approx(np.log(2) ** 2 / 2 / 2)  # one token of the first of two responses differs
  assert found["kl/k3"] == pytest.approx((0.5 - 1 + np.log(2)) / 2)
  assert found["advantage/mean"] == pytest.approx(1.0)
  assert found["advantage/std"] == pytest.approx(np.std([3, 1, -1]))
  assert found["value/mean"] == pytest.approx(1.0)
  assert found["value/explained_variance"] == pytest.approx(1 - np.var([1, 0, 0]) / np.var([2, 2, 0]))
  without = experience_metrics(experience.replace(values=None, returns=None))
  assert not [name for name in without if name.startswith("value/")]


def test_a_critic_explains_all_nothing_or_less_than_nothing():
  returns = np.array([[9.0, 1.0, 3.0], [9.0, 5.0, 9.0]], np.float32)
  assert explained_variance(returns, returns, MASK) == 1.0
  assert explained_variance(np.full_like(returns, 7.0), returns, MASK) == 0.0
  assert explained_variance(-returns, returns, MASK) < 0.0
  assert explained_variance(returns, np.ones_like(returns), MASK) == 0.0  # returns that do not vary


def test_metrics_of_a_policy():
  logp_old = np.log(np.array([[1.0, 0.5, 0.2], [1.0, 0.5, 1.0]], np.float32)) + NAN
  logp = np.log(np.array([[1.0, 0.75, 0.1], [1.0, 0.5, 1.0]], np.float32)) + NAN
  weights = MASK / 3
  found = to_floats(policy_metrics(logp, logp_old, np.where(MASK, 2.0, np.nan), MASK, weights, MASK * 1.0))
  assert found["policy/ratio_mean"] == pytest.approx((1.5 + 0.5 + 1) / 3)
  assert found["policy/ratio_max"] == pytest.approx(1.5)
  assert found["policy/approx_kl"] == pytest.approx(np.mean([r - 1 - np.log(r) for r in (1.5, 0.5, 1.0)]))
  assert found["policy/entropy"] == 2.0 and found["policy/clip_fraction"] == 1.0
  low = policy_metrics(logp_old - 1, logp_old, NAN, MASK, weights)  # a ratio below 1 everywhere
  assert to_floats(low)["policy/ratio_max"] == pytest.approx(np.exp(-1)) and "policy/clip_fraction" not in low


@pytest.mark.parametrize("transport", [Transport("jit", 1, 4), Transport("shard_map", 1, 2), Transport("pmap", 1, 1)])
def test_the_largest_value_is_that_of_all_microbatches_and_devices(transport):
  """And a mean is their mean: neither is summed as the other."""
  count = 4 * jax.device_count()

  def loss_fn(params, batch, weights):
    return params * jnp.sum(weights), {"most": Max(batch), "mean": Mean(batch, weights)}

  update = make_update(loss_fn, optax.sgd(0.1), transport)
  state = place(init_state(jnp.ones(()), optax.sgd(0.1)), transport)
  _, metrics = update(state, jnp.arange(count, dtype=jnp.float32), jnp.full(count, 1 / count))
  found = to_floats(metrics)
  assert found["most"] == count - 1 and found["mean"] == pytest.approx((count - 1) / 2)
