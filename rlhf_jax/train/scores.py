"""From the parts of a reward to the scores of episodes and their metrics, without a host that waits for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.train.metrics import Metric
from rlhf_jax.types import Array, Mean


def score_episodes(
  parts: Mapping[str, Array],
  weights: Mapping[str, float],
  finished: Array,
  *,
  missing_eos_score: float | None,
  copies: int,
) -> tuple[jax.Array, dict[str, Metric]]:
  """(scores f32[B], metrics of them), on the devices.

  Args:
    parts: {name: scores f32[B]} of the reward's parts; those of a reward model are on the devices already.
    weights: {name: factor on the part}.
    finished: bool[B]; other rows have `missing_eos_score`, unless that is None.
    copies: the number of episodes of each prompt, which lie side by side.
  """
  factors = {name: np.float32(weights[name]) for name in parts}
  missing = None if missing_eos_score is None else np.float32(missing_eos_score)
  return _compiled(copies)(dict(parts), factors, finished, missing)


@functools.lru_cache(maxsize=8)
def _compiled(copies: int) -> Callable[..., tuple[jax.Array, dict[str, Metric]]]:
  @jax.jit
  def score(parts, factors, finished, missing):
    scores = functools.reduce(jnp.add, (factors[name] * parts[name] for name in parts))
    if missing is not None:
      scores = jnp.where(finished, scores, missing)
    ones = jnp.ones_like(scores)
    metrics = {"reward/proxy": Mean(scores, ones), "reward/std": Mean(jnp.std(scores), jnp.ones(()))}
    if copies > 1:
      groups = scores.reshape(-1, copies)
      alike = (groups == groups[:, :1]).all(axis=1).astype(jnp.float32)
      metrics["reward/groups_alike"] = Mean(alike, jnp.ones_like(alike))
    if len(parts) > 1:
      metrics |= {f"reward/{name}": Mean(values, ones) for name, values in parts.items()}
    return scores, metrics

  return score
