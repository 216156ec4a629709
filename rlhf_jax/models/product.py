"""The product of activations and weights, with a gradient of the weights that is as fast as the product on a CPU."""

from __future__ import annotations

import jax

FEW = 64  # rows


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x[T, d] @ kernel[d, f].

  The gradient of the kernel, x.T @ gradient, contracts the leading axes of both. XLA on CPU has no fast kernel for that
  and needs about twice the time of the forward product; with x.T written out it has. A compiler that sees the transpose
  folds it into the product again, hence the barriers. On other platforms the plain product is the fast one.
  """
  return x @ kernel


def _forward(x, kernel):
  return x @ kernel, (x, kernel)


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
