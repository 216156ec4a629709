"""The process of a function with a time limit: it leaves signals to the run, and does not outlive it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rlhf_jax.calls import SIGNALS, CallError, bind

OWN = """
import os, time

def signalled(number):
  os.kill(os.getpid(), number)
  return "alive"

def strange():
  return lambda: 0

def hangs(path):
  with open(path, "w") as file:
    file.write(str(os.getpid()))
  time.sleep(60)
"""
PARENT = "import sys; from rlhf_jax.calls import bind; bind(sys.argv[1], {}, 50.0)(sys.argv[2])"


@pytest.fixture
def own(tmp_path):
  (tmp_path / "own.py").write_text(OWN)
  return lambda name: f"{tmp_path}/own.py:{name}"


def test_signals_are_left_to_the_run(own):
  function = bind(own("signalled"), {}, 30.0)
  assert [function(number) for number in SIGNALS] == ["alive"] * 4
  with pytest.raises(CallError, match="ended its process with status -9"):
    function(signal.SIGKILL)
  assert function(signal.SIGTERM) == "alive"  # in a process that was started anew


def test_what_no_pipe_can_carry_is_named(own):
  function = bind(own("strange"), {}, 30.0)
  with pytest.raises(CallError, match="returned what cannot be sent to the run's process: .*Error"):
    function()


def test_the_process_does_not_outlive_the_run(own, tmp_path):
  parent = subprocess.Popen([sys.executable, "-c", PARENT, own("hangs"), tmp_path / "pid"])
  while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
    time.sleep(0.05)
  parent.kill()
  parent.wait()
  child = int((tmp_path / "pid").read_text())
  end = time.monotonic() + 30
  while os.path.exists(f"/proc/{child}") and "zombie" not in open(f"/proc/{child}/status").read():
    assert time.monotonic() < end
    time.sleep(0.05)
