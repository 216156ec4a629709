"""From the parts of a reward to the scores of episodes and their metrics, without a host that waits for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.train.metrics import Metric
from rlhf_jax.train.reward_functions import Scored
from rlhf_jax.types import Array, Mean


def score_episodes(
  parts: Mapping[str, Scored],
  weights: Mapping[str, float],
  finished: Array,
  *,
  missing_eos_score: float | None,
  copies: int,
) -> tuple[jax.Array, jax.Array | None, dict[str, Metric]]:
  """(scores f32[B], the part of them on single tokens f32[B, T] or None, metrics of them), on the devices.

  Args:
    parts: {name: what its scorer gave} of the reward's parts; that of a reward model is on the devices already.
    weights: {name: factor on the part}.
    finished: bool[B]; other rows have `missing_eos_score`, and nothing on single tokens, unless that is None.
    copies: the number of episodes of each prompt, which lie side by side.
  """
  factors = {name: np.float32(weights[name]) for name in parts}
  missing = None if missing_eos_score is None else np.float32(missing_eos_score)
  totals = {name: part.total for name, part in parts.items()}
  tokens = {name: part.tokens for name, part in parts.items() if part.tokens is not None}
  scores, token_scores, metrics = _compiled(copies)(totals, tokens, factors, finished, missing)
  named = logged_parts(parts)
  ones = np.ones(len(finished), np.float32)
  return scores, token_scores, {**metrics, **{f"reward/{name}": Mean(values, ones) for name, values in named.items()}}


def logged_parts(parts: Mapping[str, Scored]) -> dict[str, Array]:
  """{name: scores f32[B]} of what functions have named: NAME of the part "function", PART/NAME of others."""
  return {
    name if part == "function" and name not in parts else f"{part}/{name}": values
    for part, scored in parts.items()
    for name, values in scored.named.items()
  }


@functools.lru_cache(maxsize=8)
def _compiled(copies: int) -> Callable[..., tuple[jax.Array, jax.Array | None, dict[str, Metric]]]:
  @jax.jit
  def score(totals, tokens, factors, finished, missing):
    scores = functools.reduce(jnp.add, (factors[name] * totals[name] for name in totals))
    token_scores = functools.reduce(jnp.add, (factors[name] * tokens[name] for name in tokens)) if tokens else None
    if missing is not None:
      scores = jnp.where(finished, scores, missing)
      if token_scores is not None:
        token_scores = jnp.where(finished[:, None], token_scores, 0.0)
    ones = jnp.ones_like(scores)
    metrics = {"reward/proxy": Mean(scores, ones), "reward/std": Mean(jnp.std(scores), jnp.ones(()))}
    if copies > 1:
      groups = scores.reshape(-1, copies)
      alike = (groups == groups[:, :1]).all(axis=1).astype(jnp.float32)
      metrics["reward/groups_alike"] = Mean(alike, jnp.ones_like(alike))
    if len(totals) > 1:
      metrics |= {f"reward/{name}": Mean(values, ones) for name, values in totals.items()}
    return scores, token_scores, metrics

  return score
