"""Ranked groups of responses: from a file to the arrays of a training and a held-out side, and the weights of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlhf_jax import data
from rlhf_jax.reduce import ordered_pairs
from rlhf_jax.train.progress import report_skips


class ComparisonSet(NamedTuple):
  """N groups beside their tokens.

  groups: N comparisons, as they were read. rows: tokens i32[N, K, T], mask bool[N, K, T] and ranks i32[N, K], as
  `data.comparison_rows` returns them.
  """

  groups: list[data.Comparison]
  rows: dict[str, np.ndarray]


def load_comparisons(
  path: Path, tokenizer: data.Tokenizer, length: int, eval_fraction: float, seed: int
) -> tuple[ComparisonSet, ComparisonSet]:
  """The groups to train on and those held out; all groups of a prompt are on the same side.

  A group with a response of more than `length` tokens, prompt included, is skipped and reported.

  Raises:
    data.DataError: the file cannot be read, or a side is empty.
  """
  comparisons, skips = data.read_comparisons(path)
  report_skips(str(path), skips, len(comparisons) + sum(skips.values()))
  rows, kept, skips = data.comparison_rows(tokenizer, comparisons, length)
  report_skips(str(path), skips, len(comparisons))
  groups = [comparisons[i] for i in kept]
  train, held_out = split_by_prompt([group.prompt for group in groups], eval_fraction, seed, str(path))
  return (
    ComparisonSet([groups[i] for i in train], data.take(rows, train)),
    ComparisonSet([groups[i] for i in held_out], data.take(rows, held_out)),
  )


def split_by_prompt(
  prompts: Sequence[str], eval_fraction: float, seed: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
  """(training, held-out) indices i64 of rows with these prompts, by `data.split_prompts`; neither side is empty.

  Raises:
    data.DataError: a side is empty. The message begins with `where`, the source of the rows.
  """
  train, held_out = data.split_prompts(prompts, eval_fraction, seed)
  if not len(train) or not len(held_out):
    raise data.DataError(
      f"{where}: of {len(prompts)} rows that fit, {len(train)} are left to train on and {len(held_out)} to evaluate, "
      f"and neither may be 0: change eval_fraction={eval_fraction}, or the length"
    )
  return train, held_out


def pair_weights(ranks: np.ndarray) -> np.ndarray:
  """ranks i32[N, K] -> f32[N, K, K], which sums to one: a group's weight, split equally among its untied pairs.

  Every group with an untied pair weighs the same. The weight at [n, i, j] is above 0 where response i ranks before
  response j, and 0 elsewhere.
  """
  pairs = ordered_pairs(ranks)  # [N, K, K]
  counts = pairs.sum(axis=(1, 2), keepdims=True)
  group = np.float32(1 / max(np.sum(counts > 0), 1))
  return (group * pairs / np.maximum(counts, 1)).astype(np.float32)
