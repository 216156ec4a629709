"""Best-of-n from N samples, against every subset of n and against the exact distribution of the best."""

import itertools

import numpy as np
import pytest

from rlhf_jax.evaluation.best_of_n import best_of_n_kl, best_of_n_kl_bound, best_of_n_weights

SCORES = np.array([0.3, -1.0, 2.0, 0.3, 0.7, 2.0, 2.0])  # with ties
GOLD = np.array([1.0, 5.0, -2.0, 0.0, 3.0, 4.0, 1.5])


@pytest.mark.parametrize("n", range(1, 8))
def test_the_mean_is_that_over_all_subsets(n):
  """Ties are broken at random: the mean of the tied is what a subset gives."""
  found = []
  for subset in map(list, itertools.combinations(range(len(SCORES)), n)):
    best = SCORES[subset] == SCORES[subset].max()
    found.append(GOLD[subset][best].mean())
  weights = best_of_n_weights(SCORES, n)
  assert weights.sum() == pytest.approx(1.0) and weights @ GOLD == pytest.approx(np.mean(found))


def test_weights_without_ties_are_ratios_of_binomials():
  """C(i - 1, 1) / C(4, 2) of the i-th lowest of four, in two rows of other orders."""
  weights = best_of_n_weights([[4.0, 1.0, 3.0, 2.0], [1.0, 2.0, 3.0, 4.0]], 2)
  np.testing.assert_allclose(weights, np.array([[3, 0, 2, 1], [0, 1, 2, 3]]) / 6, atol=1e-12)
  large = best_of_n_weights(np.arange(1000), 500)
  assert large.sum() == pytest.approx(1.0) and large[-1] == pytest.approx(0.5)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_kl_with_ties_is_exact(n):
  """Four responses of which two tie: every n-tuple, the first of equals winning, as the stage best_of_n chooses."""
  p, level = np.array([0.1, 0.4, 0.3, 0.2]), np.array([0.0, 1.0, 1.0, 2.0])
  tuples = np.array(list(itertools.product(range(4), repeat=n)))
  winners = tuples[np.arange(len(tuples)), level[tuples].argmax(axis=1)]
  q = np.bincount(winners, weights=p[tuples].prod(axis=1), minlength=4)
  samples = np.repeat(level, (10 * p).astype(int))  # in exactly these proportions
  kl = float(np.sum(q * np.log(q / p)))
  assert best_of_n_kl(samples, n) == pytest.approx(kl) and kl <= best_of_n_kl_bound(n) + 1e-12


def test_the_kl_without_ties_is_the_bound_and_without_differences_0():
  scores = np.random.default_rng(0).normal(size=(3, 4000))
  for n in (1, 4, 64):
    np.testing.assert_allclose(best_of_n_kl(scores, n), best_of_n_kl_bound(n), atol=0.02)
    assert best_of_n_kl(np.zeros(9), min(n, 9)) == pytest.approx(0.0)
  assert best_of_n_kl_bound([1, 2]).tolist() == pytest.approx([0.0, np.log(2) - 0.5])
  assert np.isfinite(best_of_n_kl(np.arange(4000.0), 4000))  # where the chance of a low score underflows


@pytest.mark.parametrize("n", [0, 8])
def test_n_beyond_the_samples_is_refused(n):
  with pytest.raises(ValueError, match=f"n={n} must be between 1 and the number of samples"):
    best_of_n_weights(SCORES, n)
  with pytest.raises(ValueError, match="must be finite"):
    best_of_n_kl([1.0, np.nan], 1)
