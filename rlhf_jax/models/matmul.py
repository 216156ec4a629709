"""The product of activations and weights, with a gradient of the weights that is as fast as the product on a CPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp

FEW = 64  # rows of x, up to which `product_with_table` takes the table as the left factor
DECODED = range(8, FEW)  # rows of x that `product` multiplies from their columns on a CPU


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x[T, d] @ kernel[d, f] -> [T, f].

  The gradient of the kernel, x.T @ gradient, contracts the leading axes of both. XLA on CPU has no fast kernel for that
  and needs about twice the time of the forward product; it is fast if x.T is written to memory first. A compiler that
  sees the transpose folds it into the product again, hence the barriers. Few rows, as in decoding, are multiplied from
  their columns: XLA's kernel for plain products is made for many rows, and this form makes it choose another kernel. On
  other platforms the plain product is the fast one.
  """
  return _multiply(x, kernel)


def _multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
  if x.shape[0] in DECODED:
    return jax.lax.platform_dependent(x, kernel, cpu=_by_columns, default=jnp.matmul)
  return x @ kernel


def _by_columns(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return jax.lax.dot_general(jax.lax.optimization_barrier(x.T), kernel, (((0,), (0,)), ((), ())))


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _multiply(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
  x, kernel = saved
  return gradient @ kernel.T, jax.lax.platform_dependent(x, gradient, cpu=_written_out, default=_plain)


def _written_out(x: jax.Array, gradient: jax.Array) -> jax.Array:
  barrier = jax.lax.optimization_barrier
  return barrier(barrier(x.T) @ gradient)


def _plain(x: jax.Array, gradient: jax.Array) -> jax.Array:
  return x.T @ gradient


def product_with_table(x: jax.Array, table: jax.Array) -> jax.Array:
  """x[T, d] @ table[V, d].T -> [T, V].

  For few rows, as in decoding, the table is the left factor: XLA on CPU rearranges a right factor before it multiplies,
  and for few rows this takes longer than the product.
  """
  if x.shape[0] <= FEW:
    return jax.lax.dot_general(table, x, (((1,), (1,)), ((), ()))).T
  return product(x, table.T)


product.defvjp(_forward, _backward)
