"""One layer of a decoder, attention and mlp, and the modules it is made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlhf_jax.models.attention import attend, rotate
from rlhf_jax.models.chunked_attention import Seen, chunked_attention
from rlhf_jax.models.config import Activation, DecoderConfig
from rlhf_jax.models.fused_attention import Attention, fused_attention
from rlhf_jax.models.matmul import product
from rlhf_jax.positions import take_at

# Keys and values of a layer, [B, kv_heads, U, head_dim] each, in the order in which attention multiplies them: any
# other would be transposed anew for every token.
LayerCache = tuple[jax.Array, jax.Array]
Rotary = tuple[jax.Array, jax.Array]  # (cos, sin) of `rlhf_jax.models.attention.rotation`

ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
  "silu": nn.silu,
  "gelu": functools.partial(nn.gelu, approximate=False),
  "gelu_tanh": nn.gelu,
}


class ZeroCenteredRMSNorm(nn.Module):
  """RMSNorm times (1 + scale), as Gemma stores it: weight decay then pulls the factor towards 1."""

  epsilon: float
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """x[..., d] -> [..., d] in the dtype of the module."""
    scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],))
    x = x.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
    return (x * (1.0 + scale)).astype(self.dtype)


def make_norm(c: DecoderConfig, name: str | None = None) -> nn.Module:
  """The family's norm over the last axis."""
  if c.norm == "zero_centered":
    return ZeroCenteredRMSNorm(c.norm_eps, c.dtype, name=name)
  if c.norm == "layer":
    # The fast variance, E[x^2] - E[x]^2, has no digits left beside GPT-2's large means.
    return nn.LayerNorm(epsilon=c.norm_eps, dtype=c.dtype, use_fast_variance=False, name=name)
  return nn.RMSNorm(epsilon=c.norm_eps, dtype=c.dtype, name=name)


class Dense(nn.Dense):
  """x @ kernel + bias, and + (x @ a) @ b where an adapter stands beside the kernel (see `rlhf_jax.models.lora`)."""

  def __call__(self, inputs: jax.Array) -> jax.Array:
    """inputs[..., d] -> [..., features]."""
    y = super().__call__(inputs)
    if self.has_variable("params", "a"):
      a: jax.Array = self.get_variable("params", "a")
      b: jax.Array = self.get_variable("params", "b")
      y = y + (inputs @ a.astype(inputs.dtype)) @ b.astype(inputs.dtype)
    return y


class Layer(nn.Module):
  """Attention and mlp on [B * S, d]: given [B, S, d], XLA on CPU transposes it for the weight gradients."""

  config: DecoderConfig
  window: int = 0
  fused: Attention = "xla"

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    positions: jax.Array,
    rotary: Rotary | None,
    visible: jax.Array | Seen,
    cache: LayerCache | None,
    segments: jax.Array | None = None,
    at: jax.Array | None = None,
  ) -> tuple[jax.Array, LayerCache]:
    """x[B * S, d] -> (the next x, the cache); the other arguments are as in `Decoder`.

    With at[B, N] the next x is [B * N, d], that of these tokens only; the cache holds the keys and values of all.
    """
    c = self.config
    norm = make_norm(c, "attention_norm")
    normed = norm(x)
    query_normed, query_rotary = normed, rotary
    window: int | None = self.window
    fused = self.fused if cache is None else "xla"
    if at is not None:
      x = self.picked(x, at)
      if fused == "xla" or at.shape[1] == 1:
        query_normed, fused = norm(x), "xla"  # not picked of `normed`: its gradient would be one more scatter
        query_rotary, visible = jax.tree.map(lambda y: take_at(y, at), (rotary, visible))
        window = None  # in whatever order they are
    y, cache = self.attention(
      query_normed, normed, positions, query_rotary, rotary, visible, cache, segments, fused, window
    )
    if at is not None and fused != "xla":  # a kernel needs the queries of whole rows, and keeps no [B, H, N, T] scores
      y = self.picked(y, at)
    y = self.dense(c.d_model, "attention_out", c.attention_out_bias, 1 / (2 * c.num_layers))(y)
    if c.post_norms:
      y = make_norm(c, "attention_post_norm")(y)
    after = x + y
    y = self.mlp(make_norm(c, "mlp_norm")(x if c.parallel_residual else after))
    if c.post_norms:
      y = make_norm(c, "mlp_post_norm")(y)
    return after + y, cache

  def attention(
    self,
    query_x: jax.Array,
    x: jax.Array,
    positions: jax.Array,
    query_rotary: Rotary | None,
    rotary: Rotary | None,
    visible: jax.Array | Seen,
    cache: LayerCache | None,
    segments: jax.Array | None,
    fused: Attention,
    window: int | None,
  ) -> tuple[jax.Array, LayerCache]:
    """Attention of query_x[..., d] to the keys and values of x[B * S, d]: (heads[..., H * head_dim], the cache).

    window: as in `chunked_attention`.
    """
    c = self.config
    batch, length = positions.shape
    query = self.dense(c.num_heads * c.head_dim, "query", c.qkv_bias)(query_x)
    key = self.dense(c.num_kv_heads * c.head_dim, "key", c.qkv_bias)(x)
    value = self.dense(c.num_kv_heads * c.head_dim, "value", c.qkv_bias)(x)
    query = query.reshape(batch, -1, c.num_heads, c.head_dim)
    key, value = (y.reshape(batch, length, c.num_kv_heads, c.head_dim) for y in (key, value))
    if c.query_key_norm:
      query, key = make_norm(c, "query_norm")(query), make_norm(c, "key_norm")(key)
    if rotary is not None and query_rotary is not None:
      query, key = rotate(query, *query_rotary), rotate(key, *rotary)
    if cache is None:
      cache = (key.swapaxes(1, 2), value.swapaxes(1, 2))
    else:
      rows = jnp.arange(batch)[:, None]
      cache = (cache[0].at[rows, :, positions].set(key), cache[1].at[rows, :, positions].set(value))
      key, value = (y.swapaxes(1, 2) for y in cache)
    scale = c.query_scale or c.head_dim**-0.5
    settings: dict[str, Any] = dict(scale=scale, softcap=c.attention_softcap)
    if fused != "xla":
      y = fused_attention(fused, query, key, value, segments, window=self.window, **settings)
    elif isinstance(visible, Seen):
      y = chunked_attention(query, key, value, visible, window=window, **settings)
    else:
      y = attend(query, key, value, visible, **settings)
    return y.reshape(-1, c.num_heads * c.head_dim), cache

  def picked(self, x: jax.Array, at: jax.Array) -> jax.Array:
    """The tokens at[B, N] of each row of x[B * S, d]: [B * N, d]."""
    return take_at(x.reshape(at.shape[0], -1, x.shape[-1]), at).reshape(-1, x.shape[-1])

  def mlp(self, x: jax.Array) -> jax.Array:
    """x[..., d] -> [..., d], each token by itself."""
    c = self.config
    activation = ACTIVATIONS[c.activation]
    if c.gated:
      y = activation(self.dense(c.d_ff, "gate", c.mlp_bias)(x)) * self.dense(c.d_ff, "up", c.mlp_bias)(x)
    else:
      y = activation(self.dense(c.d_ff, "up", c.mlp_bias)(x))
    return self.dense(c.d_model, "mlp_out", c.mlp_bias, 1 / (2 * c.num_layers))(y)

  def dense(self, features: int, name: str, bias: bool, scale: float = 1.0) -> Dense:
    """A matrix of this layer, drawn with variance scale / d."""
    init = nn.initializers.variance_scaling(scale, "fan_in", "normal")
    return Dense(
      features, use_bias=bias, dtype=self.config.dtype, kernel_init=init, name=name, dot_general=_dense_product
    )


def _dense_product(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None) -> jax.Array:
  """What `nn.Dense` asks of dot_general, for x[T, d] and kernel[d, f]."""
  del dimension_numbers, precision
  return product(x, kernel)
