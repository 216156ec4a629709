"""What stands before the first step: imports, and the compilation of the programs of PPO.

  python benchmarks/startup.py --out benchmarks/results/startup.json

Part "imports": CPU seconds of a fresh process for `rlhf-jax --help`, `rlhf-jax run --help`, and what a run of the
quickstart imports and parses before its first stage.

Part "threads": the programs of a step of the quickstart's PPO, traced and lowered once, then compiled one after another
and two at a time in threads, in turn. With the CPU seconds of a compilation stand those of its busiest thread: where
that is about half, XLA keeps two cores busy by itself. Compare the medians on idle cores alone.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measure import alternate, arguments, report

from rlhf_jax.models import DecoderConfig
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.pipeline.recipe import load_config
from rlhf_jax.tools.compile.stages import programs_of
from rlhf_jax.train.workspace import select_model

RECIPE = ["--config", "quickstart:ppo", "--workdir", "unused"]
COMMAND = "from rlhf_jax.cli import main; main({})"
BEFORE_THE_FIRST_STAGE = f"""
from pathlib import Path
from rlhf_jax.cli import commands
from rlhf_jax.pipeline.recipe import load_config
config, workdir = load_config({RECIPE})
from rlhf_jax.pipeline import run
from rlhf_jax.pipeline.plan import plan
plan(config, Path(workdir))
"""
SCRIPTS = {
  "help": COMMAND.format(["--help"]),
  "run --help": COMMAND.format(["run", "--help"]),
  "before the first stage": BEFORE_THE_FIRST_STAGE,
}


def imports(rounds: int) -> dict[str, Any]:
  """Median CPU seconds of each script in a process of its own."""

  def seconds(script: str) -> float:
    before = os.times()
    subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, check=False)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system

  return {name: sorted(seconds(script) for _ in range(rounds))[rounds // 2] for name, script in SCRIPTS.items()}


def threads(rounds: int) -> dict[str, Any]:
  """Seconds of compiling all programs one after another and two at a time, and CPU seconds of each by thread."""
  config, _ = load_config(RECIPE)
  with tempfile.TemporaryDirectory() as directory:
    step = plan(config, Path(directory))[-1]
  shape = DecoderConfig(config["vocabulary"]["vocab_size"], **dataclasses.asdict(step.stage.model))
  found = programs_of(step, select_model(shape, step.stage.transport))
  assert found is not None
  lowered = {program.name: program.function.trace(*program.arguments).lower() for program in found.programs}

  def compile_anew(name: str) -> Any:
    return lowered[name].compile(compiler_options={})  # with options it is not kept in memory

  def one_after_another() -> None:
    for name in lowered:
      compile_anew(name)

  def two_at_a_time() -> None:
    with ThreadPoolExecutor(2) as pool:
      list(pool.map(compile_anew, lowered))

  alone = {}
  for name in lowered:
    before = _by_thread()
    start = time.perf_counter()
    compile_anew(name)
    wall = time.perf_counter() - start
    spent = sorted(seconds - before.get(thread, 0.0) for thread, seconds in _by_thread().items())
    alone[name] = {"wall_s": round(wall, 2), "cpu_s": round(sum(spent), 2), "busiest_thread_s": round(spent[-1], 2)}
  contenders = {"one after another": one_after_another, "two at a time": two_at_a_time}
  return {"programs": alone, "all": alternate(contenders, rounds)}


def _by_thread() -> dict[str, float]:
  """CPU seconds of each thread of this process so far, by its number."""
  tick = os.sysconf("SC_CLK_TCK")
  found = {}
  for path in Path("/proc/self/task").iterdir():
    fields = (path / "stat").read_text().rpartition(")")[2].split()
    found[path.name] = (int(fields[11]) + int(fields[12])) / tick
  return found


PARTS = {"imports": imports, "threads": threads}

if __name__ == "__main__":
  report(arguments(__doc__, PARTS), PARTS)
