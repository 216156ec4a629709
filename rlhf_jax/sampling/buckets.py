"""Batches padded to powers of two, so that batches of many shapes need few compiled programs."""

from __future__ import annotations

import jax
import numpy as np

from rlhf_jax.types import Prompts, Rollout

PREFIX = 32  # tokens; common prefixes are shared up to a multiple of it, so that few programs are compiled
LEAST_WIDTH = 32  # tokens; prefilling narrower prompts at this width costs less than compiling another program


def power_of_two(number: int) -> int:
  """The least power of two that is not less than `number`."""
  return 1 << max(number - 1, 0).bit_length()


def pad_to_powers(prompts: Prompts) -> tuple[Prompts, np.ndarray]:
  """The prompts in a batch whose size B' and width are powers of two, and bool[B'], True for the prompts given.

  `generate` samples nothing for a row whose limit is 0, so that rows of padding cost no decoding.
  """
  batch, width = prompts.tokens.shape
  tokens = np.pad(np.asarray(prompts.tokens), [(0, 0), (0, power_of_two(max(width, LEAST_WIDTH)) - width)])
  return pad_prompts(Prompts(tokens, prompts.lengths), np.ones(batch, bool), power_of_two(batch))


def pad_prompts(prompts: Prompts, real: np.ndarray, multiple: int) -> tuple[Prompts, np.ndarray]:
  """Prompts and bool[B] with rows of one token of padding behind them, up to a multiple of rows; False for these."""
  more = -len(real) % multiple
  if not more:
    return prompts, real
  tokens, lengths = np.asarray(prompts.tokens), np.asarray(prompts.lengths)
  padded = Prompts(np.pad(tokens, [(0, more), (0, 0)]), np.pad(lengths, (0, more), constant_values=1))
  return padded, np.pad(real, (0, more))


def common_prefix(prompts: Prompts) -> int:
  """The number of tokens that all of several prompts begin with, down to a multiple of PREFIX.

  Each prompt keeps a token behind it, of which its first response token is predicted.

  >>> common_prefix(Prompts(np.array([[7] * 40, [7] * 39 + [8]]), np.array([40, 40])))
  32
  """
  tokens, least = np.asarray(prompts.tokens), int(np.min(prompts.lengths))
  if len(tokens) < 2 or least <= PREFIX:
    return 0
  same = (tokens[:, : least - 1] == tokens[0, : least - 1]).all(axis=0)
  return int(np.logical_and.accumulate(same).sum()) // PREFIX * PREFIX


def trim(rollout: Rollout, rows: int, width: int) -> Rollout:
  """The first `rows` rows and `width` columns, as NumPy arrays: slicing them compiles nothing."""
  return jax.tree.map(lambda x: np.asarray(x)[(slice(rows), slice(width))[: x.ndim]], rollout)
