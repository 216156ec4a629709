"""Ranked groups of responses: from a file to the arrays of a training and a held-out side, and the weights of pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.row_formats import COMPARISONS, RANKINGS
from rlhf_jax.positions import positions_of
from rlhf_jax.reduce import ordered_pairs
from rlhf_jax.stage import Stage
from rlhf_jax.train.progress import report_notes, report_skips
from rlhf_jax.train.row_sources import AnyRows, path_of, read_given


class ComparisonSet(NamedTuple):
  """N groups beside their tokens.

  groups: N comparisons, as they were read. rows: tokens i32[N, K, T], mask bool[N, K, T] and ranks i32[N, K], as
  `data.comparison_rows` returns them.
  """

  groups: list[data.Comparison]
  rows: dict[str, np.ndarray]


def load_comparisons(
  given: AnyRows, stage: Stage, tokenizer: data.Tokenizer, length: int, eval_fraction: float, *, ties: bool = False
) -> tuple[ComparisonSet, ComparisonSet]:
  """The groups to train on and those held out; all groups of a prompt are on the same side.

  A group with a response of more than `length` tokens, prompt included, is skipped and reported; so is one whose
  responses are all tied, unless `ties`.

  Raises:
    data.DataError: as `split_by_prompt`, or a source cannot be read.
  """
  comparisons = read_given(given, stage, RANKINGS if ties else COMPARISONS)
  notes: Counter[str] = Counter()
  rows, kept, skips = data.comparison_rows(tokenizer, comparisons, length, notes=notes)
  rows["at"] = positions_of(rows["mask"])
  report_skips(path_of(given), skips, len(comparisons))
  report_notes(path_of(given), notes, sum(len(group.responses) for group in comparisons))
  groups = [comparisons[i] for i in kept]
  train, held_out = split_by_prompt([group.prompt for group in groups], eval_fraction, stage.seed, path_of(given))
  return (
    ComparisonSet([groups[i] for i in train], data.take(rows, train)),
    ComparisonSet([groups[i] for i in held_out], data.take(rows, held_out)),
  )


def split_by_prompt(
  prompts: Sequence[data.Prompt], eval_fraction: float, seed: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
  """(training, held-out) indices i64 of rows with these prompts, by `data.split_prompts`.

  Neither side is empty, except that an `eval_fraction` of 0 holds nothing out.

  Raises:
    data.DataError: a side is empty. The message begins with `where`, the source of the rows.
  """
  train, held_out = data.split_prompts(prompts, eval_fraction, seed)
  if not len(prompts):
    raise data.DataError(f"{where}: no row fits in the length; make the length greater")
  found = f"the {len(prompts)} rows that fit ({len(set(prompts))} different prompts)"
  if not len(train):
    raise data.DataError(
      f"{where}: eval_fraction={eval_fraction} holds out all of {found}; make it smaller, or 0 to train on every row "
      "without an evaluation"
    )
  if not len(held_out) and eval_fraction:
    raise data.DataError(
      f"{where}: eval_fraction={eval_fraction} holds out none of {found}; make it greater, add rows, or set it to 0 to "
      "train on every row without an evaluation"
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


def sum_to_one(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The weights of a step, f32[N] for each loss, whose sum over the whole batch and all losses is 1."""
  total = max(sum(w.sum() for w in weights.values()), 1e-30)
  return {name: (w / total).astype(np.float32) for name, w in weights.items()}
