"""A decoder-only transformer with an explicit cache: every family of models as configurations of one forward.

Vaswani et al. 2017 (arXiv 1706.03762), by default in the shape of Llama (arXiv 2302.13971): RMSNorm, rotary
positions, grouped-query attention, SwiGLU. There is no dropout: the log-probs of the policy must be the same number
when sampling and when training.
"""

from __future__ import annotations

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlhf_jax.models.attention import attend, frequencies, rotate, rotation
from rlhf_jax.models.config import DecoderConfig
from rlhf_jax.models.fused_attention import Attention, fused_attention
from rlhf_jax.models.matmul import product, product_with_table

# Per layer: keys and values, [B, kv_heads, U, head_dim]. The products of attention read them in this order; any other
# is transposed anew for every token.
Cache = tuple[tuple[jax.Array, jax.Array], ...]

# What is kept of a layer for its backward pass.
Remat = Literal["none", "full", "dots"]
KEPT = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}

ACTIVATIONS = {"silu": nn.silu, "gelu": functools.partial(nn.gelu, approximate=False), "gelu_tanh": nn.gelu}


class ZeroCenteredRMSNorm(nn.Module):
  """RMSNorm times (1 + scale), as Gemma stores it: weight decay then pulls towards a factor of one."""

  epsilon: float
  dtype: str

  @nn.compact
  def __call__(self, x):
    scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],))
    x = x.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
    return (x * (1.0 + scale)).astype(self.dtype)


def make_norm(c: DecoderConfig, name: str | None = None) -> nn.Module:
  """The family's norm over the last axis."""
  if c.norm == "zero_centered":
    return ZeroCenteredRMSNorm(c.norm_eps, c.dtype, name=name)
  if c.norm == "layer":
    # E[x^2] - E[x]^2 loses what is left after GPT-2's large means.
    return nn.LayerNorm(epsilon=c.norm_eps, dtype=c.dtype, use_fast_variance=False, name=name)
  return nn.RMSNorm(epsilon=c.norm_eps, dtype=c.dtype, name=name)


class Dense(nn.Dense):
  """x @ kernel + bias, and + (x @ a) @ b where an adapter stands beside the kernel (see `rlhf_jax.models.lora`)."""

  def __call__(self, x):
    y = super().__call__(x)
    if self.has_variable("params", "a"):
      a, b = (self.get_variable("params", name).astype(x.dtype) for name in ("a", "b"))
      y = y + (x @ a) @ b
    return y


def pick(x: jax.Array, index: jax.Array) -> jax.Array:
  """One token of each row: x[B, S, ...], index[B] -> [B, 1, ...]."""
  return x[jnp.arange(x.shape[0]), index][:, None]


class Layer(nn.Module):
  """Attention and mlp on [B * S, d]: given [B, S, d], XLA on CPU transposes it for the weight gradients."""

  config: DecoderConfig
  window: int = 0
  fused: Attention = "xla"

  @nn.compact
  def __call__(self, x, positions, turn, visible, cache, segments=None, last=None):
    """With last[B], what comes back is [B, d], of these tokens; the keys and values are of all."""
    c = self.config
    read = make_norm(c, "attention_norm")(x)
    asking, asking_turn, fused = read, turn, self.fused
    if last is not None:
      x, asking = (pick(y.reshape(*positions.shape, -1), last)[:, 0] for y in (x, read))
      asking_turn, visible = jax.tree.map(lambda y: pick(y, last), (turn, visible))
      fused = "xla"
    y, cache = self.attention(asking, read, positions, asking_turn, turn, visible, cache, segments, fused)
    if c.post_norms:
      y = make_norm(c, "attention_post_norm")(y)
    after = x + y
    y = self.mlp(make_norm(c, "mlp_norm")(x if c.parallel_residual else after))
    if c.post_norms:
      y = make_norm(c, "mlp_post_norm")(y)
    return after + y, cache

  def attention(self, asking, x, positions, asking_turn, turn, visible, cache, segments, fused):
    c = self.config
    batch, length = positions.shape
    query = self.dense(c.num_heads * c.head_dim, "query", c.qkv_bias)(asking)
    key = self.dense(c.num_kv_heads * c.head_dim, "key", c.qkv_bias)(x)
    value = self.dense(c.num_kv_heads * c.head_dim, "value", c.qkv_bias)(x)
    query = query.reshape(batch, -1, c.num_heads, c.head_dim)
    key, value = (y.reshape(batch, length, c.num_kv_heads, c.head_dim) for y in (key, value))
    if c.query_key_norm:
      query, key = make_norm(c, "query_norm")(query), make_norm(c, "key_norm")(key)
    if turn is not None:
      query, key = rotate(query, *asking_turn), rotate(key, *turn)
    extends = cache is not None
    if not extends:
      cache = (key.swapaxes(1, 2), value.swapaxes(1, 2))
    else:
      rows = jnp.arange(batch)[:, None]
      cache = tuple(old.at[rows, :, positions].set(new) for old, new in zip(cache, (key, value), strict=True))
      key, value = (y.swapaxes(1, 2) for y in cache)
    scale = c.query_scale or c.head_dim**-0.5
    if fused == "xla" or extends:
      y = attend(query, key, value, visible, scale=scale, softcap=c.attention_softcap)
    else:
      settings = dict(window=self.window, scale=scale, softcap=c.attention_softcap)
      y = fused_attention(fused, query, key, value, segments, **settings)
    y = y.reshape(-1, c.num_heads * c.head_dim)
    return self.dense(c.d_model, "attention_out", c.attention_out_bias, 1 / (2 * c.num_layers))(y), cache

  def mlp(self, x):
    c = self.config
    activation = ACTIVATIONS[c.activation]
    if c.gated:
      y = activation(self.dense(c.d_ff, "gate", c.mlp_bias)(x)) * self.dense(c.d_ff, "up", c.mlp_bias)(x)
    else:
      y = activation(self.dense(c.d_ff, "up", c.mlp_bias)(x))
    return self.dense(c.d_model, "mlp_out", c.mlp_bias, 1 / (2 * c.num_layers))(y)

  def dense(self, features, name, bias, scale=1.0):
    init = nn.initializers.variance_scaling(scale, "fan_in", "normal")
    return Dense(
      features, use_bias=bias, dtype=self.config.dtype, kernel_init=init, name=name, dot_general=_dense_product
    )


def _dense_product(x, kernel, dimension_numbers, precision=None):
  """What `nn.Dense` asks for with x[T, d] and kernel[d, f]."""
  del dimension_numbers, precision
  return product(x, kernel)


class Decoder(nn.Module):
  """tokens[B, S] at positions[B, S] -> (hidden[B, S, d_model], cache); `unembed` turns hidden states into logits."""

  config: DecoderConfig
  remat: Remat = "none"
  attention: Attention = "xla"

  def setup(self):
    c = self.config
    init = nn.initializers.normal(0.02)
    # 0.02 drowns the words of a narrow model in what its layers add: learning to copy then takes it twice as long.
    words = nn.initializers.normal(2 * c.d_model**-0.5)
    self.embedding = nn.Embed(c.vocab_size, c.d_model, embedding_init=words, dtype=c.dtype)
    if c.learned_positions:
      self.position_embedding = nn.Embed(c.learned_positions, c.d_model, embedding_init=init, dtype=c.dtype)
    layer = Layer if self.remat == "none" else nn.remat(Layer, policy=KEPT[self.remat])
    self.layers = [layer(c, c.windows[i] if c.windows else 0, self.attention) for i in range(c.num_layers)]
    self.final_norm = make_norm(c)
    if not c.tied:
      self.unembedding = nn.Dense(
        c.vocab_size, use_bias=False, dtype=c.dtype, kernel_init=init, dot_general=_dense_product
      )

  def __call__(self, tokens, positions, visible, cache: Cache | None = None, segments=None, last=None):
    """visible[B, S, U]: which of the U keys, the sequence's own or the cache's slots, each token may see.

    The cache that comes back is the one given with the tokens written at their positions; without one, the tokens' own.
    segments[B, S], where rows are packed: what `visible` says already, for attention that makes its own mask.
    last[B]: where only one token of each row is asked for, its index; the last layer then does no work for the others,
    and hidden is [B, d_model].
    """
    c = self.config
    batch, length = tokens.shape
    x = self.embedding(tokens).reshape(batch * length, c.d_model)
    if c.embedding_scale != 1.0:
      x = x * jnp.asarray(c.embedding_scale, x.dtype)
    if c.learned_positions:
      x = x + self.position_embedding(positions).reshape(batch * length, c.d_model)
    turn, window_turn = self.rotations(positions)
    key_positions = positions if cache is None else jnp.arange(visible.shape[2])[None]  # [B or 1, U]
    age = positions[:, :, None] - key_positions[:, None, :]  # [B, S, U]
    caches = []
    for i, layer in enumerate(self.layers):
      seen = visible & (age < layer.window) if layer.window else visible
      turns = window_turn if layer.window else turn
      wanted = last if i == c.num_layers - 1 else None
      x, layer_cache = layer(x, positions, turns, seen, None if cache is None else cache[i], segments, wanted)
      caches.append(layer_cache)
    hidden = self.final_norm(x).reshape(*(positions if last is None else last).shape, c.d_model)
    if self.is_initializing():
      self.unembed(hidden)  # else an untied unembedding would have no parameters
    return hidden, tuple(caches)

  def rotations(self, positions):
    """What turns queries and keys at positions[B, S], in layers without a window and with one; None: nothing does."""
    c = self.config
    if c.learned_positions:
      return None, None
    dim = c.rotary_dim or c.head_dim
    magnitude = c.rope_scaling.magnitude if c.rope_scaling else 1.0
    turn = rotation(positions, frequencies(dim, c.rope_theta, c.rope_scaling), magnitude)
    return turn, rotation(positions, frequencies(dim, c.window_rope_theta)) if c.window_rope_theta else turn

  def unembed(self, hidden):
    """hidden[..., d_model] -> logits[..., V], with the embedding where it is tied."""
    c = self.config
    flat = hidden.reshape(-1, c.d_model)
    if c.tied:
      logits = product_with_table(flat.astype(c.dtype), self.embedding.embedding.astype(c.dtype))
    else:
      logits = self.unembedding(flat)
    if c.logit_softcap:
      logits = c.logit_softcap * jnp.tanh(logits / c.logit_softcap)
    return logits.reshape(*hidden.shape[:-1], c.vocab_size)
