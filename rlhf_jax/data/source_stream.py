"""A source as an endless, shuffled stream of examples, of which one window at a time is in memory.

A pass over a source is read in its order, a window of rows at a time; the examples of a window are shuffled, and their
phrasings and solved examples drawn, by (seed, name, pass, window). A cursor says how far the stream is, in three
integers; from a cursor it goes on exactly.
"""

import functools
import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from rlhf_jax.data.dialogue import is_dialogue
from rlhf_jax.data.files import DataError
from rlhf_jax.data.readers import Located
from rlhf_jax.data.row_formats import STREAMED, Demonstration, Shapes, Text
from rlhf_jax.data.sources import Source, find_duplicates, leave_out, records_of
from rlhf_jax.data.templates import Phrasings, fill, load_templates, with_examples


class Cursor(NamedTuple):
  """epoch: passes that are done. window: of the pass. offset: examples of the window that are taken."""

  epoch: int = 0
  window: int = 0
  offset: int = 0


class Example(NamedTuple):
  """What a model is trained on, or evaluated where it is held out; where: its row."""

  record: Demonstration | Text
  held_out: bool
  where: str


class _Item(NamedTuple):
  """A row, before its phrasing is drawn: the columns' texts, or a record that needs none."""

  where: str
  values: dict[str, str] | Demonstration | Text


class Task:
  """The stream of one source. held_out: whether a prompt is kept from training, in every phrasing of its row."""

  def __init__(self, name: str, source: Source, *, seed: int, window: int, held_out: Callable[[str], bool]):
    self.name, self.source, self.window = name, source, window
    self.skips: Counter = Counter()
    self.num_read = 0
    self._seed = (seed, zlib.crc32(name.encode()))
    self._held_out = held_out
    self._phrasings = load_templates(source.templates) if source.templates else None
    self._shape = _templated(self._phrasings) if self._phrasings else STREAMED
    self._rows = source.open()
    self._duplicates = find_duplicates(source)
    self._reader: Iterator = iter(())
    self._next_row = -1
    self._held: tuple[tuple[int, int], list[Example], bool] | None = None

  def num_rows(self) -> int:
    """How many rows a pass has. Raises DataError where that is not known."""
    count = self.source.rows or self._rows.count()
    if count is None:
      raise DataError(f"{self.source.path}: its number of rows is not known; give rows=N in the source {self.name!r}")
    return count

  def take(self, cursor: Cursor, count: int) -> tuple[list[Example], Cursor]:
    """The next `count` examples, and the cursor behind them.

    Raises:
      DataError: a row that the source does not allow to leave out, or a whole pass without an example.
    """
    taken: list[Example] = []
    epoch, window, offset = cursor
    barren = 0
    while len(taken) < count:
      examples, last = self.examples(epoch, window)
      part = examples[offset : offset + count - len(taken)]
      taken += part
      offset += len(part)
      if offset < len(examples) or len(taken) == count:
        continue
      barren = 0 if part or offset else barren + last
      if barren == 2:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in self.skips.items()) or "it has none"
        raise DataError(f"{self.source.path}: none of its rows is usable ({reasons})")
      epoch, window, offset = (epoch + 1, 0, 0) if last else (epoch, window + 1, 0)
    return taken, Cursor(epoch, window, offset)

  def examples(self, epoch: int, window: int) -> tuple[list[Example], bool]:
    """The examples of a window in the order they are taken, and whether it is the last of its pass."""
    if self._held is None or self._held[0] != (epoch, window):
      items, last = self._read(window)
      self._held = ((epoch, window), self._draw(items, np.random.default_rng((*self._seed, epoch, window))), last)
    return self._held[1:]

  def _read(self, window: int) -> tuple[list[_Item], bool]:
    start = window * self.window
    if self._next_row != start:
      self._reader = self._rows.stream(start)
    rows = list(itertools.islice(self._reader, self.window))
    self._next_row = start + len(rows)
    self.num_read += len(rows)
    return self._items(enumerate(rows, start), self.skips), len(rows) < self.window

  def _items(self, rows: Iterable[tuple[int, Located]], skips: Counter) -> list[_Item]:
    return [
      _Item(where, record)
      for number, (where, row) in rows
      for record in records_of(self.source, where, row, self._shape, skips, number in self._duplicates)
    ]

  def _draw(self, items: list[_Item], rng: np.random.Generator) -> list[Example]:
    """The examples of a window, shuffled."""
    order = rng.permutation(len(items))
    phrasing = rng.integers(len(self._phrasings.templates) if self._phrasings else 1, size=len(items))
    shots = np.asarray(self.source.shots)[rng.integers(len(self.source.shots), size=len(items))]
    found = []
    for i in order:
      item, example = items[i], self._phrased(items[i], phrasing[i])
      if shots[i]:
        example = self._with_shots(item, example, phrasing[i], shots[i], rng)
      reason = STREAMED.problem(example)
      if reason is None:
        found.append(Example(example, self._is_held_out(item), item.where))
      else:
        leave_out(self.source, self.skips, item.where, reason, "unusable")
    return found

  def _is_held_out(self, item: _Item) -> bool:
    return self._held_out(self._phrased(item, 0)[0])  # by the prompt, or the text

  def _phrased(self, item: _Item, phrasing: int) -> Demonstration | Text:
    if self._phrasings is None:
      return item.values
    return Demonstration(*fill(self._phrasings.templates[phrasing], item.values))

  def _with_shots(self, item: _Item, example: Demonstration | Text, phrasing: int, shots: int, rng) -> Demonstration:
    pool = self._pool
    others = (pool[i] for i in rng.permutation(len(pool)) if pool[i] != item)
    solved = [self._phrased(other, phrasing) for other in itertools.islice(others, shots)]
    if len(solved) < shots:
      raise DataError(f"{item.where}: shots={shots} needs as many other rows to train on, found {len(solved)}")
    if any(isinstance(record, Text) or is_dialogue(record.prompt) for record in (example, *solved)):
      raise DataError(f"{item.where}: shots={shots} needs bare prompts, found a dialogue or a text")
    return Demonstration(with_examples(example.prompt, solved), example.response)

  @functools.cached_property
  def _pool(self) -> list[_Item]:
    """What is drawn from as solved examples: the first window, without what is held out, which is shown nowhere."""
    items = self._items(enumerate(itertools.islice(self._rows.stream(0), self.window)), Counter())
    return [item for item in items if not self._is_held_out(item)]


def _templated(phrasings: Phrasings) -> Shapes:
  """Rows whose columns the templates name, as the texts of those columns."""

  def parse(row, where):
    yield phrasings.values(row, where)

  return Shapes({(): parse}, lambda values: None)
