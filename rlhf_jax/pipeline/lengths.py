"""Lengths of rows: set once for a run, and held against its data before the first stage."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rlhf_jax import data
from rlhf_jax.data import row_formats
from rlhf_jax.data.mixture import Mixture
from rlhf_jax.data.row_formats import RowFormats, Text
from rlhf_jax.data.source_stream import SourceStream
from rlhf_jax.data.sources import Source, records_of
from rlhf_jax.feedback.exchange import read_records
from rlhf_jax.settings import ConfigError, Dataclass, values
from rlhf_jax.stage import ROW_LENGTH, Stage
from rlhf_jax.train import Sampling
from rlhf_jax.train.row_sources import named_sources

T = TypeVar("T", bound=Dataclass)

ROWS = 1000  # rows of a file that are held against a length


def fill_lengths(config: T, where: str, longest: int) -> tuple[T, bool]:
  """(a stage's config whose lengths of 0 are the run's, whether there were any).

  A length of rows becomes `longest`; `max_prompt_tokens` of sampling becomes what `max_new_tokens` leaves of it.

  Raises:
    ConfigError: `longest` is 0, which says that the run has no length, or leaves a prompt no token.
  """
  hints = typing.get_type_hints(type(config), include_extras=True)
  changes: dict[str, Any] = {}
  for name, hint in hints.items():
    value, place = getattr(config, name), f"{where}.{name}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
      filled, has_changed = fill_lengths(value, place, longest)
      changes |= {name: filled} if has_changed else {}
    elif value == 0 and ROW_LENGTH in getattr(hint, "__metadata__", ()):
      changes[name] = _checked(longest, longest, place)
  if isinstance(config, Sampling) and config.max_prompt_tokens == 0:
    room = longest - config.max_new_tokens
    changes["max_prompt_tokens"] = _checked(room, longest, f"{where}.max_prompt_tokens")
  return (dataclasses.replace(config, **changes), True) if changes else (config, False)


def _checked(length: int, longest: int, where: str) -> int:
  if not longest:
    raise ConfigError(
      f"config.{where} is not set, and neither is config.max_length, of which it is made: set one of them"
    )
  if length < 1:
    raise ConfigError(f"config.{where}: max_new_tokens leaves no token of max_length={longest} to a prompt")
  return length


def left_out(config: Any, stage: Stage, load_tokenizer: Callable[[], data.Tokenizer]) -> Iterator[str]:
  """A line for each file of a stage of which a length leaves rows out: the length, and the share of the rows.

  Counted are the first `ROWS` rows of a file or of a source of a mixture, as far as it is on this disk; prompts are
  held against `max_prompt_tokens`, all other rows against `length`.

  Raises:
    ConfigError: none of these rows fits.
    data.DataError: a file cannot be read.
  """
  fields = list(values(config, stage.name))
  rooms = {
    where.rpartition(".")[0]: value.max_prompt_tokens for where, value, _ in fields if isinstance(value, Sampling)
  }
  for where, value, marks in fields:
    key, length = "length", getattr(config, "length", 0)
    if "prompt file" in marks:
      key, length = "max_prompt_tokens", rooms.get(where.rpartition(".")[0], next(iter(rooms.values()), 0))
    (kind,) = {*marks} & {*_READERS} or {""}
    if not kind or not value or not length:
      continue
    for source in named_sources(value, stage).values():
      if not Path(source.path).exists() and not glob.glob(source.path):
        continue
      read = _streamed if isinstance(value, Mixture) else _READERS[kind]
      found = list(itertools.islice(read(source), ROWS))
      lost = _num_too_long(load_tokenizer(), found, length)
      counted = f"of the first {len(found):,} rows of {source.path}"
      if lost and lost == len(found):
        raise ConfigError(f"config.{where}: none {counted} fits in {key}={length}; set a larger {key}")
      if lost:
        yield f"{stage.name}: {key}={length} leaves out {lost / len(found):.1%} {counted}"


def _streamed(source: Source) -> Iterator[Any]:
  """The first records of a source as training on it gets them, in a random order."""
  stream = SourceStream("", source, seed=0, window=ROWS)
  return (example.record for example in stream.window_examples(0, 0)[0])


def _read(formats: RowFormats) -> Callable[[Source], Iterator[Any]]:
  """Function that gives the records of a source in order."""

  def read(source: Source) -> Iterator[Any]:
    if formats.of_demonstration and (source.templates or any(source.shots)):
      yield from (formats.of_demonstration(record) for record in _streamed(source))
    else:
      for where, row in source.open().stream(0):
        yield from records_of(source, where, row, formats, Counter())

  return read


def _read_judged(source: Source) -> Iterator[data.Comparison]:
  for item in read_records(Path(source.path))[1]:
    texts = tuple(response.text for response in item.responses)
    yield data.Comparison(item.prompt, texts, (0,) * len(texts))


_READERS: dict[str, Callable[[Source], Iterator[Any]]] = {
  "prompt file": _read(row_formats.PROMPTS),
  "demonstration file": _read(row_formats.DEMONSTRATIONS),
  "comparison file": _read(row_formats.COMPARISONS),
  "step file": _read(row_formats.STEPWISE),
  "unpaired file": _read(row_formats.UNPAIRED),
  "record file": _read_judged,
}


def _num_too_long(tokenizer: data.Tokenizer, records: Sequence[Any], length: int) -> int:
  """The number of records that a row of `length` tokens does not hold; a text is cut, and fits any row."""
  answers = (data.Demonstration, data.Unpaired, data.Steps)
  alone = [record for record in records if isinstance(record, answers)]
  demonstrations = [data.Demonstration(record.prompt, record.response) for record in alone]
  comparisons = [record for record in records if isinstance(record, data.Comparison)]
  prompts = [record for record in records if not isinstance(record, (*answers, data.Comparison, Text))]
  skips = (
    data.demonstration_rows(tokenizer, demonstrations, length)[-1],
    data.comparison_rows(tokenizer, comparisons, length)[-1],
    data.prompt_rows(tokenizer, prompts, length)[-1],
  )
  return sum(reasons.total() for reasons in skips)
