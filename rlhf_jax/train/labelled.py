"""Single responses with a label, good or bad: from a file to the arrays of a training and a held-out side."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.row_formats import UNPAIRED
from rlhf_jax.positions import positions_of
from rlhf_jax.stage import Stage
from rlhf_jax.train.comparisons import split_by_prompt
from rlhf_jax.train.progress import report_notes, report_skips
from rlhf_jax.train.row_sources import AnyRows, path_of, read_given


class LabelledSet(NamedTuple):
  """N responses beside their tokens.

  responses: N records, as they were read. rows: tokens i32[N, T]; mask bool[N, T], True on the response and its end;
  at i32[N, M], the positions of the mask; desirable bool[N].
  """

  responses: list[data.Unpaired]
  rows: dict[str, np.ndarray]


def load_labelled(
  given: AnyRows, stage: Stage, tokenizer: data.Tokenizer, length: int, eval_fraction: float
) -> tuple[LabelledSet, LabelledSet]:
  """The responses to train on and those held out; all responses to a prompt are on the same side.

  A response of more than `length` tokens, prompt included, is skipped and reported.

  Raises:
    data.DataError: as `split_by_prompt`, or a source cannot be read.
  """
  records = read_given(given, stage, UNPAIRED)
  notes: Counter[str] = Counter()
  alone = [data.Comparison(record.prompt, (record.response,), (0,)) for record in records]
  found, kept, skips = data.comparison_rows(tokenizer, alone, length, 1, notes)
  report_skips(path_of(given), skips, len(records))
  report_notes(path_of(given), notes, len(records))
  responses = [records[i] for i in kept]
  rows = {key: found[key][:, 0] for key in ("tokens", "mask")}
  rows["at"] = positions_of(rows["mask"])
  rows["desirable"] = np.array([record.desirable for record in responses], bool)
  sides = split_by_prompt([record.prompt for record in responses], eval_fraction, stage.seed, path_of(given))
  train, held_out = (LabelledSet([responses[i] for i in side], data.take(rows, side)) for side in sides)
  return train, held_out
