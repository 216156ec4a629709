"""Mixtures of tasks: what share of the examples each has, and in what order they come.

FLAN mixes in proportion to the examples, as T5 does (Raffel et al. 2019, arXiv 1910.10683, section 3.5.2): a task of n
examples has the weight min(n, cap) ** (1 / temperature). The order is the one that is nearest to the shares at every
moment, so that it has no random numbers to replay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from rlhf_jax.data.encoding import Loss
from rlhf_jax.data.files import DataError
from rlhf_jax.data.sources import Source


@dataclass(frozen=True)
class Mixture:
  """Several sources as one stream of examples, read as it is needed.

  sources: name -> source. mixing: "examples" in proportion to their rows (times their weights), "weights" to their
  weights alone. cap: rows that count of a source at most; 0 is no cap. temperature: above 1 favours the small ones.
  window: rows that are shuffled at a time, of each source. layout: "packed" lays as many examples into a row as fit,
  "bucketed" makes batches of examples of like length and cuts them to it, "padded" does neither. loss: see `data.Loss`.
  """

  sources: dict[str, Source]
  mixing: Literal["examples", "weights"] = "examples"
  cap: int = 0
  temperature: float = 1.0
  window: int = 4096
  layout: Literal["packed", "bucketed", "padded"] = "packed"
  loss: Loss = "last"

  def __post_init__(self):
    if not self.sources:
      raise ValueError("sources is empty; name at least one")
    if self.cap < 0 or self.window < 1 or not self.temperature > 0:
      raise ValueError(f"cap={self.cap} must be >= 0, window={self.window} >= 1, temperature={self.temperature} > 0")


class Share(NamedTuple):
  """A task's part of a mixture. rows: of a pass. counted: min(rows, cap). fraction: of the examples that are drawn."""

  name: str
  rows: int
  counted: int
  fraction: float


def mixture_shares(mixture: Mixture, rows: Sequence[int]) -> list[Share]:
  """The share of each source, given how many rows each has. Raises DataError for a source without rows."""
  for name, count in zip(mixture.sources, rows, strict=True):
    if not count:
      raise DataError(f"{mixture.sources[name].path}: the source {name!r} holds no rows")
  counted = [min(count, mixture.cap or count) for count in rows]
  sizes = np.asarray(counted, float) ** (1 / mixture.temperature)
  weights = np.asarray([source.weight for source in mixture.sources.values()])
  weights = weights * sizes if mixture.mixing == "examples" else weights
  fractions = weights / weights.sum()
  return [Share(*part) for part in zip(mixture.sources, rows, counted, map(float, fractions), strict=True)]


def next_tasks(fractions: np.ndarray, drawn: np.ndarray, count: int) -> np.ndarray:
  """The tasks of the next `count` examples, i64[count]; drawn: i64[K], how many each has had, the sum is the position.

  Each time it is the task that is furthest behind its share, so that no task is ever a whole example ahead of it.
  """
  drawn = np.array(drawn, np.int64)
  position = int(drawn.sum())
  order = np.empty(count, np.int64)
  for i in range(count):
    order[i] = task = int(np.argmax(fractions * (position + i + 1) - drawn))
    drawn[task] += 1
  return order


def describe_shares(shares: Sequence[Share], num_examples: float) -> list[str]:
  """A line for each task: its rows, its share and how often a run of `num_examples` examples sees them."""
  width = max(len(share.name) for share in shares)
  lines = []
  for name, rows, counted, fraction in shares:
    seen = fraction * num_examples
    capped = f" (capped at {counted:,})" if counted < rows else ""
    times = f"{seen:,.0f} examples, {seen / rows:.2f} passes"
    lines.append(f"{name:{width}}  {rows:,} rows{capped}, {fraction:.1%}: {times}")
  return lines
