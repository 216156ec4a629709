"""Mixtures of sources: the share of the examples that each source has, and the order in which sources take turns.

FLAN mixes in proportion to the examples, as T5 does (Raffel et al. 2019, arXiv 1910.10683, section 3.5.2): a source of
n examples has the weight min(n, cap) ** (1 / temperature). The order is the one nearest to the shares at every moment;
it needs no random numbers that a resumed run would have to draw again.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from rlhf_jax.data.encoding import LossTokens
from rlhf_jax.data.files import DataError
from rlhf_jax.data.sources import Source
from rlhf_jax.ranges import NonNegativeInt, PositiveFloat, PositiveInt

T = TypeVar("T")


@dataclass(frozen=True)
class Sources:
  """Several sources, each with its share of the records that they give together."""

  sources: dict[str, Source]
  """Sources by name; the names appear in messages, and what is drawn from a source depends on its name."""
  mixing: Literal["examples", "weights"] = "examples"
  """Rule of the shares: "examples" is in proportion to rows times weight of a source, "weights" to its weight alone."""
  cap: NonNegativeInt = 0
  """Number of rows of a source that count at most for its share; 0 for no cap."""
  temperature: PositiveFloat = 1.0
  """Temperature of the shares: rows count as rows ** (1 / temperature), so that above 1 small sources have more."""

  def __post_init__(self) -> None:
    if not self.sources:
      raise ValueError("sources is empty; name at least one")


@dataclass(frozen=True)
class Mixture(Sources):
  """Several sources as one stream of examples, read while training takes them."""

  window: PositiveInt = 4096
  """Number of consecutive rows of a source that are shuffled together."""
  layout: Literal["packed", "bucketed", "padded"] = "packed"
  """Layout of a batch: "packed" puts as many examples into a row as fit, "bucketed" makes batches of examples of
  similar length, cut to that length, and "padded" puts one example into each row of full length."""
  loss: LossTokens = "last"
  """Tokens that the loss counts: "last" is the last answer, "all" every turn of the assistant, "everything" every token
  but the first."""


class Share(NamedTuple):
  """The part of a mixture that one source has."""

  name: str
  """Name of the source."""
  rows: int
  """Number of rows of the source."""
  counted: int
  """Number of rows that count for the share: min(rows, cap)."""
  fraction: float
  """Share of the mixture's examples that come from the source, between 0 and 1."""


def mixture_shares(mixture: Sources, rows: Sequence[int]) -> list[Share]:
  """The share of each source; `rows` is their numbers of rows. Raises DataError for a source without rows."""
  for name, count in zip(mixture.sources, rows, strict=True):
    if not count:
      raise DataError(f"{mixture.sources[name].path}: the source {name!r} holds no rows")
  counted = [min(count, mixture.cap or count) for count in rows]
  sizes = np.asarray(counted, float) ** (1 / mixture.temperature)
  weights = np.asarray([source.weight for source in mixture.sources.values()])
  weights = weights * sizes if mixture.mixing == "examples" else weights
  fractions = weights / weights.sum()
  return [Share(*part) for part in zip(mixture.sources, rows, counted, map(float, fractions), strict=True)]


def next_sources(fractions: np.ndarray, drawn: np.ndarray, count: int) -> np.ndarray:
  """The sources of the next `count` examples, as numbers i64[count].

  Picks the source furthest below its share each time; no source gets more than one example ahead of its share.

  Args:
    fractions: f64[K], the share of each source, which sum to 1.
    drawn: i64[K], the examples that each source has given so far.
  """
  drawn = np.array(drawn, np.int64)
  position = int(drawn.sum())
  order = np.empty(count, np.int64)
  for i in range(count):
    order[i] = source = int(np.argmax(fractions * (position + i + 1) - drawn))
    drawn[source] += 1
  return order


def mix(sources: Sources, records: Mapping[str, Sequence[T]], seed: int) -> list[T]:
  """The records of all sources as one list, of as many as the sources hold, each up to the cap.

  A source of which fewer records are wanted than it holds gives a random part of them, and one of which more are wanted
  gives all of them again. Records of a source stay in their order, and at each place of the list the sources have their
  shares. records: those of each source, by name. The draw depends on the seed and the source's name; a larger part of
  the same source holds the smaller ones.

  Raises:
    DataError: a source has no records.
  """
  shares = mixture_shares(sources, [len(records[name]) for name in sources.sources])
  fractions = np.array([share.fraction for share in shares])
  order = next_sources(fractions, np.zeros(len(shares), np.int64), sum(share.counted for share in shares))
  streams: list[Iterator[T]] = []
  for number, name in enumerate(sources.sources):
    whole, rest = divmod(int((order == number).sum()), len(records[name]))
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    part = np.sort(rng.permutation(len(records[name]))[:rest])
    streams.append(iter([*records[name]] * whole + [records[name][i] for i in part]))
  return [next(streams[number]) for number in order]


def describe_shares(shares: Sequence[Share], num_examples: float) -> list[str]:
  """A line for each source: its rows, its share and how often a run of `num_examples` examples passes over them."""
  width = max(len(share.name) for share in shares)
  lines = []
  for name, rows, counted, fraction in shares:
    seen = fraction * num_examples
    capped = f" (capped at {counted:,})" if counted < rows else ""
    times = f"{seen:,.0f} examples, {seen / rows:.2f} passes"
    lines.append(f"{name:{width}}  {rows:,} rows{capped}, {fraction:.1%}: {times}")
  return lines
