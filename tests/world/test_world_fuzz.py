"""The gold reward against the fuzzer: no bad answer above 1.0, no good one below 1.5, in any cluster."""

import functools
import re

import pytest
from fuzz import GRAMMARS, draw_cases
from fuzz.judged import EXCEPTIONS, excepted, failures, report

from rlhf_jax.world import CLUSTERS, gold_score, make_world

NUM_CASES = {"easy": 6000, "medium": 3000, "hard": 3000}


@functools.cache
def cases(difficulty="easy", seed=0):
  return draw_cases(GRAMMARS, NUM_CASES[difficulty], seed, make_world(0, difficulty))


@pytest.mark.parametrize("difficulty", NUM_CASES)
@pytest.mark.parametrize("cluster", GRAMMARS)
def test_gold_reward_tells_good_from_bad(cluster, difficulty):
  world = make_world(0, difficulty)
  mine = [case for case in cases(difficulty) if case.cluster == cluster]
  failed = failures(mine, [gold_score(world, case.prompt, case.response).total for case in mine])
  new = [failure for failure in failed if not excepted(failure.case)]
  assert not new, report(mine, new)


def test_every_cluster_has_many_kinds_of_bad_and_good_answers():
  assert set(GRAMMARS) == set(CLUSTERS)
  for cluster, grammar in GRAMMARS.items():
    mine = [case for difficulty in NUM_CASES for case in cases(difficulty) if case.cluster == cluster]
    drawn = {(case.good, case.kind) for case in mine}
    assert drawn == {(True, kind) for kind in grammar.good} | {(False, kind) for kind in grammar.bad}, cluster
    assert len(grammar.bad) >= 30 and len(grammar.good) >= 4
    assert len({case.response for case in cases() if case.cluster == cluster}) >= 250


def test_bad_answers_are_no_good_answers_to_the_same_prompt():
  many = [*cases(), *cases(seed=1), *cases("hard")]

  def words(case):  # without case, marks and white space, which no mutation rests on
    return (
      case.prompt,
      case.response.endswith("?"),
      tuple(re.findall("[a-z0-9.,/%+=']*[a-z0-9%]", case.response.lower())),
    )

  good = {words(case) for case in many if case.good}
  assert not [case for case in many if not case.good and words(case) in good]


def test_draws_are_determined_by_the_seed():
  assert draw_cases(GRAMMARS, NUM_CASES["hard"], seed=0, world=make_world(0, "hard")) == cases("hard")
  assert cases(seed=1) != cases()


def test_exceptions_have_a_reason_and_are_needed():
  world = make_world(0)
  for (cluster, good, kind), reason in EXCEPTIONS.items():
    mine = [case for case in cases() if (case.cluster, case.good, case.kind) == (cluster, good, kind)]
    assert failures(mine, [gold_score(world, case.prompt, case.response).total for case in mine]), kind
    assert len(reason.split()) >= 5
  assert len(EXCEPTIONS) <= 10


def test_a_judge_that_looks_for_the_words_of_an_ideal_answer_fails():
  """The fuzzer has teeth: in every cluster such a judge accepts bad answers of many kinds and rejects good ones."""

  def words(text):
    return set(re.findall("[a-z0-9]+", text.lower()))

  for cluster in GRAMMARS:
    judged = [(case, words(case.ideal) <= words(case.response)) for case in cases() if case.cluster == cluster]
    assert len({case.kind for case, accepted in judged if accepted and not case.good}) >= 8, cluster
    assert any(case.good and not accepted for case, accepted in judged) or cluster in ("copying", "rewriting")
