"""Several passes of minibatches over one rollout, as in PPO and its relatives."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rlhf_jax.train.mesh import sent
from rlhf_jax.train.metrics import Metric
from rlhf_jax.train.speed import count_tokens
from rlhf_jax.train.update import Metrics, Update
from rlhf_jax.types import Experience, TrainState, pool

Weights = Callable[[jax.Array], jax.Array]


def run_epochs(
  update: Update,
  state: TrainState,
  experience: Experience,
  weights: Weights,
  *,
  epochs: int,
  minibatches: int,
  seed: tuple[int, int],
) -> tuple[TrainState, dict[str, Metric]]:
  """Takes `epochs` times `minibatches` updates on the rows of `experience`, shuffled in each epoch by (*seed, epoch).

  Only the order of the rows goes to the devices, once for each epoch.

  Args:
    weights: the function from a minibatch's mask[B, T] to the weights of its loss; the same function at each step, as
      it is compiled once for each.

  Returns:
    The state, and the metrics pooled over all updates; beside them tokens/trained, and seconds/scoring and
    seconds/update (see `rlhf_jax.train.speed`).
  """
  start = time.perf_counter()
  size = len(experience.tokens)
  pooled: Metrics = {}
  counts: dict[str, Any] = {}
  for epoch in range(epochs):
    order = np.random.default_rng((*seed, epoch)).permutation(size).astype(np.int32).reshape(minibatches, -1)
    with sent():
      rows = _minibatches(experience, order, weights)
    for minibatch, shares in rows:
      state, part = update(state, minibatch, shares)
      pooled = _pool(pooled, part) if pooled else part
      counts = counts or learner_counts(experience, start, epochs)
  counts["seconds/update"] = time.perf_counter() - start - counts["seconds/scoring"]
  return state, {**pooled, **counts}


_pool = jax.jit(pool)  # one by one, the additions of an update's metrics would take as long as a small update


@functools.partial(jax.jit, static_argnames="weights")
def _minibatches(experience: Experience, order: jax.Array, weights: Weights) -> list[tuple[Experience, jax.Array]]:
  """The minibatches of the rows order[minibatches, rows], with the weights of their losses."""
  found = [jax.tree.map(lambda x, rows=rows: x[rows], experience) for rows in order]
  return [(minibatch, weights(minibatch.mask)) for minibatch in found]


def learner_counts(experience: Experience, start: float, epochs: int = 1) -> dict[str, Any]:
  """{"seconds/scoring", "tokens/trained"} of an experience whose first update has been started.

  This waits until the experience is ready, while the device has work. start: the time before the update, of
  time.perf_counter. epochs: the number of passes over the experience.
  """
  trained = _tokens_read(experience.mask, epochs)
  jax.block_until_ready(experience)
  return {"seconds/scoring": time.perf_counter() - start, "tokens/trained": trained}


@functools.partial(jax.jit, static_argnames="epochs")
def _tokens_read(mask: jax.Array, epochs: int) -> jax.Array:
  return epochs * count_tokens(mask)


def check_minibatches(minibatches: int, episodes: int) -> None:
  """Raises ValueError where `minibatches` does not divide the episodes of a step."""
  if episodes % minibatches:
    raise ValueError(f"minibatches={minibatches} must divide the {episodes} episodes of a step")
