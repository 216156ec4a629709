"""Predicted times of a program on a chip, from its counts.

  products     each takes the longer one of its operations at COMPUTE of the chip's peak, and of its operands and result
               at the bandwidth of the memory
  operations between products (norms, activations, softmax, casts) move OUTPUT bytes for each byte of a product's
               result, at the bandwidth of the memory, while no product runs
  collectives  all links of a chip send at once, and everything overlaps with the arithmetic: the longer one counts

COMPUTE and OUTPUT are fitted to two published steps of MaxText, and a third is predicted:
  python benchmarks/pods.py
"""

from __future__ import annotations

from typing import NamedTuple

from rlhf_jax.tools.compile.chips import BETWEEN_SLICES, Chip
from rlhf_jax.tools.compile.counts import Counts

COMPUTE = 0.896
OUTPUT = 11.7


class Times(NamedTuple):
  """Predicted seconds of one call of a program."""

  compute: float
  """Seconds of the products alone at COMPUTE of the peak."""
  memory: float
  """Seconds that the memory is the limit: products with too few operations for their operands, and the operations
  between products."""
  interconnect: float
  """Seconds of the collectives alone."""

  @property
  def total(self) -> float:
    """Seconds of the call."""
    return max(self.compute + self.memory, self.interconnect)

  @property
  def bound(self) -> str:
    """What most of the time is: "compute", "memory" or "interconnect"."""
    if self.interconnect > self.compute + self.memory:
      return "interconnect"
    return "compute" if self.compute >= self.memory else "memory"


def times(
  counts: Counts,
  chip: Chip,
  *,
  partitioned: float = 0.0,
  slices: int = 1,
  compute: float = COMPUTE,
  output: float = OUTPUT,
) -> Times:
  """The predicted times of a program.

  Args:
    partitioned: bytes that a chip sends in collectives of the partitioner, which are in no jaxpr.
    slices: number of slices; above 1, all-reduces cross the network between them.
  """
  busy = longest = 0.0
  for flops, size, repeated in counts.products:
    at_peak = repeated * flops / (compute * chip.flops)
    busy += at_peak
    longest += max(at_peak, repeated * size / chip.bandwidth)
  links = (counts.sent + partitioned) / chip.links
  if slices > 1:
    links = max(links, counts.collectives.get("all-reduce", 0.0) / BETWEEN_SLICES)
  return Times(busy, longest - busy + output * counts.outputs / chip.bandwidth, links)
