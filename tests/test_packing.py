"""Rows packed into fewer rows: where their tokens stand, and what goes there and back."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.packing import first_fit, pack
from rlhf_jax.positions import put_at, take_at

LENGTHS = np.array([3, 9, 1, 0, 5, 4, 2, 7], np.int32)  # tokens that are read; the last ones' answers are asked for
ANSWERS = np.array([2, 3, 1, 0, 3, 1, 2, 3], np.int32)
TOKENS = np.arange(80).reshape(8, 10) + 100
PARTS = [np.arange(4), np.arange(4, 8)]


def packed(**changes):
  return pack(LENGTHS, LENGTHS - ANSWERS, [PARTS], **{"width": 9, "room": 4, "size": 4, **changes})[0]


def part(packing, number):
  return jax.tree.map(lambda x: x[PARTS[number]], packing)


def test_every_token_stands_once_in_its_order_and_the_rest_is_empty():
  for number, rows in enumerate(PARTS):
    packing = part(packed(), number)
    tokens, segments, at = map(np.asarray, packing.lay_out(TOKENS[rows])[:3])
    assert tokens.shape == segments.shape == (packing.rows, 9) and at.shape == (packing.rows, 4)
    for i, row in enumerate(rows):
      assert tokens[segments == i + 1].tolist() == TOKENS[row, : LENGTHS[row]].tolist()
      assert len({*np.nonzero(segments == i + 1)[0]}) <= 1  # no sequence goes over into another row
    assert (tokens[segments == 0] == 0).all() and (segments > 0).sum() == LENGTHS[rows].sum()
    asked = [tokens[r, i] for r, i in zip(*np.nonzero(at < 9), strict=True) for i in [at[r, i]]]
    expected = [TOKENS[row, LENGTHS[row] - ANSWERS[row] : LENGTHS[row]] for row in rows]
    assert sorted(asked) == sorted(np.concatenate(expected))


def test_answers_go_to_the_tokens_that_they_predict():
  """An answer is that of the token before: the place of a token t is where the token t - 1 is read."""
  packing = part(packed(), 1)
  rows = np.arange(4, 8)
  tokens, _, at, *_ = packing.lay_out(TOKENS[rows])
  answers = jnp.take_along_axis(jnp.pad(tokens, [(0, 0), (0, 1)]), at, axis=1)  # each token itself
  found = np.asarray(put_at(answers, packing, 10))
  index = np.arange(10)
  asked = (index > (LENGTHS - ANSWERS)[rows, None]) & (index <= LENGTHS[rows, None])
  np.testing.assert_array_equal(found, np.where(asked, TOKENS[rows] - 1, 0))
  np.testing.assert_array_equal(packing.last(answers), TOKENS[rows, LENGTHS[rows] - 1])
  np.testing.assert_array_equal(put_at(take_at(TOKENS[rows], packing), packing, 10), np.where(asked, TOKENS[rows], 0))
  assert take_at(TOKENS[rows][..., None] > 0, packing).shape == (packing.rows, 4, 1)


def test_gradients_are_those_of_the_places():
  packing = part(packed(), 0)
  weights = jnp.arange(40.0).reshape(4, 10)
  shape = packing.rows, packing.room
  found = jax.grad(lambda x: jnp.sum(put_at(x, packing, 10) * weights))(jnp.zeros(shape))
  np.testing.assert_array_equal(found, take_at(weights, packing))


def test_the_number_of_rows_is_that_of_the_part_that_needs_most():
  first, second = (first_fit(LENGTHS[rows], ANSWERS[rows], width=9, room=4)[2] for rows in PARTS)
  assert (first, second) == (2, 3) and packed().rows == 3
  assert packed(least=4).rows == 4
  assert packed(width=18, room=9, least=2).rows == 2 and packed(width=18, room=9).rows == 1
  for tokens, step, rows in ((4, 4, 16), (4, 5, 20), (5, 4, 32)):
    (found,) = pack(np.full(32, tokens), np.zeros(32, int), [[np.arange(32)]], width=9, room=9, size=32, step=step)
    assert found.rows == rows


def test_rooms_are_never_overfull():
  rng = np.random.default_rng(0)
  for size in (1, 2, 7, 40):
    count = rng.integers(0, 12, size).astype(np.int32)
    answers = np.minimum(count, rng.integers(1, 6, size)).astype(np.int32)
    place, slot, rows = first_fit(count, answers, width=11, room=6)
    for start, width, each in ((place, 11, count), (slot, 6, answers)):
      ranges = [range(a, a + n) for a, n in zip(start, each, strict=True)]
      taken = list(itertools.chain(*ranges))
      assert len({*taken}) == len(taken) and max(taken, default=-1) < rows * width
      assert all(len({i // width for i in one}) <= 1 for one in ranges)


def test_rows_with_one_prompt_share_its_tokens_as_far_as_a_packed_row_has_room():
  """Prompts of 5 tokens, the last of which every row reads itself: answers of 3, 2, 4, 1 tokens, and of another row."""
  answers, skipped = np.array([3, 2, 4, 1, 3]), np.full(5, 4)
  prompts = np.array([7, 7, 7, 7, 2])
  tokens = np.where(np.arange(9) < 4, prompts[:, None], 10 * np.arange(1, 6)[:, None] + np.arange(9))
  (packing,) = pack(answers + 4, skipped, [[np.arange(5)]], width=11, room=9, size=5, prompts=prompts)
  rows = packing.lay_out(tokens)
  assert rows.tokens.tolist() == [
    [7, 7, 7, 7, 14, 15, 16, 24, 25, 0, 0], [7, 7, 7, 7, 34, 35, 36, 37, 44, 0, 0], [2, 2, 2, 2, 54, 55, 56, 0, 0, 0, 0]
  ]  # fmt: skip
  assert rows.positions[1].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 4, 0, 0]
  assert rows.segments[1].tolist() == [3] * 4 + [8] * 4 + [9] + [0] * 2
  assert rows.prefix[1].tolist() == [-1] * 4 + [3] * 5 + [-1] * 2
  assert rows.at[1].tolist() == [4, 5, 6, 7, 8, 11, 11, 11, 11]
  read = jnp.take_along_axis(rows.tokens, rows.at, axis=1)
  assert packing.last(read).tolist() == [16, 25, 37, 44, 56]


def test_rows_that_are_read_in_other_parts_are_refused():
  with pytest.raises(ValueError, match="8 rows are read at once, and they were packed in parts of 4"):
    packed().lay_out(TOKENS)
