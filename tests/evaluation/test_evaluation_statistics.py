"""Intervals and accuracies: hand-worked constants, SciPy's functions, plain loops, simulated coverage."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_jax.evaluation.statistics import (
  calibration,
  interquartile_mean,
  pair_accuracy,
  pooled_interval,
  ranking_accuracy,
)
from rlhf_jax.intervals import Interval, mean_interval, wilson_interval, win_rate


def test_mean_interval_of_one_to_five():
  # sd = sqrt(2.5), standard error = sqrt(0.5), t(0.975, 4) = 2.7764451
  interval = mean_interval([1, 2, 3, 4, 5])
  np.testing.assert_allclose(interval, (3.0, 1.0367568, 4.9632432, 5), atol=1e-6)
  # t(0.95, 4) = 2.1318468
  narrow = mean_interval([1, 2, 3, 4, 5], level=0.9)
  np.testing.assert_allclose(narrow, (3.0, 1.4925567, 4.5074433, 5), atol=1e-6)


@pytest.mark.parametrize("num", [2, 3, 10, 65, 2000])
def test_mean_interval_is_scipys_t_interval(num):
  x = np.random.default_rng(num).normal(3, 2, num)
  expected = scipy.stats.t.interval(0.95, num - 1, x.mean(), scipy.stats.sem(x))
  np.testing.assert_allclose(mean_interval(x)[1:3], expected, rtol=1e-6)


def test_mean_interval_of_little_or_bad_data():
  assert mean_interval([2.0]) == Interval(2.0, -math.inf, math.inf, 1)
  nothing = mean_interval([])
  assert nothing.num == 0 and math.isnan(nothing.mean)
  with pytest.raises(ValueError, match="x must be finite; 1 of 2"):
    mean_interval([1.0, math.nan])


def test_disjoint_needs_a_gap():
  left = Interval(0.5, 0.0, 1.0, 9)
  assert left.disjoint(Interval(2.0, 1.5, 2.5, 9)) and Interval(2.0, 1.5, 2.5, 9).disjoint(left)
  assert not left.disjoint(Interval(1.5, 1.0, 2.0, 9))  # they touch
  assert not left.disjoint(Interval(0.5, 0.4, 0.6, 9))
  assert not left.disjoint(Interval(9.0, math.nan, math.nan, 1))


def test_pooled_interval_weights_by_num():
  # Means 1 and 2 with weights 1/4 and 3/4; half widths 0.4 and 0.4 give sqrt(0.1^2 + 0.3^2).
  pooled = pooled_interval([Interval(1.0, 0.6, 1.4, 10), Interval(2.0, 1.6, 2.4, 30)])
  half = math.sqrt(0.1)
  np.testing.assert_allclose(pooled, (1.75, 1.75 - half, 1.75 + half, 40))
  assert pooled_interval([]).num == 0


@pytest.mark.parametrize(("successes", "num"), [(8, 10), (0, 10), (10, 10), (1, 1), (370, 1000)])
def test_wilson_interval_is_scipys(successes, num):
  expected = scipy.stats.binomtest(successes, num).proportion_ci(method="wilson")
  interval = wilson_interval(successes, num)
  np.testing.assert_allclose(interval[1:3], (expected.low, expected.high), atol=1e-9)
  assert interval.mean == successes / num and interval.num == num


def test_wilson_interval_refuses_impossible_counts():
  assert wilson_interval(0, 0).num == 0
  with pytest.raises(ValueError, match="between 0 and num = 3, got 4"):
    wilson_interval(4, 3)


def test_win_rate_by_hand():
  # 6 wins, 2 losses, 2 ties. Agresti and Min: p10 = 6.5 / 12, p01 = 2.5 / 12, difference 1/3,
  # standard error sqrt((9 / 12 - 1 / 9) / 12) = 0.2307396, so 1/3 -+ 0.4522413, halved around 1/2.
  a = np.array([1, 1, 1, 1, 1, 1, 0, 0, 5, 5])
  b = np.array([0, 0, 0, 0, 0, 0, 1, 1, 5, 5])
  np.testing.assert_allclose(win_rate(a, b), (0.7, 0.4405460, 0.8927873, 10), atol=1e-6)
  np.testing.assert_allclose(win_rate(b, a), (0.3, 0.1072127, 0.5594540, 10), atol=1e-6)


def test_win_rate_keeps_a_width_and_narrows_with_ties():
  zeros = np.zeros(20)
  same, better = win_rate(zeros, zeros), win_rate(zeros + 1, zeros)
  assert same.mean == 0.5 and same.low < 0.5 < same.high
  assert better.mean == better.high == 1.0 and 0.8 < better.low < 1.0
  mixed = win_rate(np.tile([1.0, -1.0], 10), zeros)
  assert mixed.mean == 0.5 and mixed.high - mixed.low > 3 * (same.high - same.low)


def test_win_rate_is_paired():
  with pytest.raises(ValueError, match=r"paired by prompt; got \(3,\) and \(2,\)"):
    win_rate([1, 2, 3], [1, 2])


def _pairs_by_loop(scores, labels, counts):
  """Agreeing and counted pairs; `counts(i, j)` says whether label i is to be above label j."""
  correct = total = 0.0
  for row_scores, row_labels in zip(scores, labels, strict=True):
    for i, j in itertools.permutations(range(len(row_scores)), 2):
      if counts(row_labels[i], row_labels[j]):
        total += 1
        correct += 1.0 if row_scores[i] > row_scores[j] else 0.5 if row_scores[i] == row_scores[j] else 0.0
  return correct, total


GROUPS = st.lists(st.lists(st.integers(-1, 3), min_size=4, max_size=4), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(GROUPS, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0]))
def test_accuracies_are_those_of_plain_loops(labels, seed, min_gap):
  labels = np.array(labels)
  scores = np.random.default_rng(seed).integers(0, 3, labels.shape)
  for interval, counts in (
    (pair_accuracy(scores, labels, min_gap=min_gap), lambda x, y: x - y > min_gap),
    (ranking_accuracy(scores, labels), lambda x, y: x >= 0 and y >= 0 and x < y),
  ):
    correct, total = _pairs_by_loop(scores, labels, counts)
    assert interval.num == total
    if total:
      assert interval.mean == pytest.approx(correct / total)
      assert 0.0 <= interval.low <= interval.mean <= interval.high <= 1.0
      assert interval.low < interval.high
    else:
      assert math.isnan(interval.mean)


def test_absent_responses_may_hold_anything():
  scores = np.array([[3.0, 1.0, math.nan], [2.0, 1.0, math.inf]])
  assert ranking_accuracy(scores, [[0, 1, -1], [1, 0, -1]])[::3] == (0.5, 2)
  assert pair_accuracy(scores, [[1.0, 0.0, math.nan], [0.0, 1.0, math.nan]])[::3] == (0.5, 2)
  with pytest.raises(ValueError, match="scores must be finite; 2 are not"):
    ranking_accuracy(scores, [[0, 1, 2], [1, 0, 2]])
  with pytest.raises(ValueError, match="gold must be finite"):
    pair_accuracy(scores[:, :2], [[1.0, math.inf], [0.0, 1.0]])


def test_pairs_of_one_group_are_not_independent():
  """Every response three times over makes nine times the pairs and no new knowledge: same bounds."""
  rng = np.random.default_rng(0)
  scores, gold = rng.normal(size=(40, 2)), rng.normal(size=(40, 2))
  once = pair_accuracy(scores, gold)
  thrice = pair_accuracy(np.repeat(scores, 3, axis=1), np.repeat(gold, 3, axis=1))
  assert (once.num, thrice.num) == (40, 360)
  np.testing.assert_allclose(once[:3], thrice[:3], rtol=1e-9)


def test_clustered_interval_covers_the_truth():
  """Groups that are wholly right or wholly wrong: it holds the true share in about 95 % of draws."""
  rng = np.random.default_rng(1)
  gold = np.tile(np.arange(4.0), (50, 1))
  covered = 0
  for _ in range(400):
    right = rng.random(50) < 0.7
    interval = pair_accuracy(np.where(right[:, None], gold, -gold), gold)
    covered += interval.low <= 0.7 <= interval.high
  assert 0.92 < covered / 400 < 0.985


def test_one_group_bounds_nothing_and_agreement_keeps_a_width():
  assert pair_accuracy([[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]) == Interval(1.0, 0.0, 1.0, 3)
  all_right = ranking_accuracy(np.tile([2.0, 1.0], (12, 1)), np.tile([0, 1], (12, 1)))
  assert all_right.high == 1.0 and 0.6 < all_right.low < 0.8
  # Ten pairs a group, but still twelve groups.
  more_pairs = ranking_accuracy(np.tile(-np.arange(5.0), (12, 1)), np.tile(np.arange(5), (12, 1)))
  assert more_pairs.num == 120 and more_pairs[:3] == all_right[:3]


def test_interquartile_mean():
  assert interquartile_mean([0, 1, 2, 3, 4, 5, 6, 1000]) == 3.5
  assert interquartile_mean([7.0]) == 7.0
  x = np.random.default_rng(0).normal(size=37)
  assert interquartile_mean(x) == pytest.approx(scipy.stats.trim_mean(x, 0.25))
  assert math.isnan(interquartile_mean([]))


def test_calibration_by_hand():
  # Bin 1 holds 0.1 and 0.3 (one positive), bin 2 holds 0.9 and 1.0 (both positive):
  # gaps |0.2 - 0.5| = 0.3 and |0.95 - 1| = 0.05, two each.
  result = calibration([0.1, 0.3, 0.9, 1.0], [0, 1, 1, 1], bins=2)
  np.testing.assert_allclose(result.confidence, [0.2, 0.95])
  np.testing.assert_allclose(result.frequency, [0.5, 1.0])
  np.testing.assert_array_equal(result.counts, [2, 2])
  assert result.error == pytest.approx(0.175)
  empty = calibration([0.9], [1], bins=2)
  assert math.isnan(empty.confidence[0]) and empty.error == pytest.approx(0.1)
  with pytest.raises(ValueError, match="must lie in"):
    calibration([1.2], [1])
