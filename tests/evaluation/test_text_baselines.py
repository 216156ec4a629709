"""Policies that repeat training texts."""

import pytest

from rlhf_jax.data import Demonstration
from rlhf_jax.evaluation.text_baselines import commonest_response, nearest_responses

KNOWN = [
  Demonstration("What is 3 plus 4?", "7"),
  Demonstration("Where does Tom live?", "Ashby"),
  Demonstration("Where does Ann live?", "Stowe"),
  Demonstration("What is the home of Ann?", "Milton"),
  Demonstration("Where does Ann live?", "Kirkby"),
]


def test_the_commonest_response_is_the_first_of_several():
  assert commonest_response([Demonstration("", text) for text in "abbca"]) == "a"
  with pytest.raises(ValueError, match="no demonstrations"):
    commonest_response([])


def test_the_look_up_goes_by_rare_words_and_then_by_order():
  found = nearest_responses(["Where does Ann live?", "where does Tom LIVE", "How much is 3 plus 4?"], KNOWN, 1)
  assert found == [["Stowe"], ["Ashby"], ["7"]]
  # "Ann" and "home" weigh more than the frequent words that other prompts share.
  assert nearest_responses(["Tell me the home of Ann."], KNOWN, 3)[0][0] == "Milton"
  assert nearest_responses(["nothing in common"], KNOWN, 2) == [["7", "Ashby"]]


def test_the_nearest_are_in_order_of_similarity():
  assert nearest_responses(["Where does Ann live?"], KNOWN)[0] == ["Stowe", "Kirkby", "Ashby", "Milton", "7"]
  assert nearest_responses([], KNOWN) == []
  with pytest.raises(ValueError, match="no demonstrations"):
    nearest_responses(["a"], [])


def test_prompts_of_several_chunks_keep_their_order():
  prompts = [demonstration.prompt for demonstration in KNOWN[:2]] * 200
  assert nearest_responses(prompts, KNOWN, 1) == [["7"], ["Ashby"]] * 200
