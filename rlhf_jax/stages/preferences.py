"""Stage: sample responses from a policy and have simulated labellers rank them; writes `comparisons.jsonl`.

Each prompt gets K responses, of the policy and written by people, and one labeller, drawn at random. The labeller
orders the responses by their gold rewards, with blind spots, habits and noise (see `rlhf_jax.world.labellers`). The
rows hold the gold rewards beside the ranks for the evaluation of labels; no learner reads them.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.ranges import NonNegativeInt, PositiveInt
from rlhf_jax.sampling import LEAST_WIDTH
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import (
  Function,
  Sampling,
  load_prompts,
  load_served,
  load_written,
  make_measure_function,
  make_sampler,
  open_workspace,
  report_skips,
  stage_key,
)
from rlhf_jax.train.functions import MeasureFunction
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.parts import open_parts
from rlhf_jax.train.row_sources import DemonstrationRows, PromptRows
from rlhf_jax.world import Labeller, make_labellers, rank, traits_of

WRITES = ("comparisons.jsonl",)


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  policy: StageName
  """Stage whose model is sampled."""
  prompts: PromptRows
  """File of prompts."""
  num_prompts: PositiveInt
  """Number of prompts, taken from the start of the file."""
  responses: PositiveInt
  """Number of responses that the policy gives to each prompt."""
  written: DemonstrationRows
  """File of demonstrations with answers of people to the prompts, which are compared with the policy's; "" for none."""
  num_written: NonNegativeInt
  """Number of written answers beside the policy's responses to each prompt, taken from the file in turn."""
  batch_size: PositiveInt
  """Number of prompts sampled at once."""
  sampling: Sampling
  """Sampling of the responses."""
  gold: Function
  """Function that returns a mapping with the gold reward "total" and, if known, "apparent", the gold reward as it looks
  to a labeller who checks no fact."""
  labellers: dict[str, NonNegativeInt]
  """Number of labellers of each kind (see `rlhf_jax.world.make_labellers`)."""


def run(config: Config, stage: Stage) -> None:
  """Samples responses, has them ranked and writes the rows.

  A prompt whose responses are all the same text, or empty, is skipped and counted.
  """
  tokenizer, model = open_workspace(stage)
  params = load_served(stage, config.policy, model, tokenizer)
  prompts = load_prompts(config.prompts, stage, tokenizer, config.sampling.max_prompt_tokens)
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)
  gold = make_measure_function(config.gold, stage)
  labellers = make_labellers(config.labellers)
  num_prompts = min(config.num_prompts, len(prompts.texts))
  take = load_written(config.written, stage, config.num_written) if config.written else lambda prompt: []
  written = [take(prompt) for prompt in prompts.texts[:num_prompts]]
  rows: list[dict[str, Any]] = []

  def judged_rows(start: int, asked: np.ndarray, kept: int) -> list[dict[str, Any]]:
    indices, copies = asked, config.responses
    if prompts.tokens.shape[1] <= LEAST_WIDTH:  # a prefill for each response costs less than one more program
      indices, copies = np.repeat(indices, copies), 1
    _, batch = prompts.take(indices)
    _, responses = sample(params, batch, jax.random.fold_in(stage_key(stage), start), copies)
    judged = collections.Counter[str](row["annotator"] for row in rows)
    found = []
    for offset, index in enumerate(asked[:kept]):
      group = responses[offset * config.responses : (offset + 1) * config.responses]
      rng = np.random.default_rng((stage.stage_seed, index))
      row = _judge(prompts.texts[index], [*group, *written[index]], gold, labellers, judged, rng)
      if row is not None:
        judged[row["annotator"]] += 1
        found.append(row)
    return found

  with open_parts(stage, num_prompts) as parts:
    for batch in fixed_batches(num_prompts, config.batch_size):
      rows += parts(judged_rows, *batch)
      parts.update(batch.start + batch.kept)
    if skipped := num_prompts - len(rows):
      report_skips(stage.name, {"all responses are the same text, or empty": skipped}, num_prompts)
    if not rows:
      raise data.DataError(f"{stage.name}: {config.policy} gave no prompt two different responses to compare")
    data.write_rows(stage.directory / "comparisons.jsonl", rows)


def _judge(
  prompt: data.Prompt,
  responses: Sequence[str],
  gold: MeasureFunction,
  labellers: Sequence[Labeller],
  judged: Mapping[str, int],
  rng: np.random.Generator,
) -> dict[str, Any] | None:
  """A row with the ranks of the different responses; None where fewer than two are different.

  judged: number of prompts that each labeller has judged, by name.
  """
  distinct = [response for response in dict.fromkeys(responses) if response]
  if len(distinct) < 2:
    return None
  labeller = labellers[int(rng.integers(len(labellers)))]
  page = traits_of(gold([prompt] * len(distinct), distinct), distinct)
  ranks = rank(labeller, page, rng, judged[labeller.name])
  return {
    "prompt": data.prompt_value(prompt),
    "responses": distinct,
    "ranks": [int(r) for r in ranks],
    "annotator": labeller.name,
    "gold": [round(float(score), 4) for score in page.total],
  }
