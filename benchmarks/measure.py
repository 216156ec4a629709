"""What the benchmarks share: contenders timed in turn, and the machine they ran on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.models import language_model
from rlhf_jax.models.hub import load_pretrained, open_pretrained


def alternate(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, Any]]:
  """Calls each contender once, which compiles it, then all of them in turn `rounds` times.

  Returns:
    Per contender the seconds of the first call, and of the others the median and all.
  """
  results = {}
  for name, call in contenders.items():
    results[name] = {"first_s": round(_seconds(call), 3), "all_s": []}
  for _ in range(rounds):
    for name, call in contenders.items():
      results[name]["all_s"].append(round(_seconds(call), 4))
  for result in results.values():
    result["median_s"] = round(statistics.median(result["all_s"]), 4)
  return results


def copy_bandwidth(megabytes: int = 256) -> float:
  """Bytes per second read and written while an array larger than the caches is rewritten, the best of ten.

  In place: a fresh array of that size is dominated by the page faults of its first use.
  """
  step = jax.jit(lambda x: x + 1.0, donate_argnums=0)
  x = jnp.ones((megabytes * 2**18,), jnp.float32)
  times = []
  for _ in range(11):
    start = time.perf_counter()
    x = step(x).block_until_ready()
    times.append(time.perf_counter() - start)
  return 2 * x.nbytes / min(times[1:])


def same_weights(kind: str, **shape: Any) -> tuple[Any, Any, Any]:
  """(transformers' model of random weights, ours, our parameters); kind: "Llama" or "GPT2"."""
  import torch
  import transformers

  torch.manual_seed(0)
  config = getattr(transformers, f"{kind}Config")(**shape)
  theirs = getattr(transformers, "LlamaForCausalLM" if kind == "Llama" else f"{kind}LMHeadModel")(config)
  with tempfile.TemporaryDirectory() as directory:
    theirs.save_pretrained(directory)
    opened = open_pretrained(directory)
    return theirs, language_model(opened.config), jax.tree.map(jnp.asarray, load_pretrained(opened))


def arguments(description: str, parts: dict[str, Callable]) -> argparse.Namespace:
  """--part, --rounds, --out."""
  parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--part", choices=list(parts), action="append", help="only this one; may be given several times")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--out", type=Path, help="a JSON file, in which the parts that were run are replaced")
  return parser.parse_args()


def report(settings: argparse.Namespace, parts: dict[str, Callable]) -> None:
  """Runs the parts that were asked for, prints their results and writes them."""
  found = json.loads(settings.out.read_text()) if settings.out and settings.out.exists() else {}
  for name in settings.part or parts:
    start = time.perf_counter()
    result = parts[name](settings.rounds)
    found[name] = {"command": " ".join(["python", *sys.argv]), "machine": machine(), **result}
    print(f"{name} ({time.perf_counter() - start:.0f} s)", json.dumps(result, indent=2), flush=True)
    if settings.out:
      settings.out.parent.mkdir(parents=True, exist_ok=True)
      settings.out.write_text(json.dumps(found, indent=2) + "\n")


def machine() -> dict[str, Any]:
  """Cores and versions."""
  import torch

  versions = {"python": platform.python_version(), "jax": jax.__version__, "torch": torch.__version__}
  return {"cpus": len(os.sched_getaffinity(0)), **versions}


def _seconds(call) -> float:
  start = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - start


def random_tokens(shape: tuple[int, ...], vocabulary: int, seed: int = 0) -> np.ndarray:
  """i32 in [2, vocabulary)."""
  return np.random.default_rng(seed).integers(2, vocabulary, shape, dtype=np.int32)
