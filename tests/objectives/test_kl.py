"""KL estimators, exact KL, shaped rewards and the adaptive coefficient: by hand and by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.objectives import adaptive_kl_coef, kl_estimate, kl_exact, shaped_rewards

P, Q = np.array([0.5, 0.3, 0.2], np.float32), np.array([0.4, 0.4, 0.2], np.float32)
KL = 0.02526715392157057
KINDS = ("k1", "k2", "k3")


def estimates(logp, logp_ref):
  """Each kind's value and its slope in logp."""

  @jax.jit
  def everything(logp, logp_ref):
    def one(kind):
      return jax.vmap(jax.value_and_grad(lambda a, b: kl_estimate(a, b, kind=kind)))(logp, logp_ref)

    return {kind: one(kind) for kind in KINDS}

  return everything(np.asarray(logp, np.float32), np.asarray(logp_ref, np.float32))


def test_expected_values_by_enumeration():
  values = {kind: value for kind, (value, _) in estimates(np.log(P), np.log(Q)).items()}
  mean = {kind: np.sum(P * value) for kind, value in values.items()}
  assert mean["k1"] == pytest.approx(KL, rel=1e-5)
  assert mean["k2"] == pytest.approx(0.024862407344802103, rel=1e-5)
  assert mean["k3"] == pytest.approx(KL, rel=1e-5)
  deviation = {kind: np.sqrt(np.sum(P * (value - mean[kind]) ** 2)) for kind, value in values.items()}
  assert deviation["k1"] == pytest.approx(0.22155447551856827, rel=1e-5)
  assert deviation["k3"] == pytest.approx(0.015956008349303958, rel=1e-4)
  assert np.all(values["k3"] >= 0) and not np.all(values["k1"] >= 0)


def test_zero_on_every_token_where_policy_and_reference_agree():
  logp = np.append(-np.geomspace(1e-6, 1e4, 20), -np.inf)
  for value, _ in estimates(logp, logp).values():
    np.testing.assert_array_equal(value, 0)


def test_which_estimator_is_right_as_a_loss_and_which_as_a_reward():
  # k1 as a differentiable loss has expected gradient 0; k3 as a loss is biased; k2 is exact on-policy. [tunix default]
  logits = np.array([0.7, -0.4, 0.2], np.float32)
  logp_ref = np.log(Q)

  @jax.jit
  def gradients(logits):
    p = jax.lax.stop_gradient(jax.nn.softmax(logits))

    def expected(kind, as_reward):
      def objective(logits):
        logp = jax.nn.log_softmax(logits)
        estimate = kl_estimate(logp, logp_ref, kind=kind)
        return jnp.sum(p * (logp * jax.lax.stop_gradient(estimate) if as_reward else estimate))

      return jax.grad(objective)(logits)

    exact = jax.grad(lambda logits: kl_exact(logits, logp_ref))(logits)
    # By the textbook: d/dlogit_i of sum p log(p/q) is p_i (log(p_i/q_i) - KL); of the other direction, p_i - q_i.
    ratio = jnp.log(p) - logp_ref
    textbook = p * (ratio - jnp.sum(p * ratio)), p - jnp.exp(logp_ref)
    return exact, textbook, {(kind, r): expected(kind, r) for kind in KINDS for r in (True, False)}

  exact, (forward, backward), by_kind = gradients(logits)
  np.testing.assert_allclose(exact, forward, atol=1e-6)
  np.testing.assert_allclose(by_kind["k1", True], exact, atol=1e-6)
  np.testing.assert_allclose(by_kind["k2", False], exact, atol=1e-6)
  np.testing.assert_allclose(by_kind["k1", False], 0, atol=1e-6)
  np.testing.assert_allclose(by_kind["k3", False], backward, atol=1e-6)
  assert np.abs(by_kind["k3", False] - exact).max() > 0.01
  assert np.abs(by_kind["k2", True] - exact).max() > 0.01


def test_far_apart_and_ruled_out_tokens_stay_finite():
  inf = np.inf
  logp = np.array([-200, 0, -inf, -inf, -1, 0], np.float32)
  logp_ref = np.array([0, -200, 0, -inf, -inf, -1e30], np.float32)
  found = estimates(logp, logp_ref)
  for leaf in jax.tree.leaves(found):
    assert np.all(np.isfinite(leaf))
  np.testing.assert_array_equal(found["k1"][0][:2], [-200, 200])
  np.testing.assert_array_equal(found["k1"][1][:2], 1)
  np.testing.assert_array_equal(found["k2"][0][:2], 20000)
  assert found["k3"][0][1] == 199


def test_the_cap_leaves_the_gradient_on():
  # A clamp that kills the gradient, exactly where it should pull hardest. [NeMo-RL #2958]
  value, slope = estimates([-30.0, -39.0, -200.0], [0.0, 0.0, 0.0])["k3"]
  np.testing.assert_allclose(value[:2], np.expm1([30.0, 39.0]) - [30, 39], rtol=1e-5)
  np.testing.assert_allclose(slope[:2], -np.expm1([30.0, 39.0]), rtol=1e-5)
  assert slope[2] <= slope[1] < 0


def test_a_difference_is_not_taken_in_bfloat16():
  # Precision: a difference of bf16 log-probs. [OpenRLHF #620]
  logp, logp_ref, d = jnp.array([-3.015625], jnp.bfloat16), jnp.array([-2.984375], jnp.bfloat16), 0.03125
  found = jax.jit(lambda a, b: [kl_estimate(a, b, kind=kind) for kind in KINDS])(logp, logp_ref)
  np.testing.assert_allclose(found, [[-d], [d**2 / 2], [np.expm1(d) - d]], rtol=1e-4)
  assert {x.dtype for x in found} == {np.dtype(np.float32)}


def test_an_unknown_kind_is_refused():
  with pytest.raises(ValueError, match='kind must be "k1", "k2", "k3", "k3\\+" or "abs", got \'k4\''):
    kl_estimate(np.zeros(1), np.zeros(1), kind="k4")


def test_the_absolute_difference():
  value, slope = jax.vmap(jax.value_and_grad(lambda a, b: kl_estimate(a, b, kind="abs")))(np.log(P), np.log(Q))
  np.testing.assert_allclose(value, np.abs(np.log(P) - np.log(Q)), rtol=1e-5)
  np.testing.assert_array_equal(slope[:2], [1, -1])


def test_kl_exact():
  inf = np.inf
  p = np.stack([np.log(P), np.log(P), [0.0, 0.0, -inf], np.log(P)])
  q = np.stack([np.log(Q), np.log(P) + 5, np.log(Q), [0.0, 0.0, -inf]])
  value, slope = jax.jit(jax.vmap(jax.value_and_grad(kl_exact)))(p.astype(np.float32), q.astype(np.float32))
  assert value[0] == pytest.approx(KL, rel=1e-5)
  assert value[1] == pytest.approx(0, abs=1e-6)
  assert value[2] == pytest.approx(np.log(0.5 / 0.4), rel=1e-5)
  assert value[3] == pytest.approx(0.2 * 1e9, rel=1e-4)  # infinite in truth: the reference rules the token out
  assert np.all(np.isfinite(slope))


def test_shaped_rewards_by_hand():
  mask = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
  kl = np.array([[9, 1, 2, 9], [1, -1, 2, 4], [9, 9, 3, 9], [9, 9, 9, 9]])
  scores = np.array([1, 0, -2, 7])  # integers; a score of 0 is a score; the last has no token to stand on
  rewards = jax.jit(shaped_rewards)(scores, kl, mask, coef=0.1)
  expected = [[0, -0.1, 0.8, 0], [-0.1, 0.1, -0.2, -0.4], [0, 0, -2.3, 0], [0, 0, 0, 0]]
  np.testing.assert_allclose(rewards, expected, atol=1e-6)


def test_scores_of_single_tokens_stand_on_these_and_the_rest_on_the_last():
  mask = np.array([[0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
  given = np.float32([[9, 1, 0, -3], [0, 0.5, 9, 9], [9, 9, 9, 9]])  # 9 is outside of the mask
  scores, kl = np.float32([2, 0.5, 1]), np.ones(mask.shape)
  rewards = jax.jit(shaped_rewards)(scores, kl, mask, coef=0.1, token_scores=given)
  # The first sums to 2 less the penalty: 1 + 0 - 3 + the rest, 4.
  np.testing.assert_allclose(rewards, [[0, 0.9, -0.1, 0.9], [-0.1, 0.4, 0, 0], [0, 0, 0, 0]], atol=1e-6)
  none = jax.jit(shaped_rewards)(scores, kl, mask, coef=0.1, token_scores=np.zeros(mask.shape))
  np.testing.assert_array_equal(none, jax.jit(shaped_rewards)(scores, kl, mask, coef=0.1))


def test_the_score_enters_exactly_once_on_every_stretch():
  # Score written at the wrong position, dropped, or counted twice. [TRL #3750, #1893; miles #1827]
  stretches = [(start, end) for start in range(6) for end in range(start + 1, 7)]
  mask = np.array([[start <= t < end for t in range(6)] for start, end in stretches])
  jitted = jax.jit(shaped_rewards)
  rewards = np.asarray(jitted(np.full(len(mask), 0.7), np.where(mask, 0.0, np.nan), mask, coef=0.1))
  for row, (_, end) in zip(rewards, stretches, strict=True):
    np.testing.assert_array_equal(row, np.float32(0.7) * (np.arange(6) == end - 1))
  rewards = jitted(np.full(len(mask), 0.7), np.full(mask.shape, np.nan), mask, coef=0.1)
  np.testing.assert_array_equal(np.isnan(rewards), mask)  # a NaN that does count is not hidden


jitted_coef = jax.jit(adaptive_kl_coef)


@pytest.mark.parametrize(
  "kl, expected", [(12.0, 0.151536), (6.3, 0.150384), (6.0, 0.15), (0.0, 0.148464), (1e9, 0.151536)]
)
def test_adaptive_coefficient(kl, expected):
  # Wrong sign. [verl #179]
  coef = jitted_coef(0.15, kl, 512, target=6, horizon=10_000)
  assert coef.shape == () and coef.dtype == jnp.float32
  assert coef == pytest.approx(expected, rel=1e-6)


def test_the_adaptive_coefficient_is_never_a_reward():
  # More than 5 horizons of samples at once, at a KL far below the target.
  assert jitted_coef(0.15, 0.0, 60_000, target=6, horizon=10_000) == 0
  assert jitted_coef(0.15, 0.0, 49_000, target=6, horizon=10_000) > 0


def test_k3_plus_has_the_value_of_k3_and_the_slope_of_k2():
  rng = np.random.default_rng(4)
  logp, logp_ref = -np.abs(rng.normal(size=(2, 5, 6))).astype(np.float32)
  mask = np.arange(6) < np.array([[6], [3], [0], [1], [5]])

  def found(kind):
    return jax.value_and_grad(lambda x: jnp.sum(kl_estimate(x, logp_ref, kind=kind, mask=mask)))(logp)

  (value, slope), (of_k3, _), (_, of_k2) = found("k3+"), found("k3"), found("k2")
  assert value == pytest.approx(float(of_k3), rel=1e-6) and value != pytest.approx(float(found("k2")[0]), rel=1e-2)
  np.testing.assert_array_equal(slope, of_k2)
