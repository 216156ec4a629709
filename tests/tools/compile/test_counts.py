"""Counts of programs: by hand, for every kind of equation that has equations inside."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from rlhf_jax.tools.compile.counts import count, kept, moved


def mesh(**sizes):
  names = tuple(sizes)
  count = 1
  for size in sizes.values():
    count *= size
  if jax.device_count() < count:
    pytest.skip(f"needs {count} devices")
  import numpy as np

  devices = np.array(jax.devices()[:count]).reshape(tuple(sizes.values()))
  return Mesh(devices, names, axis_types=(AxisType.Auto,) * len(names))


def counts(function, *shapes, chips=1, trips=1):
  return count(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)), chips, trips)


def test_a_product_is_two_operations_for_each_term():
  found = counts(lambda x, y: jnp.tanh(x @ y), (3, 5), (5, 7))
  assert found.flops == 2 * 3 * 5 * 7
  assert found.products == ((210.0, 4.0 * (15 + 35 + 21), 1.0),)
  assert found.outputs == 4 * 21 and found.sent == 0


def test_batched_products_and_their_share_of_the_chips():
  found = counts(lambda x, y: jnp.einsum("bij,bjk->bik", x, y), (8, 3, 5), (8, 5, 7), chips=4)
  assert found.flops == 8 * 210 / 4


def test_a_scan_counts_as_often_as_it_is_long_and_a_loop_as_often_as_is_said():
  def scanned(x):
    return jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=6)[0]

  def looped(x):
    return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)

  assert counts(scanned, (4, 4)).flops == 6 * 128
  assert counts(looped, (4, 4), trips=10).flops == 10 * 128


def test_of_nested_loops_the_inner_one_counts():
  def loop(body):
    return lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, body, x)

  outer = loop(lambda x: loop(lambda x: x @ x)(x) @ x)
  assert counts(outer, (4, 4), trips=10).flops == 11 * 128


def test_of_two_branches_the_larger_one_counts():
  def branch(x):
    return jax.lax.cond(x.sum() > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

  assert counts(branch, (4, 4)).flops == 2 * 128


def test_a_rematerialised_product_counts_twice():
  def loss(x, again):
    def layer(x):
      return jnp.sin(x @ x)

    return (jax.checkpoint(layer) if again else layer)(x).sum()

  plain, again = (counts(jax.grad(lambda x, a=a: loss(x, a)), (4, 4)).flops for a in (False, True))
  assert (plain, again) == (3 * 128, 4 * 128)


def test_collectives_of_fsdp_are_those_by_hand():
  devices = mesh(fsdp=4)

  def layer(w, x):
    return jnp.tanh(x @ jax.lax.all_gather(w, "fsdp", tiled=True))

  def local(w, x):
    gradient = jax.grad(lambda w: jax.checkpoint(layer)(w, x).sum())(w)
    return gradient, jax.lax.psum(x.sum(), "fsdp")

  function = jax.shard_map(local, mesh=devices, in_specs=P("fsdp"), out_specs=(P("fsdp"), P()), check_vma=False)
  found = counts(function, (8, 8), (4, 8), chips=4)
  whole = 8 * 8 * 4
  assert found.collectives == {
    "all-gather": 2 * whole * 3 / 4,  # forward, and again in the backward pass
    "reduce-scatter": whole * 3 / 4,
    "all-reduce": 2 * 4 * 3 / 4,
  }
  assert found.flops == 3 * 2 * 1 * 8 * 8  # one row on each chip: forward, again, and the weights' gradient


def test_an_axis_that_is_not_manual_shares_the_work():
  devices = mesh(fsdp=2, tensor=2)

  def local(w, x):
    return x @ jax.lax.all_gather(w, "fsdp", tiled=True)

  function = jax.shard_map(
    local, mesh=devices, in_specs=P("fsdp"), out_specs=P("fsdp"), axis_names={"fsdp"}, check_vma=False
  )
  found = counts(jax.jit(function), (8, 8), (4, 8), chips=4)
  assert found.flops == 2 * 4 * 8 * 8 / 4
  assert found.collectives == {"all-gather": 8 * 8 * 4 / 2 / 2}  # each gathers its half of the columns


def test_bytes_that_a_ring_moves():
  assert moved("all-gather", 100, 4) == 75 and moved("reduce-scatter", 100, 4) == 75
  assert moved("all-reduce", 100, 4) == 150 and moved("collective-permute", 100, 4) == 100


def test_what_a_backward_pass_reads_is_the_stack_of_the_layers():
  def loss(x, w):
    return jax.lax.scan(jax.checkpoint(lambda x, w: (jnp.sin(x @ w), None)), x, w)[0].sum()

  program = jax.make_jaxpr(jax.grad(loss, argnums=1))(jnp.zeros((4, 8)), jnp.zeros((6, 8, 8)))
  gradients = 6 * 8 * 8 * 4
  assert kept(program, 1) == max(6 * 4 * 8 * 4, gradients)
