"""Attention of the training forward by a fused kernel, without [B, H, T, T] scores: cuDNN on GPUs, splash on TPUs.

`rlhf_jax.models.chunked_attention` is the same for every platform.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from rlhf_jax.models.config import DecoderConfig, UnsupportedModelError

# "xla" is one product of all queries and keys, "chunked" is that of short rows and `chunked_attention` of longer ones.
Attention = Literal["xla", "chunked", "cudnn", "splash"]
PLATFORM = {"cudnn": "gpu", "splash": "tpu"}
BLOCK = 128  # both kernels work on whole blocks of positions


def check_attention(attention: Attention, config: DecoderConfig) -> None:
  """Raises UnsupportedModelError, naming the field, where `attention` cannot compute the attention of `config`."""
  if attention == "cudnn":
    if config.attention_softcap:
      raise UnsupportedModelError(
        f"attention 'cudnn' has no soft cap, and attention_softcap={config.attention_softcap}: use 'xla' or 'splash'"
      )
    if config.dtype != "bfloat16":
      raise UnsupportedModelError(f"attention 'cudnn' needs dtype='bfloat16', not {config.dtype!r}")
    if config.head_dim % 8 or config.head_dim > 256:
      raise UnsupportedModelError(f"attention 'cudnn' needs heads of 8, 16, ... 256 features, not {config.head_dim}")


def fused_attention(
  attention: Attention,
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  segments: jax.Array | None,
  *,
  window: int,
  scale: float,
  softcap: float,
) -> jax.Array:
  """Causal attention of whole rows: query[B, T, H, D], key, value[B, T, G, D], segments[B, T] or None -> like query.

  Inside a shard_map over the axes of the rows, heads are cut over the mesh's other axes, whose sizes divide H and G.

  Args:
    window: the number of tokens that each token sees, itself included; 0 for all.
    scale, softcap: as in `rlhf_jax.models.attention.attend`; "cudnn" has no softcap (see `check_attention`).
  """
  length = query.shape[1]
  padding = [(0, 0), (0, -length % BLOCK), (0, 0), (0, 0)]  # at the end, where causality hides it
  query, key, value = (jnp.pad(x, padding) for x in (query, key, value))
  if segments is not None:
    segments = jnp.pad(segments, padding[:2], constant_values=-1)

  def kernel(query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array | None) -> jax.Array:
    if attention == "cudnn":
      return cudnn(query, key, value, segments, window=window, scale=scale)
    return splash(query * scale, key, value, segments, window=window, softcap=softcap)

  return over_heads(kernel)(query, key, value, segments)[:, :length]


def over_heads(kernel: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """`kernel(query, key, value, segments)` on each device's own heads: a compiler cannot cut a kernel by itself.

  Outside of a shard_map it is the kernel itself.
  """
  mesh = jax.sharding.get_abstract_mesh()
  axes = tuple(axis for axis in mesh.axis_names if axis not in mesh.manual_axes)
  if not mesh.manual_axes or not axes:
    return kernel
  heads = PartitionSpec(None, None, axes)
  specs = (heads, heads, heads, PartitionSpec())
  return jax.shard_map(kernel, in_specs=specs, out_specs=heads, axis_names=set(axes), check_vma=False)


def cudnn(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  segments: jax.Array | None,
  *,
  window: int,
  scale: float,
  implementation: Literal["xla", "cudnn"] = "cudnn",
) -> jax.Array:
  """Attention as in `fused_attention` by `jax.nn.dot_product_attention`; only packed rows need a mask [B, 1, T, T]."""
  same = None if segments is None else segments[:, None, :, None] == segments[:, None, None, :]
  past = (window - 1, 0) if window else None
  return jax.nn.dot_product_attention(
    query, key, value, mask=same, scale=scale, is_causal=True, local_window_size=past, implementation=implementation
  )


def splash(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  segments: jax.Array | None,
  *,
  window: int,
  softcap: float,
  interpret: bool = False,
) -> jax.Array:
  """Attention as in `fused_attention`, of scaled queries, by JAX's block-sparse kernel (arXiv 2205.14135).

  It skips blocks that causality or the window hides. interpret: run the kernel without a TPU, for tests.
  """
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

  length, heads = query.shape[1:3]
  shape = (length, length)
  mask: splash_attention_mask.Mask
  if window:
    mask = splash_attention_mask.LocalMask(shape, (window - 1, 0), offset=0)
  else:
    mask = splash_attention_mask.CausalMask(shape)
  kernel = splash_attention_kernel.make_splash_mha_single_device(
    splash_attention_mask.MultiHeadMask([mask] * heads), attn_logits_soft_cap=softcap or None, interpret=interpret
  )

  def row(query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array | None) -> jax.Array:
    ids = None if segments is None else splash_attention_kernel.SegmentIds(segments, segments)
    return kernel(*(x.swapaxes(0, 1) for x in (query, key, value)), segment_ids=ids).swapaxes(0, 1)

  return jax.vmap(row)(query, key, value, segments)
