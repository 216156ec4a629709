"""Training steps and sampling beside TRL, Tunix, transformers, careful torch and a bare jit, doing the same work.

  pip install -e . -r benchmarks/requirements-peers.txt
  pip install --no-deps --target trl-1.12 trl==1.12.0                  # the last TRL with PPO
  python benchmarks/peers.py --trl-ppo trl-1.12 --rounds 7 --out benchmarks/results/MACHINE.json
  python benchmarks/peers.py --page --out benchmarks/results/MACHINE.json                     # table and plot
  python benchmarks/peers.py --check benchmarks/results/MACHINE.json --out NEW.json           # what became slower

Every contender is a live process on the same weights, tokens and optimiser (`contenders/work.py`). All of a part take
turns of a few steps, so that a noisy machine hits all alike; a ratio is of two turns of the same round. Before anything
is timed the first three steps are compared: tokens, losses, and tokens that are chosen greedily. A contender that does
not run, or does other work, stands in the results with its error. The parts start_... time an algorithm from the start
of its process to the end of its first update, imports included, with an empty and with a warm compilation cache.

Parts that are in --out already, with as many rounds and from the same commit, are skipped with --resume. --small makes
a tiny version of everything, for a test.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contenders import page, regressions, work
from contenders.comparisons import COMPARISONS, OURS, STARTS, Comparison, Contender, differences, missing
from contenders.processes import BENCHMARKS, QUIET, Failed, Live

WARM_UP = 2  # steps after the first, before anything is timed
PARTS = (*COMPARISONS, *STARTS)
CPU_SECONDS = 0.2  # of compilation, below which JAX's cache keeps no program


class Timer:
  """What a run has done and has before it."""

  def __init__(self, pieces: int):
    self._start, self._done, self._pieces = time.monotonic(), 0, pieces

  def tell(self, text: str, done: int = 0) -> None:
    """Prints a line with the time so far and, after some pieces of the whole, that which is left at their pace."""
    self._done += done
    so_far = time.monotonic() - self._start
    left = f", about {so_far / self._done * (self._pieces - self._done) / 60:.0f} min left" if self._done else ""
    print(f"[{so_far / 60:.1f} min{left}] {text}", flush=True)


def compare(
  comparison: Comparison, directory: Path, cores: int, rounds: int, trl_ppo: Path | None, tell
) -> dict[str, Any]:
  """{contender: {"wall", "cpu": seconds of a step in each round, "first_s", "facts"} or {"error"}} of a part."""
  found: dict[str, Any] = {}
  live: dict[str, Live] = {}
  cache = {"JAX_COMPILATION_CACHE_DIR": str(directory / "programs")}
  cache["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(CPU_SECONDS)
  with contextlib.ExitStack() as stack:
    for name, contender in comparison.contenders.items():
      if absent := missing(contender):
        found[name] = {"error": f"not installed: {', '.join(absent)}"}
        continue
      process = Live(contender, directory, cores, trl_ppo, cache)
      stack.callback(process.close)
      try:
        first = process.result()
        facts = joined(first["facts"], process.take(WARM_UP)["facts"])
        wrong = differences(comparison, found[OURS]["facts"] if OURS in found else facts, facts)
      except Failed as error:
        if name == OURS:
          raise SystemExit(f"{comparison.title}: this project's own contender {error}") from error
        found[name] = {"error": str(error)}
        tell(f"{name}: {error}")
        continue
      found[name] = {"first_s": round(first["since_start"], 2), "facts": facts}
      if wrong:
        found[name]["error"] = f"does other work: {'; '.join(wrong)}"
        tell(f"{name} {found[name]['error']}")
        continue
      live[name] = process
      found[name] |= {"wall": [], "cpu": []}
    for _ in range(rounds):
      for name, process in list(live.items()):
        try:
          result = process.take(comparison.steps)
        except Failed as error:
          found[name]["error"] = str(error)
          del live[name]
          continue
        for clock in ("wall", "cpu"):
          found[name][clock].append(round(result[clock] / comparison.steps, 4))
  for result in found.values():
    result.get("facts", {}).pop("sampled", None)  # thousands of tokens, which have been compared
  return found


def joined(first: Mapping[str, list], second: Mapping[str, list]) -> dict[str, list]:
  """The facts of the first step and of those that follow."""
  return {name: values + second.get(name, []) for name, values in first.items()}


def start(name: str, directory: Path, cores: int, rounds: int, trl_ppo: Path | None, tell) -> dict[str, Any]:
  """{contender: {"empty", "warm": seconds in each round; "cpu_empty", "cpu_warm": CPU seconds} or {"error"}}.

  A library without a compiler has its seconds under "warm" alone.
  """
  found: dict[str, Any] = {
    label: {"error": f"not installed: {', '.join(absent)}"} if (absent := missing(contender)) else {}
    for label, contender in STARTS[name].items()
  }
  for _ in range(rounds):
    for label, contender in STARTS[name].items():
      if "error" in found[label]:
        continue
      try:
        _start_once(contender, label == OURS, directory, cores, trl_ppo, found[label])
      except Failed as error:
        found[label]["error"] = str(error)
        tell(f"{name}, {label}: {error}")
  return found


def _start_once(contender: Contender, compiles: bool, directory: Path, cores: int, trl_ppo, result: dict) -> None:
  """Adds the seconds of a start; for this project those with an empty cache, then with the programs of that start."""
  with tempfile.TemporaryDirectory(dir=directory) as cache:
    for state in ("empty", "warm") if compiles else ("warm",):
      process = Live(contender, directory, cores, trl_ppo, {"RLHF_JAX_CACHE": cache})
      try:
        first = process.result()
      finally:
        process.close()
      result.setdefault(state, []).append(round(first["since_start"], 2))
      result.setdefault(f"cpu_{state}", []).append(round(first["process_cpu"], 2))


def prepare(directory: Path, shape: Mapping[str, Any], platform: str = "cpu") -> None:
  """Makes what all contenders share; where it takes JAX, in a process of its own, so that this one holds no device."""
  work.make_work(directory, shape)
  path = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])
  command = [sys.executable, "-m", "contenders.ours", str(directory), "prepare"]
  environment = {**os.environ, **QUIET, "JAX_PLATFORMS": platform, "PYTHONPATH": path}
  done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True)
  if done.returncode:
    raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def machine() -> dict[str, Any]:
  """Software and hardware, as the other benchmarks record them."""
  import measure

  return {**measure.machine(), **measure.peers()}


def is_done(found: Mapping[str, Any], rounds: int, commit: str | None) -> bool:
  """Whether a part is in the results with as many rounds and of this commit."""
  return bool(found) and found["rounds"] >= rounds and found["commit"] == commit and commit is not None


def main() -> int:
  """Runs the parts that the command line asks for; returns the exit status."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
  parser.add_argument("--rounds", type=int, default=7, help="turns of each contender")
  parser.add_argument("--start-rounds", type=int, default=3, help="starts of each contender in the parts start_...")
  parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="numbers of cores to measure on")
  parser.add_argument("--out", type=Path, help="a JSON file, in which the parts that were run are replaced")
  parser.add_argument(
    "--work", type=Path, help="folder of models, data and programs, which is kept; default: a temporary one"
  )
  parser.add_argument("--trl-ppo", type=Path, help="folder of TRL 1.12")
  parser.add_argument("--resume", action="store_true", help="skip parts that --out has of this commit")
  parser.add_argument("--small", action="store_true", help="a tiny model, for a test")
  parser.add_argument("--page", action="store_true", help="measure nothing: write docs/performance.md from --out")
  parser.add_argument("--check", type=Path, help="measure nothing: compare the ratios of --out with this file's")
  settings = parser.parse_args()
  if (settings.page or settings.check) and not (settings.out and settings.out.exists()):
    parser.error("--page and --check need --out FILE with results")
  if settings.page:
    page.write(json.loads(settings.out.read_text()), settings.out.name)
    return 0
  if settings.check:
    return regressions.report(json.loads(settings.check.read_text()), json.loads(settings.out.read_text()))
  available = len(os.sched_getaffinity(0))
  if max(settings.cores) > available:
    parser.error(f"--cores {max(settings.cores)}: this process may use {available} cores")
  found = json.loads(settings.out.read_text()) if settings.out and settings.out.exists() else {}
  trl_ppo = settings.trl_ppo.resolve() if settings.trl_ppo else None
  directory = settings.work.resolve() if settings.work else Path(tempfile.mkdtemp(prefix="peers-"))
  asked = settings.part or list(PARTS)
  pieces = [
    (name, cores) for name in asked for cores in settings.cores if name not in STARTS or cores == max(settings.cores)
  ]
  timer = Timer(len(pieces))
  try:
    if not (directory / "prepared").exists():
      prepare(directory, work.TINY if settings.small else work.SHAPE)
    timer.tell("prepared")
    current = machine()
    for name, cores in pieces:
      key, rounds = f"{name}, {cores}", settings.start_rounds if name in STARTS else settings.rounds
      if settings.resume and is_done(found.get(key, {}), rounds, current["commit"]):
        timer.tell(f"{key}: is there", done=1)
        continue
      begun = time.monotonic()
      if name in STARTS:
        result = start(name, directory, cores, rounds, trl_ppo, timer.tell)
      else:
        result = compare(COMPARISONS[name], directory, cores, rounds, trl_ppo, timer.tell)
      found[key] = {
        "command": " ".join(["python", *sys.argv]), "machine": current, "commit": current["commit"], "rounds": rounds,
        "seconds": round(time.monotonic() - begun), "contenders": result,
      }  # fmt: skip
      timer.tell("\n".join([key, *page.lines(name, cores, result)]), done=1)
      if settings.out:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        settings.out.write_text(json.dumps(found, indent=1) + "\n")
  finally:
    if not settings.work:
      shutil.rmtree(directory, ignore_errors=True)
  failed = page.errors(found)
  for line in failed:
    print(f"FAILED {line}")
  return 1 if any("does other work" in line for line in failed) else 0


if __name__ == "__main__":
  sys.exit(main())
