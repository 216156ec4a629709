"""What packed rows save: updates and scoring of PPO and GRPO, and steps of a reward model, packed and not.

  python benchmarks/packing.py --out benchmarks/results/packing.json

Rows of up to 30 tokens of prompt and 28 of response, with lengths as in the quickstart, where 44 % of the places hold
tokens. "quickstart" is its model of 0.8M parameters, "llama" one of 8.4M. PPO has 64 prompts with a response each and
takes 2 epochs of 2 minibatches; GRPO has 8 prompts with 8 responses each, which share their prompt's forward, and takes
one update. A step of the reward model reads 8 groups of 4 responses; "apart" is packed without sharing the prompts.
With each stand the tokens of sequences for each place of the rows that are read, the loss, and the largest difference
between the log-probs of the first update and those that its ratios start from.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measure import alternate, arguments, random_tokens, report

from rlhf_jax.algorithms import grpo, ppo, reward_model
from rlhf_jax.models import DecoderConfig, LanguageModel, only_scored
from rlhf_jax.positions import positions_of
from rlhf_jax.reduce import token_weights
from rlhf_jax.stage import Transport
from rlhf_jax.train import ArrayFunction, Optimizer, Sampling, frozen, init_state, place, run_epochs
from rlhf_jax.train.comparisons import sum_to_one
from rlhf_jax.train.metrics import to_floats
from rlhf_jax.train.packed_rows import pack_groups
from rlhf_jax.train.workspace import select_model
from rlhf_jax.types import Preferences, Rollout

PROMPT, RESPONSE = 30, 28
MODELS = {
  "quickstart": DecoderConfig(1024, 3, 128, 4, 4, 384, PROMPT + RESPONSE),
  "llama": DecoderConfig(8192, 4, 256, 4, 4, 1024, PROMPT + RESPONSE, tied=False),
}
ADAM = Optimizer(1e-5, 0.0, "constant", 0.9, 0.999, 1e-5, False, 0.0, 1.0)
SAMPLING = Sampling(max_prompt_tokens=PROMPT, max_new_tokens=RESPONSE, temperature=0.7)
FORMS = {"rows": 1.0, "packed": 0.25}  # by transport.packing


def sequences(rows: int, samples: int, vocabulary: int, width: int = PROMPT + RESPONSE) -> tuple[np.ndarray, ...]:
  """(tokens i32[rows, width], mask bool[rows, width]) of `samples` responses to each prompt, side by side."""
  rng = np.random.default_rng(0)
  prompts = np.repeat(rng.integers(10, 25, rows // samples), samples)
  ends = prompts + np.clip(rng.gamma(4.0, 2.25, rows).astype(int), 3, min(RESPONSE, width - 25))
  tokens, index = random_tokens((rows, width), vocabulary), np.arange(width)
  first = np.repeat(tokens[::samples], samples, axis=0)
  tokens = np.where(index < prompts[:, None], first, np.where(index < ends[:, None], tokens, 0)).astype(np.int32)
  return tokens, (index >= prompts[:, None]) & (index < ends[:, None])


def rollout_of(rows: int, samples: int, vocabulary: int) -> Rollout:
  tokens, mask = sequences(rows, samples, vocabulary)
  at = np.argmax(mask, axis=1)[:, None] + np.arange(RESPONSE, dtype=np.int32)
  return jax.tree.map(jnp.asarray, Rollout(tokens, mask, np.zeros(mask.shape, np.float32), np.ones(rows, bool), at=at))


def of_policy(name: str, algorithm: str, rounds: int) -> dict[str, Any]:
  """Seconds of scoring and updates of one rollout, in rows and packed."""
  epochs, minibatches, samples = (2, 2, 1) if algorithm == "ppo" else (1, 1, 8)
  environment = SimpleNamespace(sampling=SAMPLING, logp="trainer", importance=None, samples_per_prompt=samples)
  settings = SimpleNamespace(
    environment=environment, clip=0.2 if algorithm == "ppo" else (0.2, 0.2), value_clip=0.2, value_coef=0.1,
    entropy_coef=0.0, discount=1.0, lam=0.95, lam_alpha=0.0, whiten_rewards=False, whiten_advantages=True,
    shared_trunk=False, objective=None, ptx=None, optimizer=ADAM, ratio="token", kl_coef=0.05, kl_kind="k3",
    advantages=ArrayFunction(), normalize_std=True,
  )  # fmt: skip
  shape, scores = MODELS[name], jnp.arange(64) % 5 / 4.0
  rollout = rollout_of(64, samples, shape.vocab_size)
  calls, found = {}, {}
  for form, share in FORMS.items():
    transport = Transport("jit", fsdp=1, microbatches=1, packing=share)
    model = select_model(shape, transport)
    policy = jax.jit(model.init)(jax.random.key(0))
    reference = frozen(model, policy)
    optimizer, update, experience_of = (ppo if algorithm == "ppo" else grpo).build(settings, model, transport, 1000)
    params = {"policy": policy, "value": model.init_head(jax.random.key(1), policy)} if algorithm == "ppo" else policy
    given = (jnp.float32(0.05),) if algorithm == "ppo" else ()

    def experience_from(state: Any, rollout: Rollout, order: np.ndarray, made: Any = (experience_of, reference, given)):
      experience_of, reference, given = made
      return experience_of(state.params, reference, rollout, scores, *given, order)

    def run(form: str = form, start: Any = (params, optimizer), made: Any = (update, experience_from, transport)):
      state = place(init_state(*start), made[2])
      state, _, found[form] = run_epochs(
        made[0], state, rollout, made[1], token_weights, epochs=epochs, minibatches=minibatches, seed=(0, 0),
        transport=made[2],
      )  # fmt: skip
      return state

    calls[form] = run
  return compared(calls, found, rounds)


def of_rewards(name: str, rounds: int) -> dict[str, Any]:
  """Seconds of a step of the reward model, in rows, packed with every prompt apart, and packed behind one prompt."""
  shape, groups, responses = MODELS[name], 8, 4
  tokens, mask = (x.reshape(groups, responses, -1) for x in sequences(32, responses, shape.vocab_size, 44))
  ranks = np.broadcast_to(np.arange(responses, dtype=np.int32), (groups, responses))
  rows = {"tokens": tokens, "mask": mask, "at": positions_of(mask), "ranks": ranks}
  weights = sum_to_one({"ranks": np.ones(groups, np.float32)})
  calls, found = {}, {}
  apart = {**rows, "tokens": random_tokens(tokens.shape, shape.vocab_size)}  # no two prompts are alike
  for form, share, given in (("rows", 1.0, rows), ("apart", 0.25, apart), ("packed", 0.25, rows)):
    transport = Transport("jit", fsdp=1, microbatches=1, packing=share)
    model = select_model(shape, transport)
    stage: Any = SimpleNamespace(transport=transport, stage_seed=0)
    packed = pack_groups(given, groups, 1, stage, predictions=True)
    optimizer, update, _ = reward_model.build(settings_of_rewards(), model, transport, 1000)
    params = initial(model)

    def run(form: str = form, made: Any = (packed, optimizer, update, params, transport), given: Any = given):
      packed, optimizer, update, params, transport = made
      batch, counts = packed(Preferences(**given), np.arange(groups))
      state, metrics = update(place(init_state(params, optimizer), transport), batch, weights)
      found[form] = {**metrics, **counts}
      return state

    calls[form] = run
  return compared(calls, found, rounds)


def settings_of_rewards() -> Any:
  return SimpleNamespace(ranking="pairs", rating_scale=1.0, centring=0.0, optimizer=ADAM)


def initial(model: LanguageModel) -> Any:
  return only_scored(model.init_head(jax.random.key(1), jax.jit(model.init)(jax.random.key(0)), 1.0))


def compared(calls: dict[str, Any], found: dict[str, Any], rounds: int) -> dict[str, Any]:
  """The times of the calls, and what they found."""
  times = alternate(calls, rounds)
  for form, metrics in found.items():
    floats = to_floats(metrics)
    told = ("tokens/fill", "loss", "grad_norm", "policy/first_gap_max")
    times[form] |= {name: round(floats[name], 7) for name in told if name in floats}
  return {**times, "rows_over_packed": round(times["rows"]["median_s"] / times["packed"]["median_s"], 2)}


PARTS = {
  **{
    f"{algorithm}, {name}": functools.partial(of_policy, name, algorithm)
    for algorithm in ("ppo", "grpo")
    for name in MODELS
  },
  **{f"reward model, {name}": functools.partial(of_rewards, name) for name in MODELS},
}

if __name__ == "__main__":
  report(arguments(__doc__, PARTS), PARTS)
