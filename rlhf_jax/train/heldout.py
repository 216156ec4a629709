"""Rows in batches of one shape, so that a program is compiled once, and metrics pooled over such batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from rlhf_jax.types import Mean

Measure = Callable[[np.ndarray, np.ndarray], Mapping[str, Mean]]


class FixedBatch(NamedTuple):
  """One batch of B rows out of N.

  start: number of rows in the batches before. rows: i64[B], indices below N; from place `kept` on they only fill the
  shape, and repeat rows from the first one on. kept: number of rows that count, B in all batches but the last.
  """

  start: int
  rows: np.ndarray
  kept: int

  @property
  def present(self) -> np.ndarray:
    """bool[B], True for the rows that count."""
    return np.arange(len(self.rows)) < self.kept


def fixed_batches(num_rows: int, batch_size: int) -> Iterator[FixedBatch]:
  """The rows 0 .. num_rows - 1 in order, each kept once, in batches that all have `batch_size` rows.

  Raises:
    ValueError: batch_size is below 1.

  >>> [(batch.rows.tolist(), batch.kept) for batch in fixed_batches(3, 2)]
  [([0, 1], 2), ([2, 0], 1)]
  """
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size} must be at least 1")
  for start in range(0, num_rows, batch_size):
    yield FixedBatch(start, np.arange(start, start + batch_size) % num_rows, min(batch_size, num_rows - start))


def pooled_metrics(measure: Measure, num_rows: int, batch_size: int) -> dict[str, Mean]:
  """The metrics of N rows, measured in batches of one shape; values and weights of the batches add up.

  measure(rows i64[B], present bool[B]) -> {name: Mean}, for rows below N, of which those not present must weigh 0. A
  Mean of scalars counts as (sum of weights * values, sum of weights), as `Mean.sum` returns it.
  """
  total: dict[str, Mean] = {}
  for batch in fixed_batches(num_rows, batch_size):
    part = measure(batch.rows, batch.present)
    summed = {
      name: mean.sum() if np.ndim(mean.values) or np.ndim(mean.weights) else mean for name, mean in part.items()
    }
    total = {name: total[name] + mean for name, mean in summed.items()} if total else summed
  return total
