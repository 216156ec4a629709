"""Functions that a config names: what they return is checked, and `{run}` is replaced wherever it stands."""

import ast
from pathlib import Path

import numpy as np
import pytest

import rlhf_jax
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import Function, RewardError, make_critic, make_measure_function, make_score_function

PACKAGE = Path(rlhf_jax.__file__).parent


@pytest.fixture
def stage(tmp_path):
  return Stage("x", tmp_path, 0, "", Model(1, 8, 1, 1, 8, 8), Transport("jit", 1, 1))


def write(directory, body, signature="prompts, responses"):
  (directory / "own.py").write_text(f"def f({signature}):\n  return {body}\n")
  return f"{directory}/own.py:f"


def test_only_one_module_calls_functions_of_a_config():
  """A stage that imports a function by itself forgets to replace `{run}` or to check what comes back."""
  users = set()
  for path in PACKAGE.rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
      if "import_function" in names or getattr(node, "attr", "") == "import_function":
        users.add(path.relative_to(PACKAGE).as_posix())
  assert users == {"pipeline/references.py", "train/functions.py"}  # the former checks that there is such a function


@pytest.mark.parametrize(
  "returned, message",
  [
    ("[1.0, float('nan'), 2.0]", r"returned nan for row 1: prompt 'b', response 'y'"),
    ("[1.0, 2.0, float('-inf')]", r"returned -inf for row 2: prompt 'c', response 'z'"),
    ("[1.0, 2.0]", r"returned an array of shape \(2,\) for 3 prompts"),
    ("1.0", r"returned an array of shape \(\) for 3 prompts"),
    ("None", r"returned an array of shape \(\) for 3 prompts"),
    ("[[1.0], [2.0], [3.0]]", r"returned an array of shape \(3, 1\)"),
    ("['good', 'bad', 'bad']", r"returned something that is no array of numbers: could not convert"),
    ("[[1.0], [2.0, 3.0], []]", r"returned something that is no array of numbers"),
  ],
)
def test_what_cannot_be_a_score_is_refused(stage, tmp_path, returned, message):
  prompts, responses = ["a", "b", "c"], ["x", "y", "z"]
  with pytest.raises(RewardError, match=f"own.py:f {message}"):
    make_score_function(Function(write(tmp_path, returned)), stage)(prompts, responses)
  measures = write(tmp_path, f"dict(total=[0.0, 1.0, 2.0], honest={returned})")
  with pytest.raises(RewardError, match=f"own.py:f, entry 'honest', {message}"):
    make_measure_function(Function(measures), stage)(prompts, responses)


def test_measures_need_a_total(stage, tmp_path):
  found = make_measure_function(Function(write(tmp_path, "dict(total=[3, 4], extra=(0.5, 1))")), stage)(
    ["", ""], [""] * 2
  )
  assert {name: x.tolist() for name, x in found.items()} == {"total": [3.0, 4.0], "extra": [0.5, 1.0]}
  assert all(x.dtype == np.float32 for x in found.values())
  for returned, message in (("[1.0]", "not list"), ("dict(gold=[1.0])", "not one with gold")):
    with pytest.raises(
      RewardError, match=f"own.py:f must return a mapping from names to scores with 'total', {message}"
    ):
      make_measure_function(Function(write(tmp_path, returned)), stage)([""], [""])


def test_a_critic_says_a_text(stage, tmp_path):
  critic = make_critic(Function(write(tmp_path, "response and None", "labeller, prompt, response, rng")), stage)
  assert critic(None, "a", "", None) == ""
  with pytest.raises(RewardError, match="own.py:f returned None for prompt 'a', response 'x': it must return a text"):
    critic(None, "a", "x", None)


def test_the_run_directory_stands_in_every_text_of_the_arguments(stage, tmp_path):
  expected = f"['{tmp_path}/a', ('{tmp_path}/b', 3)], dict(x='{tmp_path}/c', y=None), 'd'"
  body = f"[float((paths, table, plain) == ({expected}))]"
  name = write(tmp_path, body, "prompts, responses, paths, table, plain")
  arguments = dict(paths=["{run}/a", ("{run}/b", 3)], table=dict(x="{run}/c", y=None), plain="d")
  assert make_score_function(Function(name, arguments), stage)(["p"], ["r"]).tolist() == [1.0]
