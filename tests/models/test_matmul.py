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


@pytest.mark.parametrize("multiply", [product, product_with_table])
@pytest.mark.parametrize("rows", [1, 6, FEW, FEW + 1])
def test_products_of_bfloat16_in_float32_are_the_sums_before_they_are_rounded(multiply, rows):
  """As of an unembedding: rounded, a logit of 20 would have steps of 0.125. Gradients are in bfloat16 as without it."""
  x = jax.random.normal(jax.random.key(4), (rows, 64)).astype("bfloat16")
  kernel = 3 * jax.random.normal(jax.random.key(5), (64, 9)).astype("bfloat16")
  given = kernel if multiply is product else kernel.T
  found = jax.jit(lambda x, kernel: multiply(x, kernel, "float32"))(x, given)
  exact = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-4)
  assert np.abs(np.asarray(multiply(x, given), np.float64) - exact).max() > 1e-2
  gradient = jax.grad(lambda kernel: jnp.sum(multiply(x, kernel, "float32") ** 2))(given)
  assert gradient.dtype == jnp.bfloat16
