"""Powers of two: batches of any shape, and few compiled programs for them."""

from __future__ import annotations

import jax
import numpy as np

from rlhf_jax.types import Prompts, Rollout

LEAST_WIDTH = 32  # of prompts: to prefill a narrower one costs less than to compile another program


def power_of_two(number: int) -> int:
  """The least power of two that is not less than `number`."""
  return 1 << max(number - 1, 0).bit_length()


def pad_to_powers(prompts: Prompts) -> tuple[Prompts, np.ndarray]:
  """The prompts in a batch whose size and width are powers of two, and which of its prompts are real, bool[B'].

  `generate` samples nothing for a row whose limit is 0, so that the rows that are not real cost no decoding.
  """
  batch, width = prompts.tokens.shape
  more = power_of_two(batch) - batch
  tokens = np.pad(np.asarray(prompts.tokens), [(0, more), (0, power_of_two(max(width, LEAST_WIDTH)) - width)])
  lengths = np.pad(np.asarray(prompts.lengths), (0, more), constant_values=1)
  return Prompts(tokens, lengths), np.arange(batch + more) < batch


def trim(rollout: Rollout, rows: int, width: int) -> Rollout:
  """The first `rows` rows and `width` columns, as arrays of NumPy, whose slices compile nothing."""
  return jax.tree.map(lambda x: np.asarray(x)[(slice(rows), slice(width))[: x.ndim]], rollout)
