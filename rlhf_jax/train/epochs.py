"""Several passes of minibatches over one rollout, as in PPO and its relatives."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rlhf_jax.packing import Packing
from rlhf_jax.stage import Transport
from rlhf_jax.train.mesh import sent
from rlhf_jax.train.packed_rows import fill, pack_passes
from rlhf_jax.train.processes import host
from rlhf_jax.train.rl_metrics import GAP
from rlhf_jax.train.speed import count_tokens
from rlhf_jax.train.update import Metrics, Update
from rlhf_jax.types import Experience, Rollout, TrainState, pool

Weights = Callable[[jax.Array], jax.Array]
MakeExperience = Callable[[TrainState, Rollout, np.ndarray], tuple[Experience, Metrics]]


def run_epochs(
  update: Update,
  state: TrainState,
  rollout: Rollout,
  experience_of: MakeExperience,
  weights: Weights,
  *,
  epochs: int = 1,
  minibatches: int = 1,
  seed: tuple[int, int],
  transport: Transport | None = None,
) -> tuple[TrainState, Experience, dict[str, Any]]:
  """Takes `epochs` times `minibatches` updates on the rows of a rollout, shuffled in each epoch by (*seed, epoch).

  Only the order of the rows goes to the devices, once for each epoch.

  Args:
    experience_of: the function (state before the updates, rollout, order i32[minibatches, rows] of the first epoch) ->
      (experience, metrics).
    weights: the function from a minibatch's mask[B, T] to the weights of its loss; the same function at each step, as
      it is compiled once for each.

  Returns:
    The state, the experience, and the metrics of the experience and of the updates, pooled over all updates. Beside
    them: policy/first_gap_max, the largest difference in nats between the log-probs of the first update and those that
    its ratios start from; where the experience does not say how far the sampler is from the trainer
    (`rlhf_jax.train.rl_metrics.gap_metrics`), the first update does; tokens/trained; seconds/scoring and
    seconds/update (see `rlhf_jax.train.speed`).
  """
  start = time.perf_counter()
  size = len(rollout.tokens)
  orders = [_order(size, minibatches, (*seed, epoch)) for epoch in range(epochs)]
  packings, full = packed(rollout, orders, transport)
  with sent():
    experience, metrics = experience_of(state, rollout.replace(at=packings[0]), orders[0])
  pooled: Metrics = {}
  found: dict[str, Any] = {}
  for order, packing in zip(orders, packings, strict=True):
    with sent():
      rows = _minibatches(experience.replace(at=packing), order, weights)
    for minibatch, shares in rows:
      state, part = update(state, minibatch, shares)
      gap = {name: part.pop(name) for name in GAP if name in part}
      pooled = _pool(pooled, part) if pooled else part
      counts = {} if found else {**learner_counts(experience, start, epochs), **full}
      found = found or {**gap, **_first(gap), **metrics, **counts}
  found["seconds/update"] = time.perf_counter() - start - found["seconds/scoring"]
  return state, experience, {**found, **pooled}


def check_minibatches(minibatches: int, episodes: int) -> None:
  """Raises ValueError where `minibatches` does not divide the episodes of a step."""
  if episodes % minibatches:
    raise ValueError(f"minibatches={minibatches} must divide the {episodes} episodes of a step")


def _order(size: int, minibatches: int, seed: tuple[int, ...]) -> np.ndarray:
  """i32[minibatches, rows], a permutation of the rows; of one minibatch, whose sums have no order, the rows as they
  lie."""
  rows = np.arange(size) if minibatches == 1 else np.random.default_rng(seed).permutation(size)
  return rows.astype(np.int32).reshape(minibatches, -1)


def packed(
  rollout: Rollout, orders: Sequence[np.ndarray], transport: Transport | None, group: int = 1
) -> tuple[list[Any], dict[str, float]]:
  """(`Rollout.at` of each pass over the rows, {"tokens/fill"}): packings, where packing saves rows.

  orders, group: as in `pack_passes`. Without a transport, or without `Rollout.at`, nothing is packed.
  """
  if transport is None or rollout.at is None or isinstance(rollout.at, Packing):
    return [rollout.at] * len(orders), {}
  tokens, mask = host((rollout.tokens, rollout.mask))
  packings = pack_passes(tokens, mask, orders, rollout.at.shape[1], transport, group)
  full = {"tokens/fill": fill(mask, packings[0] if packings else None)}
  return packings or [rollout.at] * len(orders), full


_pool = jax.jit(pool)  # one by one, the additions of an update's metrics would take as long as a small update


def _first(gap: Metrics) -> Metrics:
  return {"policy/first_gap_max": gap["sampling/logp_gap_max"]} if gap else {}


@functools.partial(jax.jit, static_argnames="weights")
def _minibatches(experience: Experience, order: jax.Array, weights: Weights) -> list[tuple[Experience, jax.Array]]:
  """The minibatches of the rows order[minibatches, rows], with the weights of their losses."""
  found = [jax.tree.map(lambda x, rows=rows: x[rows], experience) for rows in order]
  return [(minibatch, weights(minibatch.mask)) for minibatch in found]


def learner_counts(experience: Experience, start: float, epochs: int = 1) -> dict[str, Any]:
  """{"seconds/scoring", "tokens/trained"} of an experience whose first update has been started.

  This waits until the experience is ready, while the device has work. start: the time before the experience was asked
  for, of time.perf_counter. epochs: the number of passes over the experience.
  """
  trained = _tokens_read(experience.mask, epochs)
  jax.block_until_ready(experience)
  return {"seconds/scoring": time.perf_counter() - start, "tokens/trained": trained}


@functools.partial(jax.jit, static_argnames="epochs")
def _tokens_read(mask: jax.Array, epochs: int) -> jax.Array:
  return epochs * count_tokens(mask)
