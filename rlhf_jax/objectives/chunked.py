"""Logits that are not one array [..., T, V]: of the positions that count alone, or of a few positions at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rlhf_jax.packing import Packing
from rlhf_jax.positions import put_at, take_at


class ChunkedLogits(NamedTuple):
  """The logits `unembed(hidden) / temperature`, as an argument of `token_logprobs`, `token_entropy`, `lm_loss` etc.

  With a `chunk`, logits exist for so many positions of every row at once, forward and backward, where an array of them
  would take the memory of [..., T, V] several times. With `at` they exist for these positions alone, and results of all
  others are 0. Values and gradients are the same. Make it inside the traced function that uses it, such as a loss:
  `unembed` may refer to parameters that are differentiated.
  """

  hidden: jax.Array
  """[..., T, d], aligned with the tokens it predicts; [B, N, d] with `at`, [R, M, d] where it is a `Packing`."""
  unembed: Callable[[jax.Array], jax.Array]
  """Function [..., d] -> f32[..., V], soft cap included."""
  chunk: int
  """Number of positions at a time; 0 for all at once."""
  temperature: ArrayLike = 1.0
  """Temperature, a scalar, that divides the logits."""
  support: ArrayLike | None = None
  """u8[..., T, ceil(V / 8)], a bit for each token that has a probability; None for all (see `truncated_logits`)."""
  at: jax.Array | Packing | None = None
  """i32[B, N], the positions whose hidden states these are (see `rlhf_jax.positions`), or the packing of the rows; None
  for all T."""
  length: int = 0
  """Number of tokens T in a row, where `at` is given."""
  missing: jax.Array | None = None
  """bool[B, T], positions that a mask counts and `at` does not hold, where results are NaN; None before `where`."""

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape [..., T, d] of the hidden states of all positions."""
    return self.hidden.shape if self.at is None else (len(self.at), self.length, self.hidden.shape[-1])

  def __truediv__(self, temperature: ArrayLike) -> "ChunkedLogits":
    """The logits at a sampling temperature, as for an array."""
    return self._replace(temperature=jnp.asarray(self.temperature) * temperature)

  def where(self, mask: ArrayLike | None) -> "ChunkedLogits":
    """Hidden states of 0 where mask[..., T] is off: NaN would reach the gradient of `unembed` there, as 0 * NaN.

    Positions of the mask that `at` does not hold become NaN: a loss would leave them out in silence.
    """
    if mask is None:
      return self
    on, missing = jnp.asarray(mask) != 0, None
    if self.at is not None:
      missing = on & ~put_at(jnp.ones(self.hidden.shape[:-1], bool), self.at, self.length)
      on = take_at(on, self.at)
    hidden = jnp.where(on[..., None], self.hidden, jnp.zeros((), self.hidden.dtype))
    return self._replace(hidden=hidden, missing=missing)

  def map(self, function: Callable[..., Any], *arrays: ArrayLike | None) -> Any:
    """Applies function(logits[..., c, V], *arrays[..., c]) -> a tree of [..., c] to chunks; returns a tree of [..., T].

    An array may be None. The backward pass calls `function` again on each chunk instead of keeping what it computed.
    """
    support, arrays = jax.tree.map(jnp.asarray, (self.support, arrays))
    if self.at is None:
      return self._map(function, support, arrays)
    at, missing = self.at, self.missing

    def put(y: jax.Array) -> jax.Array:  # [B, N] -> [B, T]
      y = put_at(y, at, self.length)
      return y if missing is None or not jnp.issubdtype(y.dtype, jnp.floating) else jnp.where(missing, jnp.nan, y)

    return jax.tree.map(put, self._map(function, *jax.tree.map(lambda x: take_at(x, at), (support, arrays))))

  def _map(self, function: Callable[..., Any], support: jax.Array | None, arrays: Any) -> Any:
    """`map` of the positions that there are."""

    # A compiler turns a division by a constant into this product, and in a loop it may not know that it is constant.
    scale = 1.0 / jnp.asarray(self.temperature, jnp.float32)

    def part(inputs: tuple[jax.Array, jax.Array | None, Any]) -> Any:
      hidden, support, rest = inputs
      return function(supported(self.unembed(hidden) * scale, support), *rest)

    if not self.chunk:
      return part((self.hidden, support, arrays))
    axis = self.hidden.ndim - 2
    length = self.hidden.shape[axis]
    chunk = max(min(self.chunk, length), 1)
    count = -(-length // chunk)

    def cut(x: jax.Array) -> jax.Array:  # [..., T, *rest] -> [count, ..., chunk, *rest]
      x = jnp.pad(x, [(0, count * chunk - length if i == axis else 0) for i in range(x.ndim)])
      return jnp.moveaxis(x.reshape(*x.shape[:axis], count, chunk, *x.shape[axis + 1 :]), axis, 0)

    def join(y: jax.Array) -> jax.Array:  # [count, ..., chunk] -> [..., T]
      y = jnp.moveaxis(y, 0, axis)
      return y.reshape(*y.shape[:axis], count * chunk)[..., :length]

    # prevent_cse is for code outside of loops: in a loop its barriers would cost time and prevent nothing.
    parts = jax.lax.map(jax.checkpoint(part, prevent_cse=False), jax.tree.map(cut, (self.hidden, support, arrays)))
    return jax.tree.map(join, parts)


def supported(logits: jax.Array, support: jax.Array | None) -> jax.Array:
  """logits[..., V] where the bits of support u8[..., ceil(V / 8)] are on, -inf elsewhere; all of them for None."""
  if support is None:
    return logits
  return jnp.where(jnp.unpackbits(support, axis=-1, count=logits.shape[-1]) != 0, logits, -jnp.inf)
