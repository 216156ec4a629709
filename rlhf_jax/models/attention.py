"""Rotary positions and softmax attention, as functions of arrays."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from rlhf_jax.models.config import RopeScaling


def frequencies(dim: int, theta: float, scaling: RopeScaling | None = None) -> jax.Array:
  """Rotary speeds in radians per token, one for each pair of features: f32[dim / 2] (arXiv 2104.09864)."""
  half = dim // 2
  original = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if scaling is None:
    return original
  slow = original / scaling.factor
  if scaling.kind == "linear":
    return slow
  if scaling.kind == "llama3":
    turns = scaling.original_length * original / (2 * math.pi)
    keep = jnp.clip((turns - scaling.low) / (scaling.high - scaling.low), 0, 1)
    return (1 - keep) * slow + keep * original

  def dimension(turns: float) -> float:  # the feature with so many turns over the original length (YaRN, section 3.2)
    return dim * math.log(scaling.original_length / (turns * 2 * math.pi)) / (2 * math.log(theta))

  first, last = dimension(scaling.high), dimension(scaling.low)
  if scaling.truncate:
    first, last = math.floor(first), math.ceil(last)
  first, last = max(first, 0), min(last, dim - 1)
  ramp = jnp.clip((jnp.arange(half) - first) / max(last - first, 1e-3), 0, 1)
  return ramp * slow + (1 - ramp) * original


def rotation(positions: jax.Array, speeds: jax.Array, magnitude: float = 1.0) -> tuple[jax.Array, jax.Array]:
  """(cos, sin) of positions[B, S] * speeds[R], times `magnitude`: f32[B, S, R] each, for `rotate`.

  All layers share them. Without the barrier a compiler computes them anew for every head of every layer.
  """
  angles = positions[..., None].astype(jnp.float32) * speeds
  return jax.lax.optimization_barrier((magnitude * jnp.cos(angles), magnitude * jnp.sin(angles)))


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotates the first 2R features of x[B, S, H, D] by the angles of cos, sin[B, S, R]; the rest stay.

  Features i and R + i are a pair.
  """
  rotating = x[..., : 2 * cos.shape[-1]].astype(jnp.float32)
  cos, sin = cos[:, :, None], sin[:, :, None]  # [B, S, 1, R]
  first, second = jnp.split(rotating, 2, axis=-1)
  turned = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate([*(part.astype(x.dtype) for part in turned), x[..., rotating.shape[-1] :]], axis=-1)


def attend(
  query: jax.Array, key: jax.Array, value: jax.Array, visible: jax.Array, *, scale: float, softcap: float = 0.0
) -> jax.Array:
  """Softmax attention with float32 weights: query[B, S, H, D], key, value[B, U, G, D], visible[B, S, U] -> like query.

  H is a multiple of G; each key head serves H / G query heads. The scores are query * scale @ key. With a softcap c
  other than 0 they become c * tanh(score / c) (Gemma 2, arXiv 2408.00118).
  """
  batch, length, heads, dim = query.shape
  groups = key.shape[2]
  query = query.reshape(batch, length, groups, heads // groups, dim) * scale
  scores = jnp.einsum("bsghd,bugd->bghsu", query, key, preferred_element_type=jnp.float32)
  if softcap:
    scores = softcap * jnp.tanh(scores / softcap)
  scores = jnp.where(visible[:, None, None], scores, -1e30)
  weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
  return jnp.einsum("bghsu,bugd->bsghd", weights, value).reshape(batch, length, heads, dim)
