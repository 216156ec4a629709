"""Several passes of minibatches over one rollout, as in PPO and its relatives."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.train.update import Update
from rlhf_jax.types import Experience, Mean, TrainState


def run_epochs(
  update: Update,
  state: TrainState,
  experience: Experience,
  weights: Callable[[jax.Array], jax.Array],
  *,
  epochs: int,
  minibatches: int,
  seed: tuple[int, int],
) -> tuple[TrainState, dict[str, Mean]]:
  """Takes `epochs` times `minibatches` updates on the rows of `experience`, shuffled in each epoch by (*seed, epoch).

  weights: the function from a minibatch's mask[B, T] to the weights of its loss. The metrics are pooled over all
  updates.
  """
  size = len(experience.tokens)
  pooled: dict[str, Mean] = {}
  for epoch in range(epochs):
    order = np.random.default_rng((*seed, epoch)).permutation(size)
    for rows in np.split(order, minibatches):
      minibatch = jax.tree.map(lambda x, rows=rows: x[rows], experience)
      state, part = update(state, minibatch, weights(minibatch.mask))
      pooled = jax.tree.map(jnp.add, pooled, part) if pooled else part
  return state, pooled


def check_minibatches(epochs: int, minibatches: int, episodes: int) -> None:
  """Raises ValueError where `minibatches` does not divide the episodes of a step, or a number is below 1."""
  if epochs < 1 or minibatches < 1 or episodes % minibatches:
    raise ValueError(
      f"minibatches={minibatches} must divide the {episodes} episodes of a step, and epochs={epochs} must be >= 1"
    )
