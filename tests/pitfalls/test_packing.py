"""Several sequences in one row must not know of each other."""

import jax
import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.algorithms import sft
from rlhf_jax.reduce import token_weights
from rlhf_jax.types import Batch

LENGTHS = np.array([4, 3, 6])
TOKENS = np.asarray(jax.random.randint(jax.random.key(4), (3, 8), 2, 13))
INSIDE = np.arange(8) < LENGTHS[:, None]
MASK = INSIDE & (np.arange(8) > 0)
PACKED = data.pack_rows({"tokens": TOKENS, "mask": MASK}, 16, 0)


def test_packed_sequences_neither_attend_nor_shift_across_their_boundary(small):
  """Attention or the shift crosses a sequence boundary. [MaxText 092c3e871; verl #5797; OpenRLHF #781; tunix #1662]"""
  assert PACKED["tokens"].shape == (1, 16)
  packed, values = jax.jit(small.model.apply_with_value)(small.params, PACKED["tokens"], PACKED["segments"])
  alone = np.asarray(small.apply(small.params, TOKENS))
  alone_values = np.asarray(small.value(small.params, TOKENS))
  np.testing.assert_allclose(packed[0, :13], alone[INSIDE], atol=1e-5)
  np.testing.assert_allclose(values[0, :13], alone_values[INSIDE], atol=1e-5)


def test_segment_ids_are_no_weights(small):
  """Segment ids used as weights. [MaxText 092c3e871; tunix #1662]"""
  loss_fn = jax.jit(sft.make_loss(small.model.apply))
  batches = Batch(TOKENS, MASK), Batch(**PACKED)
  losses = [float(loss_fn(small.params, batch, token_weights(batch.mask))[0]) for batch in batches]
  assert losses[0] == pytest.approx(losses[1], abs=1e-5)
  assert token_weights(PACKED["mask"]).sum() == pytest.approx(1) and set(np.unique(PACKED["segments"])) == {0, 1, 2, 3}
