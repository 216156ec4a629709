"""The reward of a response: a reward-model checkpoint, any Python function of the texts, or a weighted sum of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.models import LanguageModel
from rlhf_jax.ranges import NEUTRAL, NonNegativeFloat
from rlhf_jax.settings import ConfigError, FunctionName
from rlhf_jax.stage import Stage, StageName, Transport
from rlhf_jax.train.functions import Function, ScoreFunction, make_score_function
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.processes import host
from rlhf_jax.train.rows import by_rows
from rlhf_jax.train.workspace import frozen, load_stage
from rlhf_jax.types import Array, Params, Rollout

WIDTH = 16  # tokens; texts are padded to a multiple of it, which bounds the number of compiled programs

Scorer = Callable[[Rollout, Sequence[data.Prompt], Sequence[str]], Array]


@dataclasses.dataclass(frozen=True)
class Reward:
  """score = checkpoint_weight * reward model + function_weight * function."""

  checkpoint: StageName
  """Reward-model stage; "" for none."""
  checkpoint_weight: float
  """Factor on the reward model's score."""
  function: FunctionName
  """Name of a function of the texts, as "package.module:name" or "path/to/file.py:name"; "" for none."""
  function_weight: float
  """Factor on the function's score."""
  arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
  """Keyword arguments of the function; `{run}` in a text, nested ones included, stands for the run directory."""
  time_limit: Annotated[NonNegativeFloat, NEUTRAL] = 0.0
  """Longest time of one call of the function in seconds, at which the call is killed and the stage fails; the function
  then runs in a process of its own. 0 for no limit."""

  def __post_init__(self) -> None:
    if not self.checkpoint and not self.function:
      raise ValueError("reward needs a checkpoint, a function, or both")


class Part(NamedTuple):
  """One of the two sources of a score."""

  weight: float
  """Factor on its scores."""
  scorer: Scorer
  """Function that gives its scores, without the factor."""


def make_parts(
  settings: Reward,
  stage: Stage,
  model: LanguageModel,
  tokenizer: data.Tokenizer,
  where: str = "environment.reward",
) -> dict[str, Part]:
  """The parts "model" and "function" of a reward, those of them that there are; as `make_scorer`, which sums them."""
  parts = {}
  if settings.checkpoint:
    params = load_stage(stage, settings.checkpoint, model, tokenizer)
    if "head" not in params:
      raise ConfigError(f"config.{stage.name}.{where}.checkpoint: stage {settings.checkpoint!r} is no reward model")
    parts["model"] = Part(settings.checkpoint_weight, model_scorer(model, params, stage.transport))
  if settings.function:
    function = make_score_function(Function(settings.function, settings.arguments, settings.time_limit), stage)
    parts["function"] = Part(settings.function_weight, lambda rollout, prompts, texts: function(prompts, texts))
  return parts


def weigh(parts: Mapping[str, Part], scores: Mapping[str, Array]) -> np.ndarray:
  """The sum of the scores f32[N] of all parts, each with its weight: f32[N]."""
  return np.sum([np.float32(part.weight) * host(scores[name]) for name, part in parts.items()], axis=0)


def make_scorer(
  settings: Reward,
  stage: Stage,
  model: LanguageModel,
  tokenizer: data.Tokenizer,
  where: str = "environment.reward",
) -> Scorer:
  """`score(rollout, prompts, responses) -> f32[N]`. where: the settings' place in the stage's config, for messages.

  Raises:
    ConfigError: the checkpoint is no reward model.
    RewardError (when called): the function failed, or returned the wrong number of scores or one that is not finite.
  """
  parts = make_parts(settings, stage, model, tokenizer, where)

  def score(rollout: Rollout, prompts: Sequence[data.Prompt], responses: Sequence[str]) -> np.ndarray:
    return weigh(parts, {name: part.scorer(rollout, prompts, responses) for name, part in parts.items()})

  return score


def model_scorer(model: LanguageModel, params: Params, transport: Transport) -> Scorer:
  """Scores of whole sequences by a reward model, read at the last token of the response: f32[N], on the devices."""
  compiled, params = make_score(model, transport), frozen(model, params, scores_only=True)
  return lambda rollout, prompts, responses: compiled(params, rollout.tokens, rollout.mask, rollout.at)


def make_score(model: LanguageModel, transport: Transport) -> Any:
  """The jitted `score(params, tokens[N, T], mask[N, T], at=None) -> f32[N]` of a reward model (see `by_rows`)."""
  return jax.jit(by_rows(model.score, transport))


def text_scorer(
  model: LanguageModel, tokenizer: data.Tokenizer, params: Params, batch_size: int, transport: Transport
) -> ScoreFunction:
  """`score(prompts, responses) -> f32[N]` of given texts by a reward model, read at the <eos> of a finished response.

  A text that occurs twice, in one call or in several, is scored once.

  Raises (when called):
    DataError: prompt and response together are longer than the model.
  """
  compiled, params = jax.jit(by_rows(model.score, transport)), frozen(model, params, scores_only=True)
  known: dict[data.Demonstration, float] = {}

  def score(prompts: Sequence[data.Prompt], responses: Sequence[str]) -> np.ndarray:
    asked = [data.Demonstration(*texts) for texts in zip(prompts, responses, strict=True)]
    new = [texts for texts in dict.fromkeys(asked) if texts not in known]
    known.update(zip(new, score_new(new).tolist(), strict=True))
    return np.array([known[texts] for texts in asked], np.float32)

  def score_new(texts: Sequence[data.Demonstration]) -> np.ndarray:
    rows, skips = data.demonstration_rows(tokenizer, texts, model.config.max_length)
    if skips:
      raise data.DataError(f"{skips.total()} of {len(texts)} texts cannot be scored: {', '.join(skips)}")
    sizes = np.max(np.where(rows["mask"], np.arange(model.config.max_length) + 1, 0), axis=1)  # [N]
    order = np.argsort(-sizes, kind="stable")  # rows of similar length share a batch
    scores = np.zeros(len(order), np.float32)
    for batch in fixed_batches(len(order), batch_size):
      chosen = order[batch.rows]
      width = min(-(-int(sizes[chosen].max()) // WIDTH) * WIDTH, model.config.max_length)
      found = host(compiled(params, rows["tokens"][chosen, :width], rows["mask"][chosen, :width]))
      scores[chosen[: batch.kept]] = found[: batch.kept]
    return scores

  return score


def normalize_head(params: Params, scores: Array) -> Params:
  """Folds a shift and a scale into the head, after which `scores` f[N] would have mean 0 and standard deviation 1."""
  scores = host(scores)
  mean, std = float(np.mean(scores)), max(float(np.std(scores)), 1e-6)
  head = {**params["head"], "bias": params["head"]["bias"] - mean}
  return {**params, "head": {name: weight / std for name, weight in head.items()}}
