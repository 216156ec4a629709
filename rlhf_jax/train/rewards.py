"""The reward of a response: a reward-model checkpoint, any Python function of the texts, or a weighted sum of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlhf_jax import data
from rlhf_jax.models import LanguageModel
from rlhf_jax.population import jit
from rlhf_jax.settings import ConfigError, FunctionName
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train.functions import Function, ScoreFunction, make_score_function
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.workspace import load_stage
from rlhf_jax.types import Params, Rollout

WIDTH = 16  # tokens; texts are padded to a multiple of it, which bounds the number of compiled programs

Scorer = Callable[[Rollout, Sequence[str], Sequence[str]], np.ndarray]


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

  def __post_init__(self) -> None:
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

  Raises:
    ConfigError: the checkpoint is no reward model.
    RewardError (when called): the function returned the wrong number of scores, or a score that is no finite number.
  """
  parts: list[tuple[float, Scorer]] = []
  if settings.checkpoint:
    params = load_stage(stage, settings.checkpoint, model, tokenizer)
    if "head" not in params:
      raise ConfigError(f"config.{stage.name}.{where}.checkpoint: stage {settings.checkpoint!r} is no reward model")
    parts.append((settings.checkpoint_weight, model_scorer(model, params)))
  if settings.function:
    function = make_score_function(Function(settings.function, settings.arguments), stage)
    parts.append((settings.function_weight, lambda rollout, prompts, responses: function(prompts, responses)))

  def score(rollout: Rollout, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    return np.sum([np.float32(weight) * part(rollout, prompts, responses) for weight, part in parts], axis=0)

  return score


def model_scorer(model: LanguageModel, params: Params) -> Scorer:
  """Scores of whole sequences by a reward model, read at the last token of the response: f32[N]."""
  compiled = jit(lambda params, rollout: model.score(params, rollout.tokens, rollout.mask))
  return lambda rollout, prompts, responses: np.asarray(compiled(params, rollout))


def text_scorer(model: LanguageModel, tokenizer: data.Tokenizer, params: Params, batch_size: int) -> ScoreFunction:
  """`score(prompts, responses) -> f32[N]` of given texts by a reward model, read at the <eos> of a finished response.

  A text that occurs twice, in one call or in several, is scored once.

  Raises (when called):
    DataError: prompt and response together are longer than the model.
  """
  compiled = jit(lambda params, tokens, mask: model.score(params, tokens, mask))

  known: dict[data.Demonstration, float] = {}

  def score(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
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
      found = np.asarray(compiled(params, rows["tokens"][chosen, :width], rows["mask"][chosen, :width]))
      scores[chosen[: batch.kept]] = found[: batch.kept]
    return scores

  return score


def normalize_head(params: Params, scores: np.ndarray) -> Params:
  """Folds a shift and a scale into the head, after which `scores` f[N] would have mean 0 and standard deviation 1."""
  mean, std = float(np.mean(scores)), max(float(np.std(scores)), 1e-6)
  head = {**params["head"], "bias": params["head"]["bias"] - mean}
  return {**params, "head": {name: weight / std for name, weight in head.items()}}
