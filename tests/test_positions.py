"""Positions that count: which there are, what is read at them, and what is put there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.positions import only, positions_of, put_at, take_at

X = jnp.arange(12.0).reshape(2, 6)
AT = jnp.array([[4, 1, 6], [-1, 5, 0]])  # 6 and -1 are no positions


@pytest.mark.parametrize("steps, width", [(1, 16), (4, 8), (16, 5)])
def test_the_number_of_positions_is_a_multiple_of_a_share_of_the_row(steps, width):
  mask = np.arange(16) < np.array([5, 0, 3])[:, None]
  at = positions_of(mask, steps)
  assert at.shape == (3, width) and at.dtype == np.int32
  np.testing.assert_array_equal(np.sort(at[0])[:5], range(5))
  assert (at[1] == 16).all() and (at[2, 3:] == 16).all()


def test_a_mask_that_counts_nothing_has_one_place_and_no_position():
  np.testing.assert_array_equal(positions_of(np.zeros((2, 3, 4), bool)), np.full((2, 3, 1), 4))


def test_what_is_no_position_reads_nothing_and_is_dropped():
  np.testing.assert_array_equal(take_at(X, AT), [[4, 1, 0], [0, 11, 6]])
  np.testing.assert_array_equal(
    put_at(jnp.array([[1, 2, 3], [4, 5, 6]]), AT, 6), [[0, 2, 0, 0, 1, 0], [6, 0, 0, 0, 0, 5]]
  )
  gradient = jax.grad(lambda x: jnp.sum(take_at(x, AT) ** 2))(X)
  np.testing.assert_array_equal(gradient, [[0, 2, 0, 0, 8, 0], [12, 0, 0, 0, 0, 22]])


def test_rows_keep_their_other_axes():
  x = jnp.stack([X, -X], axis=-1)
  np.testing.assert_array_equal(take_at(x, AT)[..., 1], -take_at(X, AT))
  np.testing.assert_array_equal(put_at(take_at(x, AT), AT, 6)[..., 0], put_at(take_at(X, AT), AT, 6))
  assert take_at(x > 3, AT).dtype == bool


def test_a_forward_of_all_positions_is_told_none():
  assert only(None) == {} and only(AT)["at"] is AT
