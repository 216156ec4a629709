"""A decoder-only transformer (RMSNorm, rotary positions, grouped-query attention, SwiGLU) with an explicit cache.

Vaswani et al. 2017 (arXiv 1706.03762) in the shape of Llama (arXiv 2302.13971). There is no dropout: the log-probs
of the policy must be the same number when sampling and when training.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Cache = tuple[tuple[jax.Array, jax.Array], ...]  # per layer: keys and values, [B, S, kv_heads, head_dim]


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """The shape of a decoder.

  max_length is the longest sequence in tokens, prompt and response together; num_kv_heads divides num_heads; dtype is
  that of the activations (parameters are float32).
  """

  vocab_size: int
  num_layers: int
  d_model: int
  num_heads: int
  num_kv_heads: int
  d_ff: int
  max_length: int
  rope_theta: float = 10000.0
  norm_eps: float = 1e-6
  dtype: Literal["float32", "bfloat16"] = "float32"

  def __post_init__(self):
    if self.d_model % self.num_heads or (self.d_model // self.num_heads) % 2:
      raise ValueError(f"d_model={self.d_model} must be num_heads={self.num_heads} times an even head size")
    if self.num_heads % self.num_kv_heads:
      raise ValueError(f"num_kv_heads={self.num_kv_heads} must divide num_heads={self.num_heads}")

  @property
  def head_dim(self) -> int:
    return self.d_model // self.num_heads


def rotate(x: jax.Array, positions: jax.Array, theta: float) -> jax.Array:
  """Rotary position embedding (arXiv 2104.09864) of x[B, S, H, D] at positions[B, S], halves layout."""
  half = x.shape[-1] // 2
  frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)  # [D/2]
  angles = positions[..., None].astype(jnp.float32) * frequencies  # [B, S, D/2]
  cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]  # [B, S, 1, D/2]
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, visible: jax.Array) -> jax.Array:
  """Softmax attention with float32 weights: query[B, S, H, D], key, value[B, U, G, D], visible[B, S, U] -> like query.

  H is a multiple of G; each key head serves H / G query heads.
  """
  batch, length, heads, dim = query.shape
  groups = key.shape[2]
  query = query.reshape(batch, length, groups, heads // groups, dim) * dim**-0.5
  scores = jnp.einsum("bsghd,bugd->bghsu", query, key, preferred_element_type=jnp.float32)
  scores = jnp.where(visible[:, None, None], scores, -1e30)
  weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
  return jnp.einsum("bghsu,bugd->bsghd", weights, value).reshape(batch, length, heads, dim)


class Layer(nn.Module):
  """Pre-norm attention and SwiGLU on [B * S, d]: given [B, S, d], XLA on CPU transposes it for the weight gradients."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x, positions, visible, cache):
    c = self.config
    batch, length = positions.shape

    def dense(features, name, scale=1.0):
      init = nn.initializers.variance_scaling(scale, "fan_in", "normal")
      return nn.Dense(features, use_bias=False, dtype=c.dtype, kernel_init=init, name=name)

    y = nn.RMSNorm(epsilon=c.norm_eps, dtype=c.dtype, name="attention_norm")(x)
    query = dense(c.d_model, "query")(y).reshape(batch, length, c.num_heads, c.head_dim)
    key = dense(c.num_kv_heads * c.head_dim, "key")(y).reshape(batch, length, c.num_kv_heads, c.head_dim)
    value = dense(c.num_kv_heads * c.head_dim, "value")(y).reshape(key.shape)
    query, key = rotate(query, positions, c.rope_theta), rotate(key, positions, c.rope_theta)
    if cache is not None:
      rows = jnp.arange(batch)[:, None]
      key = cache[0].at[rows, positions].set(key.astype(cache[0].dtype))
      value = cache[1].at[rows, positions].set(value.astype(cache[1].dtype))
      cache = (key, value)
    y = attend(query, key, value, visible).reshape(batch * length, c.d_model)
    x = x + dense(c.d_model, "attention_out", 1 / (2 * c.num_layers))(y)

    y = nn.RMSNorm(epsilon=c.norm_eps, dtype=c.dtype, name="mlp_norm")(x)
    y = nn.silu(dense(c.d_ff, "gate")(y)) * dense(c.d_ff, "up")(y)
    return x + dense(c.d_model, "mlp_out", 1 / (2 * c.num_layers))(y), cache


class Decoder(nn.Module):
  """tokens[B, S] at positions[B, S] -> (hidden[B, S, d_model], cache); `unembed` turns hidden states into logits."""

  config: DecoderConfig

  def setup(self):
    c = self.config
    self.embedding = nn.Embed(c.vocab_size, c.d_model, embedding_init=nn.initializers.normal(0.02), dtype=c.dtype)
    self.layers = [Layer(c) for _ in range(c.num_layers)]
    self.final_norm = nn.RMSNorm(epsilon=c.norm_eps, dtype=c.dtype)

  def __call__(self, tokens, positions, visible, cache: Cache | None = None):
    batch, length = tokens.shape
    x = self.embedding(tokens).reshape(batch * length, self.config.d_model)
    caches = []
    for i, layer in enumerate(self.layers):
      x, layer_cache = layer(x, positions, visible, None if cache is None else cache[i])
      caches.append(layer_cache)
    hidden = self.final_norm(x).reshape(batch, length, self.config.d_model)
    return hidden, (None if cache is None else tuple(caches))

  def unembed(self, hidden):
    """hidden[..., d_model] -> logits[..., V], with the (tied) embedding."""
    flat = hidden.reshape(-1, self.config.d_model)
    return self.embedding.attend(flat).reshape(*hidden.shape[:-1], self.config.vocab_size)
