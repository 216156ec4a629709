"""Verifiable rewards against reference answers, on hand-made responses."""

import json
from decimal import Decimal

import pytest

from rlhf_jax.data import DataError
from rlhf_jax.verify import exact_match, number, number_in, read_answers, regular_expression


@pytest.fixture
def answers(tmp_path):
  rows = [
    {"question": "How many?", "answer": "She has 9 + 9 = 18.\n#### 1,018"},
    {"prompt": "Which?", "choices": ["a dog", "a cat"], "answer": 1},
    {"prompt": "Capital?", "answer": ["Paris", "The capital is Paris."]},
    {"prompt": "Seven?", "answer": 7},
  ]
  path = tmp_path / "answers.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def test_exact_match_takes_white_space_lightly_and_any_accepted_answer(answers):
  prompts = ["Which?", "Which?", "Capital?", " Capital? ", "Capital?", "Seven?"]
  responses = [" a  cat\n", "a dog", "The capital is Paris.", "Paris", "paris", "7"]
  scores = exact_match(prompts, responses, answers=answers)
  assert scores.tolist() == [1, 0, 1, 1, 0, 1] and scores.dtype == "float32"


@pytest.mark.parametrize(
  ("text", "marker", "value"),
  [
    ("#### 18", "####", "18"),
    ("16 eggs\n#### $1,234.50 a day", "####", "1234.5"),
    ("####-3", "####", "-3"),
    ("no mark 18", "####", None),
    ("18 ####", "####", None),
    ("#### 5 or #### 6", "####", "5"),
    ("3 and 5 or 4", "", "4"),
    ("it is -4.", "", "-4"),
    ("1, 2", "", "2"),
    ("", "", None),
  ],
)
def test_number_in(text, marker, value):
  assert number_in(text, marker) == (None if value is None else Decimal(value))


def test_number_compares_values(answers):
  prompts = ["How many?"] * 4 + ["Seven?"]
  responses = ["So #### 1018.0", "1018", "#### 1,018", "#### 18", "#### 7.00"]
  assert number(prompts, responses, answers=answers).tolist() == [1, 0, 1, 0, 1]
  assert number(prompts, responses, answers=answers, marker="").tolist() == [1, 1, 1, 0, 1]
  with pytest.raises(DataError, match="'Which.' has no number"):
    number(["Which?"], ["1"], answers=answers)


def test_regular_expression(answers):
  prompts, responses = ["Seven?", "Seven?", "Seven?"], ["The answer is 7.", "The answer is 8.", "7"]
  assert regular_expression(prompts, responses, pattern=r"answer is (\d+)", answers=answers).tolist() == [1, 0, 0]
  assert regular_expression(prompts, responses, pattern=r"\d+", answers=answers).tolist() == [1, 0, 1]
  assert regular_expression(prompts, responses, pattern="^The").tolist() == [1, 1, 0]
  with pytest.raises(ValueError, match="not a regular expression"):
    regular_expression(prompts, responses, pattern="(")


def test_a_prompt_without_answer_and_two_answers_are_named(answers, tmp_path):
  with pytest.raises(DataError, match=r"answers.jsonl: has no answer to 1 of 2 prompts, such as 'Who\?'"):
    exact_match(["Seven?", "Who?"], ["7", "me"], answers=answers)
  path = tmp_path / "twice.jsonl"
  path.write_text('{"prompt": "a", "answer": "1"}\n{"prompt": "a", "answer": "2"}\n')
  with pytest.raises(DataError, match=r"twice.jsonl:2: a second answer to 'a': '2' after '1'"):
    read_answers(str(path))
  path.write_text('{"prompt": "a", "answers": "1"}\n')
  with pytest.raises(DataError, match=r"twice.jsonl:1: found columns \{prompt, answers\}"):
    read_answers(str(path))


def test_reference_answers_come_from_a_source_too(tmp_path):
  rows = [{"problem": "How many?", "final": {"text": "18"}}]
  (tmp_path / "part-1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  source = dict(path=f"{tmp_path}/part-*.jsonl", columns=dict(question="problem", answer="final.text"))
  assert number(["How many?"], ["It is 18."], answers=source, marker="").tolist() == [1]
  (tmp_path / "part-2.jsonl").write_text('{"problem": "Who?", "final": {"text": "7"}}\n')
  assert number(["Who?"], ["8"], answers=source, marker="").tolist() == [0]
  with pytest.raises(DataError, match=r"part-\*\.jsonl: has no answer to 1 of 1 prompts"):
    number(["Where?"], ["8"], answers=source)
