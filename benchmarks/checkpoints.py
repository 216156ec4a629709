"""Seconds that saving a checkpoint takes from training, and its share of 100 steps of PPO.

  rlhf-jax run --config quickstart --workdir runs/quickstart
  python benchmarks/checkpoints.py --run runs/quickstart --out benchmarks/results/checkpoints.json

The state is that of the run's stage `ppo`, its steps' seconds are those of its speed.jsonl, and the checkpoints are
written to the run's disk. Training is stood in for by products of matrices, which use all cores as a step does: the
same products are timed alone and while a checkpoint is written, by turns. `blocked_s` is how long `save` itself keeps
the next step from starting, `taken_s` how much later the products end, and `share_of_100_steps` is `taken_s` over the
seconds of 100 steps. `write_s` and `verify_s` are a save and a verification with nothing beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from measure import alternate, machine

from rlhf_jax.train import stored_arrays
from rlhf_jax.train.checkpoint import last_checkpoint, open_checkpoints, save, verify_checkpoint
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.types import TrainState

WORK = 4  # seconds of products, longer than a save


def read_state(directory: Path) -> TrainState:
  """The state of the newest checkpoint, its trees as dicts of paths."""
  found = last_checkpoint(directory)
  if found is None:
    raise SystemExit(f"{directory} has no checkpoint")
  where = directory / str(found[0])
  record = stored_arrays.read_record(where)
  params, rest = (jax.device_put(stored_arrays.read(where, name, record[name])) for name in stored_arrays.TREES)
  return TrainState(rest.pop("step"), params, rest, ())


def products(count: int) -> jax.Array:
  """`count` products of two square matrices, one after the other."""
  x = jnp.ones((1024, 1024)) / 1024
  for _ in range(count):
    x = x @ x
  return x


def measure(run: Path, rounds: int) -> dict[str, Any]:
  """Times saves of the run's state beside products, and alone."""
  steps = [row["seconds"] for row in read_metrics(run / "ppo" / "speed.jsonl")[1:]]  # the first one compiles
  state = read_state(run / "ppo" / "checkpoints")
  start = time.perf_counter()
  products(100).block_until_ready()
  count = round(100 * WORK / (time.perf_counter() - start))
  blocked, alone, verified = [], [], []
  number = 0
  with tempfile.TemporaryDirectory(dir=run) as directory, open_checkpoints(Path(directory)) as checkpoints:

    def written() -> None:
      nonlocal number
      number += 1
      start = time.perf_counter()
      save(checkpoints, state.replace(step=jnp.int32(number)), {})
      blocked.append(time.perf_counter() - start)

    def beside() -> jax.Array:
      written()
      return products(count)

    found = alternate({"products": lambda: products(count), "products and a save": beside}, rounds)
    for _ in range(rounds):
      checkpoints.wait()
      start = time.perf_counter()
      written()
      checkpoints.wait()
      alone.append(time.perf_counter() - start)
      start = time.perf_counter()
      verify_checkpoint(Path(directory), number)
      verified.append(time.perf_counter() - start)
  pairs = zip(found["products and a save"]["all_s"], found["products"]["all_s"], strict=True)
  taken = statistics.median(saving - quiet for saving, quiet in pairs)
  seconds = statistics.median(steps)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  return {
    "state_mib": round(size / 2**20, 1),
    "step_s": round(seconds, 3),
    "steps": len(steps),
    "blocked_s": round(statistics.median(blocked), 4),
    "taken_s": round(taken, 4),
    "share_of_100_steps": round(taken / (100 * seconds), 5),
    "write_s": round(statistics.median(alone), 4),
    "verify_s": round(statistics.median(verified), 4),
    **found,
  }


def main() -> None:
  """Measures, prints the result and writes it."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--run", type=Path, required=True, help="a run of the quickstart")
  parser.add_argument("--rounds", type=int, default=9)
  parser.add_argument("--out", type=Path, help="a JSON file for the result")
  given = parser.parse_args()
  command = f"python benchmarks/checkpoints.py --run RUN --rounds {given.rounds}"
  text = json.dumps({"command": command, "machine": machine(), **measure(given.run, given.rounds)}, indent=2)
  print(text)
  if given.out:
    given.out.write_text(text + "\n")


if __name__ == "__main__":
  main()
