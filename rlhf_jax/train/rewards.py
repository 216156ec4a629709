"""Where a reward comes from: a reward-model checkpoint, any Python function of the texts, or a weighted sum of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlhf_jax import data
from rlhf_jax.models import LanguageModel
from rlhf_jax.population import jit
from rlhf_jax.settings import ConfigError, FunctionName, import_function
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train.workspace import load_stage
from rlhf_jax.types import Params, Rollout

Scorer = Callable[[Rollout, Sequence[str], Sequence[str]], np.ndarray]


class RewardError(ValueError):
  """A reward function returned something that cannot be a reward."""


@dataclasses.dataclass(frozen=True)
class Function:
  """A Python function `(prompts, responses, **arguments) -> scores`, which need not be differentiable.

  function: "package.module:name" or "path/to/file.py:name"; "" for none. It gets two lists of N strings and returns N
  finite numbers. `{run}` in a text argument stands for the run directory.
  """

  function: FunctionName
  arguments: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Reward:
  """score = checkpoint_weight * reward model + function_weight * function.

  checkpoint: the reward-model stage; "" for none.
  """

  checkpoint: StageName
  checkpoint_weight: float
  function: FunctionName
  function_weight: float
  arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if not self.checkpoint and not self.function:
      raise ValueError("reward needs a checkpoint, a function, or both")


def make_scorer(
  settings: Reward,
  stage: Stage,
  model: LanguageModel,
  tokenizer: data.Tokenizer,
  where: str = "environment.reward",
) -> Scorer:
  """`score(rollout, prompts, responses) -> f32[N]`. where: the settings' place in the stage's config, for messages.

  Raises (when called):
    RewardError: where the function returns the wrong length, or a number that is not finite.
  """
  parts = []
  if settings.checkpoint:
    params = load_stage(stage, settings.checkpoint, model, tokenizer)
    if "head" not in params:
      raise ConfigError(f"config.{stage.name}.{where}.checkpoint: stage {settings.checkpoint!r} is no reward model")
    parts.append((settings.checkpoint_weight, model_scorer(model, params)))
  if settings.function:
    function = make_function(Function(settings.function, settings.arguments), stage)
    parts.append((settings.function_weight, lambda rollout, prompts, responses: function(prompts, responses)))

  def score(rollout, prompts, responses):
    return sum(np.float32(weight) * part(rollout, prompts, responses) for weight, part in parts)

  return score


def model_scorer(model: LanguageModel, params) -> Scorer:
  """Scores whole sequences by a reward model, at the last token of the response."""
  compiled = jit(lambda params, rollout: model.score(params, rollout.tokens, rollout.mask))
  return lambda rollout, prompts, responses: np.asarray(compiled(params, rollout))


def normalize_head(params: Params, scores: np.ndarray) -> Params:
  """Folds a shift and a scale into the head, after which `scores`[N] would have mean 0 and standard deviation 1."""
  mean, std = float(np.mean(scores)), max(float(np.std(scores)), 1e-6)
  head = params["head"]
  return {**params, "head": {"kernel": head["kernel"] / std, "bias": (head["bias"] - mean) / std}}


def make_function(
  settings: Function, stage: Stage | None = None
) -> Callable[[Sequence[str], Sequence[str]], np.ndarray]:
  """The checked function: N finite float32 scores, or RewardError naming the function and the row."""
  function = import_function(settings.function)
  arguments = {
    name: str(stage.path(value)) if stage and "{run}" in str(value) else value
    for name, value in settings.arguments.items()
  }

  def checked(prompts, responses):
    returned = function(list(prompts), list(responses), **arguments)
    try:
      scores = np.asarray(returned, dtype=np.float32)
    except (TypeError, ValueError) as error:
      raise RewardError(f"{settings.function} returned something that is no array of numbers: {error}") from error
    if scores.shape != (len(prompts),):
      raise RewardError(
        f"{settings.function} returned an array of shape {scores.shape} for {len(prompts)} prompts: "
        "it must return one number for each"
      )
    if not np.isfinite(scores).all():
      row = int(np.flatnonzero(~np.isfinite(scores))[0])
      raise RewardError(
        f"{settings.function} returned {scores[row]} for row {row}: prompt {prompts[row]!r}, "
        f"response {responses[row]!r}"
      )
    return scores

  return checked
