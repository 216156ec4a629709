"""Normalisation of a reward model: scores get mean 0 and standard deviation 1 over responses of a policy.

It is folded into the head. The moments before it are recorded, by which scores become logits of preference again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rlhf_jax import data
from rlhf_jax.models import LanguageModel
from rlhf_jax.stage import Stage, StageName, split_step
from rlhf_jax.train.processes import host
from rlhf_jax.train.prompts import load_prompts
from rlhf_jax.train.rewards import model_scorer
from rlhf_jax.train.row_sources import PromptRows
from rlhf_jax.train.sampler import Sampling, make_sampler
from rlhf_jax.train.workspace import load_policy, stage_key
from rlhf_jax.types import Array, Params, TrainState

NORMALIZATION = "normalization.json"  # of a reward model's stage: the `ScoreMoments` before normalisation


def make_normalize(
  stage: Stage,
  model: LanguageModel,
  tokenizer: data.Tokenizer,
  policy: StageName,
  prompts: PromptRows,
  sampling: Sampling,
  count: int,
) -> Callable[[TrainState], TrainState]:
  """`normalize(state)`: the state of a reward model with normalised scores; it writes the moments before.

  Args:
    policy: stage whose policy is sampled.
    prompts: file of the prompts, which are read now, before training.
    count: number of prompts, one response each; the file repeats where it has fewer. 0 leaves the scores as they are.
  """
  found = load_prompts(prompts, stage, tokenizer, sampling.max_prompt_tokens)
  sample = make_sampler(model, tokenizer, sampling, stage.transport)

  def normalize(state: TrainState) -> TrainState:
    moments = ScoreMoments(0.0, 1.0, 0)
    if count:
      _, chosen = found.take(np.arange(count) % len(found.texts))
      rollout, _ = sample(load_policy(stage, policy, model, tokenizer), chosen, stage_key(stage))
      moments = score_moments(model_scorer(model, state.params, stage.transport)(rollout, (), ()))
    data.write_json(stage.directory / NORMALIZATION, moments._asdict())
    return state.replace(params=normalize_head(state.params, moments)) if count else state

  return normalize


class ScoreMoments(NamedTuple):
  """Mean and standard deviation of a reward model's scores, before they are normalised."""

  mean: float
  """Mean, in logits of preference."""
  std: float
  """Standard deviation, at least 1e-6, in logits of preference."""
  num: int
  """Number of scores."""


def score_moments(scores: Array) -> ScoreMoments:
  """The moments of scores f[N]."""
  found = host(scores)
  return ScoreMoments(float(np.mean(found)), max(float(np.std(found)), 1e-6), len(found))


def normalize_head(params: Params, moments: ScoreMoments) -> Params:
  """Folds a shift and a scale into the head, after which scores with these moments have mean 0 and deviation 1."""
  head = {**params["head"], "bias": params["head"]["bias"] - moments.mean}
  return {**params, "head": {name: weight / moments.std for name, weight in head.items()}}


def score_scale(stage: Stage, name: str) -> float | None:
  """The factor by which differences of a reward model's scores become logits of preference, those it was trained by.

  It is the standard deviation before normalisation, which the reward-model stage `name` has recorded; None where it has
  recorded none (an earlier version or another algorithm made it), and for "NAME@STEP".
  """
  path = stage.directory_of(name) / NORMALIZATION
  return float(data.read_json(path)["std"]) if split_step(name)[1] is None and path.is_file() else None
