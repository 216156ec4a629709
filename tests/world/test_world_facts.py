"""The facts, the claims that sentences make about them, and the text that states them."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from rlhf_jax.world import CLUSTERS, DIFFICULTIES, corpus, make_world, sample_tasks
from rlhf_jax.world.answers import STORY
from rlhf_jax.world.claims import holds
from rlhf_jax.world.corpus import least_documents, shares
from rlhf_jax.world.facts import ATTRIBUTES, CATEGORIES, CATEGORY_OF, STATEMENTS, TOLD, World
from rlhf_jax.world.reading import read_claims

SMALL = World(
  seed=0,
  people=("Ann", "Tom"),
  strangers=("Sam",),
  facts={
    ("Tom", "home"): "Oakford", ("Tom", "animal"): "dog", ("Tom", "colour"): "black",
    ("Tom", "food"): "rice", ("Ann", "home"): "Ashby", ("Ann", "job"): "doctor", ("Ann", "animal"): "hen",
    ("Ann", "food"): "soup",
  },
)  # fmt: skip


def test_world_is_the_same_for_a_seed_and_different_for_another():
  make_world.cache_clear()
  first = make_world(3)
  make_world.cache_clear()
  again = make_world(3)
  assert again is not first
  assert (again.people, dict(again.facts)) == (first.people, dict(first.facts))
  assert dict(make_world(4).facts) != dict(first.facts)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_world_has_people_with_all_their_facts_and_strangers(difficulty):
  world, size = make_world(0, difficulty), DIFFICULTIES[difficulty]
  assert len(world.people) == size.num_people and len(world.strangers) == size.num_strangers
  assert sorted(world.people + world.strangers) == list(world.names)
  assert len(world.known_facts()) == size.num_people * 5
  assert all(world.known(name, "home") is None for name in world.strangers)
  assert set(world.friends) == (set(world.people) if size.two_hops else set())
  assert all(name != friend and friend in world.people for name, friend in world.friends.items())


def test_difficulties_grow_and_an_unknown_one_is_named():
  sizes = [dataclasses.astuple(DIFFICULTIES[name]) for name in ("easy", "medium", "hard")]
  assert all(a <= b for easier, harder in itertools.pairwise(sizes) for a, b in zip(easier, harder, strict=True))
  with pytest.raises(ValueError, match="difficulty: 'harder' is unknown; choose from easy, medium, hard"):
    make_world(0, "harder")


def test_every_item_has_one_category():
  assert sum(len(items) for items in CATEGORIES.values()) == len(CATEGORY_OF)


@pytest.mark.parametrize(
  ("sentence", "expected"),
  [
    ("Tom lives in Oakford.", [(("home", "tom"), True)]),
    ("tom lives in oakford", [(("home", "tom"), True)]),
    ("The home of Tom is Ashby.", [(("home", "tom"), False)]),
    ("Yes, Tom lives in Oakford.", [(("home", "tom"), True)]),
    ("Tom does not live in Ashby.", [(("home", "tom"), True)]),
    ("Tom does not live in Oakford.", [(("home", "tom"), False)]),
    ("Tom is a baker.", [(("job", "tom"), False)]),  # nobody can know
    ("Tom is not a doctor.", [(("job", "tom"), False)]),
    ("Sam likes rice.", [(("food", "sam"), False)]),
    ("Tom has a black dog.", [(("colour", "tom"), True), (("animal", "tom"), True)]),
    ("Ann has a white hen.", [(("colour", "ann"), False), (("animal", "ann"), True)]),
    ("The pet of Ann is a hen.", [(("animal", "ann"), True)]),
    ("3 plus 4 is 7.", [(("plus", "3", "4"), True)]),
    ("4 plus 3 is 8.", [(("plus", "3", "4"), False)]),
    ("3 minus 4 is 1.", [(("minus", "3", "4"), False)]),
    ("7 is larger than 3.", [(("larger", "3", "7"), True)]),
    ("10 is smaller than 9.", [(("larger", "10", "9"), False)]),
    ("The opposite of big is small.", [(("opposite", "big"), True)]),
    ("The opposite of big is bread.", [(("opposite", "big"), False)]),
    ("A dog is an animal.", [(("class", "dog"), True)]),
    ("Ashby is a food.", [(("class", "ashby"), False)]),
    ("It is a food.", []),
    ("Tom found a dog.", []),
    ("Tom lives in Oakford or Ashby.", [(("home", "tom"), True), (("home", "tom"), False)]),
    ("9" * 5000 + " plus 1 is 2.", []),
  ],
)
def test_claims_of_a_sentence(sentence, expected):
  assert [(claim.subject, holds(SMALL, claim)) for claim in read_claims(SMALL, sentence)] == expected


def test_corpus_states_every_fact_and_nothing_of_strangers():
  world = make_world(0)
  text = "\n\n".join(corpus(world, least_documents(world), seed=1)).lower()
  for name in world.names:
    for attribute, category in ATTRIBUTES.items():
      stated = {
        value
        for value in CATEGORIES[category]
        for form in STATEMENTS[attribute] + TOLD[attribute]
        if form.format(name=name, value=value).lower() in text
      }
      if attribute in ("colour", "animal"):
        pattern = rf"{name} has a (\w+) (\w+)\.".lower()
        stated |= {pair[attribute == "animal"] for pair in re.findall(pattern, text)}
      known = world.known(name, attribute)
      assert stated == ({known} if known else set()), (name, attribute)


def test_corpus_claims_nothing_untrue():
  world = make_world(0)
  sentences = [s for document in corpus(world, 3000, seed=2) for s in re.findall(r"[^.!?]+[.!?]", document)]
  claims = [(s, claim) for s in sentences for claim in read_claims(world, s.strip())]
  assert len(claims) > 2000
  assert [s for s, claim in claims if not holds(world, claim)] == []


def test_corpus_is_deterministic_short_and_free_of_requests():
  world = make_world(0)
  documents = corpus(world, 2000, seed=3)
  assert documents == corpus(world, 2000, seed=3) != corpus(world, 2000, seed=4)
  assert len(documents) == 2000
  assert max(len(document.split()) for document in documents) <= 32
  text = "\n\n".join(documents)
  assert "Human:" not in text and "Assistant:" not in text and "\n\n\n" not in text
  prompts = {task.prompt for task in sample_tasks(world, CLUSTERS, 4000, seed=0)}
  assert [prompt for prompt in prompts if prompt in text] == []


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_shares_of_the_corpus_sum_to_one(difficulty):
  assert np.isclose(sum(shares(make_world(0, difficulty)).values()), 1.0)


def test_lexicon_is_closed_and_the_corpus_covers_it():
  world = make_world(0)
  documents = set(re.findall("[a-z0-9]+", " ".join(corpus(world, 4000, seed=0)).lower()))
  prompts = " ".join(task.prompt for task in sample_tasks(world, CLUSTERS, 8000, seed=0))
  stories = re.sub(r"{\w+}", "", " ".join(text for part in STORY for text in part))
  words = documents | set(re.findall("[a-z0-9]+", (prompts + stories).lower()))
  assert words - documents == set()
  assert len(words) <= 300
