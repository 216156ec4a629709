"""Masked reductions, and the weights that turn every loss into a plain sum.

A denominator (tokens, sequences, rows) depends on masks, never on parameters. Compute it once over the global
batch as an array of weights; a loss is then `weighted_sum(per_element, weights)`, and losses, gradients and
metrics of microbatches and devices simply add up. A mean of per-device means is wrong wherever the devices hold
unequal numbers of tokens.

Masks are boolean or numeric (nonzero counts), have the shape of `x`, and are applied with `where`: whatever stands
at a masked position, NaN included, changes neither a value nor a gradient. All arithmetic is float32. A scalar fits
any shape; another shape raises ValueError (see `check_shapes`).

`axis_name` (a name or a tuple of names) extends a reduction over the devices of a pmap, shard_map or vmap axis.
It is for weights, statistics and metrics. Never differentiate through it: inside pmap the gradient of a psum comes
out multiplied by the number of devices. Differentiate the local `weighted_sum` and psum the gradients.
"""

import functools
import math
from collections.abc import Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

__all__ = [
  "constant_weights",
  "float32",
  "masked_mean",
  "masked_moments",
  "masked_sum",
  "ordered_pairs",
  "per_token",
  "select",
  "select_rows",
  "sequence_weights",
  "tied_pairs",
  "token_weights",
  "weighted_sum",
  "whiten",
]

Axis = int | tuple[int, ...] | None
AxisName = str | tuple[str, ...] | None
Scalar = Shaped[ArrayLike, ""]
Array = TypeVar("Array", jax.Array, np.ndarray)

# Weights are made outside the compiled step; dispatched one by one, their operations took a tenth of its time.
_compiled = functools.partial(jax.jit, static_argnames="axis_name")


def float32(x: Shaped[ArrayLike, "..."]) -> Float32[jax.Array, "..."]:
  """`x` in float32: a sum with integer rewards must not be truncated, nor a sum in bfloat16 rounded."""
  return jnp.asarray(x).astype(jnp.float32)


def select(
  x: Scalar | Shaped[ArrayLike, "*b"], mask: Scalar | Shaped[ArrayLike, "*b"] | None
) -> Float32[jax.Array, "..."]:
  """`x` in float32 where the mask is on, 0 elsewhere; all of `x` where `mask` is None.

  Apply it to inputs, before any arithmetic: a `where` on the output alone leaves 0 * NaN in the gradient.

  >>> print(select(jnp.array([1, 2]), jnp.array([True, False])))
  [1. 0.]
  """
  check_shapes("select", {"x": x, "mask": mask})
  return float32(x) if mask is None else jnp.where(jnp.asarray(mask) != 0, float32(x), 0.0)


def select_rows(x: Num[ArrayLike, "*b v"], mask: Scalar | Shaped[ArrayLike, "*b"] | None) -> Float32[jax.Array, "*b v"]:
  """`select` of whole rows: `x[..., V]` in float32 where `mask[...]` is on, 0 elsewhere.

  >>> print(select_rows(jnp.array([[1, 2], [3, 4]]), jnp.array([True, False])))
  [[1. 2.]
   [0. 0.]]
  """
  check_shapes("select_rows", {"x": x}, {"mask": mask})
  return select(x, None if mask is None else per_token(mask, x))


def per_token(x: Scalar | Shaped[ArrayLike, "*b"], like: Shaped[ArrayLike, "*b t"]) -> Shaped[jax.Array, "*b t"]:
  """A value for each sequence as the value of each of its tokens: `x[...]` and `like[..., T]` -> x's dtype [..., T].

  >>> per_token(jnp.array([1, 2]), jnp.zeros((2, 3))).tolist()
  [[1, 1, 1], [2, 2, 2]]
  """
  check_shapes("per_token", {"like": like}, {"x": x})
  return jnp.broadcast_to(jnp.asarray(x)[..., None], jnp.shape(like))


def masked_sum(
  x: Scalar | Shaped[ArrayLike, "*b"],
  mask: Scalar | Shaped[ArrayLike, "*b"],
  *,
  axis: Axis = None,
  axis_name: AxisName = None,
) -> Float32[jax.Array, "..."]:
  """Sum of `x[...]` where `mask[...]` is on, over `axis` (all axes by default): f32; 0 if all is masked.

  >>> print(masked_sum(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([1, 1, 0])))
  3.0
  """
  return _psum(jnp.sum(select(x, _whole("masked_sum", x, mask)), axis=axis), axis_name)


def masked_mean(
  x: Scalar | Shaped[ArrayLike, "*b"],
  mask: Scalar | Shaped[ArrayLike, "*b"],
  *,
  axis: Axis = None,
  axis_name: AxisName = None,
) -> Float32[jax.Array, "..."]:
  """`sum(mask * x) / sum(mask)` of `x[...]` and `mask[...]`, over `axis` (all by default): f32; 0 if all is masked.

  With `axis_name` this is the mean over all devices' elements, not the mean of the devices' means.

  >>> print(masked_mean(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([1, 1, 0])))
  1.5
  """
  mask = _whole("masked_mean", x, mask)
  return masked_sum(x, mask, axis=axis, axis_name=axis_name) / _at_least_one(_count(mask, axis, axis_name))


def masked_moments(
  x: Scalar | Shaped[ArrayLike, "*b"],
  mask: Scalar | Shaped[ArrayLike, "*b"],
  *,
  axis: Axis = None,
  ddof: int = 0,
  axis_name: AxisName = None,
) -> tuple[Float32[jax.Array, "..."], Float32[jax.Array, "..."]]:
  """(mean, variance) of `x[...]` where `mask[...]` is on, over `axis` (all axes by default), each f32.

  The variance divides by max(count - ddof, 1): a single element has variance 0, an empty mask gives (0, 0).

  >>> mean, variance = masked_moments(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1, 1, 0]))
  >>> print(mean, variance)
  2.0 1.0
  """
  mask = _whole("masked_moments", x, mask)
  x = select(x, mask)
  # Moments about one of the elements: the rounding of a plain mean gives equal elements a variance above 0, and
  # whitening would scale them up to about 1.
  shift = jnp.max(jnp.where(mask, x, -jnp.inf), axis=axis, keepdims=True, initial=-jnp.inf)
  shift = jax.lax.stop_gradient(shift)
  shift = shift if axis_name is None else jax.lax.pmax(shift, axis_name)
  shift = jnp.where(jnp.isneginf(shift), 0.0, shift)
  count = _count(mask, axis, axis_name, keepdims=True)
  offset = _psum(jnp.sum(select(x - shift, mask), axis=axis, keepdims=True), axis_name) / _at_least_one(count)
  squares = select(jnp.square(x - shift - offset), mask)
  variance = _psum(jnp.sum(squares, axis=axis, keepdims=True), axis_name) / _at_least_one(count - ddof)
  return jnp.squeeze(shift + offset, axis), jnp.squeeze(variance, axis)


def whiten(
  x: Scalar | Shaped[ArrayLike, "*b"],
  mask: Scalar | Shaped[ArrayLike, "*b"],
  *,
  shift_mean: bool = True,
  ddof: int = 0,
  eps: Scalar = 1e-8,
  axis_name: AxisName = None,
) -> Float32[jax.Array, "..."]:
  """`(x - mean) / sqrt(var + eps)` over all of `x[...]` where `mask[...]` is on, 0 elsewhere: f32[...].

  Without `shift_mean` the mean is added back: rewards are scaled but keep their sign (arXiv:2403.17031, with ddof 0
  for rewards and for advantages). Whiten once, on the whole rollout, outside the loss: the statistics of a microbatch
  or of one device are not those of the batch.

  >>> print(whiten(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1, 1, 0])))
  [-1.  1.  0.]
  """
  mask = _whole("whiten", x, mask)
  mean, variance = masked_moments(x, mask, ddof=ddof, axis_name=axis_name)
  whitened = (select(x, mask) - mean) * jax.lax.rsqrt(variance + eps)
  return select(whitened if shift_mean else whitened + mean, mask)


def weighted_sum(
  x: Scalar | Shaped[ArrayLike, "*b"], weights: Scalar | Shaped[ArrayLike, "*b"], *, axis_name: AxisName = None
) -> Float32[jax.Array, ""]:
  """`sum(weights * x)`; elements of weight 0 are left out, NaN included. `x[...]`, `weights[...]` -> f32[].

  Leave `axis_name` out of a loss that is differentiated: see the head of this module.

  Raises:
    ValueError: x and weights have different shapes (see `check_shapes`).

  >>> print(weighted_sum(jnp.array([2.0, 4.0, jnp.nan]), jnp.array([0.5, 0.5, 0.0])))
  3.0
  """
  check_shapes("weighted_sum", {"x": x, "weights": weights})
  weights = float32(weights)
  return _psum(jnp.sum(weights * select(x, weights)), axis_name)


@_compiled
def token_weights(mask: Shaped[ArrayLike, "*b t"], *, axis_name: AxisName = None) -> Float32[jax.Array, "*b t"]:
  """The same weight for every token of the batch, 1 / tokens: `mask[..., T]` -> f32[..., T], which sums to one.

  >>> print(token_weights(jnp.array([[1, 1, 1], [1, 0, 0]])))
  [[0.25 0.25 0.25]
   [0.25 0.   0.  ]]
  """
  mask = jnp.asarray(mask) != 0
  return jnp.where(mask, 1.0 / _at_least_one(_count(mask, None, axis_name)), 0.0)


@_compiled
def sequence_weights(mask: Shaped[ArrayLike, "*b t"], *, axis_name: AxisName = None) -> Float32[jax.Array, "*b t"]:
  """The same weight for every sequence with a token, split equally among its tokens: `1 / (sequences * length)`.

  `mask[..., T]` -> f32[..., T], which sums to one.

  Rows without a token have weight 0 and do not count as sequences. `weighted_sum` of an array that is constant along
  each sequence is then its mean over the sequences.

  >>> print(sequence_weights(jnp.array([[1, 1], [1, 0], [0, 0]])))
  [[0.25 0.25]
   [0.5  0.  ]
   [0.   0.  ]]
  """
  mask = jnp.asarray(mask) != 0
  lengths = _count(mask, -1, None, keepdims=True)  # [..., 1]
  sequences = _count(lengths > 0, None, axis_name)
  return jnp.where(mask, 1.0 / (_at_least_one(lengths) * _at_least_one(sequences)), 0.0)


def constant_weights(
  mask: Shaped[ArrayLike, "*b t"], length: Scalar, *, axis_name: AxisName = None
) -> Float32[jax.Array, "*b t"]:
  """The weight `1 / (rows * length)` for every token, however many there are: `mask[..., T]` -> f32[..., T].

  Dr. GRPO (arXiv:2503.20783), with `length` the generation budget in tokens. The denominator is a constant, so the
  tokens of a long answer count as much as those of a short one; the weights sum to the share of the budget that was
  used. Every row counts, an empty one too: compute the weights before rows are added for padding.

  Raises:
    ValueError: length is not positive.

  >>> print(constant_weights(jnp.array([[1, 1, 1], [1, 0, 0]]), 4))
  [[0.125 0.125 0.125]
   [0.125 0.    0.   ]]
  """
  if isinstance(length, int | float) and not length > 0:
    raise ValueError(f"constant_weights: length must be a positive number of tokens, got {length}")
  mask = jnp.asarray(mask) != 0
  rows = max(math.prod(mask.shape[:-1]), 1) * (1 if axis_name is None else jax.lax.psum(1, axis_name))
  return jnp.where(mask, 1.0 / (rows * float32(length)), 0.0)


def ordered_pairs(ranks: Array) -> Array:
  """True at [..., i, j] where response i is ranked better than response j; `ranks[..., K]` -> bool[..., K, K].

  A rank of 0 is the best, equal ranks are tied, a rank below 0 is absent. A NumPy array gives a NumPy array.

  >>> ordered_pairs(np.array([1, 0, -1])).tolist()
  [[False, False, False], [True, False, False], [False, False, False]]
  """
  present = ranks >= 0
  better = ranks[..., :, None] < ranks[..., None, :]
  return better & present[..., :, None] & present[..., None, :]


def tied_pairs(ranks: Array) -> Array:
  """True at [..., i, j], i < j, where responses i and j share a rank; `ranks[..., K]` -> bool[..., K, K].

  Ranks are as in `ordered_pairs`; each tied pair stands there once. A NumPy array gives a NumPy array.

  >>> tied_pairs(np.array([0, 0, -1])).tolist()
  [[False, True, False], [False, False, False], [False, False, False]]
  """
  once = np.triu(np.ones((ranks.shape[-1],) * 2, bool), 1)
  return (ranks[..., :, None] == ranks[..., None, :]) & (ranks >= 0)[..., None] & once


def check_shapes(
  function: str, arrays: Mapping[str, ArrayLike | None], per_row: Mapping[str, ArrayLike | None] | None = None
) -> None:
  """Refuses arrays that would be broadcast: an array [B], or [B, 1], fits an array [B, B] along the wrong axis too.

  Shapes are known while a function is traced, so the check is not in the compiled program. Scalars and None fit.

  Args:
    function: the name of the caller, for the message.
    arrays: arrays by name; all have the same shape.
    per_row: arrays with that shape less its last axis, as one value for each sequence.

  Raises:
    ValueError: an array has another shape; the message names it and that of the first array.
  """
  shapes = {name: np.shape(x) for name, x in arrays.items() if x is not None and np.ndim(x)}
  if not shapes:
    return
  first, whole = next(iter(shapes.items()))
  rows = {name: np.shape(x) for name, x in (per_row or {}).items() if x is not None and np.ndim(x)}
  for name, shape in (shapes | rows).items():
    wanted = whole[:-1] if name in rows else whole
    if shape != wanted:
      raise ValueError(
        f"{function}: {name} has shape {shape}, and {first} has {whole}: {name} needs the shape {wanted}. Nothing is "
        "broadcast here: reduce.per_token gives a value for each sequence to its tokens, and jnp.broadcast_to is for "
        "the rest."
      )


def _psum(x: jax.Array, axis_name: AxisName) -> jax.Array:
  return x if axis_name is None else jax.lax.psum(x, axis_name)


def _whole(function: str, x: ArrayLike, mask: ArrayLike) -> jax.Array:
  """The mask, of the shape of x: True alone counts each of its elements."""
  check_shapes(function, {"x": x, "mask": mask})
  return jnp.broadcast_to(jnp.asarray(mask) != 0, jnp.broadcast_shapes(jnp.shape(x), jnp.shape(mask)))


def _count(mask: jax.Array, axis: Axis, axis_name: AxisName, keepdims: bool = False) -> jax.Array:
  # Counted in integers: float32 counts exactly only up to 2**24.
  return _psum(jnp.sum(mask, axis=axis, keepdims=keepdims, dtype=jnp.int32), axis_name)


def _at_least_one(count: jax.Array) -> jax.Array:
  return jnp.maximum(count, 1).astype(jnp.float32)
