"""Linear heads on fixed features: gradients that vanish, normal equations, and priors that fit the data."""

import numpy as np
import pytest

from rlhf_jax.evaluation.linear_reward import (
  choose_prior,
  fit_item_preferences,
  fit_preferences,
  fit_ratings,
  preference_losses,
  spreads,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
WEIGHTS = RNG.uniform(0.2, 2.0, size=60)


def test_the_gradient_of_the_posterior_vanishes_at_a_head_of_preferences():
  for sd in (0.05, 1.0, 30.0):
    head = fit_preferences(X, WEIGHTS, sd)
    slope = X.T @ (WEIGHTS / (1 + np.exp(X @ head))) - head / sd**2
    np.testing.assert_allclose(slope, 0, atol=1e-6 * len(X))


def test_seven_wins_to_three_are_the_log_of_their_ratio():
  signs = np.repeat([[1.0], [-1.0]], [7, 3], axis=0)
  assert fit_preferences(signs, 1.0, 1e4)[0] == pytest.approx(np.log(7 / 3), abs=1e-6)
  assert fit_preferences([[1.0], [-1.0]], [7.0, 3.0], 1e4)[0] == pytest.approx(0.8472978604, abs=1e-6)


def test_preferences_without_a_doubt_have_a_head():
  """They are separable: nothing but the prior bounds the head, and Newton's whole steps would leave the region."""
  head = fit_preferences(np.full((20, 1), 50.0), 1.0, 100.0)
  assert 0 < head[0] < 1 and preference_losses(head, np.array([[50.0]]))[0] < 1e-4


def test_preferences_between_items_are_those_of_their_differences():
  better, worse = RNG.permutation(60), RNG.permutation(60)  # items in several preferences, and repeated ones
  better, worse = np.concatenate([better, better[:9], worse]), np.concatenate([worse, worse[:9], better])
  better, worse = better[better != worse], worse[better != worse]
  weights = RNG.uniform(0.2, 2.0, len(better))
  expected = fit_preferences(X[better] - X[worse], weights, 0.7)
  np.testing.assert_allclose(fit_item_preferences(X, better, worse, weights, 0.7), expected, atol=1e-8)


def test_a_loss_of_equal_rewards_is_log_two():
  np.testing.assert_allclose(preference_losses(np.zeros(4), X), np.log(2))
  assert preference_losses(np.array([1.0]), np.array([[2.0]]))[0] == pytest.approx(np.log1p(np.exp(-2.0)))


def test_preferences_are_those_of_scikit_learn():
  linear_model = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn")
  # Each pair in either direction counts twice, so that C is halved.
  model = linear_model.LogisticRegression(C=0.5 * 0.7**2, fit_intercept=False, tol=1e-10)
  model.fit(np.concatenate([X, -X]), [1] * 60 + [0] * 60, [*WEIGHTS, *WEIGHTS])
  np.testing.assert_allclose(fit_preferences(X, WEIGHTS, 0.7), model.coef_[0], atol=1e-4)


def test_ratings_solve_the_normal_equations():
  ratings = X @ [1.0, -2.0, 0.0, 0.5] + 3 + RNG.normal(size=60)
  found = fit_ratings(X, ratings, WEIGHTS, 0.4)
  design = np.column_stack([X, np.ones(60)])
  penalty = np.diag([1 / 0.4**2] * 4 + [0.0])
  expected = np.linalg.solve(design.T @ (WEIGHTS[:, None] * design) + penalty, design.T @ (WEIGHTS * ratings))
  np.testing.assert_allclose([*found.weights, found.intercept], expected, rtol=1e-9)
  np.testing.assert_allclose(found.predict(X), design @ expected, rtol=1e-9)


def test_a_strong_prior_leaves_the_mean_rating():
  found = fit_ratings(X, np.arange(60.0), 1.0, 1e-6)
  np.testing.assert_allclose(found.predict(X), 29.5, atol=1e-4)


def test_a_prior_is_chosen_by_what_it_predicts():
  rng = np.random.default_rng(1)
  groups = np.repeat(np.arange(40), 3)

  def chosen(truth):
    x = rng.normal(size=(120, 5)) * 2
    ratings = x @ truth + rng.normal(size=120)
    return choose_prior(
      lambda rows, sd: fit_ratings(x[rows], ratings[rows], 1.0, sd),
      lambda head, rows: (head.predict(x[rows]) - ratings[rows]) ** 2,
      groups,
      (0.001, 0.1, 10.0),
    )

  assert chosen(np.zeros(5)) == 0.001 and chosen(np.full(5, 3.0)) == 10.0


def test_rows_of_a_group_stay_in_one_fold():
  groups = np.array(["a", "b", "a", "c", "b", "d"])
  seen = []

  def fit(rows, sd):
    seen.append({*groups[rows]})
    return {*groups[rows]}

  def losses(head, rows):
    assert not head & {*groups[rows]} and head | {*groups[rows]} == {*"abcd"}
    return np.zeros(len(rows))

  assert choose_prior(fit, losses, groups, (1.0, 2.0), folds=2) == 1.0 and len(seen) == 4
  with pytest.raises(ValueError, match="4 groups cannot be dealt over 5 folds"):
    choose_prior(fit, losses, groups, (1.0,))


def test_a_constant_feature_has_the_spread_one():
  np.testing.assert_allclose(spreads(np.array([[1.0, 2.0], [1.0, 6.0]])), [1.0, 2.0])
