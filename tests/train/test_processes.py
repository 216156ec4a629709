"""Processes of one job: what they tell each other, how they share rows and arrays, and how they end together."""

import os
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_processes import ended, start_job

from rlhf_jax.settings import ConfigError
from rlhf_jax.train import job, processes

ALONE = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri")
equal = np.testing.assert_array_equal


@pytest.fixture
def alone(monkeypatch):
  for variable in ALONE:
    monkeypatch.delenv(variable, raising=False)
  monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **times: pytest.fail("no other process is there"))


def test_a_process_that_is_alone_leads_itself(alone):
  job.start()
  assert processes.leader() and not processes.several() and processes.name() == ""
  assert processes.gather("x", 3) == [3] and processes.led("x", lambda: 4) == 4
  assert processes.together("x", lambda: 5) == 5 and processes.highest(15) == 15
  processes.barrier("x")
  assert processes.share(7) == slice(0, 7) and processes.shared_rows(lambda rows: [*range(7)][rows], 7) == [*range(7)]
  mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
  spread = jax.device_put(jnp.arange(16.0), jax.NamedSharding(mesh, jax.P("x")))
  equal(processes.host({"a": spread})["a"], np.arange(16.0))
  equal(processes.own_rows(spread), np.arange(16.0))


@pytest.mark.parametrize(
  "given, message",
  [
    (("", 2, 0), "needs --coordinator HOST:PORT, --process-count and --process-index"),
    (("localhost:1", None, 0), "needs --coordinator"),
    (("localhost:1", 2, None), "needs --coordinator"),
    (("", None, 1), "needs --coordinator"),
    (("localhost:1", 2, 2), "--process-index 2 must be at least 0 and below --process-count 2"),
    (("localhost", 2, 1), "--coordinator localhost must be HOST:PORT"),
  ],
)
def test_flags_that_do_not_make_a_job(alone, given, message):
  with pytest.raises(ConfigError, match=message):
    job.start(*given)


def test_a_variable_that_is_no_number_is_named(alone, monkeypatch):
  monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
  with pytest.raises(ConfigError, match="JAX_NUM_PROCESSES='two' is no whole number"):
    job.start()


def test_a_job_of_slurm_says_all_by_itself(alone, monkeypatch):
  told = []
  monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **times: told.append(given) or 1 / 0)
  task = {"SLURM_JOB_ID": "5", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
  for variable, value in {**task, "SLURM_NTASKS": "1", "SLURM_STEP_NUM_NODES": "1"}.items():
    monkeypatch.setenv(variable, value)
  job.start()  # one task is no job of several
  for tasks, nodes, devices in (("2", "2", None), ("4", "2", [0])):
    monkeypatch.setenv("SLURM_NTASKS", tasks)
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", nodes)
    with pytest.raises(ZeroDivisionError):
      job.start()
    address, count, index, own = told.pop()
    assert address.startswith("n1:") and (count, index, own) == (int(tasks), 1, devices)


def test_two_processes(tmp_path):
  """`assertions` below hold in each of them; a checkpoint of theirs is read here by one, one of this process there."""
  from checkpoint_jobs import read_state, write_state

  write_state(tmp_path / "one", data=2, fsdp=2, tensor=2)
  for status, text in ended(start_job([__file__, tmp_path], devices=4)):
    assert status == 0, text
  for sizes in ({"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 8}, {"data": 8}):
    read_state(tmp_path / "two", **sizes)


def test_an_error_of_one_process_ends_the_other_by_its_name(tmp_path):
  (_, _), (status, text) = (first, second) = ended(start_job([__file__, tmp_path, "fail"]))
  assert first[0] == 3 and status == 2
  assert "process 1 of 2 ends, because process 0 of 2 on" in text and "failed: the disk is on fire" in text


@pytest.mark.parametrize("victim", [0, 1])
def test_the_end_of_a_process_that_is_killed_is_noticed_at_once(victim):
  """Also outside of calls that wait for it; where it led the job, JAX would abort the others first."""
  started = start_job([__file__, "", "kill", victim], count=3)
  started[victim].wait()
  begun = time.monotonic()
  found = ended(started)
  assert time.monotonic() - begun < 30, "JAX itself notices it then"
  for number, (status, text) in enumerate(found):
    if number == victim:
      assert status == -signal.SIGKILL
    else:
      assert status == 2, text
      assert f"process {number} of 3 ends, because process {victim} of 3 has ended, and told nothing" in text
      assert "the same command goes on from what is saved" in text


def assertions(directory: Path) -> None:
  """The assertions of each of two processes with four devices."""
  from checkpoint_jobs import read_state, write_state

  me = processes.index()
  assert processes.several() and processes.name() == f"process {me} of 2" and processes.leader() == (me == 0)
  for number in range(3):
    assert processes.gather("values", [me, number]) == [[0, number], [1, number]]
  assert processes.led("choice", lambda: f"of {me}") == "of 0"
  for act in (processes.led, processes.together):
    with pytest.raises(FileNotFoundError, match="gone"):
      act("fails", lambda: fail(FileNotFoundError("it is gone")))
  with pytest.raises(ValueError, match="only here"):
    processes.together("fails in one", lambda: me and fail(ValueError("only here")))
  assert processes.highest(15 * me) == 15

  assert processes.shared_rows(lambda rows: [(me, row) for row in range(5)[rows]], 5) == [
    (0, 0), (0, 1), (1, 2), (1, 3), (1, 4)
  ]  # fmt: skip
  assert processes.shared_rows(lambda rows: ["text"], 1) == ["text"]
  with pytest.raises(ValueError, match="row 1"):
    processes.shared_rows(lambda rows: fail(ValueError(f"row {rows.start}")) if me else [0], 2)

  mesh = jax.make_mesh((4, 2), ("rows", "other"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  array = np.arange(48).reshape(16, 3)
  own = array[8 * me : 8 * me + 8]
  for spec in (jax.P("rows"), jax.P(), jax.P(None), jax.P(("rows", "other"))):
    spread = jax.make_array_from_callback(array.shape, jax.NamedSharding(mesh, spec), lambda index: array[index])
    equal(processes.host({"a": spread})["a"], array)
    equal(processes.own_rows(spread), own)
  turned = jax.make_mesh((2, 4), ("other", "rows"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  place = jax.NamedSharding(turned, jax.P("rows"))  # every process has all rows
  equal(processes.own_rows(jax.make_array_from_callback(array.shape, place, lambda index: array[index])), own)
  equal(processes.own_rows(array), own)

  read_state(directory / "one", data=2, fsdp=2, tensor=2)
  read_state(directory / "one", fsdp=8)
  write_state(directory / "two", fsdp=2, data=4)
  read_state(directory / "two", tensor=2)


def fail(error):
  raise error


def main(directory, mode="", victim=""):
  job.start()
  if not mode:
    assertions(Path(directory))
  elif mode == "kill":
    processes.barrier("all are here")
    if processes.index() == int(victim):
      os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
  elif processes.leader():
    job.end(OSError("the disk is on fire"), 3)
  else:
    processes.gather("never", None)


if __name__ == "__main__":
  main(*sys.argv[1:])
