"""Logits of a large vocabulary that are never all there: the objectives read them a few positions at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class ChunkedLogits(NamedTuple):
  """Stands for the logits `unembed(hidden) / temperature` in `token_logprobs`, `token_entropy` and their relatives.

  Logits exist for `chunk` positions of every row at once, forward and backward, where an array of them would take
  [..., T, V] several times over; values and gradients are the same. It lives inside one traced function, such as a
  loss: `unembed` may refer to parameters that are differentiated.

  hidden: [..., T, d], aligned with the tokens it predicts. unembed: [..., d] -> f32[..., V], soft cap included.
  """

  hidden: jax.Array
  unembed: Callable[[jax.Array], jax.Array]
  chunk: int
  temperature: Any = 1.0

  def __truediv__(self, temperature: Any) -> "ChunkedLogits":
    """As with an array: the logits at a sampling temperature."""
    return self._replace(temperature=self.temperature * temperature)

  def map(self, function: Callable, *arrays: Any) -> Any:
    """function(logits[..., c, V], *arrays[..., c]) -> a tree of [..., c], over chunks -> the same of [..., T].

    An array may be None. What `function` makes of logits is computed anew in the backward pass.
    """
    axis = self.hidden.ndim - 2
    length = self.hidden.shape[axis]
    chunk = max(min(self.chunk, length), 1)
    count = -(-length // chunk)

    def cut(x):  # [..., T, *rest] -> [count, ..., chunk, *rest]
      x = jnp.pad(x, [(0, count * chunk - length if i == axis else 0) for i in range(x.ndim)])
      return jnp.moveaxis(x.reshape(*x.shape[:axis], count, chunk, *x.shape[axis + 1 :]), axis, 0)

    def part(inputs):
      hidden, rest = inputs
      return function(self.unembed(hidden) / self.temperature, *rest)

    def join(y):  # [count, ..., chunk] -> [..., T]
      y = jnp.moveaxis(y, 0, axis)
      return y.reshape(*y.shape[:axis], count * chunk)[..., :length]

    arrays = jax.tree.map(jnp.asarray, arrays)
    # Inside a loop nothing can be merged with the forward pass, so that the barriers against it would only cost.
    parts = jax.lax.map(jax.checkpoint(part, prevent_cse=False), jax.tree.map(cut, (self.hidden, arrays)))
    return jax.tree.map(join, parts)
