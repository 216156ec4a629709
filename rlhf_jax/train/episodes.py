"""The episodes of a step, and dynamic sampling: prompts that teach nothing give their places to others.

Where all responses to a prompt have the same score, each is as good as the others, and an advantage within the group is
0. DAPO (arXiv 2503.14476, section 3.2) draws further prompts in the place of such ones until the batch is full. Given a
prompt, a group that is kept has the distribution of a group under the condition that its scores differ: the expected
gradient of the prompt keeps its direction and grows by one over the probability of spread, so that prompts of middling
difficulty weigh more. `tests/train/test_episodes.py` enumerates it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import data
from rlhf_jax.train.mesh import sent
from rlhf_jax.train.metrics import Metric
from rlhf_jax.train.processes import host
from rlhf_jax.types import Array, Mean, Rollout

SUMMED = ("tokens/", "seconds/")  # metrics of what a step took, which add up over its rounds


@dataclasses.dataclass(frozen=True)
class Episodes:
  """B = batch_size * samples_per_prompt episodes; those of one prompt lie side by side.

  It unpacks as (rollout, scores, metrics).
  """

  rollout: Rollout
  """The sampled sequences."""
  scores: jax.Array
  """Scores f32[B]."""
  metrics: dict[str, Metric]
  """Metrics of the episodes, and the seconds of their parts (see `rlhf_jax.train.speed`)."""
  prompts: list[data.Prompt]
  """The B prompts."""
  responses: list[str]
  """Texts of the B responses."""
  parts: dict[str, Array]
  """Scores f32[B] of the parts of the reward, such as "model" and "function", of what these have named, and of the
  monitor, "gold"."""
  token_scores: jax.Array | None = None
  """Part of the scores that a reward gives on single tokens, f32[B, T]; None for no such part."""
  rows: Sequence[Mapping[str, Any]] = ()
  """Rows of the file that the B prompts were read from; () for prompts of no file."""

  def __iter__(self) -> Iterator[Any]:
    return iter((self.rollout, self.scores, self.metrics))


def has_spread(scores: Array, copies: int) -> np.ndarray:
  """Whether the scores f32[N * copies] of a prompt's responses, which lie side by side, differ: bool[N].

  >>> has_spread(np.array([1, 1, 0, 1]), 2).tolist()
  [False, True]
  """
  groups = host(scores).reshape(-1, copies)
  return (groups != groups[:, :1]).any(axis=1)


def take_places(kept: np.ndarray, new: np.ndarray) -> np.ndarray:
  """The group that each of N places has next, i64[N]: its own number, or N plus that of a new group.

  The first new groups with spread take the places without it, in order. kept, new: bool[N], which groups have spread.

  >>> take_places(np.array([True, False, False]), np.array([False, False, True])).tolist()
  [0, 5, 2]
  """
  places = np.arange(len(kept))
  free, found = np.flatnonzero(~kept), np.flatnonzero(new)
  num = min(len(free), len(found))
  places[free[:num]] = len(kept) + found[:num]
  return places


def refill(
  first: Episodes, draw: Callable[[int], Episodes], max_refills: int, *, copies: int, part: str = ""
) -> Episodes:
  """The episodes in which groups with spread have taken the places of those without, as far as there are any.

  A place for which `max_refills` rounds have found none keeps its group. Metrics are those of the prompts drawn first,
  so that they are of the policy and not of a selection, but for tokens and seconds, which are summed over all rounds.
  Beside them are refill/rounds, the number of rounds; refill/dropped, the share without spread of all groups that were
  drawn; and refill/missing, the share of the places that keep a group without spread.

  Args:
    draw: function from the number of a round, from 0, to as many episodes of further prompts.
    copies: the number of episodes of each prompt.
    part: the name of the part of the reward whose scores are compared; "" for the whole score.
  """

  def spread_of(episodes: Episodes) -> np.ndarray:
    return has_spread(episodes.parts[part] if part else episodes.scores, copies)

  episodes, spread, rounds = first, spread_of(first), 0
  metrics, drawn = dict(first.metrics), [spread]
  while rounds < max_refills and not spread.all():
    new = draw(rounds)
    drawn.append(spread_of(new))
    places = take_places(spread, drawn[-1])
    episodes = _merged(episodes, new, (places[:, None] * copies + np.arange(copies)).ravel())
    spread, rounds = np.concatenate([spread, drawn[-1]])[places], rounds + 1
    for name, value in new.metrics.items():
      before = metrics.get(name)
      if name.startswith(SUMMED) and isinstance(before, float) and isinstance(value, float):
        metrics[name] = before + value
  alike = ~np.concatenate(drawn)
  metrics |= {
    "refill/rounds": float(rounds),
    "refill/dropped": Mean(alike.astype(np.float32), np.ones(len(alike), np.float32)),
    "refill/missing": float(np.mean(~spread)),
  }
  return dataclasses.replace(episodes, metrics=metrics)


def _merged(kept: Episodes, new: Episodes, rows: np.ndarray) -> Episodes:
  """The episodes of the given rows, i64[B], of which those from B on are rows of the new ones."""

  def on_host(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    both = [*first, *second]
    return [both[row] for row in rows] if both else []

  tokens = [kept.token_scores, new.token_scores]
  for x in tokens:
    if x is not None:  # one round may have such scores where the other has none
      tokens = [jnp.zeros_like(x) if other is None else other for other in tokens]
  before, after = (kept.rollout, kept.scores, tokens[0]), (new.rollout, new.scores, tokens[1])
  with sent():
    rollout, scores, token_scores = jax.tree.map(lambda x, y: _of_both(x, y, rows.astype(np.int32)), before, after)
  return Episodes(
    rollout,
    scores,
    kept.metrics,
    on_host(kept.prompts, new.prompts),
    on_host(kept.responses, new.responses),
    {
      name: np.concatenate([host(values), host(new.parts[name])])[rows]
      for name, values in kept.parts.items()
      if name in new.parts
    },
    token_scores,
    on_host(kept.rows, new.rows),
  )


def _of_both(kept: jax.Array, new: jax.Array, rows: np.ndarray) -> jax.Array:
  """Rows of two arrays, which lie where `kept` lay, so that what reads them is compiled once."""
  found = _rows_of(kept, new, rows)
  return found if found.sharding.is_equivalent_to(kept.sharding, kept.ndim) else jax.device_put(found, kept.sharding)


@jax.jit
def _rows_of(kept: jax.Array, new: jax.Array, rows: jax.Array) -> jax.Array:
  return jnp.concatenate([kept, new])[rows]
