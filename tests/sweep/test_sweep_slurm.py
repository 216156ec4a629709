"""A sweep on a real cluster of SLURM: killed and preempted jobs, killed sweeps, no cell lost and none done twice."""

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from slurm import cluster, output, until

from rlhf_jax.sweep.cells import read_cells
from rlhf_jax.sweep.commands import write_commands
from rlhf_jax.sweep.units import plan_units

CELLS = """
  for size in range({count}):
    one = base(); one.second.size = size; one.second.seconds = {seconds}
    add(one)
"""


TWO = """
from rlhf_jax.settings import import_module

def sweep(add):
  for size in (1, 2):
    config = import_module({tiny!r}).get_config("pretrain")
    config.pretrain.num_steps = {num_steps}
    config.pretrain.optimizer.weight_decay = size / 100
    add(config, {{"nodes": size, "tasks_per_node": 1}}, size=size)
"""
NUM_STEPS = 400
NUM_CELLS, KILLS, PREEMPTIONS = 64, 10, 5


def attempts(path):
  """The attempts of a cell: id -> what its last line says."""
  found = {}
  for row in map(json.loads, path.read_text().splitlines()):
    found[row["attempt"]] = row
  return found


def ends(root, status):
  """How many attempts of each cell have ended so; None: without a word, as those that were killed."""
  return {
    path.parent.name: [row.get("status") for row in attempts(path).values()].count(status)
    for path in root.glob("cells/*/attempts.jsonl")
  }


def rows(root):
  return list(csv.DictReader((root / "table.csv").open()))


def test_commands_come_in_waves_and_what_is_done_is_left_out(write_sweep, tmp_path):
  root = tmp_path / "out"
  units = plan_units(read_cells(write_sweep(CELLS.format(count=2, seconds=0.0))), root)
  text = write_commands(units, root).read_text()
  lines = [line for line in text.splitlines() if line and not line.startswith("# A") and "rlhf_jax.sweep.work" in line]
  assert [line.split("/")[-2] for line in lines] == ["shared", "cells", "cells"]
  assert text.index("# wave 1") < text.index(lines[0]) < text.index("# wave 2") < text.index(lines[1])


@contextlib.contextmanager
def killed(process):
  """The process, which is killed at the end where it has not ended."""
  try:
    yield process
  finally:
    process.kill()
    process.wait()


@contextlib.contextmanager
def sweeping(count, path, root, *more):
  """`count` sweeps at once on one directory, by SLURM, with one job a core."""
  command = [sys.executable, "-m", "rlhf_jax.cli", "sweep", str(path), "--workdir", str(root), "--engine", "slurm"]
  command += ["--slurm", "cpus_per_task=1", "--slurm", "timeout_min=10", *more]
  environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
  with contextlib.ExitStack() as stack:
    yield [stack.enter_context(killed(subprocess.Popen(command, env=environment))) for _ in range(count)]


def preempt(nodes=2):
  """A job of the urgent partition on all nodes, which sends away what runs there; returns when it has ended."""
  subprocess.run(["srun", "-p", "urgent", f"-N{nodes}", "--exclusive", "sleep", "1"], check=True)


@pytest.mark.slow
def test_cells_survive_kills_and_preemptions(write_sweep, tmp_path):
  pytest.importorskip("submitit")
  root, dice = tmp_path / "out", random.Random(0)
  path = write_sweep(CELLS.format(count=NUM_CELLS, seconds=3.0))
  events = ["kill"] * KILLS + ["preempt"] * PREEMPTIONS
  dice.shuffle(events)
  with cluster(tmp_path / "slurm"), sweeping(2, path, root, "--retries", "20", "--workers", "8") as sweeps:
    for number, event in enumerate(events):
      until(lambda event=event: release() or strike(event, root, dice), "a cell is at work")
      if number == len(events) // 2:
        sweeps[0].kill()
    until(lambda: release() or sweeps[1].poll() is not None, "the sweep has ended", 900)
  assert sweeps[1].returncode == 0
  found = rows(root)
  assert len(found) == NUM_CELLS and {row["state"] for row in found} == {"done"}
  assert len(ends(root, "done")) == NUM_CELLS and max(ends(root, "done").values()) == 1
  assert sum(ends(root, None).values()) >= KILLS and sum(ends(root, "interrupted").values()) >= PREEMPTIONS


@pytest.mark.slow
def test_a_cell_of_two_tasks_is_preempted_and_goes_on(tiny, tmp_path):
  """Cells with resources of their own: a job of two nodes, which is one run, beside a job of one.

  First the job is preempted, then it gets SLURM's warning that its time is over. Each time it saves, and the steps
  before are not taken again.
  """
  pytest.importorskip("submitit")
  root = tmp_path / "out"
  (tmp_path / "sweep.py").write_text(TWO.format(tiny=str(tiny), num_steps=NUM_STEPS))
  with cluster(tmp_path / "slurm"), sweeping(1, tmp_path / "sweep.py", root) as (sweep,):
    until(lambda: (release(), steps(root, "size=2"))[1], "two tasks train", 300)
    preempt()
    reached = max(steps(root, "size=2"))
    until(lambda: release() or max(steps(root, "size=2")) > reached, "they go on", 300)
    (two,) = root.glob("cells/*size=2")
    subprocess.run(["scancel", "--signal=USR2", json.loads((two / "job.json").read_text())["job"]], check=True)
    until(lambda: release() or sweep.poll() is not None, "the sweep has ended", 300)
  assert sweep.returncode == 0
  assert steps(root, "size=2") == steps(root, "size=1") == list(range(1, NUM_STEPS + 1))
  (one,) = root.glob("cells/*size=1")
  environments = [json.loads((run / "environment.json").read_text()) for run in (one, two)]
  assert [found["num_processes"] for found in environments] == [1, 2]
  told = [json.loads(line) for line in (two / "attempts.jsonl").read_text().splitlines()]
  ends = [(row["status"], row["error"].partition(" of ")[0]) for row in told if "ended" in row]
  assert [status for status, _ in ends] == ["interrupted", "interrupted", "done"]
  assert all(error.startswith("stopped at step") for _, error in ends[:2])
  assert len({row["job"] for row in told if "begun" in row}) == 1


def steps(root, name):
  """The steps in the metrics of a cell's pretraining."""
  return [
    json.loads(line)["step"]
    for path in root.glob(f"cells/*{name}/pretrain/metrics.jsonl")
    for line in path.read_text().splitlines()
  ]


def strike(event, root, dice):
  """Kills an attempt at work, or preempts all of them; false where none is at work, or the one chosen ended before."""
  running = works(root)
  if not running:
    return False
  if event == "preempt":
    preempt()
    return True
  path, attempt, process = dice.choice(running)
  with contextlib.suppress(ProcessLookupError):  # it has just ended
    os.kill(process, signal.SIGKILL)
  until(lambda: not alive(process), "the process that was killed is gone")
  return "ended" not in attempts(path)[attempt]


def works(root):
  """(attempts.jsonl, attempt, process) of each attempt that has begun, has not ended, and whose process is alive."""
  return [
    (path, attempt, row["process"])
    for path in root.glob("cells/*/attempts.jsonl")
    for attempt, row in attempts(path).items()
    if "ended" not in row and alive(row["process"])
  ]


def alive(process):
  """Whether a process runs: one that has ended stays a zombie until its parent asks for its status."""
  with contextlib.suppress(OSError):
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
  return False


def release():
  """Lets jobs that were queued again start at once: SLURM waits two minutes."""
  for job in output("squeue", "-h", "-r", "-t", "PD", "-o", "%i").split():
    subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], capture_output=True)
