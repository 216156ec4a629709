"""The time of a simulated page: by hand, and in the records of simulated judgements."""

import numpy as np
import pytest

from rlhf_jax.evaluation.simulated_judgements import judge_item
from rlhf_jax.feedback.records import Response, make_item
from rlhf_jax.world import Labeller, Traits, answering_seconds, perceive, prompt_seconds


def test_answers_are_counted():
  send, answer = 1.1 + 0.2, 1.35 + 1.1 + 0.2
  assert answering_seconds(("ranks",), 2) == pytest.approx(send + answer)  # the better one, with its strength
  assert answering_seconds(("ranks",), 4) == pytest.approx(send + 4 * answer)
  assert answering_seconds(("ratings",), 1) == answering_seconds(("yes_no",), 1) == pytest.approx(send + answer)
  assert answering_seconds(("ranks", "ratings"), 4) == pytest.approx(send + 8 * answer)


def test_critiques_are_typed_and_prompts_read():
  send = 1.1 + 0.2
  assert answering_seconds((), 1, ("",)) == pytest.approx(send + 1.35)
  typed = 1.35 + 0.8 + 13 * 60 / 52  # thirteen words take a quarter of a minute
  assert answering_seconds((), 2, ("a " * 13, "")) == pytest.approx(send + typed + 1.35)
  assert prompt_seconds("one two " * 119) == pytest.approx(60)


def test_the_seconds_of_a_judgement_are_those_of_the_page():
  labeller = Labeller("x", "x", temperature=1.0, pace=2.0)
  texts = ("Tom lives in Ashby.", "Ashby.")
  page = Traits(np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.array([4.0, 1.0]), np.array([1.0, 1.0]))
  item = make_item("Where does Tom live?", [Response(text) for text in texts])
  said = judge_item(labeller, item, page, np.random.default_rng(0), ("ranks",), number=0, judged=0)
  rng = np.random.default_rng(0)
  look = perceive(labeller, page, rng, 0, rng.permutation(2))
  assert said.seconds == pytest.approx(look.seconds + 2 * (4 * 60 / 238 + 1.3 + 2.65), abs=0.051)
