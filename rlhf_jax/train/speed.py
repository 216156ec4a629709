"""How fast a stage runs and what it needs: the seconds of a step by part, tokens per second, memory, utilisation.

These depend on the machine, so they stand in speed.jsonl and not in metrics.jsonl, whose rows are the same on every
run. Nothing here makes a device wait. JAX starts a computation and returns; the host waits where it needs a result:

  sampling    from the start of a step until the responses are texts on the host (RL)
  reward      until the scores of the reward function and of the monitor are on the host (RL)
  scoring     until advantages are ready: reward model, log-probs of the reference, values (RL); the host looks at
              them when it has started the first update, so that the device has work meanwhile
  update      from then on until the metrics of the step are on the host; in a supervised stage from when the host has
              started the update
  recording   of samples with the arrays of their tokens, at the steps that are recorded (RL, `rlhf_jax.train.watch`)
  host        Python's work in the step outside of these, such as making a batch, and the writing of metrics
  evaluation  held-out evaluation, with what it writes
  checkpoint  saving, as long as it keeps the next step from starting

A step of a supervised stage has host and update alone.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.train.processes import host
from rlhf_jax.train.workspace import policy_of
from rlhf_jax.types import Array, Params

GIB = 2**30  # bytes
# Peak of dense products in bfloat16, in floating-point operations per second, by a part of the device's name: from the
# data sheets. The first that fits counts.
PEAKS = {
  "H200": 989e12,
  "H100 PCIe": 756e12,
  "H100": 989e12,
  "A100": 312e12,
  "L40S": 362e12,
  "L4": 121e12,
  "V100": 125e12,
  "TPU v6": 918e12,
  "TPU v5p": 459e12,
  "TPU v5": 197e12,
  "TPU v4": 275e12,
  "TPU v3": 123e12,
}


class Clock:
  """The seconds of a step by part: each `lap` gives the time since the last one to a part."""

  def __init__(self) -> None:
    self._last = time.perf_counter()
    self._seconds: dict[str, float] = {}

  def lap(self, part: str, *, without: float = 0.0) -> None:
    """Adds the seconds since the last lap to `part`, less those `without` that belong to other parts."""
    now = time.perf_counter()
    self._seconds[part] = self._seconds.get(part, 0.0) + max(now - self._last - without, 0.0)
    self._last = now

  def add(self, seconds: Mapping[str, float]) -> None:
    """Adds the seconds of parts that were measured elsewhere."""
    for part, value in seconds.items():
      self._seconds[part] = self._seconds.get(part, 0.0) + value

  def take(self) -> dict[str, float]:
    """{"seconds": sum, "seconds/PART": seconds} since the last call. The sum leaves out evaluation and checkpoint."""
    taken, self._seconds = self._seconds, {}
    total = sum(value for part, value in taken.items() if part not in ("evaluation", "checkpoint"))
    return {"seconds": total} | {f"seconds/{part}": value for part, value in taken.items()}


def split_seconds(metrics: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
  """The metrics without those named "seconds/PART", and these as {part: seconds}."""
  parts = {name.removeprefix("seconds/"): value for name, value in metrics.items() if name.startswith("seconds/")}
  return {name: value for name, value in metrics.items() if not name.startswith("seconds/")}, parts


def speed(
  seconds: Mapping[str, float], metrics: Mapping[str, float], sizes: tuple[int, int], peak: float
) -> dict[str, float]:
  """The row of speed.jsonl for a step, but for its number. seconds: from `Clock.take`. metrics: those of the step.

  tokens_per_second is tokens/trained over the seconds of the step, sampled_per_second tokens/sampled over those of
  sampling. mfu, the model FLOPs utilisation (Chowdhery et al. 2022, arXiv 2204.02311, appendix B), is

    (6 P trained + 2 N (sampled + scored)) / (seconds * peak)

  with sizes = (P, N) the numbers of parameters that the stage holds and that its policy has, the counts of tokens of
  the step, and `peak` the sum of the devices' peaks, in operations per second; without a known peak it is left out.
  """
  row = dict(seconds)
  trained, sampled, scored = (metrics.get(f"tokens/{kind}", 0.0) for kind in ("trained", "sampled", "scored"))
  if trained:
    row["tokens_per_second"] = trained / seconds["seconds"]
  if sampled and seconds.get("seconds/sampling"):
    row["sampled_per_second"] = sampled / seconds["seconds/sampling"]
  if trained and peak:
    operations = 6 * sizes[0] * trained + 2 * sizes[1] * (sampled + scored)
    row["mfu"] = operations / (seconds["seconds"] * peak)
  return row | peak_memory()


def peak_memory() -> dict[str, float]:
  """The largest memory in use so far in GiB: of the fullest device of this process, else of the process itself."""
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  peaks = [found["peak_bytes_in_use"] for found in stats if "peak_bytes_in_use" in found]
  if peaks:
    return {"memory/device_gib": max(peaks) / GIB}
  unit = 1 if sys.platform == "darwin" else 1024  # bytes that ru_maxrss counts in
  return {"memory/process_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB}


def device_peak(given: float) -> float:
  """Operations per second of all devices of the run: `given` for each, or by `PEAKS` where that is 0; 0 if unknown."""
  kind = jax.devices()[0].device_kind
  return (given or next((peak for name, peak in PEAKS.items() if name in kind), 0.0)) * jax.device_count()


def model_sizes(params: Params) -> tuple[int, int]:
  """(number of all parameters that a stage holds, number of those of its policy)."""
  sizes = [sum(np.size(leaf) for leaf in jax.tree.leaves(tree)) for tree in (params, policy_of(params))]
  return sizes[0], sizes[1]


def count_tokens(mask: Array) -> Any:
  """Number of tokens of the rows of mask[..., T] up to the last one that is on: prompt and response, no padding.

  The tokens in front of the mask count, as the model reads them. It is a float for an array of NumPy, and i32[] on the
  device for one of JAX.
  """
  if isinstance(mask, jax.Array):
    return jnp.sum(jnp.where(mask, jnp.arange(1, mask.shape[-1] + 1), 0).max(axis=-1))
  mask = host(mask) != 0
  return float((mask.shape[-1] - np.argmax(mask[..., ::-1], axis=-1))[mask.any(axis=-1)].sum())
