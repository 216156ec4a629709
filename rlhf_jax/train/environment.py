"""The environment of RL from human feedback: an episode is a prompt, a response of the policy, and one score."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.models import LanguageModel
from rlhf_jax.ranges import EVALUATION, NEUTRAL, STEPS, NonNegativeInt, PositiveFloat, PositiveInt
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train.course import Loop
from rlhf_jax.train.functions import Function, make_score_function
from rlhf_jax.train.lora import Lora
from rlhf_jax.train.mesh import sent
from rlhf_jax.train.metrics import Metric
from rlhf_jax.train.optimizer import Optimizer
from rlhf_jax.train.processes import host
from rlhf_jax.train.prompts import load_prompts
from rlhf_jax.train.rewards import Reward, make_parts
from rlhf_jax.train.row_sources import PromptRows
from rlhf_jax.train.sampler import Sampling, make_sampler
from rlhf_jax.train.scores import score_episodes
from rlhf_jax.train.speed import Clock, count_tokens
from rlhf_jax.train.workspace import stage_key
from rlhf_jax.types import Array, Mean, Params, Prompts, Rollout


@dataclasses.dataclass(frozen=True)
class ImportanceWeights:
  """Settings of truncated importance sampling, from the sampler's distribution to the trainer's."""

  level: Literal["token", "sequence"]
  """Ratio of probabilities: that of each token, or their product over the response."""
  cap: PositiveFloat
  """Largest weight; 2 in the paper (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
  training")."""


@dataclasses.dataclass(frozen=True)
class Environment:
  """Settings of episodes: their prompts, their sampling and their scores."""

  prompts: PromptRows
  """File of prompts."""
  batch_size: PositiveInt
  """Number of prompts in a step."""
  samples_per_prompt: PositiveInt
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
  logp: Literal["trainer", "sampler"] = dataclasses.field(default="trainer", kw_only=True)
  """Source of the log-probs that ratios and the KL penalty start from: "trainer" computes them anew by the program that
  trains, so that before the first update each ratio is exactly 1; "sampler" keeps those recorded while sampling."""
  importance: ImportanceWeights | None = dataclasses.field(default=None, kw_only=True)
  """Settings of importance weights, capped, of the trainer's log-probs against the sampler's, by which advantages are
  multiplied; None for no weights."""

  def __post_init__(self):
    if self.importance and self.logp == "sampler":
      raise ValueError(
        "importance weighs the trainer's log-probs against the sampler's, and logp='sampler' does not compute the "
        "trainer's: set logp='trainer', or importance to None"
      )
    if self.sampling.temperature == 0:
      raise ValueError("sampling.temperature=0 always takes the likeliest token, and RL must explore: set it above 0")


@dataclasses.dataclass(frozen=True)
class Watching:
  """Settings of what is kept of a stage of RL while it learns (see `rlhf_jax.train.watch`)."""

  eval_prompts: Annotated[PromptRows, EVALUATION] = ""
  """File of held-out prompts that are answered at each evaluation; "" for no evaluation."""
  num_prompts: Annotated[PositiveInt, EVALUATION] = 64
  """Number of prompts taken from the start of `eval_prompts`; a multiple of the episodes of a step wastes nothing."""
  evaluate_every: Annotated[NonNegativeInt, EVALUATION] = 0
  """Number of steps between evaluations; 0 evaluates at the end only."""
  samples_every: Annotated[NonNegativeInt, NEUTRAL] = 0
  """Number of steps between recordings of samples of the step's episodes; 0 records none of them."""
  num_samples: Annotated[PositiveInt, NEUTRAL] = 8
  """Number of samples in each recording, and of answers recorded at each evaluation."""


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
  """Settings of every stage of RL; the `Config` of an algorithm adds its own."""

  algorithm: str
  """Module that carries out the stage."""
  init: StageName
  """Stage whose policy is the start and the reference."""
  num_steps: Annotated[PositiveInt, STEPS]
  """Number of rollouts, each with its updates."""
  environment: Environment
  """Settings of the episodes."""
  optimizer: Optimizer
  """Settings of the optimiser."""
  checkpoint_every: Annotated[PositiveInt, NEUTRAL]
  """Number of steps between checkpoints; there is always one at the end."""
  loop: Loop = dataclasses.field(default=Loop(), kw_only=True)
  """Settings of checkpoints, of an early end and of numbers that are not finite."""
  lora: Lora | None = dataclasses.field(default=None, kw_only=True)
  """Settings of the adapters that are trained; None trains all parameters."""
  watch: Watching = dataclasses.field(default_factory=Watching, kw_only=True)
  """Settings of held-out evaluation and of samples, both off by default."""


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
  """Scores f32[B] of the parts of the reward, "model" and "function", and of the monitor, "gold"."""

  def __iter__(self) -> Iterator[Any]:
    return iter((self.rollout, self.scores, self.metrics))


class EpisodeSource:
  """Where episodes come from: `environment(params, index)` gives those of a step, `respond` those of any prompts."""

  def __init__(self, settings: Environment, stage: Stage, model: LanguageModel, tokenizer: data.Tokenizer):
    self.settings, self._stage = settings, stage
    self._prompts = load_prompts(settings.prompts, stage, tokenizer, settings.sampling.max_prompt_tokens)
    truncates = settings.sampling.truncates
    self._sample = make_sampler(model, tokenizer, settings.sampling, stage.transport, record_support=truncates)
    self._parts = make_parts(settings.reward, stage, model, tokenizer)
    self._monitor = make_score_function(settings.monitor, stage) if settings.monitor.function else None

  def __call__(self, params: Params, index: int) -> Episodes:
    """The episodes of step `index`, a function of the stage's seed, `index` and the policy."""
    rows = data.batch_indices(len(self._prompts.texts), self.settings.batch_size, index, self._stage.stage_seed)
    with sent():
      key = jax.random.fold_in(stage_key(self._stage), index)
    return self.respond(params, *self._prompts.take(rows), key, self.settings.samples_per_prompt)

  def respond(
    self, params: Params, texts: list[data.Prompt], batch: Prompts, key: jax.Array, copies: int = 1
  ) -> Episodes:
    """Episodes of the given prompts, `copies` responses to each."""
    clock = Clock()
    rollout, responses = self._sample(params, batch, key, copies)
    clock.lap("sampling")
    prompts = [text for text in texts for _ in range(copies)]
    parts = {name: part.scorer(rollout, prompts, responses) for name, part in self._parts.items()}
    weights = {name: part.weight for name, part in self._parts.items()}
    missing = self.settings.missing_eos_score
    with sent():
      scores, rewards = score_episodes(parts, weights, rollout.finished, missing_eos_score=missing, copies=copies)
    finished, mask = host(rollout.finished), host(rollout.mask)
    lengths, ones = mask.sum(axis=1).astype(np.float32), np.ones(len(mask), np.float32)
    metrics: dict[str, Metric] = {
      **rewards,
      "response/length": Mean(lengths, ones),
      **{f"response/length_p{share}": float(np.percentile(mask.sum(axis=1), share)) for share in (10, 50, 90)},
      "response/length_max": float(lengths.max()),
      "response/finished": Mean(finished.astype(np.float32), ones),
      "tokens/sampled": float(lengths.sum()),
      # The reference and the reward model read each sequence once.
      "tokens/scored": (1 + ("model" in parts)) * count_tokens(mask),
    }
    if self._monitor:
      parts["gold"] = self._monitor(prompts, responses)
      metrics["reward/gold"] = Mean(parts["gold"], ones)
    clock.lap("reward")
    seconds = {name: value for name, value in clock.take().items() if name != "seconds"}
    return Episodes(rollout, scores, {**metrics, **seconds}, prompts, responses, parts)


def make_environment(
  settings: Environment, stage: Stage, model: LanguageModel, tokenizer: data.Tokenizer
) -> EpisodeSource:
  """`episodes(params, index)`: the episodes of step `index`, a function of the stage's seed, `index` and the policy.

  Raises (when called):
    RewardError: the reward function returns the wrong number of scores, or one that is not finite.
  """
  return EpisodeSource(settings, stage, model, tokenizer)
