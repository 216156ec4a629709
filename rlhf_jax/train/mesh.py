"""The mesh of devices, and where parameters and rows lie on it.

Three axes: rows are cut over `data` and `fsdp`; a copy of the parameters is shared by the devices along `fsdp` (fully
sharded data parallelism, ZeRO stage 3: Rajbhandari et al. 2020, arXiv 1910.02054) and by those along `tensor`, which
also share the arithmetic of each matrix (Shoeybi et al. 2019, arXiv 1909.08053). One list of rules on the paths of
parameters, RULES, holds for parameters, gradients, moments of the optimiser and checkpoints, whose paths end alike.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from rlhf_jax.stage import Transport
from rlhf_jax.types import Params

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")  # axes that rows are cut over
Gather = Callable[[str, Params], Params]

# (regular expression on the path of an array, axes of its last dimensions); the first that is found in the path holds.
# Dimensions are counted from the right, so that the axis of stacked layers, in front, is never cut.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
  (r"position_embedding/embedding$", (None, "fsdp")),
  (r"embedding/embedding$", ("tensor", "fsdp")),
  (r"(query|key|value|gate|up)/kernel$", ("fsdp", "tensor")),
  (r"(attention_out|mlp_out)/kernel$", ("tensor", "fsdp")),
  (r"unembedding/kernel$", ("fsdp", "tensor")),
  (r"", ()),  # norms, biases, heads and adapters: whole on every device
)

_devices: ContextVar[tuple[jax.Device, ...] | None] = ContextVar("devices of meshes", default=None)


def make_mesh(transport: Transport, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The devices as a mesh with the axes data x fsdp x tensor; slices, between which links are slow, cut data first.

  Args:
    devices: None for all devices of JAX, or those of `using_devices`.

  Raises:
    ValueError: the sizes of the axes do not fit the number of devices, data does not fit the number of slices, or the
      devices cannot sum in transport.gradient_dtype.
  """
  devices = list(devices or _devices.get() or jax.devices())
  sizes = _sizes(transport, len(devices))
  if devices[0].platform == "cpu" and sizes[2] > 1 and transport.gradient_dtype == "bfloat16":
    # XLA for CPUs aborts the process: "Invalid binary instruction opcode copy".
    raise ValueError("transport.gradient_dtype='bfloat16' does not work with transport.tensor on CPUs: use 'float32'")
  slices = len({getattr(device, "slice_index", 0) for device in devices})
  if slices > 1 and sizes[0] % slices == 0:
    within = (sizes[0] // slices, *sizes[1:])
    grid = mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), devices, allow_split_physical_axes=True)
  elif slices > 1 and devices[0].platform == "tpu":
    raise ValueError(f"transport.data is {sizes[0]}, and must be a multiple of the {slices} slices of the devices")
  else:
    grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  # Auto axes: flax's Embed raises ShardingTypeError under the default, Explicit ones.
  return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


@contextlib.contextmanager
def using_devices(devices: Sequence[jax.Device]) -> Iterator[None]:
  """Within it, meshes are of these devices, such as some of JAX's or those of a machine that is not there."""
  token = _devices.set(tuple(devices))
  try:
    yield
  finally:
    _devices.reset(token)


def _sizes(transport: Transport, count: int) -> tuple[int, int, int]:
  asked = {"data": transport.data, "fsdp": transport.fsdp, "tensor": transport.tensor}
  words = " x ".join(f"transport.{name}={size}" for name, size in asked.items() if size != -1)
  known = math.prod(size for size in asked.values() if size != -1)
  if count % known:
    raise ValueError(f"{words} does not divide the {count} devices")
  if -1 not in asked.values() and known != count:
    raise ValueError(f"{words} is {known} devices, and JAX has {count}: set one of them to -1, for the rest")
  data, fsdp, tensor = (count // known if size == -1 else size for size in asked.values())
  return data, fsdp, tensor


def specs(mesh: Mesh | AbstractMesh, tree: Any, axes: Sequence[str] = AXES) -> Any:
  """The PartitionSpecs of a tree of arrays or shapes by RULES, as far as they name one of `axes`.

  An axis of the mesh that does not divide its dimension does not cut it.
  """
  return jax.tree_util.tree_map_with_path(lambda path, x: _spec(mesh, _text(path), jnp.shape(x), axes), tree)


def shardings(mesh: Mesh, tree: Any, axes: Sequence[str] = AXES) -> Any:
  """The NamedShardings of a tree of arrays or shapes by RULES, as far as they name one of `axes` (see `specs`)."""
  return jax.tree.map(functools.partial(NamedSharding, mesh), specs(mesh, tree, axes))


def is_matrix(path: str) -> bool:
  """Whether a rule cuts the array of this path, such as "decoder/layers_0/up/kernel": models read it in their dtype."""
  return bool(_rule(path))


def rows(mesh: Mesh) -> NamedSharding:
  """The sharding that cuts the leading axis, of rows, over data x fsdp."""
  return NamedSharding(mesh, PartitionSpec(ROWS))


def row_devices(mesh: Mesh) -> int:
  """The number of parts that rows are cut into: data x fsdp."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def sent() -> contextlib.AbstractContextManager[None]:
  """Marks what a step sends to the devices: prompts, keys, scores of functions and the order of rows, and no more.

  Under `jax.transfer_guard_host_to_device("disallow_explicit")` everything else is refused.
  """
  return jax.transfer_guard_host_to_device("allow")


def put_rows(mesh: Mesh, tree: Any) -> Any:
  """A tree of arrays [N, ...] on the devices, cut into rows; N is a multiple of data x fsdp.

  With several processes each has all N rows on its host, or arrays that are on all devices already.
  """
  return put(tree, jax.tree.map(lambda _: rows(mesh), tree))


def put(tree: Any, places: Any) -> Any:
  """A tree of arrays on the devices, by a tree of shardings. With several processes each gives its own parts of arrays
  that are on every host, which are not compared, as `jax.device_put` does at every call."""
  if jax.process_count() == 1:
    return jax.device_put(tree, places)

  def one(x, place):
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
      return jax.device_put(x, place)
    return jax.make_array_from_callback(np.shape(x), place, lambda index: np.asarray(x)[index])

  return jax.tree.map(one, tree, places)


def make_gather(shapes: Params, dtype: str, gradient_dtype: str = "float32") -> Gather:
  """`gather(path, part) -> part` for `rlhf_jax.models.language_model`: makes the weights whole where they are used.

  Where fsdp is a manual axis, as in the shard_map of an update, a matrix that RULES cut over fsdp is gathered in the
  dtype of the computation, and its gradient is summed over fsdp and cut again in `gradient_dtype`. Elsewhere weights
  are returned as they are, and so are those that are whole already.

  Args:
    shapes: the whole shapes of a model's parameters, {"decoder": ...}, with stacked layers or without.
    dtype: the dtype in which the model multiplies by a matrix.
    gradient_dtype: the dtype in which gradients are summed over devices.
  """
  leaves = jax.tree_util.tree_flatten_with_path(shapes)[0]
  whole = {re.sub(r"layers_\d+", "layers", _text(path)): jnp.shape(leaf) for path, leaf in leaves}

  def gather(name: str, tree: Params) -> Params:
    mesh = jax.sharding.get_abstract_mesh()
    if "fsdp" not in mesh.manual_axes:
      return tree

    def one(path, x):
      path = f"{name}/{_text(path)}"
      shape = whole.get(path, ())[-x.ndim :] if x.ndim else ()
      spec = _spec(mesh, path, shape, ("fsdp",)) if x.ndim else ()
      if "fsdp" not in spec or x.shape == shape:
        return x
      return _whole(x, spec.index("fsdp"), jnp.dtype(dtype), jnp.dtype(gradient_dtype), x.dtype)

    return jax.tree_util.tree_map_with_path(one, tree)

  return gather


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _whole(x: jax.Array, axis: int, dtype: np.dtype, gradient_dtype: np.dtype, own_dtype: np.dtype) -> jax.Array:
  return jax.lax.all_gather(x.astype(dtype), "fsdp", axis=axis, tiled=True)


def _whole_forward(x, axis, dtype, gradient_dtype, own_dtype):
  return _whole(x, axis, dtype, gradient_dtype, own_dtype), None


def _whole_backward(axis, dtype, gradient_dtype, own_dtype, _, gradient):
  part = jax.lax.psum_scatter(gradient.astype(gradient_dtype), "fsdp", scatter_dimension=axis, tiled=True)
  return (part.astype(own_dtype),)


_whole.defvjp(_whole_forward, _whole_backward)


def _rule(path: str) -> tuple[str | None, ...]:
  return next(spec for pattern, spec in RULES if re.search(pattern, path))


def _spec(mesh: Mesh | AbstractMesh, path: str, shape: Sequence[int], axes: Sequence[str]) -> PartitionSpec:
  rule = _rule(re.sub(r"/(qvalue|scale)$", "", path))  # of a matrix in int8, whose parts lie as the matrix would
  if len(rule) > len(shape):
    return PartitionSpec()
  spec: list[str | None] = [None] * (len(shape) - len(rule))
  for axis, length in zip(rule, shape[len(spec) :], strict=True):
    size = mesh.shape[axis] if axis in axes and axis in mesh.shape else 1
    spec.append(axis if size > 1 and length % size == 0 else None)
  while spec and spec[-1] is None:  # as jit does: P("x") and P("x", None) are different keys of jit's cache
    spec.pop()
  return PartitionSpec(*spec)


def _text(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")
