"""Pure functions over one decoder: one forward, several parameter trees.

The policy, the reference, the reward model and the value function are the same functions applied to different
trees. A tree is `{"decoder": ...}`, with a `"head"` where a scalar is read from it, and with `"lora"` and
`"lora_scale"` where it has adapters (see `rlhf_jax.models.lora`). Its layers are stacked or not (see
`rlhf_jax.models.stacked`): every function takes either form.
The one-token shift of the whole project is in `_shift`, here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from rlhf_jax.models.config import DecoderConfig
from rlhf_jax.models.decoder import Cache, Decoder, Gather, Remat, draw
from rlhf_jax.models.fused_attention import Attention, check_attention
from rlhf_jax.models.stacked import stack_layers
from rlhf_jax.packing import Packing, Rows
from rlhf_jax.positions import put_at, take_at
from rlhf_jax.types import Array, Params

WIDEST = 512  # tokens of a row up to which scores of all pairs are made, where "chunked" has no form for what is seen


class LanguageModel(NamedTuple):
  """The pure functions of a decoder.

  B sequences of T tokens, i32[B, T], over V words; hidden states of width d. segments[B, T] are the numbers of the
  sequences in packed rows, or None. at[B, N] are the positions of each row whose predictions are asked for, or None for
  all T of them (see `rlhf_jax.positions`): no logits are made of others, and an unrolled last layer makes no more of
  them than keys and values. at may be a `Packing`, by which the forward reads fewer, fuller rows; logits and hidden
  states are then [R, M, ...], and values and scores are those of the B rows. The numbers are the same.
  """

  config: DecoderConfig
  """Shape of the decoder."""
  scan: bool
  """Form of the layers that `init` makes, and that checkpoints are opened in: True for stacked ones."""
  init: Callable[[jax.Array], Params]
  """init(key) -> params."""
  init_head: Callable[..., Params]
  """init_head(key, params, likelihood=0.0) -> params with a scalar head of std 1 / sqrt(d + 1) and bias 0 (N
  implementation details of RLHF, arXiv 2403.17031). A likelihood other than 0 is the head's first weight of the
  likelihood in `score`; without it the head has no such weight."""
  apply: Callable[..., jax.Array]
  """apply(params, tokens, segments=None, at=None) -> logits f32[B, T, V], or [B, N, V] of the tokens at[B, N];
  logits[:, t] predicts tokens[:, t] from tokens[:, :t]. The first token of a sequence is predicted from nothing: its
  logits are 0, and a mask must leave it out."""
  value: Callable[..., jax.Array]
  """value(params, tokens, segments=None, at=None) -> f32[B, T], the head's value of the state tokens[:, :t]; 0 at other
  positions than `at`."""
  apply_with_value: Callable[..., tuple[jax.Array, jax.Array]]
  """apply_with_value(params, tokens, segments=None, at=None) -> (logits, values), by one forward of the trunk they
  share."""
  share_table: Callable[[Params], Params]
  """share_table(params) -> params whose table of tied embeddings is gathered, for `hidden` and `unembedding` alike."""
  hidden: Callable[..., jax.Array]
  """hidden(params, tokens, segments=None, at=None) -> [B, T, d] or [B, N, d], of which `unembed` makes the logits of
  `apply`."""
  hidden_with_value: Callable[..., tuple[jax.Array, jax.Array]]
  """hidden_with_value(params, tokens, segments=None, at=None) -> (hidden, values)."""
  score: Callable[..., jax.Array]
  """score(params, tokens, mask[B, T], at=None) -> f32[B], the head's value at the last token of the mask, of which `at`
  holds all positions. A head that weighs the likelihood adds that weight times the mean log-probability of the tokens
  of the mask."""
  init_cache: Callable[[int, int], Cache]
  """init_cache(batch, length) -> an empty cache for sequences of at most `length` tokens."""
  prefill: Callable[[Params, Array, Array], tuple[jax.Array, Cache]]
  """prefill(params, tokens[B, S], last[B]) -> (hidden[B, d] of the tokens at these indices, the cache of all S)."""
  extend: Callable[..., tuple[jax.Array, Cache]]
  """extend(params, tokens[B, S], positions[B, S], cache, at=None) -> (hidden[B, S, d], cache). Nothing is shifted:
  hidden[:, t] has seen tokens[:, t] and predicts the next token. With at[B, N], hidden[B, N, d] is that of the tokens
  at these indices."""
  unembed: Callable[[Params, jax.Array], jax.Array]
  """unembed(params, hidden[..., d]) -> logits f32[..., V]; -inf for ids without a token, here and in `apply`."""
  unembedding: Callable[[Params], Callable[[jax.Array], jax.Array]]
  """unembedding(params) -> the function hidden[..., d] -> logits f32[..., V] of several calls, which gathers weights
  once."""


def language_model(
  config: DecoderConfig,
  remat: Remat = "none",
  attention: Attention = "xla",
  scan: bool = False,
  gather: Gather | None = None,
) -> LanguageModel:
  """The functions of one decoder shape. The same shape gives the same functions, so that programs compile once.

  Args:
    remat: the part of each layer that a backward pass computes anew: "none", "full" for everything, or "dots" for all
      but the products with weight matrices.
    attention: the implementation of attention without a cache (see `rlhf_jax.models.fused_attention`).
    scan: the form of the layers that `init` makes, True for stacked ones. The functions take either form: stacked
      layers are scanned, but for those with a cache, and unrolled layers are a loop of Python.
    gather: gather(path, part) -> the same part with whole arrays, called where the weights are used: inside the scan
      and inside `jax.checkpoint`, so that gathered layers are never kept for a backward pass. The paths are
      "decoder/layers" and "lora/layers" (one layer's tree, without the axis of layers, in either form),
      "decoder/embedding", "decoder/position_embedding", "decoder/final_norm", "decoder/unembedding" and "head". It may
      cast, change shapes and call `jax.lax.all_gather`: what other primitives return may be kept. A part that is whole
      already is returned as it is.

  Raises:
    UnsupportedModelError: `attention` cannot compute a variant of the config.
  """
  return _language_model(config, remat, attention, scan, gather)


@functools.lru_cache(maxsize=8)
def _language_model(
  config: DecoderConfig, remat: Remat, attention: Attention, scan: bool, gather: Gather | None
) -> LanguageModel:
  check_attention(attention, config)
  decoder = Decoder(config, remat, attention, gather)

  @jax.jit  # one program: drawn one by one, the arrays of a model take as many
  def init(key: jax.Array) -> Params:
    params = {"decoder": draw(config, key)}
    return cast(Params, stack_layers(params)) if scan else params

  def init_head(key: jax.Array, params: Params, likelihood: float = 0.0) -> Params:
    kernel = jax.random.normal(key, (config.d_model,)) / jnp.sqrt(config.d_model + 1.0)
    head = {"kernel": kernel, "bias": jnp.zeros(())}
    return {**params, "head": head | ({"likelihood": jnp.float32(likelihood)} if likelihood else {})}

  def read(params: Params, hidden: jax.Array) -> jax.Array:
    head = params["head"] if gather is None else gather("head", params["head"])
    return hidden.astype(jnp.float32) @ head["kernel"] + head["bias"]

  def hidden_before(params: Params, tokens: Array, segments: Array | None, at: Array | None) -> jax.Array:
    """[B, T - 1, d]: index t has seen the tokens up to t and predicts the one at t + 1; or [B, N, d], what predicts the
    tokens `at`; or [R, M, d], of packed rows."""
    if isinstance(at, Packing):
      if segments is not None:
        raise ValueError("rows that hold several sequences already (segments) cannot be packed")
      return _packed_hidden(decoder, params, tokens, at)
    tokens, segments = tokens[:, :-1], None if segments is None else segments[:, :-1]
    return decoder.hidden(params, tokens, *_causal(tokens, segments), segments, None if at is None else at - 1)

  def apply(params: Params, tokens: Array, segments: Array | None = None, at: Array | None = None) -> jax.Array:
    params = decoder.share_table(params)
    return unembed(params, hidden(params, tokens, segments, at))

  def value(params: Params, tokens: Array, segments: Array | None = None, at: Array | None = None) -> jax.Array:
    before = hidden_before(params, tokens, segments, at)
    return value_of(params, before, tokens, segments, at)

  def value_of(params: Params, before: jax.Array, tokens: Array, segments: Array | None, at: Array | None) -> jax.Array:
    values = _shift(read(params, before), segments, at)
    return values if at is None else put_at(values, at, tokens.shape[1])

  def apply_with_value(
    params: Params, tokens: Array, segments: Array | None = None, at: Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    params = decoder.share_table(params)
    found, values = hidden_with_value(params, tokens, segments, at)
    return unembed(params, found), values

  def hidden(params: Params, tokens: Array, segments: Array | None = None, at: Array | None = None) -> jax.Array:
    before = hidden_before(params, tokens, segments, at)
    return _shift(before, segments, at)  # 0 where nothing precedes, and the logits of 0 are 0

  def hidden_with_value(
    params: Params, tokens: Array, segments: Array | None = None, at: Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    before = hidden_before(params, tokens, segments, at)
    return _shift(before, segments, at), value_of(params, before, tokens, segments, at)

  def score(params: Params, tokens: Array, mask: Array, at: Array | None = None) -> jax.Array:
    if isinstance(at, Packing):
      return packed_score(params, tokens, mask, at)
    head, last = params["head"], jnp.max(jnp.where(mask, jnp.arange(tokens.shape[1]), 0), axis=1)[:, None]  # [B, 1]
    if "likelihood" not in head:
      return read(params, decoder.hidden(params, tokens, *_causal(tokens, None), at=last)[:, 0])
    params = decoder.share_table(params)
    at = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape) if at is None else jnp.asarray(at)
    counted = take_at(mask, at) & (at > 0)  # nothing predicts the first token
    read_at = jnp.concatenate([jnp.where(counted, at - 1, -1), last], axis=1)  # [B, N + 1], all different
    hidden = decoder.hidden(params, tokens, *_causal(tokens, None), at=read_at)
    logits = unembed(params, hidden[:, :-1])
    return read(params, hidden[:, -1]) + head["likelihood"] * _mean_logp(logits, take_at(tokens, at), counted)

  def packed_score(params: Params, tokens: Array, mask: Array, at: Packing) -> jax.Array:
    head, params = params["head"], decoder.share_table(params)
    hidden = _packed_hidden(decoder, params, tokens, at)  # [R, M, d]
    scores = read(params, at.last(hidden))
    if "likelihood" not in head:
      return scores
    logp = jax.nn.log_softmax(unembed(params, hidden))
    logp = jnp.take_along_axis(logp, take_at(tokens, at)[..., None], axis=-1)[..., 0]
    return scores + head["likelihood"] * _mean(put_at(logp, at, tokens.shape[1]), mask)

  def init_cache(batch: int, length: int) -> Cache:
    shape = (batch, config.num_kv_heads, length, config.head_dim)
    return tuple((jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype)) for _ in range(config.num_layers))

  def prefill(params: Params, tokens: Array, last: Array) -> tuple[jax.Array, Cache]:
    hidden, cache = decoder.extend(params, tokens, *_causal(tokens, None), at=last[:, None])
    return hidden[:, 0], cache

  def extend(
    params: Params, tokens: jax.Array, positions: jax.Array, cache: Cache, at: Array | None = None
  ) -> tuple[jax.Array, Cache]:
    # Only slots up to the query's position are visible, so the old contents of later slots are never seen.
    visible = jnp.arange(cache[0][0].shape[2]) <= positions[..., None]  # [B, S, U]
    return decoder.extend(params, tokens, positions, visible, cache, at)

  def unembedding(params: Params) -> Callable[[jax.Array], jax.Array]:
    logits = decoder.unembedding(params)
    return lambda hidden: _rule_out(config, logits(hidden))

  def unembed(params: Params, hidden: jax.Array) -> jax.Array:
    return unembedding(params)(hidden)

  return LanguageModel(
    config,
    scan,
    init,
    init_head,
    apply,
    value,
    apply_with_value,
    decoder.share_table,
    hidden,
    hidden_with_value,
    score,
    init_cache,
    prefill,
    extend,
    unembed,
    unembedding,
  )


def shares_tokens(attention: Attention, width: int) -> bool:
  """Whether several sequences of a packed row of `width` tokens may see the tokens of one: where an array of what each
  token sees is no larger than others of a forward."""
  return attention == "xla" or (attention == "chunked" and width <= WIDEST)


def only_scored(params: Params) -> Params:
  """A model with a head, of which nothing else is read, without an output matrix of its own.

  A head that weighs the likelihood reads the output matrix: its model is returned as it is.
  """
  if "likelihood" in params["head"]:
    return params
  return {**params, "decoder": {name: part for name, part in params["decoder"].items() if name != "unembedding"}}


def _causal(tokens: Array, segments: Array | None) -> tuple[jax.Array, jax.Array]:
  """(positions[B, T], visible[B, T, T]). Padding is at the end only, so causality alone hides it."""
  batch, length = tokens.shape
  index = jnp.arange(length)
  visible = jnp.broadcast_to(index[None, :] <= index[:, None], (batch, length, length))
  if segments is None:
    return jnp.broadcast_to(index, (batch, length)), visible
  starts = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
  start_index = jax.lax.cummax(jnp.where(starts, index, 0), axis=1)
  return index - start_index, visible & (segments[:, :, None] == segments[:, None, :])


def _packed_hidden(decoder: Decoder, params: Params, tokens: Array, at: Packing) -> jax.Array:
  """[R, M, d]: what has seen the tokens whose answers `at` asks for.

  Raises:
    ValueError: the rows share tokens, and the decoder's attention cannot tell who sees them.
  """
  if at.shares:
    if not shares_tokens(decoder.attention, at.width):
      raise ValueError(f"attention={decoder.attention!r} knows no tokens that {at.width} tokens share: use 'xla'")
    decoder = dataclasses.replace(decoder, attention="xla")  # others know no array of what each token sees
  rows = at.lay_out(tokens)
  return decoder.hidden(params, rows.tokens, *_causal_packed(rows), rows.segments, rows.at)


def _causal_packed(rows: Rows) -> tuple[jax.Array, jax.Array]:
  """As `_causal`, of rows in which several sequences may see the tokens of one."""
  positions, visible = _causal(rows.tokens, rows.segments)
  if rows.positions is None or rows.prefix is None:
    return positions, visible
  _, earlier = _causal(rows.tokens, None)
  return rows.positions, visible | earlier & (rows.prefix[:, :, None] == rows.segments[:, None, :])


def _shift(before: jax.Array, segments: Array | None, at: Array | None) -> jax.Array:
  """Moves the value at index t to t + 1, the token it predicts: [B, T - 1, ...] -> [B, T, ...]; 0 where none precedes.
  With `at`, [B, N, ...] predicts the tokens at these positions already, and stays.

  Shifting hidden states rather than logits saves a copy of [B, T, V]; logits are 0 where the hidden state is 0. A
  `Packing` asks for no first token.
  """
  if isinstance(at, Packing):
    return before
  shifted = jnp.pad(before, [(0, 0), (1, 0)] + [(0, 0)] * (before.ndim - 2)) if at is None else before
  if segments is not None:
    first = jnp.pad(segments[:, 1:] != segments[:, :-1], [(0, 0), (1, 0)], constant_values=True)
    first = first if at is None else take_at(first, at)
  elif at is not None:
    first = jnp.asarray(at) == 0
  else:
    return shifted
  return jnp.where(first.reshape(first.shape + (1,) * (before.ndim - 2)), 0, shifted)


def _rule_out(config: DecoderConfig, logits: jax.Array) -> jax.Array:
  """logits[..., V] with -inf for ids without a token: no share of the softmax, so the sampler never draws them."""
  ids = jnp.arange(config.vocab_size)
  for first, end in config.ids_without_token:
    logits = jnp.where((ids >= first) & (ids < end), -jnp.inf, logits)
  return logits


def _mean_logp(logits: jax.Array, tokens: Array, mask: Array) -> jax.Array:
  """The mean log-probability of the tokens of the mask: [B, T, V], [B, T], [B, T] -> f32[B]; 0 where there are none."""
  logp = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
  return _mean(logp, mask)


def _mean(x: jax.Array, mask: Array) -> jax.Array:
  """The mean of x[B, T] over the mask, f32[B]; 0 where it is empty."""
  return jnp.where(mask, x, 0.0).sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)
