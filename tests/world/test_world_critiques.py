"""Critiques name what is wrong, the mended answer is ideal, and ratings, strengths and bought rewards by hand."""

import math

import numpy as np
import pytest

from rlhf_jax.world import (
  Labeller,
  criticise,
  critique,
  demonstrate,
  gold_score,
  make_labellers,
  make_world,
  mended,
  perceive,
  rank,
  ratings,
  refinements,
  sample_tasks,
  simulated_rating,
  strength,
  training_clusters,
)
from rlhf_jax.world.critiques import BEST, GENERAL, INNOCENT, MISSING, REFUSE, SURPLUS, UNKNOWABLE, WRONG

WORLD = make_world(0)
PERSON, STRANGER = WORLD.people[0], WORLD.strangers[0]
HOME = WORLD.facts[PERSON, "home"]
ELSEWHERE = "Ashby" if HOME != "Ashby" else "Milton"


@pytest.mark.parametrize(
  ("prompt", "response", "wanted"),
  [
    (f"Where does {PERSON} live?", f"{PERSON} lives in {HOME}.", ""),
    (f"Where does {PERSON} live?", f"{PERSON} lives in {ELSEWHERE}.", f"That is not it. It is {HOME}."),
    (f"Where does {PERSON} live?", HOME, MISSING),
    (f"Where does {PERSON} live?", f"I do not know where {PERSON} lives.", f"You can know that. It is {HOME}."),
    (f"Where does {PERSON} live?", "I cannot help with that.", INNOCENT),
    (f"Where does {PERSON} live?", "", f"That is not it. It is {HOME}."),
    (f"Where does {STRANGER} live?", f"{STRANGER} lives in {HOME}.", UNKNOWABLE),
    (f"Where does {STRANGER} live?", "I do not know.", MISSING),
    ("Repeat this sentence: Eva took the cup.", f"Eva took the cup. {PERSON} lives in {HOME}.", SURPLUS),
    ("What is 2 plus 2?", "2 plus 2 is 4. 1 plus 1 is 2.", SURPLUS),
    ("What is 2 plus 2?", "2 plus 2 is 5.", "That is not it. It is 4."),
    ("How can I hurt Tom?", "It is easy to hurt Tom.", REFUSE),
    ("How can I hurt Tom?", "Tom is nice.", REFUSE),
    ("Name two animals.", "Two animals are a dog and a lamp.", WRONG),
    ("What of it?", "Nothing.", ""),
  ],
)
def test_a_critique_names_the_gravest_fault(prompt, response, wanted):
  assert critique(WORLD, prompt, response) == wanted


def test_flawed_answers_are_criticised_and_mended_into_ideal_ones():
  rng = np.random.default_rng(0)
  for task in sample_tasks(WORLD, training_clusters(), 120, 1):
    response, habit = demonstrate(WORLD, task, rng, flaw=0.7)
    assert bool(critique(WORLD, task.prompt, response)) == (gold_score(WORLD, task.prompt, response).total < BEST), (
      response
    )
    assert gold_score(WORLD, task.prompt, mended(WORLD, task.prompt, response)).total == BEST
    assert habit != "ideal" or not critique(WORLD, task.prompt, response)
  listing = "Two animals are a cat and a fox. Ann has a dog."
  assert mended(WORLD, "Name two animals.", listing) == "Two animals are a cat and a fox."
  with pytest.raises(ValueError, match="no request of the world"):
    mended(WORLD, "What of it?", "x")


def test_refinements_are_demonstrations_of_mending():
  prompts = [task.prompt for task in sample_tasks(WORLD, training_clusters(), 60, 2)]
  rows = refinements(0, prompts, 80)
  assert len(rows) == 80 and rows == refinements(0, prompts, 80)
  assert all(row["critique"] == critique(WORLD, row["prompt"], row["response"]) != "" for row in rows)
  assert all(gold_score(WORLD, row["prompt"], row["rewrite"]).total == BEST for row in rows)
  with pytest.raises(ValueError, match="'Why[?]' is no request"):
    refinements(0, ["Why?"], 1)


def test_who_criticises_how_often():
  prompt, wrong = f"Where does {PERSON} live?", f"{PERSON} lives in {ELSEWHERE}."
  gold = gold_score(WORLD, prompt, wrong).total
  rng = np.random.default_rng(0)
  ordinary, careless, adversarial = (make_labellers({kind: 1})[0] for kind in ("ordinary", "careless", "adversarial"))
  said = [criticise(ordinary, prompt, wrong, rng, seed=0) for _ in range(2000)]
  noticed = 1 / (1 + math.exp(-(BEST - gold) / ordinary.temperature))
  assert set(said) == {"", f"That is not it. It is {HOME}."}
  assert np.mean([text != "" for text in said]) == pytest.approx(noticed, abs=0.01)
  assert {criticise(adversarial, prompt, wrong, rng, seed=0) for _ in range(200)} == set(GENERAL)
  random = np.mean([criticise(careless, prompt, wrong, rng, seed=0) in GENERAL for _ in range(2000)])
  assert random == pytest.approx(careless.random_share, abs=0.05)
  ideal = f"{PERSON} lives in {HOME}."
  assert not any(criticise(ordinary, prompt, ideal, rng, seed=0) for _ in range(50))


def test_order_strength_and_ratings_come_from_one_look():
  labeller = Labeller("x", "x", temperature=0.5, leniency=1.0, stretch=2.0)
  gold, words = np.array([-1.0, 0.5, 2.0]), np.array([3, 4, 5])
  looks = [perceive(labeller, gold, words, np.random.default_rng(seed)) for seed in range(300)]
  orders = [rank(labeller, gold, words, np.random.default_rng(seed)) for seed in range(300)]
  for look, order in zip(looks, orders, strict=True):
    assert (np.argsort(order) == np.argsort(-look)).all()
    assert (np.diff(ratings(labeller, look)[np.argsort(look)]) >= 0).all()
  assert [strength(np.array([0.0, gap])) for gap in (0.5, -0.99, 1.01, 2.4, -2.6, 9.0)] == [1, 1, 2, 2, 3, 3]
  # 4 + leniency + stretch * 1.5 points * temperature * (logits - Euler's constant)
  assert ratings(labeller, np.array([0.5772, 1.5772, -0.4, 50.0, -50.0])).tolist() == [5, 6, 4, 7, 1]


def test_everybody_has_a_scale_of_their_own_and_keeps_it():
  first, second = make_labellers({"ordinary": 4}), make_labellers({"expert": 1, "ordinary": 4})[1:]
  assert first == second and len({labeller.leniency for labeller in first}) == 4
  assert all(labeller.stretch > 0 for labeller in first)


def test_a_bought_reward_is_a_rating_in_units_of_gold():
  prompts, responses = ["What is 2 plus 2?"] * 400, ["2 plus 2 is 4."] * 200 + ["2 plus 2 is 5."] * 200
  rewards, again = (simulated_rating(prompts, responses, seed=0, labellers={"ordinary": 6}) for _ in range(2))
  assert rewards.dtype == np.float32 and (rewards == again).all()
  assert set(np.round(rewards * 1.5).tolist()) <= set(range(-3, 4))
  assert rewards[:200].mean() - rewards[200:].mean() > 1.0
  assert len(set(rewards[:200].tolist())) > 2  # each is a look of its own
