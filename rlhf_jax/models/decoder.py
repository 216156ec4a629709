"""A decoder-only transformer with an explicit cache: every family of models as configurations of one forward.

Vaswani et al. 2017 (arXiv 1706.03762), by default in the shape of Llama (arXiv 2302.13971): RMSNorm, rotary
positions, grouped-query attention, SwiGLU. There is no dropout: the log-probs of the policy must be the same number
when sampling and when training.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from rlhf_jax.models.attention import frequencies, rotation
from rlhf_jax.models.chunked_attention import WHOLE, Seen
from rlhf_jax.models.config import DecoderConfig, UnsupportedModelError
from rlhf_jax.models.fused_attention import Attention
from rlhf_jax.models.int8 import dequantize
from rlhf_jax.models.layer import Layer, LayerCache, Rotary, make_norm
from rlhf_jax.models.lora import adapted
from rlhf_jax.models.matmul import product, product_with_table
from rlhf_jax.models.stacked import STACKED, scan_layers, split_layers
from rlhf_jax.positions import take_at
from rlhf_jax.types import Array, Params

Cache = tuple[LayerCache, ...]

# What a backward pass computes anew of each layer: nothing, everything, or all but products with weight matrices.
Remat = Literal["none", "full", "dots"]
KEPT = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}

Gather = Callable[[str, Params], Params]  # gather(path of a part of a model, its parameters) -> the whole parameters
_GATHERED = "gathered weights"


class _Parameters(nn.Module):
  """Draws the parameters of a decoder, unrolled."""

  config: DecoderConfig

  @nn.compact
  def __call__(self) -> None:
    c = self.config
    small = nn.initializers.normal(0.02)
    # With std 0.02 a narrow model's embeddings are small beside the outputs of its layers, and it needs twice as long
    # to learn to copy.
    words = nn.initializers.normal(2 * c.d_model**-0.5)
    index = jnp.zeros((1, 1), jnp.int32)
    x = nn.Embed(c.vocab_size, c.d_model, embedding_init=words, name="embedding")(index)[0].astype(c.dtype)
    if c.learned_positions:
      nn.Embed(c.learned_positions, c.d_model, embedding_init=small, name="position_embedding")(index)
    for i in range(c.num_layers):
      x, _ = Layer(c, name=f"layers_{i}")(x, index, None, jnp.ones((1, 1, 1), bool), None)
    x = make_norm(c, "final_norm")(x)
    if not c.tied:
      nn.Dense(c.vocab_size, use_bias=False, kernel_init=small, name="unembedding")(x)


def draw(config: DecoderConfig, key: jax.Array) -> Params:
  """Fresh parameters of a decoder, unrolled, in float32."""
  return _Parameters(config).init(key)["params"]


@dataclasses.dataclass(frozen=True)
class Decoder:
  """The forward of a model {"decoder", "lora" and "lora_scale" where it has adapters}, of either form of its layers."""

  config: DecoderConfig
  remat: Remat = "none"
  attention: Attention = "xla"
  gather: Gather | None = None

  def hidden(
    self,
    params: Params,
    tokens: Array,
    positions: jax.Array,
    visible: jax.Array,
    segments: Array | None = None,
    at: Array | None = None,
  ) -> jax.Array:
    """tokens[B, S] -> [B, S, d_model], or [B, N, d_model] with `at`. Stacked layers are scanned.

    Args:
      positions: i32[B, S], the position of each token in its sequence, which is one stretch of its row.
      visible: bool[B, S, S], the tokens that each token may see. Chunked attention knows them from the positions.
      segments: i32[B, S], the number of each token's sequence in a packed row. `visible` knows it already; fused
        attention makes its mask from it.
      at: i32[B, N], the indices of the tokens of each row that are asked for. The final norm works for these alone, and
        so does an unrolled last layer, but for its keys and values.
    """
    c = self.config
    views = self._views(positions, None, visible)

    def step(window: int, alone: bool, x: jax.Array, weights: Params, at: Array | None = None) -> jax.Array:
      def layer(x: jax.Array, weights: Params, at: Array | None) -> jax.Array:
        rotary, seen = views[window]
        whole = self._weights(weights, params.get("lora_scale"))
        return self._layer(window, whole)(x, positions, rotary, seen, None, segments, at)[0]

      if self.remat != "none" or self.gather is not None:
        # The barriers of prevent_cse keep a compiler from computing the two passes at once; two loops are enough.
        policy = KEPT.get(self.remat, _all_but_gathered)
        layer = jax.checkpoint(layer, policy=policy, prevent_cse=not alone)
      return layer(x, weights, at)

    x = self._embed(params["decoder"], tokens, positions)
    if STACKED in params["decoder"]:
      x = scan_layers(step, x, _layers(params, STACKED), self._windows)
      x = x if at is None else take_at(x.reshape(*tokens.shape, c.d_model), at).reshape(-1, c.d_model)
    else:
      for i, window in enumerate(self._windows):
        x = step(window, False, x, _layers(params, f"layers_{i}"), at if i == c.num_layers - 1 else None)
    return self._normed(params["decoder"], x).reshape(*(tokens if at is None else at).shape, c.d_model)

  def extend(
    self,
    params: Params,
    tokens: Array,
    positions: jax.Array,
    visible: jax.Array,
    cache: Cache | None = None,
    at: Array | None = None,
  ) -> tuple[jax.Array, Cache]:
    """tokens[B, S] -> (hidden[B, S, d_model], or [B, N, d_model] with `at`, and the cache). Stacked layers are taken
    apart: each has a cache of its own.

    Args:
      positions, at: as in `hidden`.
      visible: bool[B, S, U], the keys that each token may see: those of the S tokens, or the U slots of the cache.
      cache: the keys and values so far; the returned cache also holds those of the tokens, at their positions. Without
        it the returned cache holds those of the tokens alone.
    """
    c = self.config
    views = self._views(positions, None if cache is None else jnp.arange(visible.shape[2])[None], visible)
    x = self._embed(params["decoder"], tokens, positions)
    if STACKED in params["decoder"]:
      layers = split_layers(_layers(params, STACKED))
    else:
      layers = [_layers(params, f"layers_{i}") for i in range(c.num_layers)]
    caches = []
    for i, (window, weights) in enumerate(zip(self._windows, layers, strict=True)):
      layer = self._layer(window, self._weights(weights, params.get("lora_scale")))
      wanted = at if i == c.num_layers - 1 else None
      x, layer_cache = layer(x, positions, *views[window], None if cache is None else cache[i], None, wanted)
      caches.append(layer_cache)
    hidden = self._normed(params["decoder"], x)
    return hidden.reshape(*(tokens if at is None else at).shape, c.d_model), tuple(caches)

  def unembedding(self, params: Params) -> Callable[[jax.Array], jax.Array]:
    """The function hidden[..., d_model] -> logits f32[..., V], whose matrix is gathered once.

    It is the matrix of the embeddings where config.tied. Logits are the sums of the product in float32, whatever the
    dtype of the computation: bfloat16 has three digits, which of a logit of 20 leaves steps of 0.125.

    Raises:
      UnsupportedModelError: the parameters are those of a classifier, without an output matrix.
    """
    c = self.config
    if c.tied:
      matrix = self._part(params["decoder"], "embedding")["embedding"].astype(c.dtype)
    elif "unembedding" in params["decoder"]:
      matrix = self._part(params["decoder"], "unembedding")["kernel"].astype(c.dtype)
    else:
      raise UnsupportedModelError(
        "the model has no output matrix, as published classifiers have none: it scores texts, and predicts no tokens"
      )

    def unembed(hidden: jax.Array) -> jax.Array:
      flat = hidden.reshape(-1, c.d_model).astype(c.dtype)
      logits = (product_with_table if c.tied else product)(flat, matrix, "float32")
      if c.logit_softcap:
        logits = c.logit_softcap * jnp.tanh(logits / c.logit_softcap)
      return logits.reshape(*hidden.shape[:-1], c.vocab_size)

    return unembed

  def share_table(self, params: Params) -> Params:
    """The parameters with the table of tied embeddings gathered, for both of its uses: `gather` leaves it as it is."""
    if self.gather is None or not self.config.tied:
      return params
    decoder = params["decoder"]
    return {**params, "decoder": {**decoder, "embedding": self._part(decoder, "embedding")}}

  @property
  def _windows(self) -> tuple[int, ...]:
    return self.config.windows or (0,) * self.config.num_layers

  def _layer(self, window: int, weights: Params) -> Callable[..., tuple[jax.Array, LayerCache]]:
    layer = Layer(self.config, window, "xla" if self.attention == "chunked" else self.attention)
    return cast(Callable[..., tuple[jax.Array, LayerCache]], functools.partial(layer.apply, {"params": weights}))

  def _weights(self, layer: dict[str, Params], scale: Any) -> Params:
    """The whole parameters of a layer with its adapters, if any, times their scale beside the kernels."""
    layer = dequantize(layer)
    if self.gather is not None:
      layer = {model: self.gather(f"{model}/{STACKED}", part) for model, part in layer.items()}
      layer = jax.tree.map(lambda x: checkpoint_name(x, _GATHERED), layer)
    return adapted(layer["decoder"], layer["lora"], scale) if "lora" in layer else layer["decoder"]

  def _part(self, decoder: Params, name: str) -> Params:
    part = dequantize(decoder[name])
    return part if self.gather is None else self.gather(f"decoder/{name}", part)

  def _embed(self, decoder: Params, tokens: Array, positions: jax.Array) -> jax.Array:
    """tokens[B, S] at positions[B, S] -> [B * S, d_model]."""
    c = self.config

    def rows(name: str, index: Array) -> jax.Array:
      return jnp.take(self._part(decoder, name)["embedding"].astype(c.dtype), index, axis=0).reshape(-1, c.d_model)

    x = rows("embedding", tokens)
    if c.embedding_scale != 1.0:
      x = x * jnp.asarray(c.embedding_scale, x.dtype)
    return x + rows("position_embedding", positions) if c.learned_positions else x

  def _normed(self, decoder: Params, x: jax.Array) -> jax.Array:
    return cast(jax.Array, make_norm(self.config).apply({"params": self._part(decoder, "final_norm")}, x))

  def _views(
    self, positions: jax.Array, cached: jax.Array | None, visible: jax.Array
  ) -> dict[int, tuple[Rotary | None, jax.Array | Seen]]:
    """{window: (the rotations at positions[B, S], the keys that each token sees)} for the windows of all layers.

    cached: i32[1, U], the positions of keys in a cache; None where the tokens are the keys. Rotations are None where
    positions are learned.
    """
    c = self.config
    rotary = window_rotary = None
    if not c.learned_positions:
      dim = c.rotary_dim or c.head_dim
      magnitude = c.rope_scaling.magnitude if c.rope_scaling else 1.0
      rotary = window_rotary = rotation(positions, frequencies(dim, c.rope_theta, c.rope_scaling), magnitude)
      if c.window_rope_theta:
        window_rotary = rotation(positions, frequencies(dim, c.window_rope_theta))

    def seen(window: int) -> jax.Array | Seen:
      if cached is None and self.attention == "chunked" and positions.shape[1] > WHOLE:
        last = jnp.broadcast_to(jnp.arange(positions.shape[1]), positions.shape)
        first = last - positions  # where the token's sequence starts
        return Seen(jnp.maximum(first, last - window + 1) if window else first, last)
      keys = positions if cached is None else cached
      age = positions[:, :, None] - keys[:, None, :]  # [B, S, U]
      return visible & (age < window) if window else visible

    return {window: (window_rotary if window else rotary, seen(window)) for window in {*self._windows}}


def _layers(params: Params, name: str) -> dict[str, Params]:
  """{"decoder": the parameters of a layer, or of all that are stacked, "lora": its adapters, where it has some}."""
  return {model: params[model][name] for model in ("decoder", "lora") if model in params}


def _all_but_gathered(primitive: Any, *_: Any, **settings: Any) -> bool:
  """The policy of `jax.checkpoint` that keeps everything but gathered weights.

  A value with a name that is not kept is computed anew from the last value before it that is, so nothing that gathering
  is made of may be kept: collectives, casts and changes of shape, and functions of collectives with their own gradient.
  """
  inner = settings.get("call_jaxpr")
  names = {primitive.name, *(equation.primitive.name for equation in (inner.eqns if inner else ()))}
  return primitive.name not in _GATHERING and "all_gather" not in names


_GATHERING = {
  "name", "all_gather", "all_gather_invariant", "all_gather_reduced", "convert_element_type", "reshape", "transpose",
  "sharding_constraint", "reshard", "pvary", "pcast",
}  # fmt: skip
