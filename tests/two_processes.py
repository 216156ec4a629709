"""Jobs of two processes on this machine, for tests: each runs a script of its own, or `rlhf-jax run`."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def free_port():
  with socket.socket() as bound:
    bound.bind(("127.0.0.1", 0))
    return bound.getsockname()[1]


def start(arguments, devices=1, **environment):
  """A Python process with so many simulated devices; what it prints comes by `communicate`, errors included."""
  flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
  flags |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # to optimise a program takes longer than to run it
  paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
  return subprocess.Popen(
    [sys.executable, *map(str, arguments)],
    env={**os.environ, **flags, **paths, **environment},
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def start_job(arguments, devices=1, count=2, **environment):
  """The processes of a job, told by the environment."""
  address = f"127.0.0.1:{free_port()}"
  return [
    start(
      arguments,
      devices,
      JAX_COORDINATOR_ADDRESS=address,
      JAX_NUM_PROCESSES=str(count),
      JAX_PROCESS_ID=str(index),
      **environment,
    )
    for index in range(count)
  ]


def run_by_one(config, workdir, *overrides, devices=2, **environment):
  """`rlhf-jax run` in one process, as a list of one."""
  return [start([*_command(config, workdir), *overrides], devices, **environment)]


def run_by_two(config, workdir, *overrides, **environment):
  """The two processes of `rlhf-jax run`, told by flags, with a device each."""
  flags = ["--coordinator", f"127.0.0.1:{free_port()}", "--process-count", "2", "--process-index"]
  return [start([*_command(config, workdir), *overrides, *flags, index], **environment) for index in range(2)]


def _command(config, workdir):
  return ["-m", "rlhf_jax.cli", "run", "--config", config, "--workdir", workdir]


def finish(processes):
  """What the first of processes that must all end well has printed."""
  found = ended(processes)
  for status, text in found:
    assert status == 0, text
  return found[0][1]


def ended(processes, timeout=1800):
  """[(status, what it printed)] of processes that end within so many seconds."""
  try:
    return [(process.communicate(timeout=timeout)[0], process.returncode)[::-1] for process in processes]
  finally:
    for process in processes:
      process.kill()
