"""One process at a time writes a run: who holds the lock, who is refused, and who takes it over."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from rlhf_jax.pipeline import owner
from rlhf_jax.pipeline.owner import FILE, RunIsOwned, own

HOLDER = "import sys, time\nfrom rlhf_jax.pipeline.owner import own\nwith own(sys.argv[1]):\n  time.sleep(60)\n"


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
  for name in owner._JOBS:
    monkeypatch.delenv(name, raising=False)


@pytest.fixture
def holder(tmp_path):
  """A process that holds the lock of tmp_path."""
  process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], env={**os.environ, "JAX_PLATFORMS": "cpu"})
  while not (tmp_path / FILE).exists():
    assert process.poll() is None
    time.sleep(0.05)
  yield process
  process.kill()
  process.wait()


def held(tmp_path, age=0.0, **changes):
  """The lock of a process that is not this one; a fresh heartbeat of another host unless `changes` say otherwise."""
  record = {"host": "elsewhere", "process": 7, "process_start": "1", "job": None, "since": "", "token": "other"}
  (tmp_path / FILE).write_text(json.dumps({**record, **changes}))
  os.utime(tmp_path / FILE, times=(time.time() - age,) * 2)


def mine(tmp_path):
  return json.loads((tmp_path / FILE).read_text())["process"] == os.getpid()


def test_the_lock_names_this_process_and_is_released(tmp_path):
  with own(tmp_path / "run"):
    record = json.loads((tmp_path / "run" / FILE).read_text())
    assert (record["host"], record["process"]) == (socket.gethostname(), os.getpid())
    assert record["process_start"] == owner._start(os.getpid()) and record["job"] is None
    with own(tmp_path / "run"):  # the same process again
      pass
    assert mine(tmp_path / "run")
  assert list((tmp_path / "run").iterdir()) == []
  with pytest.raises(KeyError), own(tmp_path / "run"):
    raise KeyError
  assert list((tmp_path / "run").iterdir()) == []


def test_a_second_process_is_refused_with_the_name_of_the_first_until_that_dies(tmp_path, holder):
  with pytest.raises(RunIsOwned) as refused, own(tmp_path):
    pass
  assert f"{tmp_path} is the run of process {holder.pid} on {socket.gethostname()}, whose last" in str(refused.value)
  assert "\n" not in str(refused.value)
  holder.send_signal(signal.SIGKILL)  # not waited for: a process that is dead but still listed does not count as alive
  time.sleep(0.2)
  with own(tmp_path):
    assert mine(tmp_path)
  assert not (tmp_path / FILE).exists()


def test_another_process_that_got_the_same_id_is_not_the_owner(tmp_path):
  held(tmp_path, host=socket.gethostname(), process=os.getppid(), process_start="1")
  with own(tmp_path):
    assert mine(tmp_path)
  held(tmp_path, host=socket.gethostname(), process=os.getppid(), process_start=owner._start(os.getppid()))
  with pytest.raises(RunIsOwned), own(tmp_path):
    pass


@pytest.mark.parametrize("age, free", [(0, False), (50, False), (70, True)])
def test_a_process_of_another_host_is_believed_for_a_minute(tmp_path, age, free):
  held(tmp_path, age)
  if free:
    with own(tmp_path):
      assert mine(tmp_path)
  else:
    with pytest.raises(RunIsOwned, match=rf"process 7 on elsewhere, whose last sign of life was {age} s ago"):
      own(tmp_path).__enter__()


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "PBS_JOBID"])
def test_the_same_job_takes_the_lock_over_at_once(tmp_path, monkeypatch, name):
  held(tmp_path, job=f"{name}=12")
  monkeypatch.setenv(name, "13")
  with pytest.raises(RunIsOwned, match=rf"process 7 on elsewhere \({name}=12\)"), own(tmp_path):
    pass
  monkeypatch.setenv(name, "12")
  with own(tmp_path):
    assert mine(tmp_path)


def test_a_lock_that_was_cut_is_believed_for_a_minute(tmp_path):
  (tmp_path / FILE).write_text('{"host')
  with pytest.raises(RunIsOwned, match="the run of a process that .* does not name"), own(tmp_path):
    pass
  os.utime(tmp_path / FILE, times=(time.time() - 70,) * 2)
  with own(tmp_path):
    assert mine(tmp_path)


KILLED = """import os, signal, sys, pathlib
from rlhf_jax.pipeline import owner
write = pathlib.Path.write_bytes
def half(path, content):
  write(path, content[:20])
  os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.write_bytes = half
owner._create(pathlib.Path(sys.argv[1]), b"x" * 200)
"""


def test_a_process_that_is_killed_while_it_writes_the_lock_leaves_none(tmp_path):
  ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path / FILE], env={**os.environ, "JAX_PLATFORMS": "cpu"})
  assert ended.returncode == -signal.SIGKILL
  assert not (tmp_path / FILE).exists()
  with own(tmp_path):
    assert mine(tmp_path)


def test_where_there_are_no_hard_links_the_lock_is_written_in_place(tmp_path, monkeypatch):
  def link(source, target):
    raise OSError(errno.EPERM, "Operation not permitted")

  monkeypatch.setattr(os, "link", link)
  with own(tmp_path):
    assert mine(tmp_path) and [path.name for path in tmp_path.iterdir()] == [FILE]
    with pytest.raises(FileExistsError):
      owner._create(tmp_path / FILE, b"another")
  held(tmp_path)
  with pytest.raises(RunIsOwned, match="process 7 on elsewhere"), own(tmp_path):
    pass


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path, monkeypatch):
  held(tmp_path, 70)
  monkeypatch.setattr(owner, "_SETTLE_SECONDS", 0.1)
  results = []

  def take():
    try:
      results.append(owner._acquire(tmp_path / FILE))
    except RunIsOwned as error:
      results.append(error)

  threads = [threading.Thread(target=take) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  got = [result for result in results if isinstance(result, bytes)]
  assert got == [(tmp_path / FILE).read_bytes()] and len(results) == 8
  assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_the_heartbeat_renews_the_lock_and_ends_a_process_that_lost_it(tmp_path, monkeypatch):
  monkeypatch.setattr(owner, "HEARTBEAT_SECONDS", 0.02)
  ended = threading.Event()
  monkeypatch.setattr(os, "_exit", lambda status: ended.set())
  with own(tmp_path):
    os.utime(tmp_path / FILE, times=(0, 0))
    time.sleep(0.2)
    assert time.time() - (tmp_path / FILE).stat().st_mtime < 5
    held(tmp_path)
    assert ended.wait(2)
  assert json.loads((tmp_path / FILE).read_text())["token"] == "other"  # what another process holds is left to it
