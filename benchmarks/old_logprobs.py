"""What exact ratios cost: PPO iterations with old log-probs of the trainer and of the sampler.

  python benchmarks/old_logprobs.py --out benchmarks/results/old_logprobs.json

A Llama of 8.4M parameters, policy, value function and reference three models; 32 prompts of 32 tokens with responses of
32; one rollout, then 4 epochs of 4 minibatches, as in PPO, or one update, as on-policy. An iteration is sampling,
scoring and updates, without the texts. With it stand, of the first update: the largest difference between the log-probs
of the update and those that its ratios start from, the share of tokens at which they are equal to the last bit, and the
mean difference between trainer and sampler.
"""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measure import alternate, arguments, random_tokens, report

from rlhf_jax.algorithms import ppo
from rlhf_jax.models import DecoderConfig
from rlhf_jax.reduce import token_weights
from rlhf_jax.stage import Transport
from rlhf_jax.train import Optimizer, Sampling, frozen, init_state, make_mesh, place, run_epochs
from rlhf_jax.train.metrics import to_floats
from rlhf_jax.train.sampler import compiled_sampler, lay_out
from rlhf_jax.train.workspace import select_model
from rlhf_jax.types import Prompts

ROWS, LENGTH = 32, 32
SHAPE = DecoderConfig(8192, 4, 256, 4, 4, 1024, 2 * LENGTH, tied=False)
TRANSPORT = Transport("jit", fsdp=1, microbatches=1)
ADAM = Optimizer(1e-5, 0.0, "constant", 0.9, 0.999, 1e-5, False, 0.0, 1.0)
SAMPLING = Sampling(max_prompt_tokens=LENGTH, max_new_tokens=LENGTH, temperature=1.0)
PASSES = {"4 epochs of 4 minibatches": (4, 4), "one update": (1, 1)}


def iteration(dtype: str, logp: str, epochs: int, minibatches: int) -> Any:
  """(a function that takes one iteration of PPO, the list that its metrics are appended to)."""
  model = select_model(dataclasses.replace(SHAPE, dtype=dtype), TRANSPORT)
  policy = jax.jit(model.init)(jax.random.key(0))
  value = model.init_head(jax.random.key(1), policy)
  reference = frozen(model, policy)
  settings = SimpleNamespace(
    environment=SimpleNamespace(sampling=SAMPLING, logp=logp, importance=None), clip=0.2, value_clip=0.2,
    value_coef=0.1, entropy_coef=0.0, discount=1.0, lam=0.95, lam_alpha=0.0, whiten_rewards=False,
    whiten_advantages=True, shared_trunk=False, objective=None, ptx=None, optimizer=ADAM,
  )  # fmt: skip
  optimizer, update, experience_of = ppo.build(settings, model, TRANSPORT, 1000)
  sample = compiled_sampler(model, SAMPLING, make_mesh(TRANSPORT), (SHAPE.vocab_size,), 0)
  prompts = Prompts(jnp.asarray(random_tokens((ROWS, LENGTH), SHAPE.vocab_size)), jnp.full((ROWS,), LENGTH))
  limits, scores = jnp.full((ROWS,), LENGTH), jnp.arange(ROWS) % 5 / 4.0
  held = [place(init_state({"policy": policy, "value": value}, optimizer), TRANSPORT)]
  found: list[dict[str, Any]] = []

  def experience_from(state, rollout, order):
    return experience_of(state.params, reference, rollout, scores, jnp.float32(0.05), order)

  def run() -> Any:
    state = held.pop()
    served = lay_out(model, state.params["policy"], make_mesh(TRANSPORT))
    rollout = sample(served, prompts, limits, jax.random.key(len(found)), None)
    state, _, metrics = run_epochs(
      update,
      state,
      rollout,
      experience_from,
      token_weights,
      epochs=epochs,
      minibatches=minibatches,
      seed=(0, len(found)),
    )
    found.append(metrics)
    held.append(state)
    return state

  return run, found


def measured(dtype: str, epochs: int, minibatches: int, rounds: int) -> dict[str, Any]:
  """Seconds of iterations with log-probs of trainer and sampler in turn, and how far these are apart."""
  made = {logp: iteration(dtype, logp, epochs, minibatches) for logp in ("trainer", "sampler")}
  times = alternate({logp: run for logp, (run, _) in made.items()}, rounds)
  for logp, (_, found) in made.items():
    metrics = [to_floats(metrics) for metrics in found]
    times[logp] |= {
      "first_gap_max": max(row["policy/first_gap_max"] for row in metrics),
      "exact_iterations": float(np.mean([row["policy/first_gap_max"] == 0 for row in metrics])),
      "sampler_gap": round(float(np.mean([row["sampling/logp_gap"] for row in metrics])), 7),
      "sampler_equal": round(float(np.mean([row["sampling/logp_equal"] for row in metrics])), 4),
    }
  return {**times, "trainer_over_sampler": round(times["trainer"]["median_s"] / times["sampler"]["median_s"], 3)}


PARTS = {
  f"{passes}, {dtype}": functools.partial(measured, dtype, *numbers)
  for passes, numbers in PASSES.items()
  for dtype in ("float32", "bfloat16")
}

if __name__ == "__main__":
  report(arguments(__doc__, PARTS), PARTS)
