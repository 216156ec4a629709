"""Variants of PPO's surrogate: at a ratio of 1 PPO's gradient, by enumeration; away from it by hand and by loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.objectives import (
  cispo_objective,
  clip_cov_objective,
  dual_clip_objective,
  gspo_token_objective,
  kl_cov_objective,
  ppo_policy_objective,
  sapo_objective,
  sequence_ratio_objective,
)

LOGITS = np.array([0.5, -0.2, 0.1], np.float32)  # three actions
REWARDS = np.array([1.0, 0.0, 2.0], np.float32)
EXACT = np.array([-0.0370004316546368, -0.247541842250097, 0.28454227390473374])  # of the mean reward
EXPECTED = 1.0801764332983426
SHAPE = (4, 6)
RNG = np.random.default_rng(3)
MASK = np.arange(6) < np.array([[6], [3], [1], [5]])
LOGP = -np.abs(RNG.normal(size=SHAPE)).astype(np.float32)
LOGP_OLD = (LOGP + 0.5 * RNG.normal(size=SHAPE)).astype(np.float32)
ADVANTAGES = RNG.normal(size=SHAPE).astype(np.float32)
VARIANTS = {
  "dual clip": functools.partial(dual_clip_objective, clip=0.2),
  "CISPO": functools.partial(cispo_objective, clip=(1.0, 0.2)),
  "SAPO": sapo_objective,
  "GSPO-token": lambda logp, old, advantages, mask: gspo_token_objective(logp, old, advantages, mask, clip=0.2),
  "clip-cov": functools.partial(clip_cov_objective, clip=0.2, low=1e3, high=1e4),
  "kl-cov": functools.partial(kl_cov_objective, share=1.0),
}


def value(found):
  return found[0] if isinstance(found, tuple) else found


def slopes(function):
  """Of the sum of the objective in each log-prob."""
  return jax.jit(jax.grad(lambda logp: jnp.sum(value(function(logp)))))(LOGP)


@pytest.mark.parametrize("name", VARIANTS)
def test_at_a_ratio_of_one_the_mean_gradient_is_the_exact_one(name):
  p = np.exp(LOGITS) / np.exp(LOGITS).sum()

  @jax.jit
  def gradient(logits):
    def total(logits):
      logp = jax.nn.log_softmax(logits)[:, None]  # three sequences of one token
      old, advantages = jax.lax.stop_gradient(logp), jnp.asarray(REWARDS - EXPECTED)[:, None]
      return jnp.sum(p * value(VARIANTS[name](logp, old, advantages, mask=jnp.ones((3, 1))))[:, 0])

    return jax.grad(total)(logits)

  np.testing.assert_allclose(gradient(LOGITS), EXACT, atol=1e-6)


def test_dual_clip_by_a_loop():
  objective, clipped = jax.jit(functools.partial(dual_clip_objective, clip=(0.1, 0.3), bound=1.5))(
    LOGP, LOGP_OLD, ADVANTAGES, mask=MASK
  )
  slope = slopes(lambda x: dual_clip_objective(x, LOGP_OLD, ADVANTAGES, clip=(0.1, 0.3), bound=1.5, mask=MASK))
  bounded = 0
  for at in np.ndindex(SHAPE):
    if not MASK[at]:
      assert objective[at] == clipped[at] == slope[at] == 0
      continue
    ratio, a = np.exp(np.float64(LOGP[at]) - LOGP_OLD[at]), ADVANTAGES[at]
    ppo = min(ratio * a, np.clip(ratio, 0.9, 1.3) * a)
    expected = max(ppo, 1.5 * a) if a < 0 else ppo
    assert objective[at] == pytest.approx(expected, rel=1e-5)
    assert clipped[at] == (abs(expected - ratio * a) > 1e-6)
    assert slope[at] == pytest.approx(0 if clipped[at] else ratio * a, rel=1e-4)
    bounded += expected > ppo
  assert bounded


def test_without_its_bound_dual_clip_is_ppo():
  ours = dual_clip_objective(LOGP, LOGP_OLD, ADVANTAGES, clip=0.2, bound=1e9, mask=MASK)
  ppo = ppo_policy_objective(LOGP, LOGP_OLD, ADVANTAGES, clip=0.2, mask=MASK)
  jax.tree.map(np.testing.assert_array_equal, ours, ppo)


def test_cispo_cuts_the_weight_and_not_the_gradient():
  slope = slopes(lambda x: cispo_objective(x, LOGP_OLD, ADVANTAGES, clip=(1.0, 0.2), mask=MASK))
  ratio = np.exp(LOGP - LOGP_OLD)
  np.testing.assert_allclose(slope, np.where(MASK, np.minimum(ratio, 1.2) * ADVANTAGES, 0), rtol=1e-5)
  _, cut = cispo_objective(LOGP, LOGP_OLD, ADVANTAGES, clip=(1.0, 0.2), mask=MASK)
  np.testing.assert_array_equal(cut, MASK & (ratio > 1.2))
  assert (MASK & (ratio > 1.2) & (slope != 0)).any()


def test_the_gate_of_sapo_is_widest_at_a_ratio_of_one():
  """Its slope over A is 4 p (1 - p) ratio, p = sigmoid(tau (ratio - 1)); tau is 2 for A > 0 and 3 elsewhere."""
  slope = slopes(lambda x: sapo_objective(x, LOGP_OLD, ADVANTAGES, temperatures=(2.0, 3.0), mask=MASK))
  ratio = np.exp(LOGP - LOGP_OLD)
  p = 1 / (1 + np.exp(-np.where(ADVANTAGES > 0, 2, 3) * (ratio - 1)))
  np.testing.assert_allclose(slope, np.where(MASK, 4 * p * (1 - p) * ratio * ADVANTAGES, 0), rtol=1e-4, atol=1e-6)


def test_gspo_token_with_one_advantage_a_sequence_is_gspo():
  advantages = ADVANTAGES[:, 0]
  weights = jnp.where(MASK, 1 / MASK.sum(axis=1, keepdims=True), 0)
  of_tokens = functools.partial(
    gspo_token_objective, logp_old=LOGP_OLD, advantages=np.tile(advantages[:, None], 6), mask=MASK, clip=(0.1, 0.2)
  )
  of_sequences = functools.partial(
    sequence_ratio_objective, logp_old=LOGP_OLD, advantages=advantages, mask=MASK, clip=(0.1, 0.2)
  )
  for found, expected in zip(of_tokens(LOGP), of_sequences(LOGP), strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  found, expected = (slopes(lambda x, f=f: weights * f(x)[0]) for f in (of_tokens, of_sequences))
  assert np.abs(expected).max() > 0.05
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def covariances():
  logp, advantages = LOGP[MASK].astype(np.float64), ADVANTAGES[MASK].astype(np.float64)
  found = np.full(SHAPE, -np.inf)
  found[MASK] = (logp - logp.mean()) * (advantages - advantages.mean())
  return found


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_kl_cov_penalises_the_share_of_largest_covariance(share):
  objective, chosen = kl_cov_objective(LOGP, LOGP_OLD, ADVANTAGES, share=share, coef=0.7, mask=MASK)
  count = max(int(share * MASK.sum()), 1)
  largest = np.argsort(-covariances().ravel())[:count]
  np.testing.assert_array_equal(np.flatnonzero(chosen), np.sort(largest))
  d = np.where(MASK, LOGP - LOGP_OLD, 0)
  expected = np.where(MASK, np.exp(d) * ADVANTAGES, 0) - np.where(chosen, 0.7 * (np.exp(d) - 1 - d), 0)
  np.testing.assert_allclose(objective, expected, rtol=1e-4, atol=1e-6)
  slope = slopes(lambda x: kl_cov_objective(x, LOGP_OLD, ADVANTAGES, share=share, coef=0.7, mask=MASK))
  expected = np.where(MASK, np.exp(d) * ADVANTAGES, 0) - np.where(chosen, 0.7 * (np.exp(d) - 1), 0)
  np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)


def test_clip_cov_cuts_the_gradient_of_a_share_of_those_in_the_range():
  arguments = dict(clip=9.0, share=0.3, low=0.05, high=5.0, mask=MASK)
  plain = value(ppo_policy_objective(LOGP, LOGP_OLD, ADVANTAGES, clip=9.0, mask=MASK))
  chosen = []
  for seed in range(8):
    objective, clipped = clip_cov_objective(LOGP, LOGP_OLD, ADVANTAGES, seed=seed, **arguments)
    slope = slopes(lambda x, s=seed: clip_cov_objective(x, LOGP_OLD, ADVANTAGES, seed=s, **arguments))
    np.testing.assert_array_equal(objective, plain)
    np.testing.assert_array_equal(slope == 0, ~MASK | (clipped == 1))
    assert 0 < clipped.sum() <= int(0.3 * MASK.sum())
    assert (covariances()[clipped == 1] >= 0.05).all()
    chosen.append(np.flatnonzero(clipped).tolist())
  assert len({tuple(found) for found in chosen}) > 1
