"""Log-probs of whole responses, and the mismatched pairs of prompt and response that KTO estimates a KL on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import data
from rlhf_jax.objectives import collision_entropy, token_logprobs, wpo_weights
from rlhf_jax.positions import only
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.processes import host
from rlhf_jax.types import Array, Params


def response_logprobs(
  apply: Callable, params: Params, tokens: Array, mask: Array, at: Array | None = None
) -> jax.Array:
  """log p(response | prompt) of `apply(params, tokens[M, T]) -> logits`; tokens, mask[..., T] -> f32[...].

  at[..., N] are the positions of the mask (see `rlhf_jax.positions`); None for all T.
  """
  flat, logits = _logits(apply, params, tokens, at)
  logp = token_logprobs(logits, flat, mask=mask.reshape(flat.shape))
  return jnp.sum(logp, axis=-1).reshape(tokens.shape[:-1])


def logprobs_and_wpo_weights(
  apply: Callable, params: Params, tokens: Array, mask: Array, at: Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """`response_logprobs`, and the `wpo_weights` of the responses, f32[...] both, by one forward."""
  flat, logits = _logits(apply, params, tokens, at)
  flat_mask = mask.reshape(flat.shape)
  logp, entropy = token_logprobs(logits, flat, mask=flat_mask), collision_entropy(logits, mask=flat_mask)
  found = jnp.sum(logp, axis=-1), wpo_weights(logp, entropy, flat_mask)
  return found[0].reshape(tokens.shape[:-1]), found[1].reshape(tokens.shape[:-1])


def logprobs_in_batches(
  logprobs: Callable, params: Params, tokens: np.ndarray, mask: np.ndarray, at: np.ndarray, batch_size: int
) -> np.ndarray:
  """`logprobs(params, tokens, mask, at)` of all rows, in batches of one shape: f32[N, ...].

  tokens, mask[N, ..., T]; at[N, ..., M] the positions of the mask.
  """
  batches = fixed_batches(len(tokens), batch_size)
  found = [host(logprobs(params, tokens[b.rows], mask[b.rows], at[b.rows])) for b in batches]
  return np.concatenate(found or [np.zeros(tokens.shape[:-1], np.float32)])[: len(tokens)]


def _logits(apply: Callable, params: Params, tokens: Array, at: Array | None) -> tuple[Array, Any]:
  """(tokens[M, T] of all rows, their logits)."""
  flat = tokens.reshape(-1, tokens.shape[-1])
  return flat, apply(params, flat, **only(None if at is None else at.reshape(-1, at.shape[-1])))


def mismatched_rows(
  tokenizer: data.Tokenizer, prompts: Sequence[data.Prompt], responses: Sequence[data.Response], length: int
) -> tuple[np.ndarray, np.ndarray]:
  """(tokens i32[N, T], mask bool[N, T]) of each prompt with the next response in order that answers another prompt.

  The mask is True on the response and its end. A row of more than `length` tokens has none, nor has any row where all
  prompts are the same.
  """
  num = len(prompts)
  following: dict[int, int] = {}
  for place in reversed(range(2 * num)):  # two laps, as the last rows are followed by the first
    row, after = place % num, (place + 1) % num
    if prompts[after] != prompts[row]:
      following[row] = after
    elif after in following:
      following[row] = following[after]
  rows = sorted(following)
  pairs = [data.Comparison(prompts[row], (responses[following[row]],), (0,)) for row in rows]
  found, kept, _ = data.comparison_rows(tokenizer, pairs, length, 1)
  tokens, mask = (np.zeros((num, length), found[key].dtype) for key in ("tokens", "mask"))
  places = [rows[k] for k in kept]
  tokens[places], mask[places] = found["tokens"][:, 0], found["mask"][:, 0]
  return tokens, mask
