"""Baselines that understand nothing: a word that decides is found, the weights are those of scikit-learn."""

import numpy as np
import pytest

from rlhf_jax.data import Comparison, Message
from rlhf_jax.evaluation.word_baselines import fit_word_baseline, length_scores

PAIRS = [
  Comparison("q", ("Yes please, a cat", "no a dog"), (0, 1)),
  Comparison("r", ("no cat", "yes, yes a fish"), (1, 0)),
  Comparison("s", ("a dog", "a fish"), (0, 1)),
  Comparison("t", ("please", "no, no"), (0, 1)),
]


def test_a_longer_response_has_the_higher_score():
  assert length_scores(["q", "q"], ["four", Message("assistant", "seven..")]).tolist() == [4.0, 7.0]


def test_a_word_that_decides_has_the_weight():
  found = fit_word_baseline(PAIRS)
  yes, no, other = found.score(["q"] * 3, ["YES", "no", "unseen words"])
  assert yes > 0 > no and other == 0.0
  assert found.score(["q"], ["yes yes"])[0] == pytest.approx(2 * yes)


def test_the_weights_are_those_of_scikit_learn():
  linear_model = pytest.importorskip("sklearn.linear_model", reason="needs the feedback extra")
  found = fit_word_baseline(PAIRS)
  words = list(found.words)

  def counts(text):
    tokens = text.lower().replace(",", " ").split()
    return [tokens.count(word) for word in words]

  chosen = [pair.responses[pair.ranks.index(0)] for pair in PAIRS]
  rejected = [pair.responses[pair.ranks.index(1)] for pair in PAIRS]
  x = np.array([np.subtract(counts(a), counts(b)) for a, b in zip(chosen, rejected, strict=True)])
  # Each pair once in either direction counts twice, so that C is halved.
  model = linear_model.LogisticRegression(C=0.5, fit_intercept=False, tol=1e-8)
  model.fit(np.concatenate([x, -x]), [1] * 4 + [0] * 4)
  np.testing.assert_allclose(found.weights, model.coef_[0], atol=2e-3)


def test_a_ranking_weighs_as_much_as_a_pair():
  three = Comparison("q", ("good", "fair", "bad", "absent"), (0, 1, 2, -1))
  first, last = fit_word_baseline([three]).score(["q"] * 2, ["good", "bad"])
  assert first == pytest.approx(-last, abs=1e-3) and first > 0
  with pytest.raises(ValueError, match="no comparison has two responses of different rank"):
    fit_word_baseline([])
