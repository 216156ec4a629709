"""Weights of tokens and sequences on which the sampler and the trainer disagree, by enumeration of both."""

import itertools

import jax
import numpy as np
import pytest

from rlhf_jax.objectives import masked_sequence_ratios, masked_token_ratios

SAMPLER = np.array([0.5, 0.3, 0.15, 0.05])
POLICY = np.array([0.45, 0.35, 0.02, 0.18])  # ratios 0.9, 1.167, 0.133, 3.6
VALUES = np.array([1.0, -2.0, 3.0, 0.5])


def test_the_mean_is_the_policys_over_the_tokens_that_are_kept():
  weights = np.asarray(masked_token_ratios(np.log(POLICY), np.log(SAMPLER), low=0.5, high=2.0))
  assert (weights > 0).tolist() == [True, True, False, False]
  assert SAMPLER @ (weights * VALUES) == pytest.approx(POLICY[:2] @ VALUES[:2], rel=1e-5)
  everything = masked_token_ratios(np.log(POLICY), np.log(SAMPLER), low=0.0, high=np.inf)
  assert SAMPLER @ (np.asarray(everything) * VALUES) == pytest.approx(POLICY @ VALUES, rel=1e-5)


@pytest.mark.parametrize("high", [1.5, np.inf])
def test_the_mean_is_the_policys_over_the_sequences_that_are_kept(high):
  pairs = np.array(list(itertools.product(range(4), repeat=2)))
  mask = np.ones((16, 3), bool)
  mask[:, 2] = False
  logp, drawn = (np.pad(np.log(p)[pairs], ((0, 0), (0, 1)), constant_values=np.nan) for p in (POLICY, SAMPLER))
  weights = np.asarray(masked_sequence_ratios(logp, drawn, mask, low=0.5, high=high))
  p, q = POLICY[pairs].prod(axis=1), SAMPLER[pairs].prod(axis=1)
  kept = (p / q >= 0.5) & (p / q <= high)
  values = VALUES[pairs].sum(axis=1)
  np.testing.assert_array_equal(weights[:, 0], weights[:, 1])
  assert not weights[:, 2].any() and (kept.all() != (high == 1.5) or not kept.all())
  assert q @ (weights[:, 0] * values) == pytest.approx(p[kept] @ values[kept], rel=1e-4)


def test_the_geometric_mean_keeps_or_drops():
  logp = np.log(np.array([[0.9, 0.9, 0.9, 0.9], [0.9, 0.9, 0.9, 0.9]]))
  drawn = np.log(np.array([[0.6, 0.6, 0.6, 0.6], [0.9, 0.9, 0.9, 0.8]]))
  mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
  found = masked_sequence_ratios(logp, drawn, mask, low=0.5, high=1.4, geometric=True)
  np.testing.assert_array_equal(found, [[0, 0, 0, 0], [1, 1, 1, 1]])  # 1.5; and 1.125 ** (1 / 4)


def test_no_gradient_flows_through_a_weight():
  def total(logp):
    return masked_token_ratios(logp, np.log(SAMPLER)).sum() + masked_sequence_ratios(logp, logp - 0.1, logp < 0).sum()

  assert not np.any(jax.grad(total)(np.log(POLICY)))
