"""The environment of RL from human feedback: an episode is a prompt, a response of the policy, and one score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax import data
from rlhf_jax.models import LanguageModel
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train.functions import Function, make_score_function
from rlhf_jax.train.lora import Lora
from rlhf_jax.train.optimizer import Optimizer
from rlhf_jax.train.prompts import load_prompts
from rlhf_jax.train.rewards import Reward, make_scorer
from rlhf_jax.train.sampler import Sampling, make_sampler
from rlhf_jax.train.workspace import stage_key
from rlhf_jax.types import Mean, Params, Rollout


@dataclasses.dataclass(frozen=True)
class Environment:
  """Settings of episodes: their prompts, their sampling and their scores."""

  prompts: str
  """File of prompts."""
  batch_size: int
  """Number of prompts in a step."""
  samples_per_prompt: int
  """Number of responses to each prompt of a step."""
  sampling: Sampling
  """Settings of sampling the responses."""
  reward: Reward
  """Source of the scores."""
  missing_eos_score: float | None
  """Score of a response without EOS (the EOS trick, section 3 of the N implementation details); None keeps the score of
  the reward."""
  monitor: Function
  """Function of the texts that is logged as reward/gold and not learnt from; the name "" for none."""

  def __post_init__(self):
    if self.batch_size < 1 or self.samples_per_prompt < 1:
      raise ValueError(
        f"batch_size={self.batch_size} and samples_per_prompt={self.samples_per_prompt} must be at least 1"
      )
    if self.sampling.temperature == 0:
      raise ValueError("sampling.temperature=0 always takes the likeliest token, and RL must explore: set it above 0")


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
  """Settings of every stage of RL; the `Config` of an algorithm adds its own."""

  algorithm: str
  """Module that carries out the stage."""
  init: StageName
  """Stage whose policy is the start and the reference."""
  num_steps: int
  """Number of rollouts, each with its updates."""
  environment: Environment
  """Settings of the episodes."""
  optimizer: Optimizer
  """Settings of the optimiser."""
  checkpoint_every: int
  """Number of steps between checkpoints; there is always one at the end."""
  lora: Lora | None = dataclasses.field(default=None, kw_only=True)
  """Settings of the adapters that are trained; None trains all parameters."""


class Episodes(NamedTuple):
  """B = batch_size * samples_per_prompt episodes; those of one prompt lie side by side. scores: f32[B]."""

  rollout: Rollout
  scores: jax.Array
  metrics: dict[str, Mean]


def make_environment(
  settings: Environment, stage: Stage, model: LanguageModel, tokenizer: data.Tokenizer
) -> Callable[[Params, int], Episodes]:
  """`episodes(params, index)`: the episodes of step `index`, a function of the stage's seed, `index` and the policy.

  Raises (when called):
    RewardError: the reward function returns the wrong number of scores, or one that is not finite.
  """
  prompts = load_prompts(stage.path(settings.prompts), tokenizer, settings.sampling.max_prompt_tokens)
  sample = make_sampler(model, tokenizer, settings.sampling, stage.transport)
  score = make_scorer(settings.reward, stage, model, tokenizer)
  monitor = make_score_function(settings.monitor, stage) if settings.monitor.function else None

  def episodes(params, index):
    rows = data.batch_indices(len(prompts.texts), settings.batch_size, index, stage.stage_seed)
    texts, batch = prompts.take(rows)
    texts = [text for text in texts for _ in range(settings.samples_per_prompt)]
    rollout, responses = sample(params, batch, jax.random.fold_in(stage_key(stage), index), settings.samples_per_prompt)
    scores = jnp.asarray(score(rollout, texts, responses))
    if settings.missing_eos_score is not None:
      scores = jnp.where(rollout.finished, scores, settings.missing_eos_score)
    ones = jnp.ones_like(scores)
    metrics = {
      "reward/proxy": Mean(scores, ones),
      "response/length": Mean(jnp.sum(rollout.mask, axis=1).astype(jnp.float32), ones),
      "response/finished": Mean(rollout.finished.astype(jnp.float32), ones),
    }
    if monitor:
      metrics["reward/gold"] = Mean(jnp.asarray(monitor(texts, responses)), ones)
    return Episodes(rollout, scores, metrics)

  return episodes
