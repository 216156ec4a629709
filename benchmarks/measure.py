"""Shared by the benchmarks: contenders timed in turn, and the machine and software that gave a result."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.models import language_model
from rlhf_jax.models.hub import load_pretrained, open_pretrained
from rlhf_jax.train.provenance import provenance


def alternate(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, Any]]:
  """Calls each contender once, which compiles it, then all of them in turn `rounds` times.

  Returns:
    {contender: {"first_s": seconds of the first call, "all_s": seconds of each later call, "median_s": their median}}.
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
  """Bytes per second read and written while an array larger than the caches is rewritten: the best of ten.

  The array is rewritten in place, because the first use of a new array is dominated by page faults.
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
  """(transformers' model with random weights, our model, our parameters); kind: "Llama" or "GPT2"."""
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
  """Parses the options --part, --rounds and --out."""
  parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--part", choices=list(parts), action="append", help="only this part; may be repeated")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--out", type=Path, help="a JSON file, in which the parts that were run are replaced")
  return parser.parse_args()


def report(settings: argparse.Namespace, parts: dict[str, Callable]) -> None:
  """Runs the parts that `settings` names, prints their results and writes them."""
  found = json.loads(settings.out.read_text()) if settings.out and settings.out.exists() else {}
  for name in settings.part or parts:
    start = time.perf_counter()
    result = parts[name](settings.rounds)
    found[name] = {"command": " ".join(["python", *sys.argv]), "machine": machine() | peers(), **result}
    print(f"{name} ({time.perf_counter() - start:.0f} s)", json.dumps(result, indent=2), flush=True)
    if settings.out:
      settings.out.parent.mkdir(parents=True, exist_ok=True)
      settings.out.write_text(json.dumps(found, indent=2) + "\n")


def machine() -> dict[str, Any]:
  """Cores that this process may use, and software and hardware as a run records them."""
  return {"cpus": len(os.sched_getaffinity(0)), **provenance()}


def peers() -> dict[str, str]:
  """Versions of the libraries that are compared with."""
  names = ("torch", "transformers", "google-tunix")
  return {name: metadata.version(name) for name in names if importlib.util.find_spec(name.removeprefix("google-"))}


def _seconds(call) -> float:
  start = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - start


def random_tokens(shape: tuple[int, ...], vocabulary: int, seed: int = 0) -> np.ndarray:
  """Random tokens, i32 in [2, vocabulary)."""
  return np.random.default_rng(seed).integers(2, vocabulary, shape, dtype=np.int32)
