"""The batches of supervised learning: from a file, whose rows are held in memory, or from a mixture, read as needed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.data.mixture import Mixture
from rlhf_jax.data.row_formats import DEMONSTRATIONS
from rlhf_jax.data.sources import Source
from rlhf_jax.data.stream import Stream
from rlhf_jax.positions import STEPS, positions_of
from rlhf_jax.stage import Stage
from rlhf_jax.train.comparisons import split_by_prompt
from rlhf_jax.train.progress import console, report_notes, report_skips
from rlhf_jax.train.row_sources import AnyRows, named_sources, path_of, read_given, read_text
from rlhf_jax.types import Batch


class Batches(NamedTuple):
  """The batches of a run, and the rows that are in none of them."""

  start: Any
  """Position of the first step: an array, or () for a file. `TrainState.extra` carries it through the checkpoints."""
  take: Callable[[Any, int], tuple[Batch, Any]]
  """Function (position, step) -> (batch, next position)."""
  num_rows: float
  """Number of rows in one pass; an estimate for a mixture."""
  held_out: dict[str, np.ndarray]
  """Held-out rows: the arrays of a `Batch` by name, or "tokens" i32[0, T] alone where there are none."""
  report: Callable[[], None]
  """Function that prints what was skipped so far."""


def load_demonstrations(
  source: str | Source | Mixture,
  stage: Stage,
  tokenizer: data.Tokenizer,
  *,
  length: int,
  batch_size: int,
  num_epochs: int,
  eval_fraction: float,
) -> Batches:
  """Demonstrations packed into rows of `length` tokens; `eval_fraction` of the prompts are held out, none at 0.

  Raises:
    data.DataError: a source cannot be read, or a side has no demonstration that fits.
  """
  if isinstance(source, Mixture):
    stream = _open_stream(source, stage, tokenizer, length, batch_size, eval_fraction)
    _tell(stream.describe(num_epochs * stream.examples_per_pass()))
    return _from_stream(stream, stream.held_out() if eval_fraction else _no_rows(length))
  path = path_of(source)
  demonstrations = read_given(source, stage, DEMONSTRATIONS)
  parts = split_by_prompt([d.prompt for d in demonstrations], eval_fraction, stage.seed, path)
  train, held_out = (
    _demonstration_rows(tokenizer, [demonstrations[i] for i in part], length, path) if len(part) else _no_rows(length)
    for part in parts
  )
  full = (train["segments"] > 0).mean()
  _tell([f"{path}: {len(train['tokens']):,} rows of {length} tokens, {full:.1%} full"])
  return _from_rows(train, held_out, batch_size, stage)


def load_texts(
  source: str | Source | Mixture,
  stage: Stage,
  tokenizer: data.Tokenizer,
  *,
  eval_text: AnyRows,
  eval_rows: int,
  length: int,
  batch_size: int,
  num_steps: int,
) -> Batches:
  """Rows of `length` tokens from plain text. Held out are the first `eval_rows` rows of the file `eval_text`; where
  that is "", the last `eval_rows` rows of the source.

  Raises:
    data.DataError: a source cannot be read, or has no more than `eval_rows` rows.
  """

  def rows_of(given):
    return data.language_model_rows(tokenizer, read_text(given, stage), length)

  held_out: dict[str, np.ndarray] = {}
  if eval_text:
    rows = rows_of(eval_text)
    held_out = data.take(rows, range(min(eval_rows, len(rows["tokens"]))))
  if isinstance(source, Mixture):
    stream = _open_stream(source, stage, tokenizer, length, batch_size, 0.0)
    _tell(stream.describe(num_steps * batch_size / stream.rows_per_example()))
    return _from_stream(stream, held_out)
  rows = rows_of(source)
  if not eval_text:
    count = len(rows["tokens"])
    if count <= eval_rows:
      raise data.DataError(
        f"{path_of(source)} gives {count} rows of {length} tokens, which eval_rows={eval_rows} uses up; lower "
        "eval_rows (0 for no evaluation) or length, or name another text as eval_text"
      )
    rows, held_out = data.take(rows, range(count - eval_rows)), data.take(rows, range(count - eval_rows, count))
  return _from_rows(rows, held_out, batch_size, stage)


def _no_rows(length: int) -> dict[str, np.ndarray]:
  return {"tokens": np.zeros((0, length), np.int32)}


def _from_rows(rows, held_out, batch_size, stage) -> Batches:
  count = len(rows["tokens"])

  def take(position, step):
    return Batch(**data.take(rows, data.batch_indices(count, batch_size, step, stage.stage_seed))), position

  return Batches((), take, count, held_out, lambda: None)


def _open_stream(mixture, stage, tokenizer, length, batch_size, eval_fraction) -> Stream:
  mixture = dataclasses.replace(mixture, sources=named_sources(mixture, stage))
  return Stream(mixture, tokenizer, length=length, batch_size=batch_size, seed=stage.seed, eval_fraction=eval_fraction)


def _from_stream(stream: Stream, held_out) -> Batches:
  def take(position, step):
    # A copy of the position, because an update donates the state's buffers; the next position goes to the same devices,
    # so that nothing is compiled anew.
    batch, following = stream.batch_at(np.array(position))
    return Batch(**_with_positions(batch, 4)), jax.device_put(following, position.sharding)

  def report():
    for path, skips, num_read in stream.skips():
      report_skips(path, skips, num_read)
    report_notes(", ".join(stream.mixture.sources), stream.notes.copy(), sum(read for *_, read in stream.skips()))

  num_rows = stream.rows_per_example() * stream.examples_per_pass()
  return Batches(jax.numpy.asarray(stream.start), take, num_rows, held_out, report)


def _tell(lines):
  for line in lines:
    console.print(line, markup=False)


def _demonstration_rows(tokenizer, demonstrations, length, path):
  notes: Counter[str] = Counter()
  rows, skips = data.demonstration_rows(tokenizer, demonstrations, length, notes)
  report_skips(str(path), skips, len(demonstrations))
  report_notes(str(path), notes, len(demonstrations))
  if not len(rows["tokens"]):
    raise data.DataError(f"{path}: no demonstration of {len(demonstrations)} fits in length={length} tokens")
  return _with_positions(data.pack_rows(rows, length, tokenizer.pad_id))


def _with_positions(rows: dict[str, np.ndarray], steps: int = STEPS) -> dict[str, np.ndarray]:
  """The rows with `Batch.at`, as `positions_of` has it; as they are where nearly all positions count."""
  at = positions_of(rows["mask"], steps)
  return rows if at.shape[1] == rows["mask"].shape[1] else {**rows, "at": at}
