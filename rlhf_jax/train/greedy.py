"""The scores of greedy responses: a baseline that depends on the prompt alone (ReMax, arXiv 2310.10505)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlhf_jax import data
from rlhf_jax.models import LanguageModel
from rlhf_jax.stage import Stage
from rlhf_jax.train.environment import Environment, make_environment
from rlhf_jax.train.functions import Function
from rlhf_jax.train.metrics import Metric
from rlhf_jax.types import Mean, Params

GreedyScores = Callable[[Params, int], tuple[jax.Array, dict[str, Metric]]]


def make_greedy_scores(
  settings: Environment, stage: Stage, model: LanguageModel, tokenizer: data.Tokenizer
) -> GreedyScores:
  """`scores(params, index) -> (f32[B], metrics)`: for each episode of step `index` the score of the response to its
  prompt that takes the likeliest token everywhere, by the same reward.

  Metrics are reward/greedy, and tokens/greedy, the number of tokens of these responses.
  """
  # Of one token to draw from, that is the likeliest; what is monitored is monitored once.
  sampling = dataclasses.replace(settings.sampling, top_k=1)
  greedy = dataclasses.replace(
    settings, sampling=sampling, samples_per_prompt=1, monitor=Function(""), monitor_checkpoint=""
  )
  episodes = make_environment(greedy, stage, model, tokenizer)

  def scores(params: Params, index: int) -> tuple[jax.Array, dict[str, Metric]]:
    found = episodes(params, index)
    metrics: dict[str, Metric] = {
      "reward/greedy": Mean(found.scores, jnp.ones_like(found.scores)),
      "tokens/greedy": found.metrics["tokens/sampled"],
    }
    return jnp.repeat(found.scores, settings.samples_per_prompt), metrics

  return scores
