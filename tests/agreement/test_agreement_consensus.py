"""Consensus: by hand, against the formulas in plain loops, and against peers."""

import math

import choix
import numpy as np
import pytest
import scipy.optimize
from judgement_samples import table

from rlhf_jax.agreement import consensus
from rlhf_jax.agreement.tables import pairs_of

GOLDEN_3X3 = (0.8474208484722225, -0.19213062383372576, -0.6552902246384968)  # wins [[0,6,4],[2,0,5],[1,3,0]]


def crowd(num_items=40, seed=0, liars=1, sound=4):
  """Rankings of three by people who see the order with noise, the liars upside down; and the true order."""
  rng = np.random.default_rng(seed)
  truth = rng.normal(size=(num_items, 3)) * 2
  people = {f"sound{i}": 1 for i in range(sound)} | {f"liar{i}": -1 for i in range(liars)}
  ranks = {}
  for who, sign in people.items():
    noisy = sign * truth + rng.gumbel(size=truth.shape)
    ranks[who] = {f"i{n:02d}": tuple(np.argsort(np.argsort(-row)).tolist()) for n, row in enumerate(noisy)}
  return table(ranks), truth


def accuracy(scores, truth):
  i, j = np.triu_indices(truth.shape[1], 1)
  return np.mean(0.5 + 0.5 * np.sign(scores[:, i] - scores[:, j]) * np.sign(truth[:, i] - truth[:, j]))


def test_majority_by_hand():
  given = table(
    {
      "ann": {"i": (0, 1, 2), "j": (0, 1)},
      "bob": {"i": (0, 2, 1), "j": (1, 0)},
      "cat": {"i": (1, 0, -1)},
    }
  )
  result = consensus.majority(given, pairs_of(given))
  # i: the first beats both (2 to 1, 2 to 0), the other two are even; j is even.
  assert result.scores[0].tolist() == [1, 0.25, 0.25] and result.ranks.tolist() == [[0, 1, 1], [0, 0, -1]]
  assert np.isnan(result.scores[1, 2])


# Dawid-Skene


def labels_of(seed=0, num_units=60, num_annotators=6, num_classes=3):
  rng = np.random.default_rng(seed)
  truth = rng.integers(num_classes, size=num_units)
  skill = rng.uniform(0.4, 0.95, num_annotators)
  chosen = rng.random((num_units, num_annotators)) < 0.7
  units, annotators = np.nonzero(chosen)
  right = rng.random(len(units)) < skill[annotators]
  labels = np.where(right, truth[units], rng.integers(num_classes, size=len(units)))
  return labels, annotators, units, (num_annotators, num_units, num_classes)


def test_one_step_of_dawid_skene_in_loops():
  labels, annotators, units, shape = labels_of(num_units=12)
  num_annotators, num_units, num_classes = shape
  posterior, _ = consensus.expectation_maximisation(labels, annotators, units, shape, max_steps=1)
  votes = np.zeros((num_units, num_classes))
  for label, unit in zip(labels, units, strict=True):
    votes[unit, label] += 1
  start = np.array([v / v.sum() if v.sum() else np.full(num_classes, 1 / num_classes) for v in votes])
  for unit in range(num_units):
    joint = []
    for truth in range(num_classes):
      p = start[:, truth].mean()
      for who, where, label in zip(annotators, units, labels, strict=True):
        if where == unit:
          own = annotators == who
          said = own & (labels == label)
          p *= start[units[said], truth].sum() / start[units[own], truth].sum()
      joint.append(p)
    assert posterior[unit] == pytest.approx(np.array(joint) / sum(joint))


def test_dawid_skene_equals_crowd_kit():
  crowdkit = pytest.importorskip("crowdkit.aggregation", reason="crowd-kit is not installed")
  pandas = pytest.importorskip("pandas")
  labels, annotators, units, shape = labels_of(num_units=300, num_annotators=10)
  frame = pandas.DataFrame({"task": units, "worker": annotators, "label": labels})
  peer = crowdkit.DawidSkene(n_iter=200, tol=0).fit(frame)
  posterior, confusion = consensus.expectation_maximisation(
    labels, annotators, units, shape, max_steps=200, tolerance=0.0
  )
  wanted = peer.probas_.sort_index()[[0, 1, 2]]
  assert posterior[wanted.index] == pytest.approx(wanted.to_numpy(), abs=1e-3)
  assert np.array_equal(posterior[wanted.index].argmax(1), wanted.to_numpy().argmax(1))
  for (who, said), row in peer.errors_.iterrows():
    assert confusion[who, :, said] == pytest.approx(row[[0, 1, 2]].to_numpy(), abs=2e-3)


def test_dawid_skene_turns_liars_round():
  given, truth = crowd(liars=2, sound=3)
  pairs = pairs_of(given)
  result = consensus.dawid_skene(given, pairs)
  assert accuracy(result.scores, truth) > accuracy(consensus.majority(given, pairs).scores, truth)
  mirror = result.confusion[:, ::-1, ::-1]
  assert result.confusion == pytest.approx(mirror, abs=1e-6)  # nothing depends on which response comes first
  assert (result.confusion[:3, 0, 0] > 0.5).all() and (result.confusion[3:, 0, 0] < 0.5).all()


def test_dawid_skene_knows_the_gold_pairs():
  ranks = {who: {"i": (1, 0), "j": (0, 1)} for who in ("ann", "bob")}
  given = table(ranks, gold={"i": (0, 1)})
  result = consensus.dawid_skene(given, pairs_of(given))
  assert result.posterior[0].tolist() == [0, 0, 1]


# Noisy Bradley-Terry


def test_equal_annotators_give_the_bradley_terry_estimate(monkeypatch):
  """With everybody at reliability 1 and no prior on the scores it is the maximum likelihood of the golden table."""
  monkeypatch.setattr(consensus, "SCORE_SD", 1e3)
  monkeypatch.setattr(consensus, "RELIABILITY_SD", 1e-2)
  monkeypatch.setattr(consensus, "HABIT_SD", 1e-2)
  wins = [[0, 6, 4], [2, 0, 5], [1, 3, 0]]
  comparisons = [(i, j) for i in range(3) for j in range(3) for _ in range(wins[i][j])]
  ranks = {}
  for n, (i, j) in enumerate(comparisons):
    row = [-1, -1, -1]
    row[i], row[j] = 0, 1
    ranks[f"a{n}"] = {"i": tuple(row)}
  given = table(ranks, words={"i": [3, 3, 3]})
  result = consensus.noisy_bradley_terry(given, pairs_of(given))
  assert result.scores[0] - result.scores[0].mean() == pytest.approx(GOLDEN_3X3, abs=2e-3)
  assert result.scores[0] - result.scores[0].mean() == pytest.approx(choix.opt_pairwise(3, comparisons), abs=2e-3)


def negative_log_posterior(given, pairs, scores, raw, position, length):
  """The docstring in loops; `raw` reliabilities before they are scaled to root mean square 1."""
  scale = math.sqrt(np.mean(raw**2))
  words = math.sqrt(np.mean(pairs.longer**2))
  total = 0.5 * (np.sum(scores**2) / 4 + np.sum((raw - 1) ** 2) + np.sum(position**2) + np.sum((length * words) ** 2))
  for p in range(len(pairs.unit)):
    who, where, i, j = (int(x[p]) for x in (pairs.annotator, pairs.item, pairs.first, pairs.second))
    z = raw[who] / scale * (scores[where, i] - scores[where, j])
    z += position[who] * pairs.earlier[p] + length[who] * pairs.longer[p]
    y, share = pairs.outcome[p], 2 / (given.ranks[pairs.judgement[p]] >= 0).sum()
    total -= share * (y * -math.log1p(math.exp(-z)) + (1 - y) * -math.log1p(math.exp(z)))
  for where, gold in enumerate(given.gold):
    for i in range(3):
      for j in range(i + 1, 3):
        if gold[i] >= 0:
          z = 3.0 * (scores[where, i] - scores[where, j])
          y = 0.5 + 0.5 * np.sign(gold[j] - gold[i])
          total -= 2 / 3 * (y * -math.log1p(math.exp(-z)) + (1 - y) * -math.log1p(math.exp(z)))
  return total


def test_noisy_bradley_terry_is_the_maximum_of_its_posterior():
  rng = np.random.default_rng(3)
  names = ("ann", "bob", "liar")
  ranks = {who: {f"i{n}": tuple(rng.permutation(3).tolist()) for n in range(2)} for who in names}
  ranks = {who: own | {"i2": (0, 1, 2), "i3": (2, 0, 1)} for who, own in ranks.items()}
  ranks["liar"] |= {"i2": (2, 1, 0)}
  orders = {(who, f"i{n}"): tuple(rng.permutation(3).tolist()) for who in names for n in range(4)}
  given = table(ranks, gold={"i0": (0, 1, 1)}, orders=orders)
  pairs = pairs_of(given)
  fit = consensus.noisy_bradley_terry(given, pairs)

  def value(theta):
    scores, raw, position, length = np.split(theta, [12, 15, 18])
    return negative_log_posterior(given, pairs, scores.reshape(4, 3), raw, position, length)

  # The reliabilities' own scale is free in the likelihood: the prior alone sets it, where sum (c r - 1)^2 is least.
  raw = fit.reliability * fit.reliability.sum() / np.sum(fit.reliability**2)
  found = np.concatenate([fit.scores.ravel(), raw, fit.position, fit.length])
  assert np.abs(scipy.optimize.approx_fprime(found, value, 1e-6)).max() < 5e-3
  assert np.abs(scipy.optimize.approx_fprime(np.concatenate([np.zeros(12), np.ones(3), np.zeros(6)]), value)).max() > 1
  for step in np.random.default_rng(4).normal(scale=0.2, size=(50, len(found))):
    assert value(found + step) > value(found)


def test_liars_have_negative_reliability_and_no_weight():
  given, truth = crowd(liars=2, sound=4)
  pairs = pairs_of(given)
  model = consensus.noisy_bradley_terry(given, pairs)
  assert (model.reliability[:4] > 0.5).all() and (model.reliability[4:] < -0.5).all()
  assert np.mean(model.reliability**2) == pytest.approx(1)
  assert accuracy(model.scores, truth) > accuracy(consensus.majority(given, pairs).scores, truth)
  weights = consensus.annotator_weights(given, model)
  assert weights["liar0"] == weights["liar1"] == 0
  assert np.mean([weights[given.annotators[i]] for i in given.annotator]) == pytest.approx(1)


def test_who_is_left_out_has_no_say():
  given, _ = crowd(num_items=10)
  pairs = pairs_of(given)
  without = consensus.noisy_bradley_terry(given, pairs, exclude=[4])
  rest = given.where(given.annotator != 4)
  alone = consensus.noisy_bradley_terry(rest, pairs_of(rest))
  assert without.scores == pytest.approx(alone.scores, abs=1e-2)


def test_an_item_nobody_judged_has_no_order():
  given = table({"ann": {"i": (0, 1), "j": (0, 1)}})
  alone = given.where(given.item == 0)
  for fit in (consensus.majority, consensus.dawid_skene, consensus.noisy_bradley_terry):
    result = fit(alone, pairs_of(alone))
    assert result.ranks.tolist() == [[0, 1], [-1, -1]] and np.isnan(result.scores[1]).all()
