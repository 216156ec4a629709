"""Tasks: drawn, read back from the prompt alone, and answered by demonstrators."""

import collections
import re

import numpy as np
import pytest

from rlhf_jax.world import (
  CLUSTERS,
  DIFFICULTIES,
  HELD_OUT,
  demonstrate,
  gold_score,
  make_world,
  parse_prompt,
  sample_tasks,
)
from rlhf_jax.world.answers import VALUE_CLUSTERS, right_value
from rlhf_jax.world.demonstrations import HABITS, habits_of, write
from rlhf_jax.world.phrasings import phrasings
from rlhf_jax.world.tasks import training_clusters

WORLD = make_world(0)
TASKS = sample_tasks(WORLD, CLUSTERS, 400 * len(CLUSTERS), seed=1)


def of(cluster):
  return [task for task in TASKS if task.cluster == cluster]


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("seed", [0, 7])
def test_task_is_recovered_from_its_prompt(seed, difficulty):
  world = make_world(seed, difficulty)
  tasks = sample_tasks(world, CLUSTERS, 6000, seed=2)
  assert [task for task in tasks if parse_prompt(world, task.prompt) != task] == []


def test_prompt_of_the_same_words_is_unanswerable_in_one_world_and_a_fact_in_another():
  prompt = "Where does Tom live?"
  clusters = {parse_prompt(make_world(seed), prompt).cluster for seed in range(12)}
  assert clusters == {"facts", "unanswerable"}


def test_white_space_is_ignored_and_other_texts_are_no_tasks():
  assert parse_prompt(WORLD, "  What is  3 plus 4?\n").values == {"a": "3", "b": "4"}
  for text in (
    "",
    "Hello!",
    "What is 3 plus 44?",
    "What is 3 minus 4?",
    "Which is larger, 3 or 3?",
    "Where does X live?",
  ):
    assert parse_prompt(WORLD, text) is None


def test_clusters_take_turns():
  counts = collections.Counter(
    task.cluster for task in sample_tasks(WORLD, ("facts", "copying", "harmful"), 30, seed=0)
  )
  assert counts == {"facts": 10, "copying": 10, "harmful": 10}
  assert sample_tasks(WORLD, CLUSTERS, 50, seed=3) == sample_tasks(WORLD, CLUSTERS, 50, seed=3)
  assert sample_tasks(WORLD, CLUSTERS, 50, seed=3) != sample_tasks(WORLD, CLUSTERS, 50, seed=4)


def test_unknown_clusters_are_named():
  with pytest.raises(ValueError, match="'sums' is no cluster; choose from copying"):
    sample_tasks(WORLD, ("sums",), 1, seed=0)
  with pytest.raises(ValueError, match="name at least one"):
    sample_tasks(WORLD, (), 1, seed=0)
  with pytest.raises(ValueError, match="held_out: 'sums' is no cluster"):
    training_clusters(("sums",))
  assert set(training_clusters()) == set(CLUSTERS) - set(HELD_OUT)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_each_cluster_has_phrasings_and_short_prompts(cluster):
  found = phrasings(WORLD.difficulty)[cluster]
  for kind in {phrasing.kind for phrasing in found}:
    assert {phrasing.reserved for phrasing in found if phrasing.kind == kind} == {True, False}
  assert len({phrasing.template for phrasing in found if not phrasing.reserved}) >= 4
  assert max(len(task.prompt.split()) for task in of(cluster)) <= 20


def test_answers_are_not_given_away_by_their_frequency():
  for cluster, most in {"verification": 0.6, "sentiment": 0.6, "comparison": 0.4, "facts": 0.2}.items():
    counts = collections.Counter(right_value(WORLD, task) for task in of(cluster))
    assert max(counts.values()) <= most * counts.total()


def test_right_values_by_hand():
  answers = {
    "Take 1 from 5.": "4",
    "Tom has 5 cups and buys 4 more. How many cups? Think step by step.": "9",
    "Show your steps. Tom has 5 cups, loses 4, finds 5. How many cups?": "6",
    "Tell me if a hen is an object or an animal.": "animal",
    "What kind of thing is Ashby?": "town",
    "Happy or sad: The soup was bad.": "sad",
    "Name the opposite of empty.": "full",
    "Is 4 or 5 smaller?": "4",
  }
  for prompt, value in answers.items():
    task = parse_prompt(WORLD, prompt)
    assert task.cluster in VALUE_CLUSTERS and right_value(WORLD, task) == value


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_ideal_demonstrations_are_ideal_and_short(cluster):
  rng = np.random.default_rng(0)
  for task in of(cluster):
    response, habit = demonstrate(WORLD, task, rng)
    assert habit == "ideal"
    assert gold_score(WORLD, task.prompt, response) == (1.0, 1.0, 1.0, 2.0), (task.prompt, response)
    assert len(response.split()) <= (20 if cluster == "stories" else 14)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_ideal_answers_of_every_difficulty_are_ideal(difficulty):
  world, rng = make_world(1, difficulty), np.random.default_rng(0)
  for task in sample_tasks(world, CLUSTERS, 1400, seed=4):
    response = demonstrate(world, task, rng)[0]
    assert gold_score(world, task.prompt, response).total == 2, (task.prompt, response)


MOST = {
  "terse": 1.7,
  "rambling": 1.7,
  "wrong": 0.7,
  "misleading": 0.0,
  "straying": 1.0,
  "doubting": 0.0,
  "refusing": -0.9,
}


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_each_bad_habit_costs_what_it_should(cluster, difficulty):
  world, rng = make_world(0, difficulty), np.random.default_rng(0)
  for task in sample_tasks(world, (cluster,), 150, seed=1):
    for habit in habits_of(task)[1:]:
      response = write(world, task, habit, rng)
      judged = gold_score(world, task.prompt, response)
      assert judged.total <= MOST.get(habit, -0.9), (habit, task.prompt, response)
      if habit in ("misleading", "refusing", "claiming", "complying"):
        assert judged.helpful == 0 and 0 in (judged.honest, judged.harmless)
      if habit == "rambling":  # the ideal answer and an aside, each of whose words and marks costs 1/16 of helpful
        aside = re.findall(r"\w+|\.", response.removesuffix(".").rpartition(". ")[2] + ".")
        assert judged.total == pytest.approx(2 - len(aside) / 8), (task.prompt, response)


def test_habits_have_the_weights_that_are_given():
  rng = np.random.default_rng(0)
  weights = dict(ideal=3, terse=0, wrong=1, complying=5)
  habits = collections.defaultdict(collections.Counter)
  for task in TASKS:
    habits[task.cluster][demonstrate(WORLD, task, rng, weights)[1]] += 1
  assert set(habits["unanswerable"]) == {"ideal"} and set(habits["harmful"]) == {"ideal", "complying"}
  assert set(habits["facts"]) == {"ideal", "wrong"}
  shares = habits["facts"] + habits["copying"] + habits["opposites"]
  assert abs(shares["wrong"] / shares.total() - 0.25) < 0.05  # four standard errors
  assert demonstrate(WORLD, TASKS[0], rng, dict(claiming=1.0))[1] == "ideal"  # which the first task does not allow
  assert set(HABITS) == {habit for task in TASKS for habit in habits_of(task)}
  for wrong, message in ((dict(lazy=1.0), "'lazy' is no habit"), (dict(ideal=-1.0), "below 0"), ({}, "above 0")):
    with pytest.raises(ValueError, match=message):
      demonstrate(WORLD, TASKS[0], rng, wrong)


def test_wrong_steps_are_wrong_once_and_carried_on():
  rng = np.random.default_rng(0)
  for task in of("reasoning"):
    *steps, answer = write(WORLD, task, "wrong", rng).split(". ")
    sums = [list(re.fullmatch(r"(\d+) (plus|minus) (\d+) is (\d+)", step).groups()) for step in steps]
    right = [int(a) + int(b) == int(c) if sign == "plus" else int(a) - int(b) == int(c) for a, sign, b, c in sums]
    assert right.count(False) == 1
    assert all(before[3] == after[0] for before, after in zip(sums, sums[1:], strict=False))
    assert answer == f"The answer is {sums[-1][3]}."
