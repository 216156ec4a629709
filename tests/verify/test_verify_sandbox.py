"""The sandbox: what it lets through, and that whatever goes wrong inside scores 0 and is counted."""

import json
import logging
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf_jax.verify import run_sandboxed, sandbox, sandboxed

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
def run(program):
  names = {"result": 1.0}
  exec(program, names)
  return names["result"]
"""
CHILD = Path(sandbox.__file__).with_name("sandbox_child.py")


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


def outcome(code, program, seconds=2):
  return run_sandboxed(f"{code}:run", [(program,)], seconds=seconds, megabytes=512)[0]


@pytest.fixture
def without_namespaces(tmp_path, monkeypatch):
  """The sandbox as on a kernel that refuses namespaces."""
  lines = [
    "import importlib.util",
    f"spec = importlib.util.spec_from_file_location('child', {str(CHILD)!r})",
    "child = importlib.util.module_from_spec(spec)",
    "spec.loader.exec_module(child)",
    "child.enter_namespaces = lambda: False",
    "child.main()",
  ]
  (tmp_path / "refused.py").write_text("\n".join(lines))
  monkeypatch.setattr(sandbox, "_CHILD", tmp_path / "refused.py")


needs_filter = pytest.mark.skipif(
  sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
  reason="there is no filter of system calls",
)
# Each program, and the start of what becomes of it.
ATTACKS = {
  "import socket; socket.socket(socket.AF_INET)": "PermissionError",
  "import socket; socket.socket(socket.AF_UNIX)": "PermissionError",
  "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)": "PermissionError",
  "import os; os.fork()": "PermissionError",
  "import subprocess; subprocess.run(['true'])": "PermissionError",
  "import ctypes; result = float(ctypes.CDLL(None).unshare(0x10000000) == 0) or None": "returned None",
  "import ctypes; result = float(ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0) or None": "returned None",
}


@needs_filter
def test_the_filter_refuses_sockets_and_processes(code):
  for program, detail in ATTACKS.items():
    assert outcome(code, program).detail.startswith(detail), program
  assert outcome(code, "import asyncio; asyncio.run(asyncio.sleep(0))").score == 1  # its loop has a pair of sockets


@needs_filter
def test_without_namespaces_the_filter_refuses_signals_too(code, without_namespaces, caplog):
  with socket.create_server(("127.0.0.1", 0)) as server:
    connect = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=1)"
    for program in (*ATTACKS, connect, "import os; os.kill(os.getppid(), 9)", "import os; os.kill(-1, 9)"):
      assert outcome(code, program).score == 0, program
  assert "access to other processes and to files: this system has not all" in caplog.text
  assert "network" not in caplog.text


def test_the_network_is_out_of_reach_where_the_kernel_allows(code):
  with socket.create_server(("127.0.0.1", 0)) as server:
    call = ("p", "connect", server.getsockname()[1])
    (reached,) = run_sandboxed(f"{code}:act", [call], seconds=2, megabytes=512)
  (quiet,) = run_sandboxed(f"{code}:act", [("p", "fine", None)], seconds=2, megabytes=512)
  if not quiet.offline:
    pytest.skip("this kernel gives no network namespace")
  assert reached.failure == "crash"


def test_a_call_sees_and_changes_nothing_outside_where_the_kernel_allows(code, tmp_path):
  if not outcome(code, "pass").contained:
    pytest.skip("this kernel gives no namespaces")
  program = "import os; result = [sum(name.isdecimal() for name in os.listdir('/proc')), os.getpid()] == [1, 1]"
  assert outcome(code, program).score == 1
  assert outcome(code, "import os; os.kill(-1, 9)").detail.startswith("ProcessLookupError")
  assert outcome(code, f"open({str(tmp_path / 'new')!r}, 'w')").detail.startswith("OSError: [Errno 30]")
  assert outcome(code, f"import os; os.remove({code!r})").detail.startswith("OSError: [Errno 30]")
  assert outcome(code, "import ctypes; result = float(ctypes.CDLL(None).umount(b'/dev/shm') == 0) or None").score == 0
  assert outcome(code, "open('a', 'w').write('b'); open('/dev/null', 'w').write('c')").score == 1


FILL = "for n in range(100): open(str(n), 'wb').write(b'x' * (1 << 23))"


def test_all_files_together_are_bounded(code):
  if outcome(code, "pass").contained:
    assert outcome(code, FILL).detail.startswith("OSError: [Errno 28]")  # no space left


def test_without_namespaces_all_files_together_are_bounded(code, without_namespaces):
  full = outcome(code, f"{FILL}\nimport time; time.sleep(9)")
  assert (full.score, full.detail) == (0, "the files that it wrote are too many or too large")


@pytest.mark.parametrize(
  ("written", "failure"),
  [
    (b"[" * 60_000, "crash"),
    (b'{"value": ' + b"[" * 100 + b"]" * 100 + b', "error": ""}', "no number"),
    (b'{"value": ' + b"9" * 400 + b', "error": ""}', "no number"),
    (b'{"value": -' + b"9" * 3900 + b', "error": ""}', "no number"),
    (b'{"value": 1e39, "error": ""}', "no number"),
    (b'{"value": 1e999, "error": ""}', "no number"),
    (b'{"value": NaN, "error": ""}', "no number"),
    (b'{"value": true, "error": ""}', "no number"),
    (b'{"value": 1, "error": ["\\u001b[2J"]}', "crash"),
    (b"\xff\xfe", "crash"),
    (b"3", "crash"),
  ],
)
def test_whatever_a_call_writes_is_decoded_to_a_number_or_a_failure(code, written, failure):
  program = f"""
import os, stat
for pipe in range(3, 64):
  try:
    if stat.S_ISFIFO(os.fstat(pipe).st_mode): os.write(pipe, {written!r})
  except OSError: pass
os._exit(0)
"""
  found = outcome(code, program)
  assert (found.score, found.failure) == (0, failure)
  assert found.detail.isprintable() and len(found.detail) < 200


def test_values_that_float32_does_not_hold_score_zero(code, caplog):
  assert outcome(code, "result = 3e38").score == 3e38
  for value in ("1e39", "-1e39", "10 ** 400", "float('inf')"):
    assert outcome(code, f"result = {value}").score == 0


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_nothing_outlives_a_run_that_is_killed(code, tmp_path, refused, request):
  if refused:
    request.getfixturevalue("without_namespaces")
  program = "open('mark', 'w').write('x')\nimport time; time.sleep(60)"
  script = f"""
import pathlib, sys
from rlhf_jax.verify import run_sandboxed, sandbox
sandbox._CHILD = pathlib.Path({str(sandbox._CHILD)!r})
run_sandboxed({f"{code}:run"!r}, [({program!r},)] * 2, seconds=30, megabytes=512)
"""
  host = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)})
  try:
    wait_for(lambda: sum(len(children(keeper)) for keeper in children(host.pid)) == 2)
    inside = {child for keeper in children(host.pid) for child in (keeper, *children(keeper))}
    wait_for(lambda: not refused or len(list(tmp_path.glob("sandbox*/mark"))) == 2)
  finally:
    host.kill()
    host.wait()
  wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in inside))
  wait_for(lambda: not list(tmp_path.glob("sandbox*")))


def children(process):
  tasks = Path(f"/proc/{process}/task").glob("*/children")
  return [int(child) for task in tasks for child in task.read_text().split()]


def wait_for(condition):
  end = time.monotonic() + 20
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.05)


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
