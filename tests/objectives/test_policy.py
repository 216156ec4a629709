"""Policy objectives and baselines: by hand, by enumeration of every action, and against rlax."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.objectives import (
  group_normalize,
  kl_estimate,
  leave_one_out,
  ppo_policy_objective,
  reinforce_objective,
  sequence_ratio_objective,
)

# Three actions with logits and rewards: the expected reward and its exact gradient.
LOGITS = np.array([0.5, -0.2, 0.1], np.float32)
REWARDS = np.array([1.0, 0.0, 2.0], np.float32)
EXPECTED = 1.0801764332983426
GRADIENT = np.array([-0.0370004316546368, -0.247541842250097, 0.28454227390473374])
BEST_BASELINE = 1.0356639935550636


def gradient_per_action(objective_of):
  """Row a: the gradient in the logits of the objective of action a, and the probability of a."""

  def one(action):
    return jax.grad(lambda logits: objective_of(jax.nn.log_softmax(logits)[action], action))(LOGITS)

  return jax.jit(jax.vmap(one))(np.arange(3)), np.exp(LOGITS) / np.exp(LOGITS).sum()


@pytest.mark.parametrize(
  "baseline, variance",
  [(0.0, 0.9773624165968747), (EXPECTED, 0.2934328149387461), (BEST_BASELINE, 0.29216708971563204)],
)
def test_reinforce_is_unbiased_with_any_baseline(baseline, variance):
  rows, p = gradient_per_action(lambda logp, action: reinforce_objective(logp, jnp.asarray(REWARDS)[action] - baseline))
  mean = p @ rows
  np.testing.assert_allclose(mean, GRADIENT, atol=1e-6)
  assert p @ np.sum((rows - mean) ** 2, axis=-1) == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_reinforce_leave_one_out_is_unbiased(size):
  groups = np.array(list(itertools.product(range(3), repeat=size)))  # [3 ** size, size]

  @jax.jit
  def gradients(logits):
    def objective(logits, actions):
      advantages = leave_one_out(jnp.asarray(REWARDS)[actions])
      return jnp.mean(reinforce_objective(jax.nn.log_softmax(logits)[actions], advantages))

    return jax.vmap(jax.grad(objective), (None, 0))(logits, groups)

  p = np.exp(LOGITS) / np.exp(LOGITS).sum()
  np.testing.assert_allclose(p[groups].prod(-1) @ gradients(LOGITS), GRADIENT, atol=1e-6)


def test_ppo_at_ratio_one_is_the_policy_gradient():
  def objective_of(logp, action):
    return ppo_policy_objective(logp, logp, jnp.asarray(REWARDS)[action] - EXPECTED, clip=0.2)[0]

  rows, p = gradient_per_action(objective_of)
  np.testing.assert_allclose(p @ rows, GRADIENT, atol=1e-6)


def test_gspo_at_ratio_one_is_the_policy_gradient():
  def objective_of(logp, action):
    logp = jnp.stack([logp, jnp.nan])
    advantage = jnp.asarray(REWARDS)[action] - EXPECTED
    return jnp.sum(sequence_ratio_objective(logp, logp, advantage, np.array([1, 0]), clip=0.2)[0])

  rows, p = gradient_per_action(objective_of)
  np.testing.assert_allclose(p @ rows, GRADIENT, atol=1e-6)


@pytest.mark.parametrize("method", ["reinforce", "ppo"])
def test_ascent_with_a_kl_reward_finds_the_tilted_reference(method):
  # The optimum of E[r] - KL is p_ref exp(r) / Z; k1, on-policy, in the reward.
  logp_ref, rewards = np.log([0.5, 0.3, 0.2]).astype(np.float32), np.array([0.0, 1.0, 2.0], np.float32)

  def gradient(logits):
    p = jax.lax.stop_gradient(jax.nn.softmax(logits))

    def objective(logits):
      logp = jax.nn.log_softmax(logits)
      advantages = rewards - kl_estimate(logp, logp_ref, kind="k1")
      if method == "reinforce":
        return jnp.sum(p * reinforce_objective(logp, advantages))
      return jnp.sum(p * ppo_policy_objective(logp, logp, advantages, clip=0.2)[0])

    return jax.grad(objective)(logits)

  ascend = jax.jit(lambda x: jax.lax.fori_loop(0, 200, lambda _, x: x + 2 * gradient(x), x))
  found = jax.nn.log_softmax(ascend(jnp.zeros(3)))
  np.testing.assert_allclose(np.exp(found), [0.1790000205742738, 0.2919435019325062, 0.5290564774932199], atol=1e-5)


def ppo(ratios, advantages, clip):
  """Objective, clipped and slope in logp for each ratio."""

  def one(logp, advantage):
    return ppo_policy_objective(logp, jnp.zeros_like(logp), advantage, clip=clip)

  (objective, clipped), slope = jax.jit(jax.vmap(jax.value_and_grad(one, has_aux=True)))(
    np.log(ratios).astype(np.float32), np.asarray(advantages, np.float32)
  )
  return objective, clipped, slope


def test_ppo_by_hand():
  ratios, advantages = [1.5, 0.5, 1.5, 0.5, 1.1, 1.5, 1.0], [1, -1, -1, 1, 1, 0, 1]
  objective, clipped, slope = ppo(ratios, advantages, 0.2)
  np.testing.assert_allclose(objective, [1.2, -0.8, -1.5, 0.5, 1.1, 0, 1], rtol=1e-6)
  np.testing.assert_array_equal(clipped, [1, 1, 0, 0, 0, 0, 0])
  np.testing.assert_allclose(slope, [0, 0, -1.5, 0.5, 1.1, 0, 1], rtol=1e-6)


def test_ppo_with_two_distances():
  objective, clipped, _ = ppo([1.5, 1.25, 0.5, 0.95], [1, 1, -1, -1], (0.1, 0.28))
  np.testing.assert_allclose(objective, [1.28, 1.25, -0.9, -0.95], rtol=1e-6)
  np.testing.assert_array_equal(clipped, [1, 0, 1, 0])


def test_far_apart_and_ruled_out_tokens_stay_finite():
  inf = np.inf
  logp = np.array([-200, 200, -inf, -inf, 0, -3], np.float32)
  logp_old = np.array([0, 0, 0, -inf, -inf, -3], np.float32)
  advantages = np.array([[1], [-1], [0]], np.float32) * np.ones(6, np.float32)

  @jax.jit
  def everything(logp):
    def total(logp):
      new, old = jnp.broadcast_arrays(logp, logp_old, advantages)[:2]  # [3, 6]
      rows = [
        reinforce_objective(new, advantages),
        *ppo_policy_objective(new, old, advantages, clip=0.2),
        *sequence_ratio_objective(new[..., None], old[..., None], advantages, np.ones((3, 6, 1)), clip=0.2),
      ]
      return sum(jnp.sum(row) for row in rows), rows

    return jax.grad(total, has_aux=True)(logp)

  gradient, (reinforce, objective, clipped, *_) = everything(logp)
  for leaf in jax.tree.leaves(everything(logp)):
    assert np.all(np.isfinite(leaf))
  np.testing.assert_allclose(objective[0], [0, 1.2, 0, 1, 1.2, 1], rtol=1e-6)
  np.testing.assert_array_equal(clipped[0], [0, 1, 0, 0, 1, 0])
  np.testing.assert_array_equal(objective[2], 0)
  assert objective[1, 1] < -1e17 and gradient[1] < -1e17  # the worst offender is still pulled back
  np.testing.assert_array_equal(reinforce[0, :2], [-200, 200])


def test_a_large_ratio_is_exact_up_to_the_cap():
  objective, clipped, slope = ppo(np.exp([10.0, 39.0]), [-1, -1], 0.2)
  np.testing.assert_allclose(objective, -np.exp([10.0, 39.0]), rtol=1e-5)
  np.testing.assert_allclose(slope, objective)
  assert not np.any(clipped)


def test_gspo_equals_a_loop():
  rng = np.random.default_rng(0)
  logp, logp_old = rng.normal(0, 0.3, (2, 6, 5)).astype(np.float32)
  advantages = rng.normal(size=6).astype(np.float32)
  mask = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0] * 5])
  expected, expected_clipped, expected_slope = np.zeros((3, 6, 5))
  for i in range(5):
    (on,) = np.nonzero(mask[i])
    ratio = np.exp(np.mean(logp[i, on].astype(np.float64) - logp_old[i, on]))
    terms = ratio * advantages[i], np.clip(ratio, 0.95, 1.1) * advantages[i]
    expected[i, on] = min(terms)
    expected_clipped[i, on] = terms[1] < terms[0]
    expected_slope[i, on] = 0 if terms[1] < terms[0] else terms[0]  # of the sum over tokens

  function = functools.partial(sequence_ratio_objective, clip=(0.05, 0.1))

  @jax.jit
  def everything(logp):
    gradient = jax.grad(lambda logp: function(logp, logp_old, advantages, mask)[0].sum())(logp)
    return *function(logp, logp_old, advantages, mask), gradient

  objective, clipped, slope = everything(logp)
  np.testing.assert_allclose(objective, expected, rtol=1e-5)
  np.testing.assert_array_equal(clipped, expected_clipped)
  np.testing.assert_allclose(slope, expected_slope, rtol=1e-5)
  assert 0 < clipped.sum() < mask.sum()


def test_equals_rlax():
  rlax = pytest.importorskip("rlax")
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(7, 4)).astype(np.float32)
  actions, advantages = rng.integers(0, 4, 7), rng.normal(size=7).astype(np.float32)
  logp_old = rng.normal(-1.5, 0.3, 7).astype(np.float32)

  @jax.jit
  def both(logits):
    def logp(logits):
      return jnp.take_along_axis(jax.nn.log_softmax(logits), actions[:, None], -1)[:, 0]

    def losses(ours):
      if ours:
        yield lambda x: -jnp.mean(reinforce_objective(logp(x), advantages))
        yield lambda x: -jnp.mean(ppo_policy_objective(logp(x), logp_old, advantages, clip=0.2)[0])
      else:
        yield lambda x: rlax.policy_gradient_loss(x, actions, jnp.asarray(advantages), jnp.ones(7))
        yield lambda x: rlax.clipped_surrogate_pg_loss(jnp.exp(logp(x) - logp_old), jnp.asarray(advantages), 0.2)

    return [[jax.value_and_grad(loss)(logits) for loss in losses(ours)] for ours in (True, False)]

  ours, theirs = both(logits)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


normalize = jax.jit(group_normalize, static_argnames=("eps", "ddof"))


def test_baselines_by_hand():
  rewards = np.array([1, 2, 3, 6])  # integers, as 0/1 rewards are
  np.testing.assert_allclose(jax.jit(leave_one_out)(rewards), [-8 / 3, -4 / 3, 0, 4], rtol=1e-6)
  ddof0 = [-1.0690449676496976, -0.5345224838248488, 0.0, 1.6035674514745464]
  ddof1 = [-0.9258200997725514, -0.4629100498862757, 0.0, 1.3887301496588271]
  np.testing.assert_allclose(normalize(rewards), ddof0, rtol=2e-6)
  np.testing.assert_allclose(normalize(rewards, ddof=1), ddof1, rtol=2e-6)
  np.testing.assert_allclose(normalize(rewards, eps=1.0), np.array([-2, -1, 0, 3]) / (1 + np.sqrt(3.5)), rtol=1e-6)


def test_groups_do_not_mix():
  # The broadcast of a mean without keepdims. [OpenRLHF #1250]
  rewards = np.random.default_rng(0).normal(size=(3, 3, 3)).astype(np.float32)
  both = jax.jit(lambda r: (leave_one_out(r), group_normalize(r)))(rewards)
  for index in np.ndindex(3, 3):
    row = rewards[index].astype(np.float64)
    others = [row[i] - np.mean(np.delete(row, i)) for i in range(3)]
    np.testing.assert_allclose(both[0][index], others, atol=1e-6)
    np.testing.assert_allclose(both[1][index], (row - row.mean()) / (row.std() + 1e-6), atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_group_of_one_or_of_equal_rewards_gives_zero(size):
  # Group advantages with one sample, or with equal rewards. [OpenRLHF #1250; verl #7581]
  rewards = np.broadcast_to(np.array([[0.1], [-1000.1], [0.0]], np.float32), (3, size))

  @jax.jit
  def both(rewards):
    slope = jax.grad(lambda rewards: group_normalize(rewards).sum())(rewards)
    return [group_normalize(rewards, ddof=ddof) for ddof in (0, 1)], slope

  normalized, slope = both(rewards)
  np.testing.assert_array_equal(normalized, 0)
  assert np.all(np.isfinite(slope))


def test_leave_one_out_of_one_is_refused():
  with pytest.raises(ValueError, match=r"at least 2 responses.*rewards\[..., 1\]"):
    leave_one_out(np.zeros((4, 1)))


def test_low_precision_inputs():
  ones = jnp.array([1, 257, 513], jnp.bfloat16)  # rounds to 1, 256 and 512
  for function in (leave_one_out, group_normalize):
    found = jax.jit(function)(ones)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, jax.jit(function)(np.array([1.0, 256, 512], np.float32)))
