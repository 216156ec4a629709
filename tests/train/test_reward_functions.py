"""Functions of the reward: what they ask for by name, and what they return."""

import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from two_processes import ended, start_job

from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import Function, RewardError, job, processes
from rlhf_jax.train.reward_functions import Responses, check_function, make_reward_function
from rlhf_jax.types import Rollout

PAD = 0
MASK = np.array([[0, 1, 1, 0, 0], [0, 0, 1, 1, 1]], bool)  # a response of two tokens and one of three
TOKENS = np.array([[5, 6, 1, 0, 0], [5, 7, 6, 8, 9]], np.int32)
ROWS = ({"prompt": "a", "answer": 1}, {"prompt": "b", "answer": 2})
RESPONSES = Responses(
  Rollout(TOKENS, MASK, np.zeros(MASK.shape, np.float32), np.array([True, False])), ["a", "b"], ["x", "y"], ROWS, 7
)


@pytest.fixture
def stage(tmp_path):
  return Stage("rl", tmp_path, 0, "", Model(1, 8, 1, 1, 8, 8), Transport("jit", 1, 1))


@pytest.fixture
def scored(tmp_path, stage):
  """`scored(body, signature)`: what a function of that source gives for the responses."""

  def call(body, signature="prompts, responses", responses=RESPONSES, time_limit=0.0, **arguments):
    (tmp_path / "own.py").write_text(f"import os\nimport numpy as np\ndef f({signature}):\n  return {body}\n")
    return make_reward_function(Function(f"{tmp_path}/own.py:f", arguments, time_limit), stage)(responses)

  return call


EVERYTHING = (
  "[len(ids) + 10 * count + 100 * end + 1000 * row['answer'] + 1e4 * step "
  "for ids, count, end, row in zip(token_ids, counts, finished, rows)] if token_ids == [[6, 1], [6, 8, 9]] else None"
)


@pytest.mark.parametrize("time_limit", [0.0, 30.0])
def test_a_function_gets_what_its_parameters_name(scored, time_limit):
  """In this process, and in one of its own."""
  asked = "prompts, responses, token_ids, *, counts, finished, rows, step"
  assert scored(EVERYTHING, asked, time_limit=time_limit).total.tolist() == [71122, 72033]
  apart = scored("[os.getpid(), step]", "prompts, responses, step", time_limit=time_limit).total
  assert (apart[0] == os.getpid()) == (time_limit == 0) and apart[1] == 7


def test_arguments_of_the_config_keep_their_values_and_the_rest_is_not_given(scored):
  assert scored("[step, step]", "prompts, responses, step", step=3).total.tolist() == [3, 3]
  assert scored("[a, b]", "prompts, responses, a, b=2", a=1).total.tolist() == [1, 2]
  # The first two parameters are the texts whatever their names; what takes any names asks for none.
  assert scored("[len(more)] * len(counts)", "rows, counts, **more").total.tolist() == [0, 0]
  assert scored("[len(texts) + step, 0]", "*texts, step").total.tolist() == [9, 0]


def test_rows_of_prompts_of_no_file_have_the_prompt(scored):
  alone = Responses(RESPONSES.rollout, ["a", "b"], ["x", "y"])
  assert scored("[row == {'prompt': p} for row, p in zip(rows, p)]", "p, r, rows", alone).total.tolist() == [1, 1]


@pytest.mark.parametrize(
  "signature, arguments, message",
  [
    (
      "prompts, responses, answers",
      {},
      "has the parameter 'answers' without a value: give one in its arguments; what a",
    ),
    (
      "prompts, responses, *, pattern, counts",
      {},
      ".*'pattern' without a value.* is token_ids, counts, finished, rows, ",
    ),
    ("prompts, responses, count", {}, ".*'count' without a value"),
    ("prompts", {}, "must take prompts and responses as its first two parameters"),
    ("prompts, responses, pattern=''", {"patern": "a"}, "has no parameter 'patern'. Did you mean 'pattern'?"),
    ("prompts, responses", {"step": 1}, "has no parameter 'step'"),
  ],
)
def test_what_cannot_be_given_is_refused_before_the_first_call(scored, tmp_path, signature, arguments, message):
  with pytest.raises(RewardError, match=f"^rl: .*own.py:f {message}"):
    scored("0 / 0", signature, **arguments)
  with pytest.raises(ValueError, match=f"own.py:f {message}"):
    check_function(Function(f"{tmp_path}/own.py:f", arguments))


def test_numbers_of_responses_of_tokens_and_of_named_parts(scored):
  found = scored("[1, 2.5]")
  assert found.total.tolist() == [1, 2.5] and found.tokens is None and not found.named
  found = scored("[[1, 2], (0.5, 0, -1)]")
  assert found.total.tolist() == [3, -0.5]
  np.testing.assert_array_equal(found.tokens, [[0, 1, 2, 0, 0], [0, 0, 0.5, 0, -1]])
  padded = scored("np.array([[1, 2, 0, 0], [0.5, 0, -1, 0]])")
  np.testing.assert_array_equal(padded.tokens, found.tokens)
  # Parts are summed, those of responses and those of tokens alike; of the latter the sum is logged.
  found = scored("dict(style=[1, 2], steps=[[1, 2], [3, 4, 5]])")
  assert found.total.tolist() == [4, 14] and found.tokens.sum(axis=1).tolist() == [3, 12]
  assert {name: values.tolist() for name, values in found.named.items()} == {"style": [1, 2], "steps": [3, 12]}
  found = scored("dict(style=[1, 2], total=[0.5, 0], steps=[[1, 2], [3, 4, 5]])")
  assert found.total.tolist() == [0.5, 0] and found.tokens is None and [*found.named] == ["style", "steps"]


@pytest.mark.parametrize(
  "returned, message",
  [
    (
      "[[1.0], [1, 2, 3]]",
      "returned 1 rewards for the 2 tokens of a response, one each is needed, for row 0: prompt 'a'",
    ),
    ("[[1, 2], 3.0]", "returned 3.0 for the 3 tokens of a response, one each is needed, for row 1: prompt 'b'"),
    ("[[1, 2], [1, float('nan'), 3]]", "returned nan for token 1 for row 1: prompt 'b', response 'y'"),
    ("[['1', '2'], [1, 2, 3]]", r"returned \['1', '2'\], which is no list of numbers .*, for row 0"),
    ("np.ones((2, 2))", r"returned an array of shape \(2, 2\), which ends before the response for row 1"),
    ("np.ones((2, 4))", "returned rewards behind the end of the response for row 0"),
    ("dict(style=[1.0, float('inf')])", ", entry 'style', returned inf for row 1: prompt 'b', response 'y'"),
    ("dict(style=[1.0, 1.0], steps=[[1], [1, 2, 3]])", ", entry 'steps', returned 1 rewards for the 2 tokens .* row 0"),
    ("dict(style=[1.0])", r", entry 'style', returned an array of shape \(1,\) for 2 prompts"),
    ("{}", "returned parts of the names"),
    ("{'gold': [1, 2]}", "returned parts of the names \\['gold'\\]: each needs a name, none of model, function, gold"),
    ("None", r"returned an array of shape \(\) for 2 prompts"),
  ],
)
def test_what_cannot_be_a_reward_is_refused_with_row_and_part(scored, returned, message):
  with pytest.raises(RewardError, match=f"^rl: .*own.py:f ?{message}"):
    scored(returned)


def test_the_row_that_fails_is_named_with_what_it_was_given(scored):
  with pytest.raises(RewardError, match="own.py:f raised ZeroDivisionError: .* for row 1: prompt 'b', response 'y'"):
    scored("[1 / (count - 3) for count in counts]", "prompts, responses, counts")


def test_arrays_of_jax_are_read(scored):
  rollout = jax.tree.map(jax.numpy.asarray, RESPONSES.rollout)
  on_device = Responses(rollout, RESPONSES.prompts, RESPONSES.texts)
  assert scored("counts", "prompts, responses, counts", on_device).total.tolist() == [2, 3]


def test_each_of_two_processes_calls_the_function_with_its_own_rows(tmp_path):
  """And both get all scores, those of tokens included."""
  (tmp_path / "own.py").write_text(
    "def f(prompts, responses, token_ids, rows, counts):\n"
    "  return {'steps': token_ids, 'together': [10 * len(prompts)] * len(rows)}\n"
  )
  for status, text in ended(start_job([__file__, tmp_path])):
    assert status == 0, text


def in_each_process(directory: Path) -> None:
  """Three responses, which the processes share."""
  rows = np.array([0, 1, 0])
  rollout = jax.tree.map(lambda x: x[rows], RESPONSES.rollout)
  asked = Responses(rollout, ["a", "b", "c"], ["x", "y", "z"], [ROWS[row] for row in rows])
  stage = Stage("rl", directory, 0, "", Model(1, 8, 1, 1, 8, 8), Transport("jit", 1, 1))
  found = make_reward_function(Function(f"{directory}/own.py:f"), stage)(asked)
  sizes = processes.gather("sizes", len(range(3)[processes.share(3)]))
  assert sorted(sizes) == [1, 2]
  together = [10.0 * size for size in sizes for _ in range(size)]
  assert found.named["together"].tolist() == together
  np.testing.assert_array_equal(found.tokens, np.where(rollout.mask, rollout.tokens, 0))
  np.testing.assert_array_equal(found.total, found.tokens.sum(axis=1) + together)


if __name__ == "__main__":
  job.start()
  in_each_process(Path(sys.argv[1]))
