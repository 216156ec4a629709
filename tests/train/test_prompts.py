"""Prompts, and answers that people wrote to them, as stages load them."""

import pytest
from tiny_chain import a_stage

from rlhf_jax import data
from rlhf_jax.data.sources import Source
from rlhf_jax.train import encode_prompts, load_prompts, load_written


def test_written_answers_are_taken_in_turn(tmp_path):
  rows = [{"prompt": "a?", "response": text} for text in ("1", "2", "3")] + [{"prompt": "b?", "response": "4"}]
  data.write_rows(tmp_path / "answers.jsonl", rows)
  take = load_written("{run}/answers.jsonl", a_stage(tmp_path), 2)
  assert [take("a?") for _ in range(3)] == [["1", "2"], ["3", "1"], ["2", "3"]]
  for prompt, number in (("b?", 1), ("c?", 0)):
    with pytest.raises(data.DataError, match=f"has {number} answers to '{prompt[0]}[?]', and num_written=2 are wanted"):
      take(prompt)


def test_prompts_keep_their_rows_with_all_columns(tmp_path):
  rows = [{"prompt": text, "answer": n} for n, text in enumerate(("a?", "b" * 200, "c?"))]
  data.write_rows(tmp_path / "prompts.jsonl", rows)
  tokenizer = data.train_tokenizer(["a? b? c?"], 300)
  found = load_prompts("{run}/prompts.jsonl", a_stage(tmp_path), tokenizer, 40)
  assert found.texts == ["a?", "c?"]  # the second is too long
  assert found.rows_of([1, 0, 1]) == [rows[2], rows[0], rows[2]] and found.first(1).rows == rows[:1]
  renamed = Source("{run}/prompts.jsonl", columns={"solution": "answer"})
  assert load_prompts(renamed, a_stage(tmp_path), tokenizer, 40).rows[1] == {"prompt": "c?", "solution": 2, "answer": 2}
  # Templates write a demonstration, which is the row of its prompt.
  written = Source("{run}/prompts.jsonl", templates=(("Say {prompt}", "{answer}"),))
  found = load_prompts(written, a_stage(tmp_path), tokenizer, 400)
  assert sorted(row["response"] for row in found.rows) == ["0", "1", "2"]
  assert all(row["prompt"] == text for row, text in zip(found.rows, found.texts, strict=True))
  assert encode_prompts(["a?"], tokenizer, 40, "the prompts").rows_of([0]) == []
