"""Search for the use of the devices that fits and is predicted fastest: estimates of all, compilation of the best."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rlhf_jax.models.decoder import Remat
from rlhf_jax.stage import Transport
from rlhf_jax.tools.compile.chips import Target

MICROBATCHES = (1, 2, 4, 8)
REMATS: tuple[Remat, ...] = ("none", "dots", "full")
CHUNKS = (0, 256)
TENSORS = (1, 2, 4, 8)


class Candidate(NamedTuple):
  """A use of the devices, by estimates."""

  transport: Transport
  """Settings."""
  seconds: float
  """Predicted seconds of one step of every stage."""
  bytes: float
  """Estimate of the peak of the fullest program on a chip."""


class Estimate(NamedTuple):
  """What a config takes when all chips of a slice cut its parameters, with one microbatch and a tensor axis."""

  seconds: float
  """Predicted seconds of one step of every stage, without the links."""
  links: float
  """Seconds of the collectives alone."""
  activations: float
  """Bytes that the fullest program keeps for its backward pass, and of its largest product, twice."""
  state: float
  """Bytes of the arrays that the fullest stage keeps."""
  serving: float
  """Bytes of the largest copy that is sampled from."""


def candidates(transport: Transport, target: Target, rows: int) -> Iterator[Transport]:
  """All combinations of mesh shapes, microbatches, remat and logits_chunk.

  rows: the smallest batch of the config; shapes that leave a chip without a row are left out, and so are microbatches
  of less than a row.
  """
  chips = len(target.devices)
  for tensor, micro, remat, chunk in itertools.product(TENSORS, MICROBATCHES, REMATS, CHUNKS):
    if chips % tensor or chips // tensor > rows or micro > max(rows * tensor // chips, 1):
      continue
    whole = chips // tensor // target.slices
    for fsdp in (size for size in _divisors(whole) if size >= min(whole, 16)):
      yield dataclasses.replace(
        transport, kind="jit", data=-1, fsdp=fsdp, tensor=tensor, microbatches=micro, remat=remat, logits_chunk=chunk
      )


def search(
  choices: Iterator[Transport],
  estimate: Callable[[Transport], Candidate],
  compile_one: Callable[[Transport], tuple[bool, Any]],
  hbm: float,
  best: int,
  tell: Callable[[str], None],
) -> tuple[Transport, Any] | None:
  """(the first transport that fits, its report), among the `best` fastest ones by estimate; None where none fits."""
  found = sorted(map(estimate, choices), key=lambda each: (each.bytes > hbm, float(f"{each.seconds:.2g}"), each.bytes))
  for each in found[:best]:
    tell(f"{words(each.transport)}: estimate {each.seconds:.2f} s, {each.bytes / 2**30:.1f} GiB")
    fits, result = compile_one(each.transport)
    if fits:
      return each.transport, result
    tell("  does not fit")
  return None


def words(transport: Transport) -> str:
  """The settings that the search chooses, as overrides of a config."""
  names = ("data", "fsdp", "tensor", "microbatches", "remat", "logits_chunk")
  return " ".join(f"--config.transport.{name}={getattr(transport, name)}" for name in names)


def _divisors(number: int) -> list[int]:
  return [size for size in range(1, number + 1) if number % size == 0]
