"""One program: compiled for chips that are not there, and what it takes of them."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Mapping
from typing import Any

import jax

from rlhf_jax.tools.compile import hlo_text
from rlhf_jax.tools.compile.chips import GIB, Target
from rlhf_jax.tools.compile.counts import Counts, count
from rlhf_jax.tools.compile.roofline import times


@dataclasses.dataclass(frozen=True)
class Program:
  """A jitted function of a stage, with the abstract arguments that it is called with."""

  name: str
  """Name of the program, such as "update"."""
  function: Any
  """Function with a method `trace`: a result of `jax.jit`, or one that calls such a result."""
  arguments: tuple[Any, ...]
  """Arguments as trees of `jax.ShapeDtypeStruct`, with shardings."""
  weights: Mapping[str, Any]
  """Trees of parameters and of the optimiser's state among the arguments, by name; the rest is data."""
  calls: int = 1
  """Number of calls in one step of the stage: 1 for each rollout, one for each minibatch."""
  tokens: float = 0.0
  """Number of tokens that one call computes, over all chips, padding included."""
  model_flops: float = 0.0
  """Operations that one call needs by the formula of the metric mfu, over all chips (see `rlhf_jax.train.speed`)."""
  minimum: float = 0.0
  """Bytes that a chip must send in one call when parameters are cut along fsdp; 0 where nothing is cut."""
  partitioned: float = 0.0
  """Bytes that a chip sends where the partitioner moves arrays: sums along tensor, and the serving copy."""
  trips: int = 1
  """Number of times that a loop of unknown length is taken to run: the longest response."""


@dataclasses.dataclass(frozen=True)
class Figures:
  """What one program takes of each chip. Sizes are bytes, times seconds, all of one call."""

  stage: str
  program: str
  calls: int
  fits: bool
  parameters: float
  optimizer: float
  data: float
  held: float
  """Bytes that the stage keeps on the chip beside the arguments of this program."""
  activations: float
  """Bytes of temporary and new arrays; an estimate where the program does not fit."""
  peak: float
  hbm: float
  flops: float
  asked: Mapping[str, float]
  """Bytes that the chip sends by kind of collective, as the program asks for them in its jaxpr."""
  made: Mapping[str, float] | None
  """The same as the compiler made them, communication of the partitioner included; None where it gives no text."""
  minimum: float
  compute_seconds: float
  memory_seconds: float
  interconnect_seconds: float
  seconds: float
  bound: str
  tokens: float
  model_flops: float
  tokens_per_second_per_chip: float
  mfu: float
  trace_seconds: float
  compile_seconds: float
  advice: str
  """What takes most and what to change, where the program does not fit; else ""."""

  @property
  def asked_ratio(self) -> float | None:
    """Bytes asked over the FSDP minimum."""
    return sum(self.asked.values()) / self.minimum if self.minimum else None

  @property
  def made_ratio(self) -> float | None:
    """Bytes of the compiler's collectives over the FSDP minimum."""
    return sum(self.made.values()) / self.minimum if self.minimum and self.made is not None else None


def bytes_on_chip(tree: Any) -> float:
  """Bytes of a tree of abstract arrays on one chip, by their shardings."""
  return sum(_bytes_of(leaf) for leaf in jax.tree.leaves(tree))


def _bytes_of(leaf: Any) -> float:
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return 8.0
  shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding is not None else leaf.shape
  return float(math.prod(shape) * leaf.dtype.itemsize)


def traced(program: Program, chips: int) -> tuple[Any, Counts, float]:
  """(the traced program, its counts, seconds of tracing)."""
  start = time.perf_counter()
  trace = program.function.trace(*program.arguments)
  return trace, count(trace.jaxpr, chips, program.trips), time.perf_counter() - start


def compiled(stage: str, program: Program, target: Target, held: float) -> Figures:
  """Compiles a program. held: bytes of the stage's other arrays on each chip."""
  trace, counts, trace_seconds = traced(program, len(target.devices))
  start = time.perf_counter()
  made: dict[str, float] | None = None
  sizes = {name: bytes_on_chip(tree) for name, tree in program.weights.items()}
  arguments = bytes_on_chip(program.arguments)
  try:
    result = trace.lower().compile()
    analysis = result.memory_analysis()
    peak = float(analysis.peak_memory_in_bytes)
    activations = max(peak - arguments, 0.0)
    fits = peak + held <= target.chip.hbm
    try:
      made = hlo_text.collectives(result.as_text(), program.trips)
    except Exception:  # libtpu cannot print asynchronous programs of v5p: "operands but sees"
      made = None
  except jax.errors.JaxRuntimeError as error:
    used = _used(str(error), arguments)
    if used is None:
      raise
    peak, activations, fits = used, max(used - arguments, 0.0), False
  return _figures(
    stage, program, target, counts, held=held, peak=peak, activations=activations, fits=fits, made=made, sizes=sizes,
    data=arguments - sum(sizes.values()), trace_seconds=trace_seconds, compile_seconds=time.perf_counter() - start,
  )  # fmt: skip


def _figures(
  stage: str, program: Program, target: Target, counts: Counts, *, sizes: Mapping[str, float], **measured: Any
) -> Figures:
  predicted = times(counts, target.chip, partitioned=program.partitioned, slices=target.slices)
  seconds, chips = predicted.total, len(target.devices)
  optimizer = sizes.get("optimizer", 0.0)
  figures = Figures(
    stage=stage, program=program.name, calls=program.calls, parameters=sum(sizes.values()) - optimizer,
    optimizer=optimizer, hbm=target.chip.hbm, flops=counts.flops, asked=counts.collectives, minimum=program.minimum,
    compute_seconds=predicted.compute, memory_seconds=predicted.memory, interconnect_seconds=predicted.interconnect,
    seconds=seconds, bound=predicted.bound, tokens=program.tokens, model_flops=program.model_flops,
    tokens_per_second_per_chip=program.tokens / chips / seconds if seconds else 0.0,
    mfu=program.model_flops / chips / seconds / target.chip.flops if seconds else 0.0, advice="", **measured,
  )  # fmt: skip
  return figures if figures.fits else dataclasses.replace(figures, advice=advice(figures))


def advice(figures: Figures) -> str:
  """The largest consumer of memory in words, and what to change."""
  sizes = {
    "parameters": (figures.parameters, "raise transport.fsdp or the number of chips, or train adapters (lora)"),
    "the optimiser's moments": (
      figures.optimizer,
      "raise transport.fsdp or the number of chips, or train adapters (lora)",
    ),
    "activations": (
      figures.activations,
      "raise transport.microbatches, set transport.remat to 'full' and transport.logits_chunk to 256, or make the "
      "batch smaller",
    ),
    "the stage's other models": (
      figures.held,
      "raise transport.fsdp or the number of chips; with shared_trunk the value function is no model of its own",
    ),
    "data": (figures.data, "make the batch smaller"),
  }  # fmt: skip
  if figures.program == "sample":
    serve = "raise transport.tensor, which cuts the serving copy"
    sizes["parameters"] = (figures.parameters, serve)
    sizes["activations"] = (figures.activations, "lower sampling.slots, which bounds the cache, or " + serve)
  name, (size, change) = max(sizes.items(), key=lambda item: item[1][0])
  needs = f"{(figures.peak + figures.held) / GIB:.1f} GiB of {figures.hbm / GIB:.1f}"
  return f"{figures.program} needs {needs}; the most, {size / GIB:.1f} GiB, is {name}: {change}"


def _used(message: str, arguments: float) -> float | None:
  """Bytes that a program would need, from the compiler's refusal; None for another error.

  arguments: bytes of the program's arguments, which one form of the refusal leaves out.
  """
  match = re.search(r"Used ([\d.]+)([KMGT]?) of", message)
  temporaries = re.search(r"required for HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds", message)
  found = match or temporaries
  if not found:
    return None
  size = float(found[1]) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}[found[2]]
  return size if match else size + arguments
