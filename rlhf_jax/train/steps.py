"""Responses in steps with a label for each: from a file to the arrays of a training and a held-out side."""

from __future__ import annotations

from collections import Counter

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.row_formats import STEPWISE
from rlhf_jax.stage import Stage
from rlhf_jax.train.comparisons import split_by_prompt
from rlhf_jax.train.progress import report_notes, report_skips
from rlhf_jax.train.row_sources import AnyRows, path_of, read_given


def load_steps(
  given: AnyRows, stage: Stage, tokenizer: data.Tokenizer, length: int, eval_fraction: float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """The arrays of `data.step_rows` to train on and those held out; all responses to a prompt are on the same side.

  A response of more than `length` tokens, prompt included, is skipped and reported.

  Raises:
    data.DataError: as `split_by_prompt`, or a source cannot be read.
  """
  records = read_given(given, stage, STEPWISE)
  notes: Counter[str] = Counter()
  rows, kept, skips = data.step_rows(tokenizer, records, length, notes)
  report_skips(path_of(given), skips, len(records))
  report_notes(path_of(given), notes, len(records))
  sides = split_by_prompt([records[i].prompt for i in kept], eval_fraction, stage.seed, path_of(given))
  train, held_out = (data.take(rows, side) for side in sides)
  return train, held_out
