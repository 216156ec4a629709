"""What is compared: the contenders of each part, the goals, and the checks that all of them do the same work."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any

OURS = "rlhf_jax"
SHARED = "rlhf_jax, shared trunk"
TRL, TRL_PPO, TUNIX, TRANSFORMERS = "TRL 1.16", "TRL 1.12", "Tunix 0.1.7", "transformers"
TORCH, JIT = "careful torch", "bare jit"
LOSS_TOLERANCE = 2e-3  # relative; float32 sums in another order
SCORE_TOLERANCE = 0.1  # relative; mean scores of responses that are drawn
TOKEN_TOLERANCE = 0.05  # relative; where responses are sampled, a few end early

Facts = Mapping[str, list[Any]]


@dataclasses.dataclass(frozen=True)
class Contender:
  """A program: "python -m contenders.MODULE WORK ARGUMENTS"."""

  module: str
  arguments: tuple[str, ...]
  needs: tuple[str, ...] = ()
  """Names of the modules that it imports beside those of this project."""
  trl_ppo: bool = False
  """Whether the folder of TRL 1.12 comes first on the path."""


@dataclasses.dataclass(frozen=True)
class Goal:
  """The seconds of `peer` over those of `ours`, which are to be at least `factor`."""

  peer: str
  factor: float
  ours: str = OURS


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Contenders that take steps in turn."""

  title: str
  contenders: Mapping[str, Contender]
  steps: int
  """Number of steps that a contender takes before it is the next one's turn."""
  goals: tuple[Goal, ...]
  """Goals, and pairs without one, whose factor is 0."""
  sampled: bool = False
  """Whether responses are drawn, so that the numbers of tokens are only about equal."""


def _ours(mode: str) -> Contender:
  return Contender("ours", (mode,))


def _trl(mode: str) -> Contender:
  return Contender("trl_trainers", (mode,), ("torch", "trl"), trl_ppo=mode == "ppo")


def _tunix(mode: str) -> Contender:
  return Contender("tunix_trainers", (mode,), ("tunix", "transformers"))


def _torch(mode: str) -> Contender:
  return Contender("careful_torch", (mode,), ("torch", "transformers"))


def _jit(mode: str) -> Contender:
  return Contender("bare_jit", (mode,))


def _sampling(title: str, mode: str, factor: float, tunix_factor: float) -> Comparison:
  needs = {OURS: (), TRANSFORMERS: ("torch", "transformers"), TUNIX: ("tunix", "transformers")}
  libraries = {OURS: "rlhf_jax", TRANSFORMERS: "transformers", TUNIX: "tunix"}
  contenders = {name: Contender("samplers", (libraries[name], mode), needs[name]) for name in libraries}
  return Comparison(title, contenders, 1, (Goal(TRANSFORMERS, factor), Goal(TUNIX, tunix_factor)))


COMPARISONS: dict[str, Comparison] = {
  "sft": Comparison(
    "SFT",
    {OURS: _ours("sft"), TRL: _trl("sft"), TUNIX: _tunix("sft"), TORCH: _torch("sft"), JIT: _jit("sft")},
    3,
    (Goal(TRL, 2.2), Goal(TUNIX, 1.5), Goal(TORCH, 1.0), Goal(JIT, 0.95)),
  ),
  "reward_model": Comparison(
    "Reward model",
    {OURS: _ours("reward_model"), TRL: _trl("reward_model"), TORCH: _torch("reward_model"), JIT: _jit("reward_model")},
    3,
    (Goal(TRL, 1.5), Goal(TORCH, 1.3), Goal(JIT, 0.95)),
  ),
  "dpo": Comparison(
    "DPO",
    {
      OURS: _ours("dpo"),
      TRL: _trl("dpo"),
      f"{TRL}, reference once": _trl("dpo_precomputed"),
      TUNIX: _tunix("dpo"),
      TORCH: _torch("dpo"),
      JIT: _jit("dpo"),
    },
    2,
    (Goal(TRL, 2.5), Goal(f"{TRL}, reference once", 0.0), Goal(TUNIX, 0.0), Goal(TORCH, 0.0), Goal(JIT, 0.95)),
  ),
  "grpo": Comparison(
    "GRPO, 4 prompts of 4",
    {OURS: _ours("grpo"), TRL: _trl("grpo"), TUNIX: _tunix("grpo")},
    2,
    (Goal(TRL, 1.9), Goal(TUNIX, 1.8)),
    sampled=True,
  ),
  "rloo": Comparison(
    "RLOO, 4 prompts of 4", {OURS: _ours("rloo"), TRL: _trl("rloo")}, 2, (Goal(TRL, 2.1),), sampled=True
  ),
  "ppo": Comparison(
    "PPO",
    {OURS: _ours("ppo"), SHARED: _ours("ppo_shared"), TRL_PPO: _trl("ppo"), TUNIX: _tunix("ppo")},
    1,
    (Goal(TRL_PPO, 1.65), Goal(TUNIX, 1.7), Goal(TRL_PPO, 2.6, SHARED)),
    sampled=True,
  ),
  "sampling": _sampling("Sampling, whole softmax", "sampled", 3.0, 2.5),
  "greedy": _sampling("Sampling, greedy", "greedy", 2.2, 2.5),
  "truncated": _sampling("Sampling, top-k and top-p", "truncated", 0.0, 0.0),
}
# Parts that time a process from its start to the end of its first update.
START = "start_"
STARTS = {
  f"{START}{name}": {OURS: COMPARISONS[name].contenders[OURS], peer: COMPARISONS[name].contenders[peer]}
  for name, peer in (
    ("sft", TRL), ("reward_model", TRL), ("dpo", TRL), ("grpo", TRL), ("rloo", TRL), ("ppo", TRL_PPO),
  )
}  # fmt: skip
START_GOALS = {"empty": 0.5, "warm": 1.0}  # seconds of TRL over those of this project, by the state of its cache


def missing(contender: Contender) -> list[str]:
  """The modules that a contender needs and that are not installed."""
  return [name for name in contender.needs if importlib.util.find_spec(name) is None]


def differences(comparison: Comparison, ours: Facts, theirs: Facts) -> list[str]:
  """Signs that a contender's first steps are other work than ours: tokens, losses, scores, tokens chosen greedily.

  A fact that a contender does not tell is not compared, but for its tokens.
  """
  found = []
  tolerance = TOKEN_TOLERANCE if comparison.sampled else 0.0
  if not theirs.get("tokens"):
    found.append("it does not tell its tokens")
  for name, allowed in (("tokens", tolerance), ("loss", LOSS_TOLERANCE), ("score", SCORE_TOLERANCE)):
    for step, (expected, value) in enumerate(zip(ours.get(name, ()), theirs.get(name, ()), strict=False), 1):
      if abs(value - expected) > allowed * abs(expected):
        found.append(f"{name} of step {step} is {value:g} in the place of {expected:g}")
  for expected, value in zip(ours.get("sampled", ()), theirs.get("sampled", ()), strict=False):
    if value != expected:
      same = sum(x == y for x, y in zip(value, expected, strict=True)) / len(expected)
      found.append(f"{same:.1%} of the greedy tokens are ours")
  return found
