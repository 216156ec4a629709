"""One optimiser step from any loss function, with the same numbers under every transport.

A loss is `loss_fn(params, batch, weights) -> (loss, metrics)`, a *sum* of weighted elements; the weights sum to one
over the whole batch. So partial losses, gradients and metrics of microbatches and devices are added, never averaged.

Where a model has adapters, only the adapters and the head have gradients and optimiser state; the frozen base is an
argument of its own, neither donated nor returned.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from rlhf_jax.models import join_lora, split_lora
from rlhf_jax.stage import Transport
from rlhf_jax.train.mesh import make_mesh, put, put_rows, shardings
from rlhf_jax.train.optimizer import Optimizer, Scheduled, make_optimizer
from rlhf_jax.train.rows import in_microbatches, pad_rows, place_rows, split_rows, sum_of_rows
from rlhf_jax.types import Max, Mean, Params, TrainState, pool_over

Metrics = dict[str, Mean | Max]
LossFn = Callable[[Params, Any, Any], tuple[jax.Array, Metrics]]
Update = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]
# Of a stage: the optimiser, the update, and the measure of held-out rows or the function that makes experience.
Functions = tuple[Scheduled, Update, Callable[..., Any]]
Measure = Callable[[Params, Any, Any], Metrics]


class Exact:
  """A function compiled so that it rounds where it says, by `exactly`; inside of another program it is a part of it."""

  def __init__(self, function: Callable[..., Any], donate_argnums: tuple[int, ...]) -> None:
    self._function = function
    options = {"xla_allow_excess_precision": False}
    self._compiled = jax.jit(function, donate_argnums=donate_argnums, compiler_options=options)

  def __call__(self, *arguments: Any) -> Any:
    """The function's result. JAX refuses options of the compiler inside of another program."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments)):
      return self._function(*arguments)
    return self._compiled(*arguments)

  def trace(self, *arguments: Any) -> Any:
    """The traced program of a call with these abstract arguments, as of `jax.jit`."""
    return self._compiled.trace(*arguments)


def exactly(function: Callable[..., Any], donate_argnums: tuple[int, ...] = ()) -> Exact:
  """`jax.jit(function)` whose program rounds where the function does.

  By default a compiler may keep a bfloat16 number in float32 within a kernel: which numbers these are depends on the
  program, and two programs disagree by 0.1 nats a token.
  """
  return Exact(function, donate_argnums)


def place(state: TrainState, transport: Transport) -> TrainState:
  """Moves a state to the devices as `make_update` expects it; a frozen base that is already there is not copied."""
  mesh = make_mesh(transport)
  state, frozen = detach(state)

  def move(leaf, sharding):
    return leaf if leaf.sharding.is_equivalent_to(sharding, leaf.ndim) else jax.device_put(leaf, sharding)

  frozen = jax.tree.map(move, frozen, shardings(mesh, frozen))
  return attach(put(state, shardings(mesh, state)), frozen)


def detach(state: TrainState) -> tuple[TrainState, Params]:
  """(state with the trained parameters alone, frozen parameters), by `rlhf_jax.models.split_lora`."""
  params, frozen = split_lora(state.params)
  return state.replace(params=params), frozen


def attach(state: TrainState, frozen: Params) -> TrainState:
  """The inverse of `detach`: the state with all parameters."""
  return state.replace(params=join_lora(state.params, frozen))


def init_state(params: Params, optimizer: optax.GradientTransformation | Scheduled, extra: Any = ()) -> TrainState:
  """The state before the first step. Trained parameters are copied, because an update donates its state's buffers."""
  trained, frozen = split_lora(params)
  trained = jax.tree.map(jnp.copy, trained)
  return attach(TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained), extra), frozen)


def make_update(loss_fn: LossFn, optimizer: optax.GradientTransformation | Scheduled, transport: Transport) -> Update:
  """Builds `update(state, batch, weights) -> (state, metrics)`, compiled.

  Every leaf of batch and weights has the batch as its leading axis. Rows of zeros are added where the batch does not
  divide over devices and microbatches: a row whose weights are 0 must count in no metric. The metrics are summed,
  with "loss", which is what was differentiated, "grad_norm", "param_norm" (of the trained parameters afterwards) and,
  of a `make_optimizer`, "learning_rate" added. An update whose loss or gradient is not finite leaves the state as it
  was. The state's buffers are donated under jit. On several devices parameters that the mesh cuts are read by a model
  of `select_model`, which gathers them.
  """
  if transport.kind == "pmap":
    return _pmap_update(loss_fn, optimizer, transport)
  mesh = make_mesh(transport)
  gradients = sum_of_rows(_gradients(loss_fn), lambda params: split_lora(params)[0], transport, mesh)

  def update(state, frozen, batch, weights):
    state, metrics = _apply(state, optimizer, *gradients(join_lora(state.params, frozen), batch, weights))
    return _laid_out(state, mesh), metrics

  compiled = exactly(update, donate_argnums=(0,))

  return Compiled(compiled, functools.partial(place_rows, mesh=mesh, microbatches=transport.microbatches))


class Compiled:
  """The `Update` of a jitted function, which can be traced too. put: the function that lays out rows."""

  def __init__(self, function: Any, put: Callable[[Any], Any]) -> None:
    self._function, self.put = function, put

  def __call__(self, state: TrainState, batch: Any, weights: Any) -> tuple[TrainState, Metrics]:
    """The state after one step, and its metrics."""
    state, frozen = detach(state)
    state, metrics = self._function(state, frozen, *self.put((batch, weights)))
    return attach(state, frozen), metrics

  def trace(self, state: TrainState, batch: Any, weights: Any) -> Any:
    """The traced program of a call with these abstract arguments, laid out as a call lays them out."""
    return self._function.trace(*detach(state), batch, weights)


def make_functions(loss_fn: LossFn, settings: Optimizer, num_steps: int, transport: Transport) -> Functions:
  """(optimizer, update, measure) of a supervised stage of num_steps, whose held-out measure is its loss."""
  optimizer = make_optimizer(settings, num_steps)
  return optimizer, make_update(loss_fn, optimizer, transport), make_measure(loss_fn, transport)


def make_measure(loss_fn: LossFn, transport: Transport) -> Measure:
  """Builds `measure(params, batch, weights) -> metrics`, compiled: those of `make_update`, without an update.

  They are the metrics of `loss_fn`, summed, and its "loss", as a mean whose weight is the sum of the weights: those of
  held-out rows need not sum to one. Rows of zeros are added as by `make_update`.
  """
  mesh = make_mesh(transport)

  def part(params, batch, weights):
    return {}, _metrics(*loss_fn(params, batch, weights), weights)

  total = jax.jit(sum_of_rows(part, lambda params: {}, transport, mesh))

  def measure(params, batch, weights):
    return total(params, *place_rows((batch, weights), mesh, transport.microbatches))[1]

  return measure


def _laid_out(state: TrainState, mesh: Mesh) -> TrainState:
  """The state as `place` lays it out, whatever the partitioner would choose."""
  return state if mesh.size == 1 else jax.lax.with_sharding_constraint(state, shardings(mesh, state))


def _pmap_update(loss_fn, optimizer, transport):
  gradients = in_microbatches(_gradients(loss_fn), transport.microbatches)

  def update(state, frozen, batch, weights):
    params = join_lora(state.params, frozen)
    return _apply(state, optimizer, *pool_over(gradients(params, batch, weights), "batch"))

  # in_axes=None leaves the state replicated on its devices: nothing is sent again at the next step.
  compiled = jax.pmap(update, axis_name="batch", in_axes=(None, None, 0, 0), out_axes=None)
  mesh = make_mesh(transport)

  def call(state, batch, weights):
    state, frozen = detach(state)
    # pmap refuses arrays with another sharding, such as the rows of a rollout.
    rows = split_rows(pad_rows((batch, weights), mesh, transport.microbatches), mesh.size)
    state, metrics = compiled(state, frozen, *put_rows(mesh, rows))
    return attach(state, frozen), metrics

  return call


def _gradients(loss_fn: LossFn):
  """`(params, batch, weights) -> (gradients of the trained parameters, metrics)`."""

  def part(params, batch, weights):
    trained, frozen = split_lora(params)

    def loss_of(trained, batch, weights):
      return loss_fn(join_lora(trained, frozen), batch, weights)

    (loss, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(trained, batch, weights)
    return grads, _metrics(loss, metrics, weights)

  return part


def _metrics(loss: jax.Array, metrics: Metrics, weights: Any) -> Metrics:
  """The metrics, summed. The loss is a sum over its elements; as a Mean that is (loss, sum of the weights)."""
  share = sum((jnp.sum(w).astype(jnp.float32) for w in jax.tree.leaves(weights)), jnp.zeros(()))
  return {**{name: metric.sum() for name, metric in metrics.items()}, "loss": Mean(loss, share)}


def _apply(state, optimizer, grads, metrics):
  norm = optax.tree.norm(grads)
  # A gradient that is not finite would stay in Adam's moments for good. `run_steps` answers it by the metrics.
  finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"].values)

  def updated(params, opt_state):
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  params, opt_state = jax.lax.cond(finite, updated, lambda *before: before, state.params, state.opt_state)
  # The loss is that which was differentiated, whatever its weights sum to; without a weight there is none.
  loss = jnp.where(metrics["loss"].weights != 0, metrics["loss"].values, jnp.nan)
  found = {"loss": loss, "grad_norm": norm, "param_norm": optax.tree.norm(params)}
  metrics = {**metrics, **{name: Mean(value, jnp.ones(())) for name, value in found.items()}}
  if isinstance(optimizer, Scheduled):
    metrics["learning_rate"] = Mean(optimizer.learning_rate(state.opt_state), jnp.ones(()))
  return state.replace(params=params, opt_state=opt_state), metrics
