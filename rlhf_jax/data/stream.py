"""Batches from a mixture: read, phrased, tokenised and laid out when they are needed, and resumed at the exact example.

The examples come in blocks of about a thousand. A block depends on the position where it begins, not on earlier blocks:
its examples are drawn, tokenised, packed by first fit from the longest to the shortest, and its rows shuffled. A
position in the stream is therefore a few integers: where its block begins, and how many of the block's rows are taken.
It does not depend on the number of devices or processes: each process makes the same batch and uses its own rows of it.
"""

import functools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeGuard

import numpy as np

from rlhf_jax.data.arrays import Arrays, cut_texts, is_held_out, pack_rows, pad_rows, take, too_long
from rlhf_jax.data.dialogue import answer_message, messages_of
from rlhf_jax.data.encoding import Encoded, encode_demonstrations
from rlhf_jax.data.files import DataError
from rlhf_jax.data.mixture import Mixture, describe_shares, mixture_shares, next_sources
from rlhf_jax.data.records import Demonstration, Text
from rlhf_jax.data.source_stream import Cursor, Example, SourceStream
from rlhf_jax.data.sources import leave_out
from rlhf_jax.data.tokenizer import Tokenizer

BLOCK = 1024  # examples of a block, rounded down to whole batches
MAX_HELD_OUT = 512  # held-out examples at most

Drawn = tuple[SourceStream, Example]  # an example and the source it came from


class Block(NamedTuple):
  """The rows made from about a thousand examples."""

  rows: Arrays
  """Arrays of the rows, [R, ...]."""
  num_drawn: int
  """Number of examples that were drawn for the block, those left out or held out included."""
  end: np.ndarray
  """Position where the next block begins, i32[1 + 4 K]."""


class Stream:
  """The batches of a mixture, as a function of their position; a thread makes the next block in advance.

  A position is i32[1 + 4 K] for K sources: the rows taken of the current block, and for each source the number of its
  examples drawn before the block and its cursor. `start` is the first position.
  """

  def __init__(
    self, mixture: Mixture, tokenizer: Tokenizer, *, length: int, batch_size: int, seed: int, eval_fraction: float = 0.0
  ) -> None:
    """Opens the sources and counts their rows.

    Args:
      length: tokens of a row, and of the longest example.
      batch_size: rows of a batch.
      eval_fraction: share of the prompts that are held out, between 0 and 1.

    Raises:
      DataError: a source cannot be opened, or its rows cannot be counted.
    """
    held_out = functools.partial(is_held_out, fraction=eval_fraction, seed=seed) if eval_fraction else None
    self.mixture, self.tokenizer, self.length, self.batch_size = mixture, tokenizer, length, batch_size
    self.seed = seed
    self.notes: Counter[str] = Counter()
    self.sources = [
      SourceStream(name, source, seed=seed, window=mixture.window, is_held_out=held_out)
      for name, source in mixture.sources.items()
    ]
    self.shares = mixture_shares(mixture, [source.num_rows() for source in self.sources])
    self.start = np.zeros(1 + 4 * len(self.sources), np.int32)
    self._fractions = np.asarray([share.fraction for share in self.shares])
    self._block_size = batch_size * max(1, BLOCK // batch_size)  # a whole number of batches, for the buckets
    self._worker = ThreadPoolExecutor(1, "data")  # the only thread that uses the sources once they are open
    self._made: dict[bytes, Future[Block]] = {}

  def batch_at(self, position: np.ndarray) -> tuple[Arrays, np.ndarray]:
    """The batch at a position, and the position of the next batch.

    Returns:
      tokens i32[B, T], mask bool[B, T] and, with the layout "packed", segments i32[B, T].

    Raises:
      DataError: a row has a fault that its source does not allow to leave out, or a source has no usable row.
    """
    position = np.array(position, np.int32)
    parts: list[Arrays] = []
    missing = self.batch_size
    while missing:
      block = self._block(position)
      here = {name: array[position[0] : position[0] + missing] for name, array in block.rows.items()}
      count = len(here["tokens"])
      missing -= count
      position[0] += count
      if position[0] == len(block.rows["tokens"]):
        position = block.end.copy()
      parts.append(here)
    batch = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    longest = batch.pop("lengths").max() if "lengths" in batch else self.length
    return (_cut(batch, longest) if self.mixture.layout == "bucketed" else batch), position

  def held_out(self) -> Arrays:
    """Packed rows of at most 512 held-out examples, from the first window of each source in proportion to its share.

    Raises:
      DataError: no example is held out.
    """
    return self._worker.submit(self._held_out).result()

  def _held_out(self) -> Arrays:
    chosen: list[Drawn] = []
    for source, share in zip(self.sources, self.shares, strict=True):
      found = [example for example in source.window_examples(0, 0)[0] if example.is_held_out]
      chosen += [(source, example) for example in found[: max(round(MAX_HELD_OUT * share.fraction), 1)]]
    encoded = self._encode(chosen)
    if not encoded:
      raise DataError(
        f"no example of {', '.join(self.mixture.sources)} is held out and fits in {self.length} tokens; make "
        "eval_fraction greater, or 0 to train on every example without an evaluation"
      )
    return pack_rows(self._pad(encoded), self.length, self.tokenizer.pad_id)

  def rows_per_example(self) -> float:
    """The mean number of rows that an example fills, as measured in the first block."""
    block = self._block(self.start)
    return len(block.rows["tokens"]) / block.num_drawn

  def examples_per_pass(self) -> int:
    """The number of rows of all sources, each up to the mixture's cap."""
    return sum(share.counted for share in self.shares)

  def describe(self, num_examples: float) -> list[str]:
    """Lines that tell what a run of `num_examples` examples sees of each source, and how full its rows are."""
    rows = self._block(self.start).rows
    real = rows["segments"] > 0 if "segments" in rows else rows["lengths"][:, None] > np.arange(self.length)
    first = f"the first {len(rows['tokens']):,} rows of {self.length} tokens are {real.mean():.1%} full"
    return [*describe_shares(self.shares, num_examples), first]

  def skips(self) -> list[tuple[str, Counter[str], int]]:
    """(path, {reason: how many rows were left out for it}, rows read) of each source."""

    def copy() -> list[tuple[str, Counter[str], int]]:
      return [(source.source.path, source.skips.copy(), source.num_read) for source in self.sources]

    return self._worker.submit(copy).result()

  def _block(self, position: np.ndarray) -> Block:
    start = np.concatenate([[0], position[1:]]).astype(np.int32)
    block = self._submit(start).result()
    self._submit(block.end)
    self._made = {key: self._made[key] for key in (start.tobytes(), block.end.tobytes())}
    return block

  def _submit(self, start: np.ndarray) -> Future[Block]:
    key = start.tobytes()
    if key not in self._made:
      self._made[key] = self._worker.submit(self._make, start.copy())
    return self._made[key]

  def _make(self, start: np.ndarray) -> Block:
    state = start[1:].reshape(-1, 4).astype(np.int64)  # [K, 4]: examples drawn of each source, and its cursor
    before = int(state[:, 0].sum())
    encoded: list[Encoded] = []
    while len(encoded) < self._block_size:
      examples = self._draw(state, self._block_size - len(encoded))
      encoded += self._encode([(source, example) for source, example in examples if not example.is_held_out])
      if not encoded and state[:, 0].sum() - before > 2 * max(self._block_size, self.examples_per_pass()):
        skips = sum((source.skips for source in self.sources), Counter[str]())
        reasons = ", ".join(skips) or "all are held out"
        raise DataError(f"no example of {', '.join(self.mixture.sources)} can be trained on ({reasons})")
    num_drawn = int(state[:, 0].sum()) - before
    rng = np.random.default_rng((self.seed, before))
    end = np.concatenate([[0], state.ravel()]).astype(np.int32)
    return Block(self._lay_out(encoded, rng), num_drawn, end)

  def _draw(self, state: np.ndarray, count: int) -> list[Drawn]:
    """The next `count` examples of the mixture; advances `state`."""
    order = next_sources(self._fractions, state[:, 0], count)
    drawn: list[Iterator[Example]] = []
    for k, source in enumerate(self.sources):
      here = int((order == k).sum())
      examples, cursor = source.next_examples(Cursor(*map(int, state[k, 1:])), here)
      state[k] = (state[k, 0] + here, *cursor)
      drawn.append(iter(examples))
    return [(self.sources[k], next(drawn[k])) for k in order]

  def _encode(self, examples: list[Drawn]) -> list[Encoded]:
    """The demonstrations that fit into a row, and the rows of every text, which fills as many as it needs."""
    texts = [example.record.text for _, example in examples if isinstance(example.record, Text)]
    may_fit = [example.record if self._may_fit(example.record) else None for _, example in examples]
    pairs = [record for record in may_fit if record]
    encoded = iter(encode_demonstrations(self.tokenizer, pairs, self.mixture.loss, self.notes))
    cut = iter(cut_texts(self.tokenizer, texts, self.length))
    found: list[Encoded] = []
    for (source, example), pair in zip(examples, may_fit, strict=True):
      if isinstance(example.record, Text):
        found += next(cut)
        continue
      row = next(encoded) if pair else None
      if isinstance(row, str):
        leave_out(source.source, source.skips, example.where, row, "unusable")
      elif row and len(row[0]) <= self.length:
        found.append(row)
      else:
        leave_out(source.source, source.skips, example.where, too_long(self.length), "too_long")
    return found

  def _may_fit(self, record: Demonstration | Text) -> TypeGuard[Demonstration]:
    """Whether a record is a demonstration that could fit in `length` tokens if each were the longest of the vocabulary.

    An answer of megabytes need not be tokenised to be too long.
    """
    if not isinstance(record, Demonstration):
      return False
    said = (*messages_of(record.prompt), answer_message(record.response))
    return sum(len(message.content.strip()) for message in said) <= self.length * self._widest

  @functools.cached_property
  def _widest(self) -> int:
    return max(map(len, self.tokenizer.backend.get_vocab()))

  def _pad(self, encoded: list[Encoded]) -> Arrays:
    tokens, lengths = pad_rows([ids for ids, _ in encoded], self.length, self.tokenizer.pad_id)
    mask = np.zeros(tokens.shape, bool)
    for row, (_, counts) in enumerate(encoded):
      mask[row, : len(counts)] = counts
    return {"tokens": tokens, "mask": mask, "lengths": lengths}

  def _lay_out(self, encoded: list[Encoded], rng: np.random.Generator) -> Arrays:
    if self.mixture.layout == "packed":
      longest_first = sorted(encoded, key=lambda pair: -len(pair[0]))
      rows = pack_rows(self._pad(longest_first), self.length, self.tokenizer.pad_id, lookback=len(encoded))
      return take(rows, rng.permutation(len(rows["tokens"])))
    if self.mixture.layout == "bucketed":
      encoded = sorted(encoded, key=lambda pair: len(pair[0]))
      batches = rng.permutation(len(encoded) // self.batch_size)
      order = (batches[:, None] * self.batch_size + np.arange(self.batch_size)).ravel()
      return take(self._pad(encoded), [*order, *range(len(order), len(encoded))])
    return self._pad(encoded)


def _cut(batch: Arrays, longest: int) -> Arrays:
  """The batch cut to the smallest of length, length / 2, length / 4, ... (at least 16) that holds its `longest` row.

  Widths are few so that at most log2(length) programs are compiled.
  """
  width = batch["tokens"].shape[1]
  while width % 2 == 0 and width // 2 >= max(longest, 16):
    width //= 2
  return {name: array[:, :width] for name, array in batch.items()}
