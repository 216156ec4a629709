"""A source as an endless, shuffled stream of examples; memory holds one window of its rows at a time.

A pass reads the source in its order, a window of rows at a time. The examples of a window are shuffled, and their
phrasings and solved examples drawn, by (seed, name of the source, pass, window). A cursor of three integers is a place
in the stream, from which the stream continues exactly.
"""

import functools
import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.data.dialogue import Prompt
from rlhf_jax.data.files import DataError
from rlhf_jax.data.readers import LocatedRow
from rlhf_jax.data.records import Demonstration, Text
from rlhf_jax.data.row_formats import STREAMED, RowFormats
from rlhf_jax.data.sources import Source, find_duplicates, leave_out, list_reasons, records_of
from rlhf_jax.data.templates import Phrasings, fill, load_templates, with_examples


class Cursor(NamedTuple):
  """A place in the stream of a source."""

  epoch: int = 0
  """Number of complete passes before it."""
  window: int = 0
  """Number of complete windows before it in its pass."""
  offset: int = 0
  """Number of examples before it in its window."""


class Example(NamedTuple):
  """A record to train on, or to evaluate on if it is held out."""

  record: Demonstration | Text
  is_held_out: bool
  where: str
  """Place of its row, for messages."""


class _Item(NamedTuple):
  """The content of a row before its phrasing is drawn: the texts of its columns, or a record that needs no phrasing."""

  where: str
  content: dict[str, str] | Demonstration | Text


class SourceStream:
  """The stream of one source."""

  def __init__(
    self, name: str, source: Source, *, seed: int, window: int, is_held_out: Callable[[Prompt], bool] | None = None
  ) -> None:
    """Opens the source.

    Args:
      name: the source's name in its mixture, on which the order of its examples depends.
      window: rows that are shuffled together.
      is_held_out: whether a prompt is kept from training, and with it every phrasing of its row; None where none is.

    Raises:
      DataError: the source or its templates cannot be read.
    """
    self.name, self.source, self.window = name, source, window
    self.skips: Counter[str] = Counter()
    self.num_read = 0
    self._seed = (seed, zlib.crc32(name.encode()))
    self._is_held_out = is_held_out
    self._phrasings = load_templates(source.templates) if source.templates else None
    self._formats = template_columns(self._phrasings) if self._phrasings else STREAMED
    self._rows = source.open()
    self._duplicates = find_duplicates(source)
    self._reader: Iterator[LocatedRow] = iter(())
    self._next_row = -1
    self._latest: tuple[tuple[int, int], list[Example], bool] | None = None

  def num_rows(self) -> int:
    """The number of rows of a pass. Raises DataError where it is unknown."""
    count = self.source.rows or self._rows.count()
    if count is None:
      raise DataError(f"{self.source.path}: its number of rows is not known; give rows=N in the source {self.name!r}")
    return count

  def next_examples(self, cursor: Cursor, count: int) -> tuple[list[Example], Cursor]:
    """The `count` examples from a cursor on, and the cursor after them.

    Raises:
      DataError: a row has a fault that the source does not allow to leave out, or a whole pass gives no example.
    """
    found: list[Example] = []
    epoch, window, offset = cursor
    barren = 0  # ends of passes since the last example
    while len(found) < count:
      examples, is_last = self.window_examples(epoch, window)
      part = examples[offset : offset + count - len(found)]
      found += part
      offset += len(part)
      if offset < len(examples) or len(found) == count:
        continue
      barren = 0 if part or offset else barren + is_last
      if barren == 2:
        raise DataError(f"{self.source.path}: none of its rows is usable ({list_reasons(self.skips) or 'it has none'})")
      epoch, window, offset = (epoch + 1, 0, 0) if is_last else (epoch, window + 1, 0)
    return found, Cursor(epoch, window, offset)

  def window_examples(self, epoch: int, window: int) -> tuple[list[Example], bool]:
    """The shuffled examples of a window, and whether the window is the last of its pass. Raises DataError."""
    if self._latest is None or self._latest[0] != (epoch, window):
      items, is_last = self._read(window)
      rng = np.random.default_rng((*self._seed, epoch, window))
      self._latest = ((epoch, window), self._draw(items, rng), is_last)
    return self._latest[1:]

  def _read(self, window: int) -> tuple[list[_Item], bool]:
    start = window * self.window
    if self._next_row != start:
      self._reader = self._rows.stream(start)
    rows = list(itertools.islice(self._reader, self.window))
    self._next_row = start + len(rows)
    self.num_read += len(rows)
    return self._items(enumerate(rows, start), self.skips), len(rows) < self.window

  def _items(self, rows: Iterable[tuple[int, LocatedRow]], skips: Counter[str]) -> list[_Item]:
    return [
      _Item(where, content)
      for number, (where, row) in rows
      for content in records_of(self.source, where, row, self._formats, skips, number in self._duplicates)
    ]

  def _draw(self, items: list[_Item], rng: np.random.Generator) -> list[Example]:
    """The examples of a window, shuffled."""
    order = rng.permutation(len(items))
    phrasing = rng.integers(len(self._phrasings.templates) if self._phrasings else 1, size=len(items))
    shots = np.asarray(self.source.shots)[rng.integers(len(self.source.shots), size=len(items))]
    found = []
    for i in order:
      item, record = items[i], self._phrase(items[i], phrasing[i])
      if shots[i]:
        record = self._with_shots(item, record, phrasing[i], shots[i], rng)
      reason = STREAMED.problem(record)
      if reason is None:
        found.append(Example(record, self._holds_out(item), item.where))
      else:
        leave_out(self.source, self.skips, item.where, reason, "unusable")
    return found

  def _holds_out(self, item: _Item) -> bool:
    if self._is_held_out is None:
      return False
    return self._is_held_out(self._phrase(item, 0)[0])  # by the prompt in the first phrasing, or the text

  def _phrase(self, item: _Item, phrasing: int) -> Demonstration | Text:
    if isinstance(item.content, (Demonstration, Text)):
      return item.content
    assert self._phrasings is not None  # without templates every item is a record
    return Demonstration(*fill(self._phrasings.templates[phrasing], item.content))

  def _with_shots(
    self, item: _Item, record: Demonstration | Text, phrasing: int, shots: int, rng: np.random.Generator
  ) -> Demonstration:
    pool = self._pool
    others = (pool[i] for i in rng.permutation(len(pool)) if pool[i] != item)
    solved = [self._phrase(other, phrasing) for other in itertools.islice(others, shots)]
    if len(solved) < shots:
      raise DataError(f"{item.where}: shots={shots} needs as many other rows to train on, found {len(solved)}")
    bare = [
      (pair.prompt, pair.response)
      for pair in (record, *solved)
      if isinstance(pair, Demonstration) and isinstance(pair.prompt, str) and isinstance(pair.response, str)
    ]
    if len(bare) <= shots:
      raise DataError(f"{item.where}: shots={shots} needs bare prompts, found a dialogue or a text")
    (prompt, response), *examples = bare
    return Demonstration(with_examples(prompt, examples), response)

  @functools.cached_property
  def _pool(self) -> list[_Item]:
    """The items from which solved examples are drawn: those of the first window that are not held out."""
    items = self._items(enumerate(itertools.islice(self._rows.stream(0), self.window)), Counter())
    return [item for item in items if not self._holds_out(item)]


def template_columns(phrasings: Phrasings) -> RowFormats:
  """The format of rows whose columns the templates name; a record is the texts of these columns."""

  def parse(row: Mapping[str, Any], where: str) -> Iterator[dict[str, str]]:
    yield phrasings.values(row, where)

  return RowFormats({(): parse}, lambda values: None)
