"""Which gradient does each objective follow? Exactly, on a policy so small that every batch can be listed.

  python experiments/exact_gradients/analyse.py --out experiments/exact_gradients

A response has up to three tokens of three words, of which word 0 ends it: 15 responses. The policy is a table of logits
for the seven states, drawn at random, and so are the reference and the rewards. The gradient of an objective is
averaged over all batches of four responses to one prompt with their probabilities, 50,625 of them, and set beside the
gradient that is wanted. Writes `results.json` and prints the tables of the record.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.data import write_json
from rlhf_jax.objectives import (
  cispo_objective,
  dual_clip_objective,
  gae,
  group_centre,
  group_normalize,
  kl_estimate,
  kl_exact,
  leave_one_out,
  optimal_baseline,
  optimal_token_baseline,
  ppo_policy_objective,
  reinforce_objective,
  sapo_objective,
  score_energy,
  sequence_ratio_objective,
)
from rlhf_jax.reduce import constant_weights, per_token, sequence_weights, token_weights, weighted_sum, whiten
from rlhf_jax.settings import import_module

problems = import_module(str(Path(__file__).with_name("problem.py")))
Problem, logprobs, values = problems.Problem, problems.logprobs, problems.values

Gain = Callable[[jax.Array, jax.Array], jax.Array]


def greedy_response(problem: Problem) -> int:
  """The number of the response that takes the likeliest word in every state."""
  likeliest = np.argmax(problem.policy, axis=1)[problem.states] == problem.tokens
  return int(np.flatnonzero((likeliest | ~problem.mask).all(axis=1))[0])


class Row(NamedTuple):
  """A line of a table: the mean gradient of an objective beside the one that is wanted.

  cosine: of the two. length: of the mean gradient, in lengths of the other. deviation: standard deviation of the
  gradient of one batch, in the same unit.
  """

  name: str
  cosine: float
  length: float
  deviation: float


def measure(problem: Problem, name: str, gain: Gain, wanted: jax.Array, at: jax.Array) -> Row:
  """The line of gain(table, rows[K]), which is maximised, of batches drawn from the policy; its gradient at `at`."""
  num = len(problem.tokens)
  batches = jnp.asarray(list(itertools.product(range(num), repeat=problem.group)))
  logp = jnp.sum(logprobs(problem, problem.policy), axis=1)
  shares = jnp.exp(jnp.sum(logp[batches], axis=1))
  each = jax.jit(jax.vmap(jax.grad(gain), (None, 0)))(at, batches).reshape(len(batches), -1)
  wanted = wanted.ravel()
  mean = shares @ each
  unit = float(jnp.linalg.norm(wanted))
  length = float(jnp.linalg.norm(mean)) / unit
  cosine = float(mean @ wanted) / (unit * unit * length) if length > 1e-6 else float("nan")
  spread = float(jnp.sqrt(shares @ jnp.sum(jnp.square(each - mean), axis=1)))
  return Row(name, cosine, length, spread / unit)


def kl_rows(problem: Problem) -> list[Row]:
  """Estimates of the KL to the reference, as a reward and as a loss, beside the gradient of the response's KL."""

  def divergence(table: jax.Array) -> jax.Array:
    logp, logp_ref = (jnp.sum(logprobs(problem, x), axis=1) for x in (table, problem.reference))
    return jnp.sum(jnp.exp(logp) * (logp - logp_ref))

  wanted = -jax.grad(divergence)(problem.policy)
  tokens, sums = kl_estimate, lambda logp, ref, **how: kl_estimate(jnp.sum(logp, -1), jnp.sum(ref, -1), **how)

  def gain(table: jax.Array, rows: jax.Array, *, kind: str, estimate: Callable, as_reward: bool) -> jax.Array:
    logp, logp_ref = logprobs(problem, table)[rows], logprobs(problem, problem.reference)[rows]
    kl = estimate(logp, logp_ref, kind=kind)
    kl = jnp.sum(kl, axis=1) if kl.ndim > 1 else kl
    if as_reward:
      return -jnp.mean(reinforce_objective(jnp.sum(logp, axis=1), kl))
    return -jnp.mean(kl)

  def of_states(table: jax.Array, rows: jax.Array) -> jax.Array:
    states, mask = jnp.asarray(problem.states)[rows], jnp.asarray(problem.mask)[rows]
    kl = kl_exact(table[states], jnp.asarray(problem.reference)[states], mask=mask)
    return -jnp.mean(jnp.sum(kl, axis=1))

  cases = [
    ("k1 as a reward", "k1", tokens, True),
    ("k3 as a reward", "k3", tokens, True),
    ("k1 as a loss", "k1", tokens, False),
    ("k2 as a loss, of each token", "k2", tokens, False),
    ("k2 as a loss, of the response's sum", "k2", sums, False),
    ("k3 as a loss, of each token (GRPO)", "k3", tokens, False),
    ("k3+ as a loss, of each token", "k3+", tokens, False),
    ("k3 as a loss, of the response's sum", "k3", sums, False),
  ]
  found = [
    measure(problem, name, functools.partial(gain, kind=kind, estimate=how, as_reward=reward), wanted, problem.policy)
    for name, kind, how, reward in cases
  ]
  return [*found, measure(problem, "the exact KL of each state as a loss", of_states, wanted, problem.policy)]


def reward_gradient(problem: Problem, table: jax.Array) -> jax.Array:
  """The gradient of the mean reward."""
  return jax.grad(lambda x: jnp.sum(jnp.exp(jnp.sum(logprobs(problem, x), axis=1)) * problem.rewards))(table)


def advantage_rows(problem: Problem) -> list[Row]:
  """Baselines, weights and normalisations on-policy, beside the gradient of the mean reward."""
  critic = jnp.asarray(values(problem))
  mask, rewards = jnp.asarray(problem.mask), jnp.asarray(problem.rewards)
  last = jnp.asarray(mask & (np.cumsum(mask[:, ::-1], axis=1)[:, ::-1] == 1), jnp.float32)
  to_go = last * rewards[:, None]  # the reward stands on the last token

  def gain(table: jax.Array, rows: jax.Array, *, advantages: Callable, weights: Callable) -> jax.Array:
    objective = reinforce_objective(logprobs(problem, table)[rows], advantages(rows), mask=mask[rows])
    return weighted_sum(objective, weights(mask[rows]))

  def of_group(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    return lambda rows: per_token(function(rewards[rows]), mask[rows])

  def of_gae(lam: float, known: jax.Array) -> Callable[[jax.Array], jax.Array]:
    return lambda rows: gae(to_go[rows], known[rows], mask[rows], lam=lam)

  def whitened(rows: jax.Array) -> jax.Array:
    return whiten(of_gae(0.95, critic)(rows), mask[rows])

  energies = score_energy(problem.policy[problem.states], problem.tokens, mask=mask)
  greedy = greedy_response(problem)

  def by_length(rows: jax.Array) -> jax.Array:
    return per_token(optimal_baseline(rewards[rows], jnp.sum(mask[rows], axis=1)), mask[rows])

  def by_energy(rows: jax.Array) -> jax.Array:
    return optimal_token_baseline(per_token(rewards[rows], mask[rows]), energies[rows], mask[rows])

  def whitened_rewards(rows: jax.Array) -> jax.Array:
    return whiten(per_token(rewards[rows], mask[rows]), mask[rows])

  sums = lambda mask: mask / problem.group  # a mean over responses of their token sums  # noqa: E731
  constant = functools.partial(constant_weights, length=problems.DEPTH)
  cases = [
    ("REINFORCE, no baseline", of_group(lambda r: r), sums),
    ("REINFORCE, mean of the batch", of_group(group_centre), sums),
    ("REINFORCE, leave one out (RLOO)", of_group(leave_one_out), sums),
    ("REINFORCE, score of the greedy response (ReMax)", of_group(lambda r: r - rewards[greedy]), sums),
    ("REINFORCE, mean weighted by length (OPO)", by_length, sums),
    ("REINFORCE, mean weighted by energy at each token (OTB)", by_energy, sums),
    ("REINFORCE, perfect value function", of_gae(1.0, critic), sums),
    ("GAE of lambda 0.95, perfect value function", of_gae(0.95, critic), sums),
    ("GAE of lambda 0.95, a value function of 0", of_gae(0.95, jnp.zeros_like(critic)), sums),
    ("the same, lambda 0.95, perfect, whitened, mean over tokens (PPO)", whitened, token_weights),
    ("GRPO: standardised, 1 / length", of_group(group_normalize), sequence_weights),
    ("centred, 1 / length", of_group(group_centre), sequence_weights),
    ("standardised, mean over tokens (DAPO)", of_group(group_normalize), token_weights),
    ("centred, constant (Dr. GRPO)", of_group(group_centre), constant),
    ("whitened over the batch, mean over tokens (REINFORCE++)", whitened_rewards, token_weights),
  ]
  wanted = reward_gradient(problem, problem.policy)
  return [
    measure(problem, name, functools.partial(gain, advantages=advantages, weights=weights), wanted, problem.policy)
    for name, advantages, weights in cases
  ]


def ratio_rows(problem: Problem, step: float = 1.0) -> list[Row]:
  """Surrogates after the policy has moved by `step` of the gradient, beside the gradient of the mean reward there."""
  moved = problem.policy + step * reward_gradient(problem, problem.policy)
  mask, rewards = jnp.asarray(problem.mask), jnp.asarray(problem.rewards)
  old = logprobs(problem, problem.policy)

  def gain(table: jax.Array, rows: jax.Array, *, objective: Callable) -> jax.Array:
    return objective(logprobs(problem, table)[rows], old[rows], leave_one_out(rewards[rows]), mask[rows])

  def of_tokens(
    logp: jax.Array, old: jax.Array, advantages: jax.Array, mask: jax.Array, *,
    function: Callable = ppo_policy_objective, **settings: Any,
  ) -> jax.Array:  # fmt: skip
    found = function(logp, old, per_token(advantages, mask), mask=mask, **settings)
    return weighted_sum(found[0] if isinstance(found, tuple) else found, mask / problem.group)

  def of_product(logp: jax.Array, old: jax.Array, advantages: jax.Array, mask: jax.Array, *, clip: float) -> jax.Array:
    found, _ = ppo_policy_objective(jnp.sum(logp, axis=1), jnp.sum(old, axis=1), advantages, clip=clip)
    return jnp.mean(found)

  def of_mean(logp: jax.Array, old: jax.Array, advantages: jax.Array, mask: jax.Array, *, clip: float) -> jax.Array:
    found, _ = sequence_ratio_objective(logp, old, advantages, mask, clip=clip)
    return weighted_sum(found, sequence_weights(mask))

  def without(logp: jax.Array, old: jax.Array, advantages: jax.Array, mask: jax.Array) -> jax.Array:
    return weighted_sum(reinforce_objective(logp, per_token(advantages, mask)), mask / problem.group)

  cases = [
    ("no ratio", without),
    ("a ratio for each token", functools.partial(of_tokens, clip=1e9)),
    ("a ratio for each token, clip 0.2 (PPO)", functools.partial(of_tokens, clip=0.2)),
    ("the same, dual clip at 2", functools.partial(of_tokens, function=dual_clip_objective, clip=0.2, bound=2.0)),
    (
      "the ratio as a weight, clip (1, 0.2) (CISPO)",
      functools.partial(of_tokens, function=cispo_objective, clip=(1, 0.2)),
    ),
    ("a soft gate (SAPO)", functools.partial(of_tokens, function=sapo_objective)),
    ("a ratio for the response (RLOO)", functools.partial(of_product, clip=1e9)),
    ("a ratio for the response, clip 0.2", functools.partial(of_product, clip=0.2)),
    ("the geometric mean of the ratios (GSPO)", functools.partial(of_mean, clip=1e9)),
  ]
  wanted = reward_gradient(problem, moved)
  return [
    measure(problem, name, functools.partial(gain, objective=objective), wanted, moved) for name, objective in cases
  ]


def tables(problem: Problem) -> dict[str, list[Row]]:
  """The lines of the three tables, by what is wanted."""
  return {"kl": kl_rows(problem), "reward": advantage_rows(problem), "ratio": ratio_rows(problem)}


def as_markdown(rows: list[Row]) -> str:
  """A table in Markdown."""
  lines = ["| objective | cosine | length | deviation |", "|---|---|---|---|"]
  for row in rows:
    cosine = "" if np.isnan(row.cosine) else f"{row.cosine:.3f}"
    lines.append(f"| {row.name} | {cosine} | {row.length:.3f} | {row.deviation:.2f} |")
  return "\n".join(lines)


def main() -> None:
  """Entry point."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--out", type=Path, required=True, help="directory for results.json")
  settings = parser.parse_args()
  found = tables(problems.make_problem(seed=0, group=4))
  write_json(settings.out / "results.json", {name: [row._asdict() for row in rows] for name, rows in found.items()})
  for name, rows in found.items():
    print(f"{name}\n\n{as_markdown(rows)}\n")


if __name__ == "__main__":
  main()
