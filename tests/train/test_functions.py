"""Functions that a config names: what they return is checked, and `{run}` is replaced wherever it stands."""

import ast
import os
import time
from pathlib import Path

import numpy as np
import pytest

import rlhf_jax
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import Function, RewardError, functions, make_critic, make_measure_function, make_score_function
from rlhf_jax.train.functions import RewardTimeout, called_in

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
  assert users == {"pipeline/references.py", "calls.py"}  # the former checks that there is such a function


@pytest.mark.parametrize(
  "returned, message",
  [
    ("[1.0, float('nan'), 2.0]", r"returned nan for row 1: prompt 'b', response 'y'"),
    ("[1.0, 2.0, float('-inf')]", r"returned -inf for row 2: prompt 'c', response 'z'"),
    ("[1.0, 2.0]", r"returned an array of shape \(2,\) for 3 prompts"),
    ("1.0", r"returned an array of shape \(\) for 3 prompts"),
    ("None", r"returned an array of shape \(\) for 3 prompts"),
    ("[[1.0], [2.0], [3.0]]", r"returned an array of shape \(3, 1\)"),
    ("[0.0, 1e39, 0.0]", r"returned 1e\+39 for row 1: prompt 'b', response 'y'"),
    ("[0.0, 1.0, None]", r"returned None for row 2: prompt 'c', response 'z'"),
    (
      "['1', '2', '3']",
      r"returned something that is no array of numbers, '1' for row 0: prompt 'a', response 'x': its",
    ),
    ("[1.0, dict(), 2.0]", r"returned something that is no array of numbers, {} for row 1: prompt 'b', response 'y'"),
    ("[[1.0], [2.0, 3.0], []]", r"returned something that is no array of numbers, \[1.0\] for row 0"),
  ],
)
def test_what_cannot_be_a_score_is_refused(stage, tmp_path, returned, message):
  prompts, responses = ["a", "b", "c"], ["x", "y", "z"]
  with pytest.raises(RewardError, match=f"^x: .*own.py:f {message}"):
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


FAILS = """
import json, os, sys, time

def parsed(prompts, responses):
  return [float(json.loads(response)) for response in responses]  # line 5: json raises in a file of its own

def leaves(prompts, responses):
  sys.exit(3)

def pair(prompts, responses):
  if len(prompts) > 1:
    raise KeyError("together")
  return [0.0]

def dies(prompts, responses):
  os._exit(7)

def hangs(prompts, responses):
  if prompts[0] == "hang":
    open(responses[0], "w").write(str(os.getpid()))
    time.sleep(60)
  return [len(response) for response in responses]

def calls(prompts, responses, seen=[]):
  seen.append(os.getpid())
  print("scored", flush=True)
  return {"total": seen[-2:]}

def critic(labeller, prompt, response, rng):
  return f"{labeller} {rng.random()}"
"""


@pytest.fixture
def fails(tmp_path):
  (tmp_path / "fails.py").write_text(FAILS)
  return lambda name, time_limit=0.0: Function(f"{tmp_path}/fails.py:{name}", time_limit=time_limit)


@pytest.mark.parametrize("time_limit", [0.0, 30.0])
def test_an_exception_is_one_error_that_names_row_and_line(stage, tmp_path, fails, time_limit):
  """In this process, and in one of its own."""
  score = make_score_function(fails("parsed", time_limit), stage)
  assert score(["a", "b"], ["1", "2.5"]).tolist() == [1.0, 2.5]
  with pytest.raises(RewardError) as error, called_in("step 7"):
    score(["a", "b", "c"], ["1", "x", "y"])
  trace = tmp_path / "x" / "traceback.txt"
  assert str(error.value) == (
    f"x, step 7: {tmp_path}/fails.py:parsed raised JSONDecodeError: Expecting value: line 1 column 1 (char 0) "
    f"({tmp_path}/fails.py:5) for row 1: prompt 'b', response 'x'; {trace} has the traceback"
  )
  assert "json/decoder.py" in trace.read_text() and trace.read_text().endswith("(char 0)\n")
  with pytest.raises(RewardError, match=r"fails.py:leaves called sys.exit: 3 \(.*fails.py:8\) for row 0: prompt 'a'"):
    make_score_function(fails("leaves", time_limit), stage)(["a"], ["x"])
  with pytest.raises(RewardError, match="raised KeyError: 'together' .*:12\\) for 2 rows together; "):
    make_score_function(fails("pair", time_limit), stage)(["a", "b"], ["x", "y"])


def test_the_search_for_the_row_is_bounded(stage, fails, monkeypatch):
  score = make_score_function(fails("parsed"), stage)
  monkeypatch.setattr(functions, "SEARCHED_ROWS", 3)
  with pytest.raises(RewardError, match="for row 2: prompt 'c'"):
    score(["a", "b", "c"], ["1", "1", "x"])
  with pytest.raises(RewardError, match="for 4 rows together"):
    score(["a", "b", "c", "d"], ["1", "1", "1", "x"])
  monkeypatch.setattr(functions, "SEARCH_SECONDS", -1.0)
  with pytest.raises(RewardError, match="for 2 rows together"):
    score(["a", "b"], ["1", "x"])


def test_a_module_that_cannot_be_imported_is_named(stage, tmp_path):
  (tmp_path / "broken.py").write_text("\nimport no_such_module_xyz\n")
  for time_limit in (0.0, 30.0):
    with pytest.raises(RewardError, match=r"broken.py:f raised ModuleNotFoundError: .*\(.*broken.py:2\)"):
      make_score_function(Function(f"{tmp_path}/broken.py:f", time_limit=time_limit), stage)([""], [""])


def test_a_call_beyond_its_limit_is_killed_and_the_function_can_be_called_again(stage, tmp_path, fails):
  score = make_score_function(fails("hangs", 1.0), stage)
  start = time.monotonic()
  with pytest.raises(
    RewardTimeout, match="x, part 2: .*fails.py:hangs took longer than its time limit of 1 s for 1 row"
  ):
    with called_in("part 2"):
      score(["hang"], [str(tmp_path / "pid")])
  assert time.monotonic() - start < 20
  with pytest.raises(ProcessLookupError):
    os.kill(int((tmp_path / "pid").read_text()), 0)
  assert score(["a"], ["four"]).tolist() == [4.0]


def test_a_function_with_a_limit_has_one_process(stage, fails, capfd):
  measure = make_measure_function(fails("calls", 30.0), stage)
  with pytest.raises(RewardError, match="shape"):  # one process id so far
    measure(["a", "b"], ["", ""])
  first, second = measure(["a", "b"], ["", ""])["total"].tolist()
  assert first == second != os.getpid()
  assert capfd.readouterr().out == "scored\n" * 2
  with pytest.raises(RewardError, match="fails.py:dies ended its process with status 7 for row 0: prompt 'a'"):
    make_score_function(fails("dies", 30.0), stage)(["a"], ["x"])


def test_a_critic_in_its_own_process_moves_the_generator_on(stage, fails):
  rngs = [np.random.default_rng(0), np.random.default_rng(0)]
  here, there = (make_critic(fails("critic", limit), stage) for limit in (0.0, 30.0))
  for _ in range(2):
    assert here("Ann", "a", "x", rngs[0]) == there("Ann", "a", "x", rngs[1])
