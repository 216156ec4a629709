"""The environment of RL from human feedback: an episode is a prompt, a response of the policy, and one score."""

from __future__ import annotations

import dataclasses
import importlib.util
import zlib
from collections.abc import Sequence
from typing import Annotated, Literal

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.data.files import Row
from rlhf_jax.models import LanguageModel
from rlhf_jax.ranges import EVALUATION, NEUTRAL, STEPS, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from rlhf_jax.settings import nearest
from rlhf_jax.stage import FrozenDtype, Stage, StageName, StageOfAnyShape
from rlhf_jax.train.course import Loop
from rlhf_jax.train.episodes import Episodes, refill
from rlhf_jax.train.functions import Function
from rlhf_jax.train.lora import Lora
from rlhf_jax.train.mesh import sent
from rlhf_jax.train.metrics import Metric
from rlhf_jax.train.optimizer import Optimizer
from rlhf_jax.train.processes import host
from rlhf_jax.train.prompts import load_prompts
from rlhf_jax.train.reward_functions import Responses
from rlhf_jax.train.rewards import Reward, make_judge, make_parts
from rlhf_jax.train.row_sources import PromptRows
from rlhf_jax.train.sampler import Sampling, make_sampler
from rlhf_jax.train.scores import logged_parts, score_episodes
from rlhf_jax.train.speed import Clock, count_tokens
from rlhf_jax.train.workspace import stage_key
from rlhf_jax.types import Mean, Params, Prompts

REFILLS = 2**30  # folded into the key of a step from here on, beside the numbers of rows that sampling folds into it


@dataclasses.dataclass(frozen=True)
class ImportanceWeights:
  """Settings of importance weights, from the sampler's distribution to the trainer's."""

  level: Literal["token", "sequence"]
  """Ratio of probabilities: that of each token, or their product over the response."""
  cap: PositiveFloat
  """Largest ratio; 2 in the paper (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
  training")."""
  above: Literal["cap", "0"] = "cap"
  """Weight of what has a larger ratio: the cap (truncated importance sampling), or 0 (masked: IcePop, MIS)."""
  low: NonNegativeFloat = 0.0
  """Ratio below which a weight is 0; only with above="0"."""

  def __post_init__(self):
    if self.low and self.above == "cap":
      raise ValueError(f"low={self.low} has no effect with above='cap': set above='0'")


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
  monitor_checkpoint: StageOfAnyShape = dataclasses.field(default="", kw_only=True)
  """Reward-model stage whose score is logged as reward/gold and not learnt from, in the place of `monitor`; "" for
  none."""
  max_refills: NonNegativeInt = 0
  """Number of times, at most, that a step draws further prompts in the place of those whose responses all have the same
  score (dynamic sampling, DAPO, section 3.2); 0 keeps every prompt."""
  refill_part: str = ""
  """Name of the part of the reward whose scores are compared: "model", "function" or one of `reward.parts`; "" for the
  whole score, which with a part such as overlong differs between responses that are equally wrong."""
  logp: Literal["trainer", "sampler"] = dataclasses.field(default="trainer", kw_only=True)
  """Source of the log-probs that ratios and the KL penalty start from: "trainer" computes them anew by the program that
  trains, so that before the first update each ratio is exactly 1; "sampler" keeps those recorded while sampling."""
  importance: ImportanceWeights | None = dataclasses.field(default=None, kw_only=True)
  """Settings of weights by the trainer's log-probs against the sampler's, which advantages are multiplied by; None for
  none."""
  frozen_dtype: FrozenDtype = dataclasses.field(default="", kw_only=True)
  """Number format in which the reference and the reward model keep their matrices: "int8" with a scale for each channel
  (the extra [int8]) rounds them, so that the KL to the reference starts above 0; "" for that of the computation."""

  def __post_init__(self):
    if self.frozen_dtype and importlib.util.find_spec("qwix") is None:
      raise ValueError(f"frozen_dtype={self.frozen_dtype!r}: install the package qwix: pip install 'rlhf_jax[int8]'")
    if self.monitor.function and self.monitor_checkpoint:
      raise ValueError("monitor.function and monitor_checkpoint are both given: the gold reward is one of them")
    if self.max_refills and self.samples_per_prompt == 1:
      raise ValueError("max_refills is for groups whose scores are alike, and samples_per_prompt=1 makes no groups")
    named = [*(["model"] if self.reward.checkpoint else []), *self.reward.functions()]
    if self.refill_part and self.refill_part not in named:
      raise ValueError(f"refill_part={self.refill_part!r} is no part of the reward.{nearest(self.refill_part, named)}")
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


class EpisodeSource:
  """Where episodes come from: `environment(params, index)` gives those of a step, `respond` those of any prompts."""

  def __init__(self, settings: Environment, stage: Stage, model: LanguageModel, tokenizer: data.Tokenizer):
    self.settings, self._stage = settings, stage
    self._prompts = load_prompts(settings.prompts, stage, tokenizer, settings.sampling.max_prompt_tokens)
    truncates = settings.sampling.truncates
    self._sample = make_sampler(model, tokenizer, settings.sampling, stage.transport, record_support=truncates)
    self._parts = make_parts(settings.reward, stage, model, tokenizer, dtype=settings.frozen_dtype)
    self._monitor = make_judge(
      settings.monitor, settings.monitor_checkpoint, stage, model, tokenizer, "environment.monitor_checkpoint"
    )

  def __call__(self, params: Params, index: int) -> Episodes:
    """The episodes of step `index`, a function of the stage's seed, `index` and the policy (see `refill`)."""
    settings, seed = self.settings, self._stage.stage_seed
    rounds = settings.max_refills
    with sent():
      key = jax.random.fold_in(stage_key(self._stage), index)
    first = self._draw(params, index, index, seed, key)

    def further(refill: int) -> Episodes:
      with sent():
        new_key = jax.random.fold_in(key, REFILLS + refill)
      return self._draw(params, index, index * rounds + refill, zlib.crc32(b"refills %d" % seed), new_key)

    if not rounds:
      return first
    return refill(first, further, rounds, copies=settings.samples_per_prompt, part=settings.refill_part)

  def _draw(self, params: Params, step: int, batch: int, seed: int, key: jax.Array) -> Episodes:
    """The episodes of a batch of the prompts as `seed` shuffles them."""
    rows = data.batch_indices(len(self._prompts.texts), self.settings.batch_size, batch, seed)
    asked = self._prompts.take(rows)
    return self.respond(
      params, *asked, key, self.settings.samples_per_prompt, rows=self._prompts.rows_of(rows), step=step
    )

  def respond(
    self,
    params: Params,
    texts: list[data.Prompt],
    batch: Prompts,
    key: jax.Array,
    copies: int = 1,
    *,
    rows: Sequence[Row] = (),
    step: int = 0,
  ) -> Episodes:
    """Episodes of the given prompts, `copies` responses to each.

    rows: the rows of the file that they were read from, () for prompts of no file; step: the index of the step. Both
    are for functions of the reward.
    """
    clock = Clock()
    rollout, responses = self._sample(params, batch, key, copies)
    clock.lap("sampling")
    prompts = [text for text in texts for _ in range(copies)]
    rows = [row for row in rows for _ in range(copies)]
    asked = Responses(rollout, prompts, responses, rows, step)
    scored = {name: part.scorer(asked) for name, part in self._parts.items()}
    weights = {name: part.weight for name, part in self._parts.items()}
    missing = self.settings.missing_eos_score
    with sent():
      scores, token_scores, rewards = score_episodes(
        scored, weights, rollout.finished, missing_eos_score=missing, copies=copies
      )
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
      "tokens/scored": (1 + ("model" in scored)) * count_tokens(mask),
    }
    parts = {**{name: part.total for name, part in scored.items()}, **logged_parts(scored)}
    if self._monitor:
      parts["gold"] = self._monitor(asked).total
      metrics["reward/gold"] = Mean(parts["gold"], ones)
    clock.lap("reward")
    seconds = {name: value for name, value in clock.take().items() if name != "seconds"}
    return Episodes(rollout, scores, {**metrics, **seconds}, prompts, responses, parts, token_scores, rows)


def make_environment(
  settings: Environment, stage: Stage, model: LanguageModel, tokenizer: data.Tokenizer
) -> EpisodeSource:
  """`episodes(params, index)`: the episodes of step `index`, a function of the stage's seed, `index` and the policy.

  Raises (when called):
    RewardError: the reward function returns the wrong number of scores, or one that is not finite.
  """
  return EpisodeSource(settings, stage, model, tokenizer)
