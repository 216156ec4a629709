"""The product of activations and weights, with a gradient of the weights that is as fast as the product on a CPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp

FEW = 64  # rows
DECODED = range(8, FEW)  # rows at a time, where another way to multiply is the faster one on a CPU


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x[T, d] @ kernel[d, f].

  The gradient of the kernel, x.T @ gradient, contracts the leading axes of both. XLA on CPU has no fast kernel for that
  and needs about twice the time of the forward product; with x.T written out it has. A compiler that sees the transpose
  folds it into the product again, hence the barriers. Few rows, as in decoding, are multiplied from their columns for a
  like reason: of XLA's kernels the one for plain products is made for many rows, and this form is left to the other. On
  other platforms the plain product is the fast one.
  """
  return _multiply(x, kernel)


def _multiply(x, kernel):
  if x.shape[0] in DECODED:
    return jax.lax.platform_dependent(x, kernel, cpu=_by_columns, default=jnp.matmul)
  return x @ kernel


def _by_columns(x, kernel):
  return jax.lax.dot_general(jax.lax.optimization_barrier(x.T), kernel, (((0,), (0,)), ((), ())))


def _forward(x, kernel):
  return _multiply(x, kernel), (x, kernel)


def _backward(saved, gradient):
  x, kernel = saved
  return gradient @ kernel.T, jax.lax.platform_dependent(x, gradient, cpu=_written_out, default=_plain)


def _written_out(x, gradient):
  barrier = jax.lax.optimization_barrier
  return barrier(barrier(x.T) @ gradient)


def _plain(x, gradient):
  return x.T @ gradient


def product_with_table(x: jax.Array, table: jax.Array) -> jax.Array:
  """x[T, d] @ table[V, d].T.

  For few rows, as in decoding, the table is the left factor: XLA on CPU rearranges a right factor before it multiplies,
  which then takes longer than the product.
  """
  if x.shape[0] <= FEW:
    return jax.lax.dot_general(table, x, (((1,), (1,)), ((), ()))).T
  return product(x, table.T)


product.defvjp(_forward, _backward)
