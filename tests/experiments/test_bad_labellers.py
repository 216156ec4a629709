"""The parts of experiments/bad_labellers, on items whose features are made by hand."""

import numpy as np
import pytest
from tiny_chain import ROOT

from rlhf_jax.evaluation.simulated_judgements import simulate_judgements
from rlhf_jax.settings import import_module
from rlhf_jax.world import Traits, gold_parts, make_labellers, traits_of

analyse = import_module(str(ROOT / "experiments" / "bad_labellers" / "analyse.py"))


@pytest.fixture(scope="module")
def study():
  """Items of the world; the features are the gold reward with noise, and noise alone."""
  _, items, _ = simulate_judgements(make_labellers({"expert": 3}), num_items=120, judges=1, gold_share=0.0)
  pages: list[Traits] = []
  for item in items:
    texts = [response.text for response in item.responses]
    pages.append(traits_of(gold_parts([item.prompt] * len(texts), texts, 0), texts))
  gold = np.array([page.total for page in pages], np.float64)
  rng = np.random.default_rng(0)
  features = np.stack([gold + rng.normal(0, 0.5, gold.shape), *rng.normal(size=(3, *gold.shape))], -1)
  return analyse.Study(items, pages, features, gold)


def test_a_head_is_the_maximum_of_its_posterior(study):
  said = analyse.judged(study, np.arange(40), {"expert": 5}, 0)
  weight = np.linspace(0.5, 1.5, len(said["item"]))
  head = analyse.fit_head(study, said, weight, prior_sd=0.7)

  def loss(head):
    total = 0.5 * np.sum(head**2) / 0.7**2
    for ranks, item, w in zip(said["ranks"], said["item"], weight, strict=True):
      rewards = study.features[item] @ head
      losses = [np.log1p(np.exp(rewards[j] - rewards[i])) for i in range(4) for j in range(4) if ranks[i] < ranks[j]]
      total += w * sum(losses) / 6
    return total

  for step in np.random.default_rng(1).normal(scale=0.05, size=(20, len(head))):
    assert loss(head + step) > loss(head)


def test_bad_labellers_cost_and_weights_win_back(study, monkeypatch):
  monkeypatch.setattr(analyse, "HELD_OUT", 40)
  found = [analyse.replicate(study, "half bad", 150, seed) for seed in range(3)]
  assert np.mean([one["labels, bad"] for one in found]) < np.mean([one["labels, sound"] for one in found]) - 0.05
  assert all(set(one) == {*analyse.ARMS, "labels, sound", "labels, bad"} for one in found)
  told = analyse.summarise(found)
  assert told["loss"][0] == pytest.approx(told["sound"][0] - told["bad"][0], abs=2e-4)
  assert told["won back"][0] == pytest.approx(told["weighted"][0] - told["bad"][0], abs=2e-4)


def test_judgements_are_of_the_chosen_items(study):
  said = analyse.judged(study, np.array([7, 3]), {"expert": 2, "ordinary": 2, "adversarial": 2}, 1)
  assert sorted(said["item"].tolist()) == [3] * 3 + [7] * 3
  assert set(said["weights known"].tolist()) <= {0.0, 1.0} and (said["weighted"] >= 0).all()


def test_the_picture_is_drawn(tmp_path):
  found = {arm: [0.7, 0.6, 0.8] for arm in analyse.ARMS}
  analyse.plot({crowd: {"150": found, "300": found} for crowd in analyse.CROWDS}, tmp_path / "results.png")
  assert (tmp_path / "results.png").stat().st_size > 0
