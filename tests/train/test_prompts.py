"""Prompts, and answers that people wrote to them, as stages load them."""

import pytest
from tiny_chain import a_stage

from rlhf_jax import data
from rlhf_jax.train import load_written


def test_written_answers_are_taken_in_turn(tmp_path):
  rows = [{"prompt": "a?", "response": text} for text in ("1", "2", "3")] + [{"prompt": "b?", "response": "4"}]
  data.write_rows(tmp_path / "answers.jsonl", rows)
  take = load_written("{run}/answers.jsonl", a_stage(tmp_path), 2)
  assert [take("a?") for _ in range(3)] == [["1", "2"], ["3", "1"], ["2", "3"]]
  for prompt, number in (("b?", 1), ("c?", 0)):
    with pytest.raises(data.DataError, match=f"has {number} answers to '{prompt[0]}[?]', and num_written=2 are wanted"):
      take(prompt)
