"""Masked reductions and weights: by hand, against numpy, across microbatches and across devices.

Compilation is most of what these tests cost, so each puts what it checks into one program.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from rlhf_jax.reduce import (
  constant_weights,
  float32,
  masked_mean,
  masked_moments,
  masked_sum,
  select,
  sequence_weights,
  token_weights,
  weighted_sum,
  whiten,
)

NAN = float("nan")
X = np.array([[1.0, 2.0, 3.0], [5.0, 9.0, -4.0]], np.float32)
MASK = np.array([[1, 1, 1], [1, 0, 0]])


def in_parallel(function, how, *arrays):
  """`function` on arrays[parts, ...], one part per device or per element of a vmap, with the axis named "data"."""
  if how == "vmap":
    return jax.jit(jax.vmap(function, axis_name="data"))(*arrays)
  if how == "pmap":
    return jax.pmap(function, axis_name="data")(*arrays)
  mesh = jax.make_mesh((len(arrays[0]),), ("data",), axis_types=(AxisType.Auto,))
  spec = PartitionSpec("data")

  def one_part(*parts):
    return jax.tree.map(lambda x: x[None], function(*(part[0] for part in parts)))

  return jax.jit(jax.shard_map(one_part, mesh=mesh, in_specs=spec, out_specs=spec))(*arrays)


def parts_of(how):
  return 4 if how == "vmap" else jax.device_count()


def uneven_batch(parts, seed=0):
  """x and mask [parts, 2, 6] whose parts hold very different numbers of tokens, and different means."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(1, 7, (parts, 2))
  lengths[0] = 6
  lengths[-1, 1] = 0
  x = rng.normal(size=(parts, 2, 6)) + np.arange(parts)[:, None, None] + 1
  return x.astype(np.float32), np.arange(6) < lengths[..., None]


@pytest.mark.parametrize("dtype", [bool, jnp.bfloat16])
def test_by_hand(dtype):
  @jax.jit
  def everything(x, mask):
    whole = masked_sum(x, mask), masked_mean(x, mask), *masked_moments(x, mask), masked_moments(x, mask, ddof=1)[1]
    rows = masked_sum(x, mask, axis=-1), masked_mean(x, mask, axis=-1), *masked_moments(x, mask, axis=-1)
    return whole, rows

  whole, rows = everything(X, jnp.asarray(MASK).astype(dtype))  # 1, 2, 3 and 5 are on
  np.testing.assert_allclose(whole, [11, 2.75, 2.75, 2.1875, 2.1875 * 4 / 3], rtol=1e-6)
  np.testing.assert_allclose(rows, [[6, 5], [2, 5], [2, 5], [2 / 3, 0]], rtol=1e-6)


def test_moments_of_every_axis_equal_numpy():
  x = np.random.default_rng(0).normal(5, 2, (3, 4, 5)).astype(np.float32)
  axes = (0, -1, (0, 2), None)
  moments = jax.jit(lambda x: [masked_moments(x, jnp.ones_like(x), axis=axis) for axis in axes])(x)
  for axis, (mean, variance) in zip(axes, moments, strict=True):
    np.testing.assert_allclose(mean, x.mean(axis), rtol=1e-5)
    np.testing.assert_allclose(variance, x.var(axis), rtol=1e-5)


def test_whiten_with_the_mean_kept():
  # The reward whitening of arXiv:2403.17031 on 1.2, 1.3, ..., 2.0 (ddof 0).
  x = np.arange(1.2, 2.05, 0.1, np.float32).reshape(3, 3)
  expected = [
    [0.05080677770651998, 0.4381050832798903, 0.8254033888532596],
    [1.2127016944266298, 1.6, 1.9872983055733695],
    [2.37459661114674, 2.761894916720109, 3.149193222293479],
  ]
  mask = np.ones_like(x)
  kept, shifted = jax.jit(lambda x, mask: (whiten(x, mask, shift_mean=False), whiten(x, mask)))(x, mask)
  np.testing.assert_allclose(kept, expected, rtol=2e-6, atol=1e-6)
  np.testing.assert_allclose(shifted, np.array(expected) - 1.6, atol=3e-6)


def test_whiten_leaves_padding_out():
  padded = np.concatenate([X, np.full((2, 4), 1e6)], axis=-1)
  mask = np.concatenate([np.ones((2, 3)), np.zeros((2, 4))], axis=-1)
  by_ddof = jax.jit(lambda x, mask: [whiten(x, mask, ddof=ddof) for ddof in (0, 1)])(padded, mask)
  for ddof, whitened in enumerate(by_ddof):
    np.testing.assert_allclose(whitened[:, :3], (X - X.mean()) / X.std(ddof=ddof), rtol=1e-5)
    np.testing.assert_array_equal(whitened[:, 3:], 0)


def test_equal_elements_have_no_variance():
  # A plain mean of these rounds, and its remainder divided by sqrt(eps) would be of order one.
  x = np.full((7, 9), 1000.1, np.float32)

  @jax.jit
  def everything(x):
    on = jnp.ones_like(x)
    return *masked_moments(x, on), whiten(x, on), whiten(x, on, shift_mean=False)

  mean, variance, whitened, scaled = everything(x)
  assert (mean, variance) == (np.float32(1000.1), 0.0)
  np.testing.assert_array_equal(whitened, 0)
  np.testing.assert_array_equal(scaled, x)


@pytest.mark.parametrize("ddof", [0, 1])
def test_one_element_has_variance_zero(ddof):
  # The variance of a mask with one element divides by zero. [tunix masked_var]
  both = jax.jit(lambda x, mask: (masked_moments(x, mask, ddof=ddof), whiten(x, mask, ddof=ddof)))
  moments, whitened = both(X, np.array([[0, 1, 0], [0, 0, 0]]))
  assert moments == (2.0, 0.0)
  np.testing.assert_array_equal(whitened, 0)


REDUCTIONS = {
  "masked_sum": masked_sum,
  "masked_mean": masked_mean,
  "masked_mean_of_rows": lambda x, mask: masked_mean(x, mask, axis=-1),
  "masked_moments": masked_moments,
  "masked_moments_of_rows": lambda x, mask: masked_moments(x, mask, axis=-1, ddof=1),
  "whiten": whiten,
  "whiten_keeping_the_mean": lambda x, mask: whiten(x, mask, shift_mean=False),
  "weighted_sum": lambda x, mask: weighted_sum(x, sequence_weights(mask)),
  "select": select,
}


@jax.jit
def values_and_grads(x, mask):
  def one(reduction):
    def total(x):
      out = reduction(x, mask)
      return sum(jnp.sum(y * np.cos(np.arange(y.size)).reshape(y.shape)) for y in jax.tree.leaves(out)), out

    return jax.grad(total, has_aux=True)(x)

  return {name: one(reduction) for name, reduction in REDUCTIONS.items()}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_masked_positions_change_nothing(name):
  grad, value = values_and_grads(X, MASK)[name]
  assert np.any(grad != 0)
  assert not np.any(grad[MASK == 0])
  for poison in (NAN, np.inf, -np.inf, 3e38):
    poisoned_grad, poisoned_value = values_and_grads(np.where(MASK, X, np.float32(poison)), MASK)[name]
    np.testing.assert_array_equal(poisoned_grad, grad)
    jax.tree.map(np.testing.assert_array_equal, poisoned_value, value)
    for leaf in jax.tree.leaves(values_and_grads(np.full_like(X, poison), np.zeros_like(MASK))[name]):
      np.testing.assert_array_equal(leaf, 0)


def test_select_does_not_multiply():
  x, mask = np.array([NAN, np.inf, 3.0], np.float32), np.array([0, 0, 1])
  np.testing.assert_array_equal(select(x, mask), [0, 0, 3])
  np.testing.assert_array_equal(jax.grad(lambda x: jnp.square(select(x, mask)).sum())(x), [0, 0, 6])


WEIGHTS = {
  "token": token_weights,
  "sequence": sequence_weights,
  "constant": lambda mask, **kwargs: constant_weights(mask, 6, **kwargs),
}


@functools.partial(jax.jit, static_argnames="axis_name")
def all_weights(mask, axis_name=None):
  return {name: weights(mask, axis_name=axis_name) for name, weights in WEIGHTS.items()}


def test_weights_by_hand():
  mask = np.array([[0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
  weights = all_weights(mask)
  np.testing.assert_allclose(weights["token"], mask / 4)
  np.testing.assert_allclose(weights["sequence"], mask * [[1 / 6], [1 / 2], [0]], rtol=1e-6)
  np.testing.assert_allclose(weights["constant"], mask / 18, rtol=1e-6)
  jax.tree.map(lambda w: np.testing.assert_array_equal(w, 0), all_weights(np.zeros_like(mask)))


@pytest.mark.parametrize("shape", [(12,), (2, 3, 2)])
def test_weights_of_any_leading_shape(shape):
  mask = np.arange(12).reshape(shape) < 3
  weights = all_weights(mask)
  rows = 1 if len(shape) == 1 else 6
  for name, total in (("token", 1), ("sequence", 1), ("constant", 3 / (6 * rows))):
    assert weights[name].shape == shape and np.all((weights[name] > 0) == mask)
    assert np.sum(weights[name]) == pytest.approx(total)


def test_a_length_that_is_not_positive_is_refused():
  with pytest.raises(ValueError, match="length must be a positive number"):
    constant_weights(MASK, 0)


def test_weights_give_the_means_they_are_named_for():
  x, mask = uneven_batch(3)
  x, mask = x.reshape(6, 6), mask.reshape(6, 6)
  rows = [row[on] for row, on in zip(x, mask, strict=True) if on.any()]
  means = {name: float(np.sum(x * weights)) for name, weights in all_weights(mask).items()}
  assert means["token"] == pytest.approx(np.concatenate(rows).mean())
  assert means["sequence"] == pytest.approx(np.mean([row.mean() for row in rows]))
  assert means["constant"] == pytest.approx(x[mask].sum() / 36)


def test_weighted_sum_ignores_whatever_has_no_weight():
  value_and_grads = jax.jit(jax.value_and_grad(weighted_sum, (0, 1)))
  value, grads = value_and_grads(np.array([1.0, NAN, np.inf]), np.array([2.0, 0.0, 0.0]))
  assert value == 2.0
  np.testing.assert_array_equal(grads, [[2, 0, 0], [1, 0, 0]])
  assert np.isnan(value_and_grads(np.array([1.0, NAN, np.inf]), np.ones(3))[0])  # NaN that does count is not hidden


def test_low_precision_and_integers_are_reduced_in_float32():
  @jax.jit
  def everything(x):
    sums = masked_sum(x, x), weighted_sum(x, x), masked_mean(x, jnp.ones_like(x))
    return *sums, *masked_moments(x, jnp.ones_like(x)), whiten(x, jnp.ones_like(x)), float32(x), all_weights(x)

  ones = everything(jnp.ones(1001, jnp.bfloat16))  # bfloat16 counts to 256
  assert ones[:5] == (1001, 1001, 1, 1, 0)
  integers = everything(np.array([1, 2]))
  assert integers[:5] == (3, 5, 1.5, 1.5, 0.25)
  np.testing.assert_allclose(integers[5], [-1, 1], rtol=1e-6)
  assert {leaf.dtype for leaf in jax.tree.leaves((ones, integers))} == {np.dtype(np.float32)}


@jax.jit
@jax.value_and_grad
def loss_and_grad(scale, x, weights):
  return weighted_sum(jnp.square(scale * x), weights)


@pytest.mark.parametrize("name", WEIGHTS)
def test_microbatches_add_up(name):
  x, mask = uneven_batch(4)
  weights = np.asarray(all_weights(mask)[name])
  whole = loss_and_grad(1.5, x, weights)
  parts = [loss_and_grad(1.5, *part) for part in zip(x, weights, strict=True)]
  np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=2e-6)
  cut = loss_and_grad(1.5, x[:3], weights[:3]), loss_and_grad(1.5, x[3:], weights[3:])
  np.testing.assert_allclose(np.sum(cut, axis=0), whole, rtol=2e-6)
  means = [loss_and_grad(1.5, part, all_weights(on)[name]) for part, on in zip(x, mask, strict=True)]
  off = np.abs(np.mean(means, axis=0) / np.array(whole) - 1)
  # Of the three only a constant denominator survives a mean of the parts' means.
  assert np.all(off < 1e-6) if name == "constant" else np.all(off > 0.05)


def reduce_everything(x, mask, axis_name=None):
  replicated = {
    "sum": masked_sum(x, mask, axis_name=axis_name),
    "mean": masked_mean(x, mask, axis_name=axis_name),
    "column_mean": masked_mean(x, mask, axis=0, axis_name=axis_name),
    "moments": masked_moments(x, mask, ddof=1, axis_name=axis_name),
    "weighted_sum": weighted_sum(x, mask, axis_name=axis_name),
  }
  return replicated, {"whitened": whiten(x, mask, axis_name=axis_name), **all_weights(mask, axis_name=axis_name)}


@pytest.mark.parametrize("how, axis_name", [("vmap", "data"), ("pmap", "data"), ("shard_map", ("data",))])
def test_axis_name_extends_reductions_over_devices(how, axis_name):
  x, mask = uneven_batch(parts_of(how))
  replicated, elements = jax.jit(reduce_everything)(x.reshape(-1, 6), mask.reshape(-1, 6))
  parallel = in_parallel(functools.partial(reduce_everything, axis_name=axis_name), how, x, mask)
  close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)
  jax.tree.map(lambda found, expected: close(found, np.broadcast_to(expected, found.shape)), parallel[0], replicated)
  jax.tree.map(lambda found, expected: close(found.reshape(-1, 6), expected), parallel[1], elements)


@pytest.mark.parametrize("how", ["vmap", "pmap", "shard_map"])
def test_loss_and_gradient_across_devices_equal_one_device(how):
  x, mask = uneven_batch(parts_of(how))
  whole = loss_and_grad(1.5, x, all_weights(mask)["sequence"])

  def local(x, mask):
    weights = sequence_weights(mask, axis_name="data")
    scale = 1.5 + 0.0 * jnp.sum(x)  # one copy per device, so that shard_map leaves its gradient local
    return jax.lax.psum(loss_and_grad(scale, x, weights), "data")

  for found, expected in zip(in_parallel(local, how, x, mask), whole, strict=True):
    np.testing.assert_allclose(found, np.full(len(x), expected), rtol=2e-6)


def test_vmapped_equals_one_at_a_time():
  x, mask = uneven_batch(4)
  batched, single = jax.jit(jax.vmap(reduce_everything))(x, mask), jax.jit(reduce_everything)(x[1], mask[1])
  jax.tree.map(lambda b, s: np.testing.assert_allclose(b[1], s, rtol=1e-5, atol=1e-6), batched, single)
