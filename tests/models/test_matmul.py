"""The product of dense layers against a plain one: values, gradients, several seeds at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.models.matmul import DECODED, FEW, product, product_with_table

X = jax.random.normal(jax.random.key(0), (6, 3))
KERNEL = jax.random.normal(jax.random.key(1), (3, 5))


@pytest.mark.parametrize("rows", [1, 6, DECODED.start, DECODED.stop])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("bfloat16", 3e-2)])
def test_values_and_gradients_are_those_of_a_plain_product(dtype, tolerance, rows):
  x, kernel = jax.random.normal(jax.random.key(4), (rows, 3)).astype(dtype), KERNEL.astype(dtype)

  def gradients(multiply):
    return jax.jit(jax.value_and_grad(lambda x, kernel: jnp.sum(jnp.sin(multiply(x, kernel))), (0, 1)))(x, kernel)

  (value, found), (plain, expected) = gradients(product), gradients(jnp.matmul)
  np.testing.assert_allclose(value, plain, rtol=tolerance, atol=tolerance)
  for ours, theirs in zip(found, expected, strict=True):
    assert ours.dtype == theirs.dtype == dtype
    np.testing.assert_allclose(ours.astype(float), theirs.astype(float), atol=tolerance * 10)


def test_gradients_of_several_seeds_at_once_are_those_of_each():
  kernels = jnp.stack([KERNEL, 2 * KERNEL])
  gradient = jax.grad(lambda kernel: jnp.sum(jnp.sin(product(X, kernel))))
  together = jax.vmap(gradient)(kernels)
  for index in range(2):
    np.testing.assert_allclose(together[index], gradient(kernels[index]), atol=1e-6)


@pytest.mark.parametrize("rows", [1, FEW, FEW + 1])
def test_few_and_many_rows_with_a_table(rows):
  x = jax.random.normal(jax.random.key(2), (rows, 3))
  table = jax.random.normal(jax.random.key(3), (7, 3))
  np.testing.assert_allclose(product_with_table(x, table), x @ table.T, atol=1e-6)
  gradient = jax.grad(lambda table: jnp.sum(jnp.sin(product_with_table(x, table))))(table)
  np.testing.assert_allclose(gradient, jnp.cos(x @ table.T).T @ x, atol=1e-5)
