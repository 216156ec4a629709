"""Questions, worked examples and the texts they become."""

import json

import pytest

from rlhf_jax import data
from rlhf_jax.data import DataError
from rlhf_jax.data.sources import read_records
from rlhf_jax.evaluation.questions import answer_ids, context_ids, draw_shots, question_formats


@pytest.fixture(scope="module")
def tokenizer():
  return data.train_tokenizer(["Is it red? It is red.", "Human Assistant"], 300)


def write(path, *rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def read_questions(path, *, with_choices):
  return read_records(path, question_formats(with_choices))[0]


def test_the_answer_is_an_index_or_a_text(tmp_path):
  rows = ({"prompt": "a", "choices": ["x", "y"], "answer": 1}, {"question": "b", "choices": ["x", "y"], "answer": "x"})
  path = write(tmp_path / "q.jsonl", *rows)
  assert [(q.prompt, q.answer, q.right) for q in read_questions(path, with_choices=True)] == [
    ("a", "y", 1), ("b", "x", 0),
  ]  # fmt: skip
  assert read_questions(path, with_choices=False)[0][1:4] == ((), "y", -1)
  path = write(tmp_path / "open.jsonl", {"prompt": "c", "answer": ["z", "zz"], "cluster": "k"})
  assert read_questions(path, with_choices=False) == [("c", (), "z", -1, "k")]


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"prompt": "a", "choices": ["x"], "answer": 0}, "two or more different"),
    ({"prompt": "a", "choices": ["x", "x"], "answer": 0}, "two or more different"),
    ({"prompt": "a", "choices": ["x", "y"], "answer": 2}, "one of the 2 choices"),
    ({"prompt": "a", "choices": "xy", "answer": 0}, "list of texts"),
    ({"prompt": "a", "choices": ["x", "y"]}, 'need "answer"'),
    ({"prompt": " ", "choices": ["x", "y"], "answer": 0}, 'need "answer"'),
  ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, row, message):
  good = {"prompt": "a", "choices": ["x", "y"], "answer": 0}
  with pytest.raises(DataError, match=f"q.jsonl:2: .*{message}"):
    read_questions(write(tmp_path / "q.jsonl", good, row), with_choices=True)


def test_shots_are_of_the_cluster_and_never_the_question(tmp_path):
  rows = [{"prompt": f"{c}{i}", "answer": "1", "cluster": c} for c in "ab" for i in range(4)]
  questions = read_questions(write(tmp_path / "q.jsonl", *rows), with_choices=False)
  shots = draw_shots(questions, questions, 3, seed=0)
  for question, chosen in zip(questions, shots, strict=True):
    others = {q.prompt for q in questions if q.cluster == question.cluster} - {question.prompt}
    assert {shot.prompt for shot in chosen} == others
  assert [chosen[:2] for chosen in shots] == draw_shots(questions, questions, 2, seed=0)
  assert draw_shots(questions[5:], questions, 3, seed=0) == shots[5:]
  assert draw_shots(questions, questions, 3, seed=1) != shots
  with pytest.raises(DataError, match="cluster 'a'; there are 3"):
    draw_shots(questions, questions, 4, seed=0)


def test_the_two_forms(tmp_path, tokenizer):
  rows = [{"prompt": "Is it red?", "answer": "No."}, {"prompt": "And now?", "answer": "Yes."}]
  first, second = read_questions(write(tmp_path / "q.jsonl", *rows), with_choices=False)
  text = context_ids(tokenizer, first, (second,), "text")
  assert text[0] == tokenizer.bos_id
  assert tokenizer.decode(text) == "And now? Yes.\n\nIs it red?"
  assert tokenizer.decode(answer_ids(tokenizer, first, (second,), "No.", "text")) == " No."
  turns = context_ids(tokenizer, first, (second,), "turns")
  texts = (("user", "And now?"), ("assistant", "Yes."), ("user", "Is it red?"))
  dialogue = tuple(data.Message(*text) for text in texts)
  assert tokenizer.decode(turns) == data.render_prompt(dialogue)
  assert turns == data.prompt_ids(tokenizer, dialogue)
  answer = answer_ids(tokenizer, first, (second,), "No.", "turns")
  assert tokenizer.decode(answer) == " No." and tokenizer.eos_id not in answer
  assert context_ids(tokenizer, first, (), "turns") == data.prompt_ids(tokenizer, "Is it red?")
