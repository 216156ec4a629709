"""Functions of rows over all devices: each device computes its own rows, in microbatches, with weights that it gathers.

Under `jax.shard_map` over data and fsdp everything in such a function is local, so its cost is that of the device's
rows, however they are cut; the tensor axis is left to the partitioner. Any number of rows is allowed: rows of zeros are
added, whose weights are 0, and rows of results are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike

from rlhf_jax.objectives import score_energy, token_logprobs, truncated_logits
from rlhf_jax.packing import Packing
from rlhf_jax.positions import only
from rlhf_jax.stage import Transport
from rlhf_jax.train.mesh import ROWS, make_mesh, put_rows, row_devices, specs
from rlhf_jax.types import Params, nothing, pool, pool_over

Tree = TypeVar("Tree")
Part = Callable[..., tuple[Any, Any]]


def by_rows(function: Callable[..., Any], transport: Transport, *, in_order: bool = False) -> Callable[..., Any]:
  """`call(params, *rows, order=None) -> results` of `function(params, *rows) -> results`, over all devices and in
  microbatches.

  rows and results are trees of arrays [N, ...], for any N; a row's results depend on nothing of other rows. With order,
  i32[minibatches, rows], a permutation of the N rows, rows that are packed for these minibatches of an update are read
  as they are, and their results are put back in their places; all rows are with in_order. It is to be called inside of
  a jitted function, with parameters that are placed by `shardings`.
  """
  mesh = make_mesh(transport)

  def local(params, *rows):
    count = _parts(_length(rows), transport.microbatches)
    if count == 1:
      return function(params, *rows)
    return join_rows(jax.lax.map(lambda part: function(params, *part), split_rows(rows, count)))

  def at_once(params, *rows):
    total = _length(rows)
    rows = pad_rows(rows, mesh, transport.microbatches)
    cut = PartitionSpec(ROWS)
    results = _on_each(local, mesh, (specs(mesh, params, ROWS), *[cut] * len(rows)), cut)(params, *rows)
    return jax.tree.map(lambda x: x[:total], results) if _length(results) > total else results

  def call(params, *rows, order=None):
    if order is None or len(order) == 1 or not (in_order or any(isinstance(x, Packing) for x in _structures(rows))):
      return at_once(params, *rows)
    parts = jax.lax.map(lambda part: at_once(params, *part), jax.tree.map(lambda x: jnp.asarray(x)[order], rows))
    return jax.tree.map(lambda x: x[jnp.argsort(order.ravel())], join_rows(parts))

  return call


def make_logprobs(apply: Callable[..., Any], temperature: ArrayLike, transport: Transport) -> Callable[..., jax.Array]:
  """`logprobs(params, tokens[B, T], mask[B, T], at=None, support=None, order=None) -> f32[B, T]`, read as by `by_rows`.

  They are log-probs of `apply(params, tokens) -> logits` at the sampling temperature, in nats, 0 outside of the mask.
  at[B, N] are the positions of the mask, as in a `Rollout`; where they are given, `apply` gets them by name. support is
  that of `truncated_logits`.
  """

  def of_rows(params, tokens, mask, at, support):
    logits = truncated_logits(apply(params, tokens, **only(at)) / temperature, support)
    return token_logprobs(logits, tokens, mask=mask)

  read = by_rows(of_rows, transport, in_order=True)

  def logprobs(params, tokens, mask, at=None, support=None, order=None):
    return read(params, tokens, mask, at, support, order=order)

  return logprobs


def make_energies(apply: Callable[..., Any], temperature: ArrayLike, transport: Transport) -> Callable[..., jax.Array]:
  """`energies(params, rollout, order=None) -> f32[B, T]`, those of `score_energy`, read as by `by_rows`."""

  def energies(params, rollout):
    logits = truncated_logits(apply(params, rollout.tokens, **only(rollout.at)) / temperature, rollout.support)
    return score_energy(logits, rollout.tokens, mask=rollout.mask)

  return by_rows(energies, transport)


def sum_of_rows(part: Part, like: Callable[[Params], Any], transport: Transport, mesh: Mesh) -> Part:
  """`total(params, *rows) -> (gradients, metrics)`, the sum over microbatches and devices of those of `part`.

  Args:
    part: the function (params, *rows) -> (gradients, metrics) of some rows.
    like: the function from params to the parameters that the gradients are of.
  """
  local = in_microbatches(part, transport.microbatches)

  def total(params, *rows):
    cut = PartitionSpec(ROWS)
    places = specs(mesh, like(params), ROWS)

    def on_device(params, *rows):
      gradients, metrics = local(params, *rows)
      return jax.tree.map(over_devices, gradients, places), pool_over(metrics, ROWS)

    in_specs = (specs(mesh, params, ROWS), *[cut] * len(rows))
    return _on_each(on_device, mesh, in_specs, (places, PartitionSpec()))(params, *rows)

  def over_devices(gradient, place):
    """The sum over the axes that did not sum it yet: gathering a matrix did so along fsdp, backward."""
    axes = tuple(axis for axis in ROWS if axis not in place and mesh.shape[axis] > 1)
    return jax.lax.psum(gradient.astype(transport.gradient_dtype), axes).astype(gradient.dtype) if axes else gradient

  return local if mesh.size == 1 else total


def in_microbatches(part: Part, microbatches: int) -> Part:
  """The sum of `part(params, *rows)` over at most `microbatches` cuts of its rows, one after the other."""

  def total(params, *rows):
    count = _parts(_length(rows), microbatches)
    if count == 1:
      return part(params, *rows)
    cuts = split_rows(rows, count)
    start = nothing(jax.eval_shape(part, params, *jax.tree.map(lambda x: x[0], cuts)))
    return jax.lax.scan(lambda sums, cut: (pool(sums, part(params, *cut)), None), start, cuts)[0]

  return total


def pad_rows(rows: Tree, mesh: Mesh, microbatches: int) -> Tree:
  """Rows of zeros at the end of arrays [N, ...], so that all devices have equally many, and all their microbatches."""
  size = rows_at_once(_length(rows), mesh, microbatches)
  missing = size * parts_of(_length(rows), mesh, microbatches) - _length(rows)
  if not missing:
    return rows

  def pad(x):
    return (jnp if isinstance(x, jax.Array) else np).pad(x, [(0, missing)] + [(0, 0)] * (np.ndim(x) - 1))

  return jax.tree.map(pad, rows)


def place_rows(rows: Tree, mesh: Mesh, microbatches: int) -> Tree:
  """Arrays [N, ...] padded by `pad_rows` and put on the devices."""
  return put_rows(mesh, pad_rows(rows, mesh, microbatches))


def split_rows(rows: Tree, parts: int) -> Tree:
  """Arrays [N, ...] as [parts, N / parts, ...]."""
  return jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), rows)


def join_rows(rows: Tree) -> Tree:
  """The inverse of `split_rows`: arrays [parts, n, ...] as [parts * n, ...]."""
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)


def parts_of(rows: int, mesh: Mesh, microbatches: int) -> int:
  """The number of parts that rows are cut into: those of all devices, and of each device its microbatches."""
  devices = row_devices(mesh)
  return devices * _parts(-(-rows // devices), microbatches)


def rows_at_once(rows: int, mesh: Mesh, microbatches: int) -> int:
  """The number of rows in each part of `rows` rows, the last parts padded (see `pad_rows`)."""
  return -(-rows // parts_of(rows, mesh, microbatches))


def _parts(rows: int, microbatches: int) -> int:
  """The number of microbatches of one device, which has as few rows in each as `microbatches` of them would."""
  return -(-rows // -(-rows // microbatches)) if rows else 1


def _structures(rows: Any) -> list[Any]:
  """The packings and the arrays in a tree."""
  return jax.tree.leaves(rows, is_leaf=lambda x: isinstance(x, Packing))


def _length(rows: Any) -> int:
  return len(jax.tree.leaves(rows)[0])


def _on_each(function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable[..., Any]:
  """shard_map over the axes of rows. An axis of size 1 is manual too: some kernels are made for manual axes alone."""
  if mesh.size == 1:
    return function
  axes = {*mesh.axis_names} if mesh.shape["tensor"] == 1 else {*ROWS}
  return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names=axes, check_vma=False)
