"""The product of activations and weights, with a gradient of the weights that is as fast as the product on a CPU."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

FEW = 64  # rows of x, up to which `product_with_table` takes the table as the left factor
DECODED = range(8, FEW)  # rows of x that `product` multiplies from their columns on a CPU


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: jax.Array, kernel: jax.Array, dtype: str | None = None) -> jax.Array:
  """x[T, d] @ kernel[d, f] -> [T, f], in `dtype`, or in that of x and kernel.

  A product of bfloat16 is summed in float32; dtype "float32" gives these sums as they are. Gradients flow in the dtypes
  of x and kernel.

  The gradient of the kernel, x.T @ gradient, contracts the leading axes of both. XLA on CPU has no fast kernel for that
  and needs about twice the time of the forward product; it is fast if x.T is written to memory first. A compiler that
  sees the transpose folds it into the product again, hence the barriers. Few rows, as in decoding, are multiplied from
  their columns: XLA's kernel for plain products is made for many rows, and this form makes it choose another kernel. On
  other platforms the plain product is the fast one.
  """
  return _multiply(x, kernel, dtype)


def _multiply(x: jax.Array, kernel: jax.Array, dtype: str | None) -> jax.Array:
  plain = functools.partial(jnp.matmul, preferred_element_type=dtype)
  if x.shape[0] in DECODED:
    return jax.lax.platform_dependent(x, kernel, cpu=functools.partial(_by_columns, dtype=dtype), default=plain)
  return plain(x, kernel)


def _by_columns(x: jax.Array, kernel: jax.Array, dtype: str | None) -> jax.Array:
  columns = jax.lax.optimization_barrier(x.T)
  return jax.lax.dot_general(columns, kernel, (((0,), (0,)), ((), ())), preferred_element_type=dtype)


def _forward(x: jax.Array, kernel: jax.Array, dtype: str | None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _multiply(x, kernel, dtype), (x, kernel)


def _backward(
  dtype: str | None, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, kernel = saved
  gradient = gradient.astype(x.dtype)
  return gradient @ kernel.T, jax.lax.platform_dependent(x, gradient, cpu=_written_out, default=_plain)


def _written_out(x: jax.Array, gradient: jax.Array) -> jax.Array:
  barrier = jax.lax.optimization_barrier
  return barrier(barrier(x.T) @ gradient)


def _plain(x: jax.Array, gradient: jax.Array) -> jax.Array:
  return x.T @ gradient


def product_with_table(x: jax.Array, table: jax.Array, dtype: str | None = None) -> jax.Array:
  """x[T, d] @ table[V, d].T -> [T, V], in `dtype` as by `product`.

  For few rows, as in decoding, the table is the left factor: XLA on CPU rearranges a right factor before it multiplies,
  and for few rows this takes longer than the product.
  """
  if x.shape[0] <= FEW:
    return jax.lax.dot_general(table, x, (((1,), (1,)), ((), ())), preferred_element_type=dtype).T
  return product(x, table.T, dtype)


product.defvjp(_forward, _backward)
