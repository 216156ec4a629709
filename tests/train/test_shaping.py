"""Rewards of a response's form, against cases worked out by hand and the papers' own cases."""

import doctest

import numpy as np
import pytest

from rlhf_jax.train import episodes, shaping
from rlhf_jax.train.reward_functions import check_function
from rlhf_jax.train.rewards import FunctionPart


def texts(num):
  return [""] * num, [""] * num


@pytest.mark.parametrize("module", [shaping, episodes])
def test_examples(module):
  found = doctest.testmod(module)
  assert found.attempted and not found.failed


def test_overlong_is_the_three_cases_of_equation_13():
  """DAPO's own numbers: a maximum of 20480 tokens, the last 4096 of them punished."""
  most, cache = 20480, 4096
  counts = np.array([1, 16384, 16385, 18432, 20479, 20480, 20481, 10**6])
  expected = [0, 0, -1 / 4096, -0.5, -4095 / 4096, -1, -1, -1]
  found = shaping.overlong(*texts(len(counts)), counts=counts, max_length=most, cache=cache)
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  assert found.dtype == np.float32
  for wrong in (0, 11):
    with pytest.raises(ValueError, match=f"cache={wrong} must be at least 1 and at most max_length=10"):
      shaping.overlong(*texts(1), counts=[1], max_length=10, cache=wrong)


def test_length_is_the_distance_to_the_target():
  assert shaping.length(*texts(3), counts=[0, 7, 12], target=10).tolist() == [-10, -3, -2]
  assert shaping.length(*texts(2), counts=[4, 0]).tolist() == [-4, 0]


def test_repetition_is_the_share_of_ngrams_that_came_before():
  """By a loop over the tokens; of "a a a a" three of four words, and one of the two trigrams, came before."""
  same = [[7, 7, 7, 7]]
  assert shaping.repetition(*texts(1), token_ids=same, size=1).tolist() == [-0.75]
  assert shaping.repetition(*texts(1), token_ids=same).tolist() == [-0.5]
  assert shaping.repetition(*texts(2), token_ids=[[], [1, 2]]).tolist() == [0, 0]
  ids = np.random.default_rng(0).integers(0, 4, 60).tolist()
  seen, again = [], 0
  for i in range(len(ids) - 2):
    again += ids[i : i + 3] in seen
    seen.append(ids[i : i + 3])
  assert 0 < again < len(seen)
  assert shaping.repetition(*texts(1), token_ids=[ids])[0] == pytest.approx(-again / len(seen))
  with pytest.raises(ValueError, match="size=0 must be at least 1"):
    shaping.repetition(*texts(1), token_ids=same, size=0)


@pytest.mark.parametrize(
  "name, arguments", [("overlong", dict(max_length=8, cache=2)), ("length", {}), ("repetition", dict(size=2))]
)
def test_a_config_can_name_them(name, arguments):
  check_function(FunctionPart(f"rlhf_jax.train.shaping:{name}", arguments))


def test_a_config_must_say_how_long_is_overlong():
  with pytest.raises(ValueError, match="shaping:overlong has the parameter 'max_length' without a value"):
    check_function(FunctionPart("rlhf_jax.train.shaping:overlong"))
