"""Logits of a large vocabulary, computed for a few positions at a time instead of as one array."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class ChunkedLogits(NamedTuple):
  """The logits `unembed(hidden) / temperature`, as an argument of `token_logprobs`, `token_entropy`, `lm_loss` etc.

  Logits exist for `chunk` positions of every row at once, forward and backward, where an array of them would take
  the memory of [..., T, V] several times; values and gradients are the same. Make it inside the traced function that
  uses it, such as a loss: `unembed` may refer to parameters that are differentiated.
  """

  hidden: jax.Array
  """[..., T, d], aligned with the tokens it predicts."""
  unembed: Callable[[jax.Array], jax.Array]
  """Function [..., d] -> f32[..., V], soft cap included."""
  chunk: int
  """Number of positions at a time."""
  temperature: ArrayLike = 1.0
  """Temperature, a scalar, that divides the logits."""
  support: ArrayLike | None = None
  """u8[..., T, ceil(V / 8)], a bit for each token that has a probability; None for all (see `truncated_logits`)."""

  def __truediv__(self, temperature: ArrayLike) -> "ChunkedLogits":
    """The logits at a sampling temperature, as for an array."""
    return self._replace(temperature=jnp.asarray(self.temperature) * temperature)

  def where(self, mask: ArrayLike | None) -> "ChunkedLogits":
    """Hidden states of 0 where mask[..., T] is off: NaN would reach the gradient of `unembed` there, as 0 * NaN."""
    if mask is None:
      return self
    on = (jnp.asarray(mask) != 0)[..., None]
    return self._replace(hidden=jnp.where(on, self.hidden, jnp.zeros((), self.hidden.dtype)))

  def map(self, function: Callable[..., Any], *arrays: ArrayLike | None) -> Any:
    """Applies function(logits[..., c, V], *arrays[..., c]) -> a tree of [..., c] to chunks; returns a tree of [..., T].

    An array may be None. The backward pass calls `function` again instead of keeping what it computed.
    """
    axis = self.hidden.ndim - 2
    length = self.hidden.shape[axis]
    chunk = max(min(self.chunk, length), 1)
    count = -(-length // chunk)

    def cut(x: jax.Array) -> jax.Array:  # [..., T, *rest] -> [count, ..., chunk, *rest]
      x = jnp.pad(x, [(0, count * chunk - length if i == axis else 0) for i in range(x.ndim)])
      return jnp.moveaxis(x.reshape(*x.shape[:axis], count, chunk, *x.shape[axis + 1 :]), axis, 0)

    # A compiler turns a division by a constant into this product, and in a loop it may not know that it is constant.
    scale = 1.0 / jnp.asarray(self.temperature, jnp.float32)

    def part(inputs: tuple[jax.Array, jax.Array | None, Any]) -> Any:
      hidden, support, rest = inputs
      return function(supported(self.unembed(hidden) * scale, support), *rest)

    def join(y: jax.Array) -> jax.Array:  # [count, ..., chunk] -> [..., T]
      y = jnp.moveaxis(y, 0, axis)
      return y.reshape(*y.shape[:axis], count * chunk)[..., :length]

    support, arrays = jax.tree.map(jnp.asarray, (self.support, arrays))
    # prevent_cse is for code outside of loops: in a loop its barriers would cost time and prevent nothing.
    parts = jax.lax.map(jax.checkpoint(part, prevent_cse=False), jax.tree.map(cut, (self.hidden, support, arrays)))
    return jax.tree.map(join, parts)


def supported(logits: jax.Array, support: jax.Array | None) -> jax.Array:
  """logits[..., V] where the bits of support u8[..., ceil(V / 8)] are on, -inf elsewhere; all of them for None."""
  if support is None:
    return logits
  return jnp.where(jnp.unpackbits(support, axis=-1, count=logits.shape[-1]) != 0, logits, -jnp.inf)
