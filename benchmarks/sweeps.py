"""A sweep beside a shell loop: cells an hour, the overhead of a cell, first steps with and without kept programs.

  python benchmarks/sweeps.py --out benchmarks/results/sweeps.json

Parts: `first_step`, the quickstart with fewer steps, twice with one compilation cache, which is empty at first: seconds
of the first step of each stage that learns, and of the whole of each stage, from the runs' own records. `cells`, PPO of
the quickstart with fewer steps and as many values of the KL penalty as there are cells: `rlhf-jax sweep --engine local`
with two processes, and a loop of `rlhf-jax run` over copies of a directory with the earlier stages, in turn. Two cells
come before, which make those stages and fill the cache. The overhead of a cell is the time from the start of its
process until its first step is in speed.jsonl. `cpu_seconds` are of all processes, and depend less on what else the
machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import machine

WARM = 2  # cells before those that are measured
STAGES = ("pretrain", "sft", "preferences", "reward_model", "ppo", "evaluation")
SWEEP = """
import os

from rlhf_jax.configs import quickstart


def get_config(arg=""):
  config = quickstart.get_config(arg)
  config.world.update(num_documents=3000, num_demonstrations=1000, num_prompts=600, num_eval_prompts=96)
  config.pretrain.num_steps = 100
  config.sft.num_epochs = 1
  config.preferences.num_prompts = 200
  config.reward_model.num_epochs = 1
  config.ppo.num_steps = {steps}
  config.evaluation.update(num_prompts=96, num_contrasts=40)
  return config


def sweep(add):
  for number in range(int(os.environ["CELLS"])):
    config = get_config("ppo")
    config.ppo.kl_coef = (5 + number) / 100
    add(config)
"""


def first_step(file: Path, directory: Path) -> dict[str, Any]:
  """Seconds of the first steps, or of whole stages that take no steps, by stage."""
  found: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
  for cache in ("cold", "warm"):
    run = directory / cache
    timed(["run", "--config", str(file), "--workdir", str(run)], directory)
    for stage in STAGES:
      speed, done = run / stage / "speed.jsonl", json.loads((run / stage / "done.json").read_text())
      if speed.is_file():
        seconds = [json.loads(line)["seconds"] for line in speed.read_text().splitlines()]
        found[stage] |= {f"{cache}_first_step_s": round(seconds[0], 2)}
        found[stage] |= {f"{cache}_later_step_s": round(statistics.median(seconds[1:]), 4)}
      found[stage] |= {f"{cache}_stage_s": round(done["seconds"], 1)}
  return found


def cells(file: Path, directory: Path, count: int, rounds: int) -> dict[str, Any]:
  """Cells an hour of a sweep and of a loop."""
  sweeps, loops = [], []
  root = directory / "sweep"
  command = ["sweep", str(file), "--workdir", str(root), "--engine", "local", "--workers", "2"]
  timed(command, directory, WARM)
  (shared,) = root.glob("shared/*")
  for number in range(rounds):
    before, began = cpu_seconds(), time.perf_counter()
    timed(command, directory, WARM + count * (number + 1))
    sweeps.append({"seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds() - before})
    overhead = 0.0
    before, began = cpu_seconds(), time.perf_counter()
    for cell in range(count):
      run = directory / f"loop{number}" / str(cell)
      shutil.copytree(shared, run, ignore=shutil.ignore_patterns("attempts.jsonl", "log.txt", "unit.json"))
      arguments = ["--config", f"{file}:ppo", "--workdir", str(run), f"--config.ppo.kl_coef={(5 + cell) / 100}"]
      process, began_cell = start(["run", *arguments], directory), time.perf_counter()
      wait_for(run, "ppo/speed.jsonl")
      overhead += time.perf_counter() - began_cell
      assert process.wait() == 0
    seconds = time.perf_counter() - began
    loops.append({"seconds": seconds, "cpu_seconds": cpu_seconds() - before, "overhead_s": overhead / count})
  for found in sweeps + loops:
    found["cells_per_hour"] = 3600 * count / found["seconds"]
  return {"num_cells": count, "sweep": rounded(sweeps), "loop": rounded(loops)}


def start(arguments: list[str], directory: Path, cells: int = 0) -> subprocess.Popen:
  """`rlhf-jax ...` with the compilation cache of this directory."""
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "RLHF_JAX_CACHE": str(directory / "cache")}
  environment["CELLS"] = str(cells)
  with open(directory / "log.txt", "ab") as log:
    return subprocess.Popen([sys.executable, "-m", "rlhf_jax.cli", *arguments], env=environment, stdout=log, stderr=log)


def timed(arguments: list[str], directory: Path, cells: int = 0) -> None:
  """Runs `rlhf-jax ...` to its end."""
  if start(arguments, directory, cells).wait():
    sys.exit((directory / "log.txt").read_text()[-3000:])


def wait_for(root: Path, pattern: str) -> Path:
  """The first file that matches and is not empty, once it is there."""
  while True:
    for path in root.glob(pattern):
      if path.stat().st_size:
        return path
    time.sleep(0.05)


def cpu_seconds() -> float:
  """Of all processes that have ended, of this process's descendants."""
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


def rounded(found: list[dict[str, float]]) -> list[dict[str, float]]:
  return [{key: round(value, 1) for key, value in one.items()} for one in found]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--part", choices=("first_step", "cells"), action="append", help="one part; default: both")
  parser.add_argument("--cells", type=int, default=8)
  parser.add_argument("--steps", type=int, default=8, help="steps of PPO, of 32 in the quickstart")
  parser.add_argument("--rounds", type=int, default=2)
  parser.add_argument("--out", type=Path)
  settings = parser.parse_args()
  found = json.loads(settings.out.read_text()) if settings.out and settings.out.exists() else {}
  for part in settings.part or ("first_step", "cells"):
    with tempfile.TemporaryDirectory() as directory:
      file = Path(directory) / "sweep.py"
      file.write_text(SWEEP.format(steps=settings.steps))
      if part == "first_step":
        result = first_step(file, Path(directory))
      else:
        result = cells(file, Path(directory), settings.cells, settings.rounds)
    command = " ".join(["python", *sys.argv])
    found[part] = {
      "command": command,
      "machine": machine(),
      "load_average": os.getloadavg(),
      "steps": settings.steps,
      **result,
    }
    print(part, json.dumps(result, indent=2), flush=True)
    if settings.out:
      settings.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
  main()
