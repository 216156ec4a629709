"""The sandbox: what it lets through, and that whatever goes wrong inside scores 0 and is counted."""

import json
import logging
import socket

import pytest

from rlhf_jax.verify import run_sandboxed, sandboxed

CODE = """
import os, time
def length(prompt, response, answer): return len(response) / 10
def act(prompt, response, answer):
  if response == "hang":
    while True: pass
  if response == "sleep": time.sleep(60)
  if response == "grow": return len("x" * (1 << 32))
  if response == "leave": os._exit(0)
  if response == "raise": raise KeyError("lost")
  if response == "nan": return float("nan")
  if response == "text": return "1.0"
  if response == "write": open("big", "wb").write(b"x" * (1 << 26))
  if response == "secret": return float("SECRET" in os.environ)
  if response == "folder": return len(os.listdir("."))
  if response == "connect":
    import socket
    socket.create_connection(("127.0.0.1", int(answer)), timeout=1)
  return 1.0
"""


@pytest.fixture
def code(tmp_path):
  (tmp_path / "score.py").write_text(CODE)
  return f"{tmp_path}/score.py"


def test_scores_come_back_in_order(code):
  scores = sandboxed(["a"] * 3, ["x" * 5, "", "x" * 30], function=f"{code}:length")
  assert scores.tolist() == [0.5, 0.0, 3.0] and scores.dtype == "float32"


def test_what_fails_scores_zero_and_is_counted(code, monkeypatch, caplog):
  monkeypatch.setenv("SECRET", "1")
  wanted = {
    "hang": "timeout", "grow": "crash", "leave": "crash", "raise": "crash", "nan": "no number", "text": "no number",
    "write": "crash", "fine": "",
  }  # fmt: skip
  outcomes = run_sandboxed(f"{code}:act", [("p", response, None) for response in wanted], seconds=2, megabytes=512)
  assert {response: outcome.failure for response, outcome in zip(wanted, outcomes, strict=True)} == wanted
  assert [outcome.score for outcome in outcomes] == [0] * 7 + [1]
  assert outcomes[3].detail == "KeyError: 'lost'"
  with caplog.at_level(logging.WARNING):
    scores = sandboxed(["p"] * 4, ["raise", "raise", "secret", "folder"], function=f"{code}:act")
  assert scores.tolist() == [0, 0, 0, 0]
  assert "2 of 4 calls failed and score 0: 2 x crash (KeyError: 'lost')" in caplog.text


def test_a_sleeper_is_killed(code):
  (outcome,) = run_sandboxed(f"{code}:act", [("p", "sleep", None)], seconds=0.5, megabytes=512)
  assert (outcome.score, outcome.failure) == (0, "timeout")


def test_the_network_is_out_of_reach_where_the_kernel_allows(code):
  with socket.create_server(("127.0.0.1", 0)) as server:
    call = ("p", "connect", server.getsockname()[1])
    (reached,) = run_sandboxed(f"{code}:act", [call], seconds=2, megabytes=512)
  (quiet,) = run_sandboxed(f"{code}:act", [("p", "fine", None)], seconds=2, megabytes=512)
  if not quiet.offline:
    pytest.skip("this kernel gives no network namespace")
  assert reached.failure == "crash"


def test_programs_are_run_against_tests(tmp_path):
  path = tmp_path / "tests.jsonl"
  tests = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]
  path.write_text(json.dumps({"prompt": "Write add.", "answer": tests}) + "\n")
  responses = [
    "def add(a, b): return a + b",
    "Here:\n```python\ndef add(a, b):\n  return a + b\n```\nDone.",
    "def add(a, b): return 3",
    "raise SystemExit(0)",
    "this is no program",
  ]
  function = "rlhf_jax.verify.programs:passes_tests"
  scores = sandboxed(["Write add."] * 5, responses, function=function, answers=str(path))
  assert scores.tolist() == [1, 1, 0, 0, 0]


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(ValueError, match="no file .*nothing.py"):
    sandboxed(["a"], ["b"], function=f"{tmp_path}/nothing.py:score")
