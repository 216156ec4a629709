"""Ranked groups of responses, from a file to what a loss over their pairs needs: the rows, the pairs, their weights."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import data
from rlhf_jax.train.progress import report_skips


class ComparisonSet(NamedTuple):
  """N groups beside their tokens. rows: tokens[N, K, T], mask[N, K, T], ranks[N, K] of `data.comparison_rows`."""

  groups: list[data.Comparison]
  rows: dict[str, np.ndarray]


def load_comparisons(
  path: Path, tokenizer: data.Tokenizer, length: int, eval_fraction: float, seed: int
) -> tuple[ComparisonSet, ComparisonSet]:
  """The groups to train on and those held out; all groups of a prompt are on the same side.

  Raises:
    data.DataError: the file cannot be read, or a side is empty.
  """
  comparisons, skips = data.read_comparisons(path)
  report_skips(str(path), skips, len(comparisons) + sum(skips.values()))
  rows, kept, skips = data.comparison_rows(tokenizer, comparisons, length)
  report_skips(str(path), skips, len(comparisons))
  groups = [comparisons[i] for i in kept]
  train, held_out = data.split_prompts([group.prompt for group in groups], eval_fraction, seed)
  if not len(train) or not len(held_out):
    raise data.DataError(
      f"{path}: {len(kept)} groups fit in length={length}; {len(train)} are left to train on and "
      f"{len(held_out)} to evaluate, and neither may be 0"
    )
  return tuple(ComparisonSet([groups[i] for i in side], data.take(rows, side)) for side in (train, held_out))


def ordered_pairs(rewards: jax.Array, ranks: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(correct, is_pair), each [N, K, K]: rank i is better than rank j, and whether r_i > r_j; a tie counts half."""
  present = ranks >= 0
  is_pair = (ranks[:, :, None] < ranks[:, None, :]) & present[:, :, None] & present[:, None, :]
  margin = rewards[:, :, None] - rewards[:, None, :]
  return (jnp.sign(margin) + 1) / 2, is_pair


def group_weights(ranks: np.ndarray) -> np.ndarray:
  """Every group with an untied pair weighs the same; ranks[N, K] -> f32[N], which sums to one."""
  present = np.where(ranks >= 0, ranks, -1)
  has_pair = np.array([len(set(row[row >= 0])) > 1 for row in present])
  return (has_pair / max(has_pair.sum(), 1)).astype(np.float32)


def pair_weights(ranks: np.ndarray) -> np.ndarray:
  """ranks[N, K] -> f32[N, K, K], which sums to one: a group's weight, split equally among its untied pairs.

  The weight at [n, i, j] is above 0 where response i ranks before response j, and 0 elsewhere.
  """
  present = ranks >= 0
  is_pair = (ranks[:, :, None] < ranks[:, None, :]) & present[:, :, None] & present[:, None, :]
  pairs = is_pair.sum(axis=(1, 2), keepdims=True)
  return (group_weights(ranks)[:, None, None] * is_pair / np.maximum(pairs, 1)).astype(np.float32)
