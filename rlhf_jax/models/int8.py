"""Weights in int8 for models that are not trained, by qwix: matrices alone, activations keep their dtype.

A matrix W[in, out] becomes int8[in, out] and a scale f32[1, out], embeddings int8[V, d] and a scale f32[V, 1]:
each output has a scale of its own, by the largest absolute value (vector-wise quantisation, Dettmers et al. 2022, arXiv
2208.07339). A decoder reads such a tree as any other, and makes the matrices of a layer whole where it uses them.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from rlhf_jax.types import Params

_SUMMED_AXIS = {"kernel": -2, "embedding": -1}  # name of a matrix -> its axis of inputs, which shares a scale


def quantize(decoder: Params) -> Params:
  """A decoder's tree with a `qwix.QArray` (integers `qvalue`, and `scale`) in the place of each matrix.

  The error of an entry is at most 1/255 of the largest absolute value of its channel. Norms and biases are returned as
  they are. Layers may be stacked.
  """

  def one(path: Any, x: jax.Array) -> Any:
    axis = _SUMMED_AXIS.get(path[-1].key)
    return x if axis is None else _quantized(x, x.ndim + axis)

  return jax.tree_util.tree_map_with_path(one, decoder)


@functools.partial(jax.jit, static_argnames="axis")
def _quantized(x: jax.Array, axis: int) -> Any:
  import qwix  # here, as below: the extra [int8], which other models do without

  channels = [other for other in range(x.ndim) if other != axis]
  return qwix.quantize(x.astype(jnp.float32), jnp.int8, channelwise_axes=channels)


def dequantize(params: Params) -> Params:
  """The tree with matrices in float32 in the place of those that `quantize` made; other arrays are shared."""
  return jax.tree.map(_whole, params, is_leaf=_is_quantized)


def _whole(x: Any) -> jax.Array:
  if not _is_quantized(x):
    return x
  import qwix

  return qwix.dequantize(x)


def _is_quantized(x: Any) -> bool:
  return hasattr(x, "qvalue")
