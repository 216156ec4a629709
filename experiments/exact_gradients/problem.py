"""A problem so small that every response can be listed: `exact_gradients` and `policy_gradients` compute on it.

A response has up to `depth` tokens of three words, of which word 0 ends it; with depth 3 there are 15 responses. The
policy is a table of logits for the states, drawn at random, and so are the reference and the rewards.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

WORDS, DEPTH = 3, 3


class Problem(NamedTuple):
  """All R responses: tokens, mask and states [R, T]; rewards f32[R], around 1; two tables of logits f32[S, V].

  group: number of responses in a batch.
  """

  group: int
  tokens: np.ndarray
  mask: np.ndarray
  states: np.ndarray
  rewards: np.ndarray
  policy: np.ndarray
  reference: np.ndarray


def make_problem(seed: int, group: int, depth: int = DEPTH) -> Problem:
  """The problem of a seed, with batches of `group` responses of up to `depth` tokens."""
  found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
  number = {(): 0}
  for path in itertools.product(range(WORDS), repeat=depth):
    length = path.index(0) + 1 if 0 in path else depth
    if any(path[length:]):
      continue
    prefixes = [path[:place] for place in range(length)]
    states = tuple(number.setdefault(prefix, len(number)) for prefix in prefixes)
    found.append((path[:length], states))
  pad = functools.partial(np.pad, mode="constant")
  tokens = np.array([pad(path, (0, depth - len(path))) for path, _ in found])
  states = np.array([pad(states, (0, depth - len(states))) for _, states in found])
  mask = np.arange(depth) < np.array([[len(path)] for path, _ in found])
  rng = np.random.default_rng(seed)
  table = functools.partial(rng.normal, 0, 1, (len(number), WORDS))
  rewards = 1 + rng.normal(0, 1, len(found))
  return Problem(group, tokens, mask, states, *(x.astype(np.float32) for x in (rewards, table(), table())))


def logprobs(problem: Problem, table: jax.Array) -> jax.Array:
  """f32[R, T], of every token of every response; 0 outside the mask."""
  logp = jax.nn.log_softmax(table)[problem.states, problem.tokens]
  return jnp.where(problem.mask, logp, 0.0)


def values(problem: Problem) -> np.ndarray:
  """f32[R, T], the mean reward from each state on under the policy: what a perfect critic would say."""
  p = np.exp(np.asarray(jnp.sum(logprobs(problem, problem.policy), axis=1), np.float64))
  shares = np.zeros((problem.policy.shape[0], 2))
  for row in range(len(p)):
    for state in problem.states[row][problem.mask[row]]:
      shares[state] += p[row], p[row] * problem.rewards[row]
  return (shares[:, 1] / shares[:, 0])[problem.states].astype(np.float32)
