"""Sentiment by the library vaderSentiment, on texts whose order everybody knows."""

import pytest

pytest.importorskip("vaderSentiment", reason="needs the extra sentiment")

from rlhf_jax.verify.sentiment import vader  # noqa: E402


def test_kinder_texts_score_higher():
  responses = ["is a wonderful, moving film.", "is a film.", "is an awful, boring film."]
  scores = vader(["This"] * 3, responses)["total"]
  assert scores[0] > 0.5 > scores[1] == 0 > -0.5 > scores[2]


def test_prompt_and_response_are_one_text():
  (score,) = vader(["This is not a"], ["good film."])["total"]
  assert score < 0  # the negation stands in the prompt


def test_a_dialogue_is_read_as_its_text():
  (score,) = vader([[{"role": "user", "content": "A wonderful film?"}]], ["Yes."])["total"]
  assert score > 0
