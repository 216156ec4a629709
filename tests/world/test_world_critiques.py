"""Critiques name what is wrong, and the mended answer is ideal."""

import math

import numpy as np
import pytest

from rlhf_jax.world import (
  HABITS,
  criticise,
  critique,
  demonstrate,
  gold_score,
  make_labellers,
  make_world,
  mended,
  refinements,
  sample_tasks,
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
    ("Copy this sentence: Tom saw the red lamp.", "Tom saw the red ball.", WRONG),
    ("Copy this sentence: Tom saw the red lamp.", "Tom saw red lamp", MISSING),
    ("Copy this sentence: Tom saw the red lamp.", "Tom saw the red lamp. So it is.", SURPLUS),
    ("What of it?", "Nothing.", ""),
  ],
)
def test_a_critique_names_the_gravest_fault(prompt, response, wanted):
  assert critique(WORLD, prompt, response) == wanted


def test_flawed_answers_are_criticised_and_mended_into_ideal_ones():
  rng = np.random.default_rng(0)
  for task in sample_tasks(WORLD, training_clusters(), 120, 1):
    response, habit = demonstrate(WORLD, task, rng, {habit: 1.0 for habit in HABITS})
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
  prompt, wrong, bare = f"Where does {PERSON} live?", f"{PERSON} lives in {ELSEWHERE}.", HOME
  rng = np.random.default_rng(0)
  ordinary, trusting, careless, adversarial = (
    make_labellers({kind: 1})[0] for kind in ("ordinary", "trusting", "careless", "adversarial")
  )
  said = [criticise(ordinary, prompt, wrong, rng, seed=0) for _ in range(2000)]
  assert set(said) == {"", f"That is not it. It is {HOME}."}  # the right value, or the fault was not seen
  assert np.mean([text != "" for text in said]) == pytest.approx(ordinary.checks, abs=0.03)
  said = [criticise(trusting, prompt, wrong, rng, seed=0) for _ in range(2000)]
  assert np.mean([text != "" for text in said]) == pytest.approx(trusting.checks, abs=0.03)
  said = [criticise(trusting, prompt, bare, rng, seed=0) for _ in range(2000)]  # its form is seen without a check
  noticed = 1 / (1 + math.exp(-(BEST - gold_score(WORLD, prompt, bare).total) / trusting.temperature))
  assert set(said) == {"", MISSING} and np.mean([text != "" for text in said]) == pytest.approx(noticed, abs=0.03)
  assert {criticise(adversarial, prompt, wrong, rng, seed=0) for _ in range(200)} == set(GENERAL)
  random = np.mean([criticise(careless, prompt, wrong, rng, seed=0) in GENERAL for _ in range(2000)])
  assert random == pytest.approx(careless.random_share, abs=0.05)
  ideal = f"{PERSON} lives in {HOME}."
  assert not any(criticise(ordinary, prompt, ideal, rng, seed=0) for _ in range(50))
