"""Simulated labellers: the probabilities by hand, and the drawn orders against them."""

import itertools
import math

import numpy as np
import pytest

from rlhf_jax.world import KINDS, Labeller, ceiling, choice_probability, make_labellers, rank, utilities

NUM = 6_000


def one(kind):
  return make_labellers({kind: 1})[0]


def sigmoid(x):
  return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
  ("kind", "expected"), [("expert", 0.95), ("ordinary", 0.85), ("careless", 0.675), ("adversarial", 0.15)]
)
def test_agreement_on_a_gold_difference_of_one(kind, expected):
  assert choice_probability(one(kind), 1.5, 0.5, 5, 5) == pytest.approx(expected)
  assert choice_probability(one(kind), 0.5, 1.5, 5, 5) == pytest.approx(1 - expected)
  assert choice_probability(one(kind), 0.5, 0.5, 5, 5) == pytest.approx(0.5)


def test_length_bias_adds_logits_per_word():
  labeller = one("length_biased")
  assert choice_probability(labeller, 1.0, 1.0, 9, 5) == pytest.approx(sigmoid(4 * 0.25))
  assert choice_probability(labeller, 0.0, 1.0, 15, 5) > 0.5  # ten words outweigh one unit of gold


def test_position_bias_is_averaged_over_the_display_orders():
  labeller, logit = one("position_biased"), math.log(0.85 / 0.15)
  expected = (sigmoid(logit + 1) + sigmoid(logit - 1)) / 2
  assert choice_probability(labeller, 1.0, 0.0, 5, 5) == pytest.approx(expected)
  # Of three shown, a pair stands one place apart in two of three orders, two places in the third.
  far = (sigmoid(logit + 2) + sigmoid(logit - 2)) / 2
  assert choice_probability(labeller, 1.0, 0.0, 5, 5, num_shown=3) == pytest.approx((2 * expected + far) / 3)


def test_utilities_by_hand():
  labeller = Labeller("x", "x", temperature=0.5, length_bias=0.1, position_bias=2.0, sign=-1.0)
  result = utilities(labeller, np.array([1.0, -1.0]), np.array([10, 0]), np.array([1, 0]))
  assert result.tolist() == [-2.0 + 1.0 - 2.0, 2.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_shown", [2, 4])
def test_drawn_orders_have_the_exact_pairwise_marginals(kind, num_shown):
  gold, words = np.array([1.0, 0.2, -0.5, 0.2])[:num_shown], np.array([3, 7, 12, 1])[:num_shown]
  rng = np.random.default_rng(0)
  labeller = one(kind)
  ranks = np.array([rank(labeller, gold, words, rng) for _ in range(NUM)])
  assert (np.sort(ranks, axis=1) == np.arange(num_shown)).all()
  for a, b in itertools.combinations(range(num_shown), 2):
    p = choice_probability(labeller, gold[a], gold[b], words[a], words[b], num_shown=num_shown)
    assert abs(np.mean(ranks[:, a] < ranks[:, b]) - p) < 4.5 * math.sqrt(p * (1 - p) / NUM)


def test_drawn_orders_are_plackett_luce():
  labeller, gold = one("ordinary"), np.array([0.6, 0.0, -0.4])
  weights = np.exp(gold / labeller.temperature)
  rng = np.random.default_rng(1)
  ranks = np.array([rank(labeller, gold, np.ones(3), rng) for _ in range(NUM)])
  for order in itertools.permutations(range(3)):
    rest = weights[list(order)]
    p = math.prod(rest[i] / rest[i:].sum() for i in range(3))
    observed = np.mean([(row[list(order)] == np.arange(3)).all() for row in ranks])
    assert abs(observed - p) < 4.5 * math.sqrt(p * (1 - p) / NUM)


def test_rank_refuses_other_shapes():
  with pytest.raises(ValueError, match=r"\[3\] and \[2\]"):
    rank(one("expert"), np.zeros(3), np.zeros(2), np.random.default_rng(0))


def test_labellers_are_numbered_and_their_counts_checked():
  everyone = make_labellers({"expert": 1, "careless": 2, "adversarial": 0})
  assert [labeller.name for labeller in everyone] == ["expert-1", "careless-1", "careless-2"]
  assert [labeller.kind for labeller in everyone] == ["expert", "careless", "careless"]
  with pytest.raises(ValueError, match="'lazy' is no kind of labeller; choose from expert"):
    make_labellers({"lazy": 0})
  with pytest.raises(ValueError, match="labellers.expert: -1 people"):
    make_labellers({"expert": -1})
  with pytest.raises(ValueError, match="there are none"):
    make_labellers({"expert": 0})


def test_ceiling_by_hand():
  pair, words = np.array([0.0, 1.0]), np.array([5, 5])
  assert ceiling([one("ordinary")], pair, words) == pytest.approx(0.85)
  assert ceiling(make_labellers({"ordinary": 2, "adversarial": 2}), pair, words) == pytest.approx(0.5)
  assert ceiling(make_labellers({"expert": 1, "careless": 3}), pair, words) == pytest.approx((0.95 + 3 * 0.675) / 4)
  # Ties are no pairs: two of the three remain.
  assert ceiling([one("ordinary")], np.array([1.0, 0.0, 1.0]), np.zeros(3)) == pytest.approx(0.85)
  assert math.isnan(ceiling([one("ordinary")], np.zeros(3), np.zeros(3)))


def test_ceiling_is_the_share_of_labels_that_agree_with_the_gold_order():
  rng = np.random.default_rng(2)
  crowd = make_labellers({kind: 1 for kind in KINDS})
  gold, words = rng.normal(size=(5, 4)), rng.integers(1, 12, size=(5, 4))
  agree = []
  for _ in range(600):
    for g, w in zip(gold, words, strict=True):
      ranks = rank(crowd[rng.integers(len(crowd))], g, w, rng)
      agree += [(ranks[a] < ranks[b]) == (g[a] > g[b]) for a, b in itertools.combinations(range(4), 2)]
  assert np.mean(agree) == pytest.approx(ceiling(crowd, gold, words), abs=0.02)
