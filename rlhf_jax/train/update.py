"""One optimiser step from any loss function, with the same numbers under every transport.

A loss is `loss_fn(params, batch, weights) -> (loss, metrics)`, a *sum* of weighted elements; the weights sum to one
over the whole batch. So partial losses, gradients and metrics of microbatches and devices are added, never averaged.

Where a model has adapters, only the adapters and the head have gradients and optimiser state; the frozen base is an
argument of its own, neither donated nor returned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlhf_jax.models import join_lora, split_lora
from rlhf_jax.population import jit
from rlhf_jax.stage import Transport
from rlhf_jax.types import Mean, Params, TrainState

LossFn = Callable[[Params, Any, Any], tuple[jax.Array, dict[str, Mean]]]
Update = Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Mean]]]


def make_mesh(transport: Transport) -> Mesh:
  """All devices as a mesh with the axes data x fsdp.

  Raises:
    ValueError: fsdp does not divide the number of devices.
  """
  devices = jax.device_count()
  if devices % transport.fsdp:
    raise ValueError(f"transport.fsdp={transport.fsdp} does not divide the {devices} devices")
  shape = (devices // transport.fsdp, transport.fsdp)
  # Auto axes: flax's Embed raises ShardingTypeError under make_mesh's default Explicit ones.
  return jax.make_mesh(shape, ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


def parameter_sharding(mesh: Mesh, tree: Any) -> Any:
  """A tree of NamedShardings like `tree`: the largest dimension that fsdp divides is cut over the fsdp axis."""
  size = mesh.shape["fsdp"]

  def sharding(leaf):
    shape = jnp.shape(leaf)
    fits = [axis for axis, length in enumerate(shape) if length % size == 0 and length >= size]
    spec: list[str | None] = [None] * len(shape)
    if size > 1 and fits:
      spec[max(fits, key=lambda axis: shape[axis])] = "fsdp"
    while spec and spec[-1] is None:  # as jit does: P("x") and P("x", None) are different keys of jit's cache
      spec.pop()
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree.map(sharding, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The sharding that cuts the leading axis over all devices."""
  return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def place(state: TrainState, transport: Transport) -> TrainState:
  """Moves a state to the devices as `make_update` expects it; a frozen base that is already there is not copied."""
  mesh = make_mesh(transport)
  state, frozen = detach(state)

  def move(leaf, sharding):
    return leaf if leaf.sharding.is_equivalent_to(sharding, leaf.ndim) else jax.device_put(leaf, sharding)

  frozen = jax.tree.map(move, frozen, parameter_sharding(mesh, frozen))
  return attach(jax.device_put(state, parameter_sharding(mesh, state)), frozen)


def detach(state: TrainState) -> tuple[TrainState, Params]:
  """(state with the trained parameters alone, frozen parameters), by `rlhf_jax.models.split_lora`."""
  params, frozen = split_lora(state.params)
  return state.replace(params=params), frozen


def attach(state: TrainState, frozen: Params) -> TrainState:
  """The inverse of `detach`: the state with all parameters."""
  return state.replace(params=join_lora(state.params, frozen))


def init_state(params: Params, optimizer: optax.GradientTransformation, extra: Any = ()) -> TrainState:
  """The state before the first step. Trained parameters are copied, because an update donates its state's buffers."""
  trained, frozen = split_lora(params)
  trained = jax.tree.map(jnp.copy, trained)
  return attach(TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained), extra), frozen)


def make_update(loss_fn: LossFn, optimizer: optax.GradientTransformation, transport: Transport) -> Update:
  """Builds `update(state, batch, weights) -> (state, metrics)`, compiled.

  Every leaf of batch and weights has the batch as its leading axis, a multiple of devices x microbatches. The
  metrics are summed Means, with "grad_norm" and "loss" added. The state's buffers are donated under jit.

  Raises (when called):
    ValueError: the batch is not a multiple of devices x microbatches.
  """
  if transport.kind == "pmap":
    return _pmap_update(loss_fn, optimizer, transport)
  mesh = make_mesh(transport)
  gradients = _accumulate(loss_fn, transport.microbatches)
  if transport.kind == "shard_map":
    gradients = _sum_over_shards(gradients, mesh)

  def update(state, frozen, batch, weights):
    params = join_lora(state.params, frozen)
    return _apply(state, optimizer, *gradients(params, batch, weights))

  compiled = jit(update, donate_argnums=(0,))

  def call(state, batch, weights):
    _check(batch, mesh.size, transport)
    state, frozen = detach(state)
    state, metrics = compiled(state, frozen, *jax.device_put((batch, weights), batch_sharding(mesh)))
    return attach(state, frozen), metrics

  return call


def _sum_over_shards(gradients, mesh: Mesh):
  axes = mesh.axis_names

  def summed(params, batch, weights):
    # Parameters marked as varying keep the gradient local, so that it is summed exactly once, outside of `grad`.
    params = jax.tree.map(lambda x: jax.lax.pcast(x, axes, to="varying"), params)
    return jax.lax.psum(gradients(params, batch, weights), axes)

  cut, whole = PartitionSpec(axes), PartitionSpec()
  return jax.shard_map(summed, mesh=mesh, in_specs=(whole, cut, cut), out_specs=whole)


def _pmap_update(loss_fn, optimizer, transport):
  devices = jax.local_device_count()
  gradients = _accumulate(loss_fn, transport.microbatches)

  def update(state, frozen, batch, weights):
    params = join_lora(state.params, frozen)
    return _apply(state, optimizer, *jax.lax.psum(gradients(params, batch, weights), "batch"))

  # in_axes=None leaves the state replicated on its devices: nothing is sent again at the next step.
  compiled = jax.pmap(update, axis_name="batch", in_axes=(None, None, 0, 0), out_axes=None)
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((devices,), ("batch",), axis_types=auto, devices=jax.local_devices())
  cut = NamedSharding(mesh, PartitionSpec("batch"))

  def call(state, batch, weights):
    _check(batch, devices, transport)
    state, frozen = detach(state)
    # pmap refuses arrays with another sharding, such as the rows of a rollout.
    state, metrics = compiled(state, frozen, *jax.device_put(_split((batch, weights), devices), cut))
    return attach(state, frozen), metrics

  return call


def _accumulate(loss_fn: LossFn, microbatches: int):
  """`(params, batch, weights) -> (gradients of the trained parameters, metrics)`, summed over microbatches."""

  def part(params, batch, weights):
    trained, frozen = split_lora(params)

    def loss_of(trained, batch, weights):
      return loss_fn(join_lora(trained, frozen), batch, weights)

    (loss, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(trained, batch, weights)
    metrics = {name: metric.sum() for name, metric in metrics.items()}
    share = sum((jnp.sum(w).astype(jnp.float32) for w in jax.tree.leaves(weights)), jnp.zeros(()))
    # The parts of a loss add up to the loss; as a Mean that is (loss, share of the weights).
    return grads, {**metrics, "loss": Mean(loss, share)}

  if microbatches == 1:
    return part

  def accumulate(params, batch, weights):
    parts = _split((batch, weights), microbatches)
    first = part(params, *jax.tree.map(lambda x: x[0], parts))

    def add(total, cut):
      return jax.tree.map(jnp.add, total, part(params, *cut)), None

    return jax.lax.scan(add, first, jax.tree.map(lambda x: x[1:], parts))[0]

  return accumulate


def _apply(state, optimizer, grads, metrics):
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  metrics = {**metrics, "grad_norm": Mean(optax.tree.norm(grads), jnp.ones(()))}
  return state.replace(params=params, opt_state=opt_state), metrics


def _split(tree, parts):
  return jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), tree)


def _check(batch, devices, transport):
  parts = devices * transport.microbatches
  for leaf in jax.tree.leaves(batch):
    if leaf.shape[0] % parts:
      raise ValueError(
        f"a batch of {leaf.shape[0]} rows does not divide over {devices} devices x transport.microbatches="
        f"{transport.microbatches}: make the batch_size of the stage's config (or its part in a minibatch) a "
        f"multiple of {parts}, or show JAX fewer devices"
      )
