"""Rewards of a response's form, as functions of the reward: a config names them in `reward.parts`, with their weights.

config.grpo.environment.reward.parts = dict(
  overlong=dict(function="rlhf_jax.train.shaping:overlong", arguments=dict(max_length=1024, cache=256)),
  repetition=dict(function="rlhf_jax.train.shaping:repetition", weight=0.5),
)

Counts and tokens are those of the response, its end included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlhf_jax.data import PromptValue


def overlong(
  prompts: Sequence[PromptValue], responses: Sequence[str], *, counts: Sequence[int], max_length: int, cache: int
) -> np.ndarray:
  """DAPO's soft overlong punishment f32[N], between -1 and 0 (Yu et al. 2025, arXiv 2503.14476, eq. 13).

  0 up to max_length - cache tokens, from there on falling by 1 / cache a token, to -1 at max_length and beyond. A cut
  at the maximum alone would punish a sound response as hard as one that never ends.

  Args:
    counts: the numbers of tokens of the responses.
    max_length: number of tokens at which the punishment is whole, as a rule sampling.max_new_tokens.
    cache: number of tokens before it over which the punishment grows, at least 1.

  >>> overlong([""] * 5, [""] * 5, counts=[5, 6, 7, 10, 12], max_length=10, cache=4).tolist()
  [0.0, 0.0, -0.25, -1.0, -1.0]
  """
  if not 0 < cache <= max_length:
    raise ValueError(f"cache={cache} must be at least 1 and at most max_length={max_length}")
  return np.clip((max_length - cache - np.asarray(counts)) / cache, -1.0, 0.0).astype(np.float32)


def length(
  prompts: Sequence[PromptValue], responses: Sequence[str], *, counts: Sequence[int], target: int = 0
) -> np.ndarray:
  """The distance from a length, `-|count - target|`: f32[N], in tokens (L1, Aggarwal & Welleck 2025, arXiv 2503.04697).

  With a weight alpha it is the second term of their eq. 1, there with a target for each prompt. Target 0 is a price for
  each token; a weight below 0 then rewards length.

  Args:
    counts: the numbers of tokens of the responses.
    target: number of tokens that is best.

  >>> length([""] * 3, [""] * 3, counts=[3, 5, 9], target=5).tolist()
  [-2.0, 0.0, -4.0]
  """
  beyond = np.asarray(counts) - target
  return np.minimum(beyond, -beyond).astype(np.float32)


def repetition(
  prompts: Sequence[PromptValue], responses: Sequence[str], *, token_ids: Sequence[Sequence[int]], size: int = 3
) -> np.ndarray:
  """The share of repeated n-grams, `distinct / total - 1`: f32[N] between -1 and 0 (Yeo et al. 2025, arXiv 2502.03373).

  A response of fewer than `size` tokens has 0. DEVIATION: the paper's n-gram penalty is a constant on each token of a
  repeated n-gram; this is one number for the response, as in Open-R1, with n-grams of tokens and not of words.

  Args:
    token_ids: the tokens of the responses.
    size: number of tokens of an n-gram, at least 1.

  >>> repetition([""] * 3, [""] * 3, token_ids=[[1, 2, 1, 2, 1], [1, 2, 3], [1]], size=2).tolist()
  [-0.5, 0.0, 0.0]
  """
  if size < 1:
    raise ValueError(f"size={size} must be at least 1")
  grams = [[tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)] for ids in token_ids]
  return np.array([len(set(found)) / len(found) - 1 if found else 0.0 for found in grams], np.float32)
