"""Batches of one shape, and metrics pooled over them."""

import doctest

import numpy as np
import pytest

from rlhf_jax.train import heldout
from rlhf_jax.train.heldout import fixed_batches, pooled_metrics
from rlhf_jax.types import Mean


@pytest.mark.parametrize(("num_rows", "batch_size"), [(7, 3), (6, 3), (2, 5), (1, 1), (0, 4)])
def test_every_row_is_kept_once_and_every_batch_has_one_shape(num_rows, batch_size):
  batches = list(fixed_batches(num_rows, batch_size))
  assert [row for batch in batches for row in batch.rows[batch.present]] == list(range(num_rows))
  assert [row for batch in batches for row in batch.rows[: batch.kept]] == list(range(num_rows))
  assert all(len(batch.rows) == batch_size and batch.rows.max() < num_rows for batch in batches)
  assert [batch.start for batch in batches] == list(range(0, num_rows, batch_size))


def test_no_batch_of_nothing():
  with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
    next(fixed_batches(3, 0))


def test_pooled_metrics_are_those_of_all_rows():
  values, weights = np.array([1.0, np.nan, 4.0, 5.0], np.float32), np.array([1.0, 0.0, 2.0, 1.0], np.float32)

  def measure(rows, present):
    return {"a": Mean(values[rows], weights[rows] * present), "loss": Mean(3.0, 2.0)}

  total = pooled_metrics(measure, 4, 3)
  assert total["a"].compute() == pytest.approx((1 + 8 + 5) / 4)
  assert total["loss"].compute() == 6 / 4  # scalars are sums already
  assert pooled_metrics(measure, 0, 3) == {}


def test_the_example():
  assert doctest.testmod(heldout).failed == 0
