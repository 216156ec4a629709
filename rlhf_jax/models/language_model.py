"""Pure functions over one decoder: one forward, several parameter trees.

The policy, the reference, the reward model and the value function are the same functions applied to different
trees. A tree is `{"decoder": ...}`, with a `"head"` where a scalar is read from it, and with `"lora"` and
`"lora_scale"` where it has adapters (see `rlhf_jax.models.lora`).
The one-token shift of the whole project is in `_shift`, here and nowhere else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.models.config import DecoderConfig
from rlhf_jax.models.decoder import Cache, Decoder, Remat
from rlhf_jax.models.fused_attention import Attention, check_attention
from rlhf_jax.models.lora import lora_weights
from rlhf_jax.types import Params


class LanguageModel(NamedTuple):
  """The pure functions of a decoder; B sequences of T tokens, V words.

  init(key) -> params
  init_head(key, params) -> params with a scalar head, std 1/sqrt(d + 1), bias 0 (N implementation details of RLHF)
  apply(params, tokens[B, T], segments=None) -> logits[B, T, V]; logits[:, t] predicts tokens[:, t] from tokens[:, :t].
    Index 0 is predicted from nothing: its logits are 0, and a mask must leave it out.
  value(params, tokens, segments=None) -> f32[B, T], the head's reading of the state tokens[:, :t]
  apply_with_value(params, tokens, segments=None) -> (logits, values), one forward through a shared trunk
  hidden(params, tokens, segments=None) -> [B, T, d], of which `unembed` makes the logits of `apply`
  hidden_with_value(params, tokens, segments=None) -> (hidden, values)
  score(params, tokens[B, T], mask[B, T]) -> f32[B], the head's reading of the last token the mask holds
  init_cache(batch, length) -> an empty cache for sequences of at most `length` tokens
  prefill(params, tokens[B, S], last[B]) -> (hidden[B, d] of the tokens at these indices, the cache of all S tokens)
  extend(params, tokens[B, S], positions[B, S], cache) -> (hidden[B, S, d], cache); not shifted
  unembed(params, hidden[..., d]) -> logits[..., V]
  """

  config: DecoderConfig
  init: Callable
  init_head: Callable
  apply: Callable
  value: Callable
  apply_with_value: Callable
  hidden: Callable
  hidden_with_value: Callable
  score: Callable
  init_cache: Callable
  prefill: Callable
  extend: Callable
  unembed: Callable


@functools.lru_cache(maxsize=8)
def language_model(config: DecoderConfig, remat: Remat = "none", attention: Attention = "xla") -> LanguageModel:
  """The functions of one decoder shape; the same shape gives the same functions, so that what was compiled stays so.

  remat: what a backward pass computes anew of each layer: nothing, everything ("full"), or all but the products with
  weight matrices ("dots"). attention: who computes it outside of a cache; see `rlhf_jax.models.fused_attention`.

  Raises:
    UnsupportedModelError: this attention cannot compute the config's.
  """
  check_attention(attention, config)
  decoder = Decoder(config, remat, attention)

  def init(key: jax.Array) -> Params:
    tokens = jnp.zeros((1, 2), jnp.int32)
    return {"decoder": decoder.init(key, tokens, *_causal(tokens, None))["params"]}

  def init_head(key: jax.Array, params: Params) -> Params:
    kernel = jax.random.normal(key, (config.d_model,)) / jnp.sqrt(config.d_model + 1.0)
    return {**params, "head": {"kernel": kernel, "bias": jnp.zeros(())}}

  def hidden_states(params, tokens, segments):
    return decoder.apply({"params": lora_weights(params)}, tokens, *_causal(tokens, segments), segments=segments)[0]

  def apply(params: Params, tokens: jax.Array, segments: jax.Array | None = None) -> jax.Array:
    before = hidden_states(params, tokens[:, :-1], None if segments is None else segments[:, :-1])
    return unembed(params, _shift(before, segments))

  def value(params: Params, tokens: jax.Array, segments: jax.Array | None = None) -> jax.Array:
    before = hidden_states(params, tokens[:, :-1], None if segments is None else segments[:, :-1])
    return _shift(_read(params["head"], before), segments)

  def apply_with_value(params: Params, tokens: jax.Array, segments: jax.Array | None = None):
    before = hidden_states(params, tokens[:, :-1], None if segments is None else segments[:, :-1])
    return unembed(params, _shift(before, segments)), _shift(_read(params["head"], before), segments)

  def hidden(params: Params, tokens: jax.Array, segments: jax.Array | None = None) -> jax.Array:
    before = hidden_states(params, tokens[:, :-1], None if segments is None else segments[:, :-1])
    return _shift(before, segments)  # 0 where nothing precedes, of which `unembed` makes logits of 0

  def hidden_with_value(params: Params, tokens: jax.Array, segments: jax.Array | None = None):
    before = hidden_states(params, tokens[:, :-1], None if segments is None else segments[:, :-1])
    return _shift(before, segments), _shift(_read(params["head"], before), segments)

  def score(params: Params, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    last = jnp.max(jnp.where(mask, jnp.arange(tokens.shape[1]), 0), axis=1)  # [B]
    return _read(params["head"], prefill(params, tokens, last)[0])

  def init_cache(batch: int, length: int) -> Cache:
    shape = (batch, config.num_kv_heads, length, config.head_dim)
    return tuple((jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype)) for _ in range(config.num_layers))

  def prefill(params: Params, tokens: jax.Array, last: jax.Array):
    return decoder.apply({"params": lora_weights(params)}, tokens, *_causal(tokens, None), last=last)

  def extend(params: Params, tokens: jax.Array, positions: jax.Array, cache: Cache):
    # Whatever a slot held before its position is reached is never seen: only slots up to the query's are visible.
    visible = jnp.arange(cache[0][0].shape[2]) <= positions[..., None]  # [B, S, U]
    return decoder.apply({"params": lora_weights(params)}, tokens, positions, visible, cache)

  def unembed(params: Params, hidden: jax.Array) -> jax.Array:
    logits = decoder.apply({"params": params["decoder"]}, hidden, method="unembed")
    return logits.astype(jnp.float32)

  forwards = apply, value, apply_with_value, hidden, hidden_with_value, score
  return LanguageModel(config, init, init_head, *forwards, init_cache, prefill, extend, unembed)


def _causal(tokens: jax.Array, segments: jax.Array | None) -> tuple[jax.Array, jax.Array]:
  """(positions[B, T], visible[B, T, T]). Padding is only ever at the end, so causality alone hides it."""
  batch, length = tokens.shape
  index = jnp.arange(length)
  visible = jnp.broadcast_to(index[None, :] <= index[:, None], (batch, length, length))
  if segments is None:
    return jnp.broadcast_to(index, (batch, length)), visible
  starts = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
  start_index = jax.lax.cummax(jnp.where(starts, index, 0), axis=1)
  return index - start_index, visible & (segments[:, :, None] == segments[:, None, :])


def _shift(before: jax.Array, segments: jax.Array | None) -> jax.Array:
  """Aligns what was read after tokens[:, :t] with index t: [B, T - 1, ...] -> [B, T, ...]; 0 where nothing precedes.

  Hidden states are shifted rather than logits, which are a copy of [B, T, V] larger and 0 where the hidden state is 0.
  """
  shifted = jnp.pad(before, [(0, 0), (1, 0)] + [(0, 0)] * (before.ndim - 2))
  if segments is None:
    return shifted
  first = jnp.pad(segments[:, 1:] != segments[:, :-1], [(0, 0), (1, 0)], constant_values=True)
  return jnp.where(first.reshape(first.shape + (1,) * (before.ndim - 2)), 0, shifted)


def _read(head: Params, hidden: jax.Array) -> jax.Array:
  """hidden[..., d] -> f32[...]."""
  return hidden.astype(jnp.float32) @ head["kernel"] + head["bias"]
