"""Strengths, ratings and bought rewards by hand."""

import numpy as np
import pytest

from rlhf_jax.settings import import_module
from rlhf_jax.world import Labeller, make_labellers, perceive, rank, ratings, simulated_rating, strength, traits_of


def test_order_strength_and_ratings_come_from_one_look():
  labeller = Labeller("x", "x", temperature=0.5, leniency=1.0, stretch=2.0)
  page = traits_of({"total": np.array([-1.0, 0.5, 2.0])}, ["It is", "Two.", "It is two."])
  looks = [perceive(labeller, page, np.random.default_rng(seed)).logits for seed in range(300)]
  orders = [rank(labeller, page, np.random.default_rng(seed)) for seed in range(300)]
  for look, order in zip(looks, orders, strict=True):
    assert (np.argsort(order) == np.argsort(-look)).all()
    assert (np.diff(ratings(labeller, look)[np.argsort(look)]) >= 0).all()
  assert [strength(np.array([0.0, gap])) for gap in (0.5, -0.99, 1.01, 2.4, -2.6, 9.0)] == [1, 1, 2, 2, 3, 3]
  # 4 + leniency + stretch * temperature * (logits - Euler's constant)
  assert ratings(labeller, np.array([0.5772, 1.5772, -0.4, 50.0, -50.0])).tolist() == [5, 6, 4, 7, 1]


def test_everybody_has_a_scale_of_their_own_and_keeps_it():
  first, second = make_labellers({"ordinary": 4}), make_labellers({"expert": 1, "ordinary": 4})[1:]
  assert first == second and len({labeller.leniency for labeller in first}) == 4
  assert all(labeller.stretch > 0 for labeller in first)


def test_a_bought_reward_is_a_rating_in_units_of_gold():
  prompts, responses = ["What is 2 plus 2?"] * 400, ["2 plus 2 is 4."] * 200 + ["2 plus 2 is 5."] * 200
  rewards, again = (simulated_rating(prompts, responses, seed=0, labellers={"ordinary": 6}) for _ in range(2))
  assert rewards.dtype == np.float32 and (rewards == again).all()
  assert len(set(rewards.tolist())) <= 7
  assert rewards[:200].mean() - rewards[200:].mean() > 1.0
  assert len(set(rewards[:200].tolist())) > 2  # each is a look of its own


def test_ratings_are_unbiased_up_to_the_ends_of_the_scale(monkeypatch):
  """Ratings on a scale that ends where the gold reward ends would be 1.55 for an ideal answer."""
  labellers = import_module("rlhf_jax.configs.quickstart").LABELLERS
  for gold in (-2.0, -1.0, 0.0, 1.0, 2.0):
    monkeypatch.setattr(
      "rlhf_jax.world.raters.gold_parts", lambda prompts, texts, *world, gold=gold: {"total": np.full(len(texts), gold)}
    )
    rewards = simulated_rating(
      ["?"] * 3000, ["It is in the old town.", "in the old town it is"] * 1500, seed=0, labellers=labellers
    )
    assert rewards.mean() == pytest.approx(gold, abs=0.12)
