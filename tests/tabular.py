"""Policies that are tables, on problems so small that every response can be listed and the optimum is known exactly.

A response is a path down a tree, up to DEPTH tokens of VOCAB each. A row of tokens is a prompt token, the response, and
padding: i32[B, WIDTH]. A policy is a table of logits f32[STATES + 1, VOCAB] with a row for each state of the tree and a
last one for the positions outside the response. Nothing here but `ppo_config` uses the code that it tests.
"""

import itertools
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.algorithms import ppo
from rlhf_jax.types import Rollout

VOCAB, DEPTH = 3, 3
WIDTH = DEPTH + 2
FIRST = [(VOCAB**depth - 1) // (VOCAB - 1) for depth in range(DEPTH + 1)]  # the first state of each depth
STATES = FIRST[-1]
PLACES = VOCAB ** np.arange(DEPTH)[::-1]


class Problem(NamedTuple):
  """reference: a policy's table. ends: bool[STATES + 1, VOCAB], where that token in that state ends the response.

  scores: f32[VOCAB ** DEPTH], of the response read as a number of base VOCAB, zeros behind its end.
  """

  reference: np.ndarray
  ends: np.ndarray
  scores: np.ndarray


def bandit(probabilities, scores) -> Problem:
  """Every response is one token."""
  table = np.zeros(len(PLACES) * VOCAB**2, np.float32)
  table[:: PLACES[0]] = scores
  reference = np.log(np.tile(np.float32(probabilities), (STATES + 1, 1)))
  return Problem(reference, np.ones((STATES + 1, VOCAB), bool), table)


def tree(seed: int, stop: bool) -> Problem:
  """All 27 responses of three tokens, or with `stop` the 15 in which a token 0 ends the response early."""
  rng = np.random.default_rng(seed)
  ends = np.zeros((STATES + 1, VOCAB), bool)
  ends[:, 0] = stop
  reference = rng.normal(0, 0.7, (STATES + 1, VOCAB)).astype(np.float32)
  return Problem(reference, ends, rng.uniform(-1, 1, VOCAB**DEPTH).astype(np.float32))


def _walk(problem, size, choose):
  """Down the tree: `choose(depth, state[size]) -> token[size]`. Returns tokens and states, each i32[size, WIDTH]."""
  code, alive = jnp.zeros(size, jnp.int32), jnp.ones(size, bool)
  tokens, states = [jnp.ones(size, jnp.int32)], [jnp.full(size, STATES)]
  for depth in range(DEPTH):
    state = jnp.where(alive, FIRST[depth] + code, STATES)
    token = jnp.where(alive, choose(depth, state), 0)
    alive &= ~jnp.asarray(problem.ends)[state, token]
    code = code * VOCAB + token
    tokens.append(token)
    states.append(state)
  return jnp.stack([*tokens, jnp.zeros_like(code)], axis=1), jnp.stack([*states, jnp.full(size, STATES)], axis=1)


@jax.jit
def states(problem: Problem, tokens):
  """The row of the table that each position looks up: i32[B, WIDTH], STATES outside the response."""
  return _walk(problem, len(tokens), lambda depth, _: tokens[:, depth + 1])[1]


def leaves(problem: Problem) -> np.ndarray:
  """Every row of tokens there is: i32[leaves, WIDTH], zeros behind the end."""

  def length(path):
    code = 0
    for depth, token in enumerate(path):
      if problem.ends[FIRST[depth] + code, token]:
        return depth + 1
      code = code * VOCAB + token
    return DEPTH

  paths = itertools.product(range(VOCAB), repeat=DEPTH)
  return np.array([(1, *path, 0) for path in paths if not any(path[length(path) :])], np.int32)


@jax.jit
def scores(problem: Problem, tokens):
  """f32[B]: a look-up, of which there is no derivative."""
  return jnp.asarray(problem.scores)[tokens[:, 1:-1] @ PLACES]


def make_apply(problem: Problem):
  """`apply(params, tokens) -> (logits[B, T, V], values[B, T])`, params {"logits": [S + 1, V], "values": [S + 1]}."""

  def apply(params, tokens):
    rows = states(problem, tokens)
    return jnp.asarray(params["logits"])[rows], jnp.asarray(params["values"])[rows]

  return apply


def initial(problem: Problem) -> dict:
  """The reference as the policy, and a value function of 0."""
  return {"logits": jnp.asarray(problem.reference), "values": jnp.zeros(STATES + 1)}


@jax.jit
def logprobs(problem: Problem, table, tokens, temperature: float = 1.0):
  """Of each token under the policy `table`: f32[B, WIDTH], 0 outside the response."""
  return _logprobs(table, states(problem, tokens), tokens, temperature)


def _logprobs(table, rows, tokens, temperature):
  return jnp.where(rows == STATES, 0.0, jax.nn.log_softmax(jnp.asarray(table) / temperature)[rows, tokens])


def sample(problem: Problem, table, uniform, temperature: float = 1.0) -> Rollout:
  """A response of the policy `table` for each row of numbers in [0, 1), uniform[B, DEPTH], one for each token."""
  cumulative = jnp.cumsum(jax.nn.softmax(table / temperature), axis=-1)  # [STATES + 1, VOCAB]

  def choose(depth, state):
    return jnp.sum(uniform[:, depth, None] >= cumulative[state, :-1], axis=-1)

  tokens, rows = _walk(problem, len(uniform), choose)
  return Rollout(tokens, rows != STATES, _logprobs(table, rows, tokens, temperature), jnp.ones(len(tokens), bool))


def rollout_of(problem: Problem, table, tokens, temperature: float = 1.0) -> Rollout:
  """The rollout in which the policy `table` gave these responses."""
  mask = states(problem, tokens) != STATES
  return Rollout(tokens, mask, logprobs(problem, table, tokens, temperature), jnp.ones(len(tokens), bool))


def distribution(problem: Problem, table, temperature: float = 1.0):
  """The probability of every leaf: f32[leaves]."""
  return jnp.exp(jnp.sum(logprobs(problem, table, leaves(problem), temperature), axis=1))


def optimum(problem: Problem, kl_coef: float) -> np.ndarray:
  """`p_ref exp(score / kl_coef) / Z`, the policy that maximises E[score] - kl_coef KL(policy || reference)."""
  tilted = distribution(problem, problem.reference) * np.exp(scores(problem, leaves(problem)) / kl_coef)
  return np.asarray(tilted / tilted.sum())


def expected_return(problem: Problem, table, kl_coef: float, temperature: float = 1.0):
  """E[score] - kl_coef KL(policy || reference), summed over the leaves; to be differentiated in `table`."""
  rows = leaves(problem)
  logp = jnp.sum(logprobs(problem, table, rows, temperature), axis=1)
  logp_ref = jnp.sum(logprobs(problem, problem.reference, rows, temperature), axis=1)
  return jnp.sum(jnp.exp(logp) * (scores(problem, rows) - kl_coef * (logp - logp_ref)))


def ppo_config(**changes) -> ppo.Config:
  """PPO's settings as published, but for `changes`; those that `ppo.run` alone reads are empty."""
  settings = dict(
    algorithm="ppo",
    init="",
    num_steps=1,
    environment=SimpleNamespace(batch_size=32, samples_per_prompt=1),
    kl_coef=0.5,
    kl_target=0.0,
    kl_horizon=1e4,
    discount=1.0,
    lam=0.95,
    clip=0.2,
    value_clip=0.2,
    value_coef=0.1,
    entropy_coef=0.0,
    epochs=4,
    minibatches=4,
    whiten_rewards=False,
    whiten_advantages=True,
    shared_trunk=False,
    value_init="",
    optimizer=None,
    checkpoint_every=1,
  )
  return ppo.Config(**(settings | changes))
