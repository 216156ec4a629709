"""Batches from a mixture: read, phrased, tokenised and laid out as they are needed, and resumed at the very example.

The examples come in blocks of about a thousand. A block is a function of the position it begins at, and of nothing
that came before: its examples are drawn, tokenised, packed by first fit from the longest down, and its rows shuffled.
So a position in the stream is where its block begins, and how many of the block's rows are taken: a few integers. No
number of devices or processes enters: each process makes the same batch and places its own rows of it.
"""

import functools
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from rlhf_jax.data.arrays import Arrays, cut_texts, is_held_out, pack_rows, take, too_long
from rlhf_jax.data.encoding import encode_demonstrations
from rlhf_jax.data.files import DataError
from rlhf_jax.data.mixture import Mixture, describe_shares, mixture_shares, next_tasks
from rlhf_jax.data.row_formats import Demonstration, Text
from rlhf_jax.data.source_stream import Cursor, Example, Task
from rlhf_jax.data.sources import leave_out
from rlhf_jax.data.tokenizer import Tokenizer

BLOCK = 1024  # examples
EVALUATED = 512  # examples at most, of those that are held out


class Block(NamedTuple):
  """rows: the arrays of a block. num_drawn: examples that were drawn for it. end: the position of the next block."""

  rows: Arrays
  num_drawn: int
  end: np.ndarray


class Stream:
  """The batches of a mixture.

  take(position) -> (batch, next position), from `start` on: tokens i32[B, T], mask bool[B, T] and, packed, segments
  i32[B, T]; positions are i32[1 + 4 K] for K sources. It is a function of the position; what comes next is made ahead
  in a thread.
  """

  def __init__(
    self, mixture: Mixture, tokenizer: Tokenizer, *, length: int, batch_size: int, seed: int, eval_fraction: float = 0.0
  ):
    """length: tokens of a row, and of the longest example. eval_fraction: share of the prompts held out.

    Raises:
      DataError: a source cannot be opened.
    """
    held_out = functools.partial(is_held_out, fraction=eval_fraction, seed=seed)
    self.mixture, self.tokenizer, self.length, self.batch_size = mixture, tokenizer, length, batch_size
    self.seed = seed
    self.tasks = [
      Task(name, source, seed=seed, window=mixture.window, held_out=held_out)
      for name, source in mixture.sources.items()
    ]
    self.shares = mixture_shares(mixture, [task.num_rows() for task in self.tasks])
    self.start = np.zeros(1 + 4 * len(self.tasks), np.int32)
    self._fractions = np.asarray([share.fraction for share in self.shares])
    self._block_size = batch_size * max(1, BLOCK // batch_size)  # a whole number of batches, for the buckets
    self._worker = ThreadPoolExecutor(1, "data")  # the only thread that touches the tasks, once they are open
    self._made: dict[bytes, Future[Block]] = {}

  def take(self, position: np.ndarray) -> tuple[Arrays, np.ndarray]:
    """The batch at a position, and the position behind it.

    Raises:
      DataError: a row that its source does not allow to leave out; a source without usable rows.
    """
    position = np.array(position, np.int32)
    parts, missing = [], self.batch_size
    while missing:
      block = self._block(position)
      here = take(block.rows, slice(position[0], position[0] + missing))
      count = len(here["tokens"])
      missing -= count
      position[0] += count
      if position[0] == len(block.rows["tokens"]):
        position = block.end.copy()
      parts.append(here)
    batch = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    lengths = batch.pop("lengths", None)
    return (_cut(batch, lengths.max()) if self.mixture.layout == "bucketed" else batch), position

  def held_out(self) -> Arrays:
    """Rows of held-out examples, packed, at most 512 of them: from the first window of each source, by its share.

    Raises:
      DataError: there are none.
    """
    return self._worker.submit(self._held_out).result()

  def _held_out(self) -> Arrays:
    chosen = []
    for task, share in zip(self.tasks, self.shares, strict=True):
      found = [example for example in task.examples(0, 0)[0] if example.held_out]
      chosen += [(task, example) for example in found[: max(round(EVALUATED * share.fraction), 1)]]
    encoded = self._encode(chosen)
    if not encoded:
      raise DataError(f"no example of {', '.join(self.mixture.sources)} is held out and fits in {self.length} tokens")
    return pack_rows(self._pad(encoded), self.length, self.tokenizer.pad_id)

  def rows_per_example(self) -> float:
    """How many rows an example takes, as measured in the first block."""
    block = self._block(self.start)
    return len(block.rows["tokens"]) / block.num_drawn

  def examples_per_pass(self) -> int:
    """The rows of all sources, each up to its cap."""
    return sum(share.counted for share in self.shares)

  def describe(self, num_examples: float) -> list[str]:
    """What a run of so many examples will see of each source, and how full its rows are."""
    rows = self._block(self.start).rows
    real = rows["segments"] > 0 if "segments" in rows else rows["lengths"][:, None] > np.arange(self.length)
    first = f"the first {len(rows['tokens']):,} rows of {self.length} tokens are {real.mean():.1%} full"
    return [*describe_shares(self.shares, num_examples), first]

  def skips(self) -> Iterable[tuple[str, Counter, int]]:
    """(path, what was left out by reason, rows read) of each source."""

    def copy():
      return [(task.source.path, task.skips.copy(), task.num_read) for task in self.tasks]

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
    state = start[1:].reshape(-1, 4).astype(np.int64)  # a row for each task: drawn, and its cursor
    before = int(state[:, 0].sum())
    encoded: list[tuple[np.ndarray, np.ndarray]] = []
    while len(encoded) < self._block_size:
      examples = self._draw(state, self._block_size - len(encoded))
      encoded += self._encode([(task, example) for task, example in examples if not example.held_out])
      if not encoded and state[:, 0].sum() - before > 2 * max(self._block_size, self.examples_per_pass()):
        skips = sum((task.skips for task in self.tasks), Counter())
        reasons = ", ".join(skips) or "all are held out"
        raise DataError(f"no example of {', '.join(self.mixture.sources)} can be trained on ({reasons})")
    num_drawn = int(state[:, 0].sum()) - before
    rng = np.random.default_rng((self.seed, before))
    end = np.concatenate([[0], state.ravel()]).astype(np.int32)
    return Block(self._lay_out(encoded, rng), num_drawn, end)

  def _draw(self, state: np.ndarray, count: int) -> list[tuple[Task, Example]]:
    """The next examples of the mixture; `state` is moved on."""
    order = next_tasks(self._fractions, state[:, 0], count)
    found: list = [None] * count
    for k, task in enumerate(self.tasks):
      places = np.flatnonzero(order == k)
      examples, cursor = task.take(Cursor(*map(int, state[k, 1:])), len(places))
      for place, example in zip(places, examples, strict=True):
        found[place] = (task, example)
      state[k] = (state[k, 0] + len(places), *cursor)
    return found

  def _encode(self, examples: list[tuple[Task, Example]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The (ids, mask) of the demonstrations that fit, and of every text, which takes as many rows as it needs."""
    texts = [example.record.text for _, example in examples if isinstance(example.record, Text)]
    pairs = [example.record for _, example in examples if self._may_fit(example)]
    encoded = iter(encode_demonstrations(self.tokenizer, pairs, self.mixture.loss))
    cut = iter(cut_texts(self.tokenizer, texts, self.length))
    found = []
    for task, example in examples:
      if isinstance(example.record, Text):
        found += next(cut)
        continue
      row = next(encoded) if self._may_fit(example) else None
      if row and len(row[0]) <= self.length:
        found.append(row)
      else:
        leave_out(task.source, task.skips, example.where, too_long(self.length), "too_long")
    return found

  def _may_fit(self, example: Example) -> bool:
    """A token spells only so many characters: an answer of megabytes need not be tokenised to be too long."""
    is_pair = isinstance(example.record, Demonstration)
    return is_pair and sum(len(text.strip()) for text in example.record) <= self.length * self._widest

  @functools.cached_property
  def _widest(self) -> int:
    return max(map(len, self.tokenizer.backend.get_vocab()))

  def _pad(self, encoded: list[tuple[np.ndarray, np.ndarray]]) -> Arrays:
    tokens = np.full((len(encoded), self.length), self.tokenizer.pad_id, np.int32)
    mask = np.zeros((len(encoded), self.length), bool)
    for row, (ids, counts) in enumerate(encoded):
      tokens[row, : len(ids)] = ids
      mask[row, : len(ids)] = counts
    lengths = np.asarray([len(ids) for ids, _ in encoded], np.int32)
    return {"tokens": tokens, "mask": mask, "lengths": lengths}

  def _lay_out(self, encoded: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> Arrays:
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
  """The batch at the least of length, length / 2, length / 4, ... that holds it: a program for each, and no more."""
  width = batch["tokens"].shape[1]
  while width % 2 == 0 and width // 2 >= max(longest, 16):
    width //= 2
  return {name: array[:, :width] for name, array in batch.items()}
