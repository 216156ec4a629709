"""Denominators and moments belong to the whole batch; a metric is the mean of all of it."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from miniature import TRANSPORT, Sizes, experience_of, rollout_by_hand

from rlhf_jax.algorithms import ppo, reinforce
from rlhf_jax.objectives import group_normalize, leave_one_out, ppo_policy_objective, reinforce_objective
from rlhf_jax.reduce import per_token, token_weights, weighted_sum
from rlhf_jax.stage import Transport
from rlhf_jax.train import init_state, make_update, place
from rlhf_jax.train.mesh import make_mesh, put_rows
from rlhf_jax.train.rows import sum_of_rows
from rlhf_jax.train.update import _gradients
from rlhf_jax.types import Experience, Mean

# The long rows are all in the first half: a mean of means is far off.
MASK = np.arange(4) < np.array([4] * 4 + [1] * 12)[:, None]
X = np.arange(64, dtype=np.float32).reshape(16, 4) / 10


def loss_fn(params, batch, weights):
  error = jnp.square(params["w"] * batch - 1)
  return weighted_sum(error, weights), {"error": Mean(error, weights)}


def one_update(transport):
  optimizer = optax.sgd(1.0)
  state = place(init_state({"w": jnp.ones(())}, optimizer), transport)
  state, metrics = make_update(loss_fn, optimizer, transport)(state, X, token_weights(MASK))
  return 1 - float(state.params["w"]), {name: metric.compute() for name, metric in metrics.items()}


TRANSPORTS = [Transport("jit", 1, 2), Transport("pmap", 1, 1), Transport("shard_map", 1, 1)]


@pytest.mark.parametrize("transport", TRANSPORTS, ids=lambda t: t.kind)
def test_a_mean_is_over_all_tokens_and_not_of_means(transport):
  """A mean of per-microbatch or per-device means.

  [TRL #2175, #2995, #2615; NeMo-RL #212; EasyDeL; axolotl #2262; MaxText #3040]
  """
  if transport.kind != "jit" and jax.device_count() == 1:
    pytest.skip("needs several devices")
  gradient, metrics = one_update(transport)
  assert metrics["loss"] == pytest.approx(np.mean((X[MASK] - 1) ** 2), rel=1e-5)
  assert gradient == pytest.approx(np.mean(2 * (X[MASK] - 1) * X[MASK]), rel=1e-5)


def test_metrics_are_of_all_microbatches_by_their_weight():
  """Metrics of the last microbatch only, or averaged with equal weight. [verl #2259, #972; TRL #6380]"""
  _, metrics = one_update(Transport("jit", 1, 2))
  assert metrics["error"] == pytest.approx(np.mean((X[MASK] - 1) ** 2), rel=1e-5)


def test_microbatches_are_cut_on_each_device(monkeypatch):
  """A batch on several devices cut into microbatches by a partitioner, which gives every device the rows of all."""
  if jax.device_count() == 1:
    pytest.skip("needs several devices")

  def squares(params, batch, weights):
    return weighted_sum(jnp.square(batch @ params["w"]), weights[:, None] + jnp.zeros((1, 64))), {}

  # The operations in a loop are counted once, those of an unrolled one as often as they run.
  monkeypatch.setattr(jax.lax, "scan", functools.partial(jax.lax.scan, unroll=True))
  operations = []
  for microbatches in (1, 4):
    transport = Transport("jit", 1, microbatches)
    mesh = make_mesh(transport)
    gradient = jax.jit(sum_of_rows(_gradients(squares), lambda params: params, transport, mesh))
    rows = put_rows(mesh, (np.ones((64, 64), np.float32), np.full(64, 1 / 64, np.float32)))
    operations.append(gradient.lower({"w": jnp.ones((64, 64))}, *rows).compile().cost_analysis()["flops"])
  assert operations[1] == pytest.approx(operations[0], rel=0.1)


def test_rows_that_are_added_count_nothing():
  """A batch that does not divide, filled up with rows that are learnt from or counted twice."""
  if jax.device_count() == 1:
    pytest.skip("needs several devices")
  optimizer = optax.sgd(1.0)
  state = place(init_state({"w": jnp.ones(())}, optimizer), Transport("jit", 1, 2))
  rows, mask = X[:13], MASK[:13]
  state, metrics = make_update(loss_fn, optimizer, Transport("jit", 1, 2))(state, rows, token_weights(mask))
  assert metrics["loss"].compute() == pytest.approx(np.mean((rows[mask] - 1) ** 2), rel=1e-5)
  assert metrics["error"].compute() == pytest.approx(np.mean((rows[mask] - 1) ** 2), rel=1e-5)
  assert 1 - float(state.params["w"]) == pytest.approx(np.mean(2 * (rows[mask] - 1) * rows[mask]), rel=1e-5)


def test_metrics_are_of_all_minibatches(scripted):
  """The same for the minibatches and epochs of a step of PPO. [verl #2259]"""
  rows, _ = scripted
  assert [row["call"] for row in rows] == [np.mean([0, 1, 2, 3]), np.mean([4, 5, 6, 7])]


def test_advantages_are_whitened_over_the_whole_rollout_without_padding():
  """Advantages whitened per device or per microbatch, or including padding. [verl #102, #1527]"""
  rollout = rollout_by_hand([1, 3, 2, 1])
  mask, scores = rollout.mask, np.float32([1, 4, -2, 0])
  experience, _ = experience_of(rollout, rollout.logp, scores, whiten_advantages=True)
  raw = np.asarray(experience_of(rollout, rollout.logp, scores)[0].advantages)
  expected = np.where(mask, (raw - raw[mask].mean()) / raw[mask].std(), 0)
  np.testing.assert_allclose(experience.advantages, expected, atol=1e-5)
  # A minibatch keeps the statistics of the rollout: at a ratio of 1 its loss is minus its mean advantage.
  loss_fn = ppo.make_loss(
    lambda params, tokens: (jnp.zeros((*tokens.shape, 5)), jnp.zeros(tokens.shape)),
    clip=0.2, value_clip=0.2, value_coef=0.0, entropy_coef=0.0,
  )  # fmt: skip
  logp = np.full(mask.shape, -np.log(5), np.float32)
  half = jax.tree.map(lambda x: x[:2], experience.replace(logp=logp))
  assert isinstance(half, Experience)
  loss, _ = jax.jit(loss_fn)({}, half, token_weights(half.mask))
  assert float(loss) == pytest.approx(-expected[:2][mask[:2]].mean(), abs=1e-5)
  assert abs(float(loss)) > 0.1


def test_a_group_of_one_is_refused_and_one_of_equal_rewards_is_zero():
  """Group advantages with one sample, or with equal rewards: NaN, or silently zero. [OpenRLHF #1250; verl #7581]"""
  with pytest.raises(ValueError, match="at least 2 responses"):
    leave_one_out(jnp.ones((4, 1)))
  settings = dict(
    algorithm="", init="", num_steps=1, moving_decay=0.9, kl_coef=0.0, value_coef=0.0, entropy_coef=0.0, optimizer=None,
    checkpoint_every=1,
  )  # fmt: skip
  with pytest.raises(ValueError, match="samples_per_prompt >= 2"):
    reinforce.Config(baseline="leave_one_out", environment=Sizes(4, 1), **settings)
  # 0.1 three times over: the rounding of a plain mean must not be blown up either.
  for rewards in (jnp.full((2, 3), 0.1), jnp.full((2, 1), 0.1)):
    slopes = jax.jit(jax.grad(lambda r: (group_normalize(r).sum(), group_normalize(r)), has_aux=True))
    slope, advantages = slopes(rewards)
    np.testing.assert_array_equal(advantages, 0)
    assert np.isfinite(slope).all()
  np.testing.assert_array_equal(leave_one_out(jnp.full((2, 3), 0.1)), 0)


def test_a_value_for_each_sequence_is_not_spread_along_the_wrong_axis():
  """An array [B], or [B, 1], beside one [B, T] broadcasts in silence, for [B] along the tokens where B is T.

  [OpenRLHF #1250 is of this kind]
  """
  logp, advantages = jnp.full((3, 3), -1.0), jnp.arange(3.0)
  for objective in (
    lambda x: inspect.unwrap(reinforce_objective)(logp, x),
    lambda x: inspect.unwrap(ppo_policy_objective)(logp, logp, x, clip=0.2)[0],
    lambda x: inspect.unwrap(weighted_sum)(logp, x),
  ):
    for shape in ((3,), (3, 1), (1, 3)):
      with pytest.raises(ValueError, match=r"needs the shape \(3, 3\)"):
        objective(advantages.reshape(shape))
    assert np.shape(objective(per_token(advantages, logp))) in ((3, 3), ())


def test_the_loss_that_is_logged_is_the_loss_that_is_differentiated():
  """The loss of a mean over sequences of their token sums is logged as a mean over tokens."""
  weights = jnp.array([[1, 1, 1, 0], [1, 0, 0, 0]]) / 2  # a mask over the number of rows: they sum to 2
  nll = jnp.array([[6.0, 6.0, 6.0, 0.0], [6.0, 0.0, 0.0, 0.0]])

  def loss_fn(params, batch, weights):
    return weighted_sum(params["scale"] * batch, weights), {}

  params = {"scale": jnp.ones(())}
  update_of = make_update(loss_fn, optax.sgd(0.0), TRANSPORT)
  _, metrics = update_of(place(init_state(params, optax.sgd(0.0)), TRANSPORT), nll, weights)
  assert metrics["loss"].compute() == pytest.approx(12.0)


def test_the_mean_of_a_group_is_taken_from_that_group():
  """The broadcast of a mean without keepdims: for K groups of K it goes through, along the wrong axis.

  [OpenRLHF #1250]
  """
  rewards = np.float32([[1, 2, 3], [10, 20, 30], [-5, 0, 5]])
  expected = [[-1.5, 0, 1.5], [-15, 0, 15], [-7.5, 0, 7.5]]
  np.testing.assert_allclose(leave_one_out(rewards), expected, atol=1e-5)
  normal = group_normalize(rewards)
  np.testing.assert_allclose(normal, np.tile([-np.sqrt(1.5), 0, np.sqrt(1.5)], (3, 1)), atol=1e-5)
  rollout = rollout_by_hand([1] * 9)
  experience, _ = reinforce.make_experience(
    rollout, rollout.logp, None, rewards.reshape(-1), 0.0, kl_coef=0.0, baseline="leave_one_out", samples_per_prompt=3
  )
  np.testing.assert_allclose(experience.advantages[:, 1].reshape(3, 3), expected, atol=1e-5)
