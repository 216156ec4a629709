"""A run as two tasks on two nodes of a real SLURM, which says all of it: nothing is told by flags."""

import filecmp
import os
import shutil
import subprocess
import time

import pytest
from slurm import cluster
from two_processes import ROOT, ended, start

STAGES = "--config.stages=('world','vocabulary','pretrain','sft','preferences')"
pytestmark = pytest.mark.slow


def srun(*arguments):
  environment = {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
  }
  python = shutil.which("python")
  return subprocess.Popen(
    ["srun", "-N", "2", "-n", "2", python, "-m", "rlhf_jax.cli", "run", *map(str, arguments)],
    cwd=ROOT,
    env={**os.environ, **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def test_srun_starts_one_run_that_equals_that_of_one_process(tiny, tmp_path):
  """A signal to the job stops both tasks, saved; the same command goes on."""
  arguments = ["--config", tiny, "--workdir", tmp_path / "two", STAGES]
  with cluster(tmp_path / "slurm"):
    first = srun(*arguments)
    metrics = tmp_path / "two" / "sft" / "metrics.jsonl"
    while not metrics.exists() or not metrics.stat().st_size:
      assert first.poll() is None, first.communicate()[0]
      time.sleep(0.1)
    subprocess.run(["scancel", "--signal=TERM", "--user=root"], check=True)
    ((status, text),) = ended([first])
    assert status and "the same command continues there" in text, text
    ((status, text),) = ended([srun(*arguments)])
    assert status == 0 and text.count("The report is") == 1, text
  command = ["-m", "rlhf_jax.cli", "run", "--config", tiny, "--workdir", tmp_path / "one", STAGES]
  ((status, text),) = ended([start(command, devices=2)])
  assert status == 0, text
  for file in ("sft/metrics.jsonl", "preferences/comparisons.jsonl"):
    assert filecmp.cmp(tmp_path / "one" / file, tmp_path / "two" / file, shallow=False), file
