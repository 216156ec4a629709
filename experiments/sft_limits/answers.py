"""Stage: right and faulty answers of the world to held-out prompts, with what models and reward models make of them.

Writes `answers.jsonl`, a row {"prompt", "cluster", "kind", "response", "gold", "tokens", "logp", "reward", "style"} for
each answer. "logp" has the log-probability of the response and its end under each model, in nats at temperature 1;
"tokens" is the number of its tokens; "style" is the score of the style baseline. The kind is one of

  usual        the right answer as demonstrators write it
  other words  a right answer in words that no demonstrator uses
  other items  a right list or story of other things
  a bad habit  the usual answer with that habit (see `rlhf_jax.world.demonstrations`)
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.row_formats import COMPARISONS, PROMPTS
from rlhf_jax.evaluation.likelihood import make_likelihood
from rlhf_jax.evaluation.style_baseline import fit_style_baseline
from rlhf_jax.ranges import NonNegativeInt, PositiveInt
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import load_policy, load_stage, open_workspace, text_scorer
from rlhf_jax.train.parts import open_parts
from rlhf_jax.train.row_sources import ComparisonRows, PromptRows, read_given
from rlhf_jax.train.timeline import counted_as
from rlhf_jax.world import Task, World, gold_score, make_world, parse_prompt
from rlhf_jax.world.answers import complete_answers
from rlhf_jax.world.demonstrations import habits_of, write

WRITES = ("answers.jsonl",)
USUAL, OTHER_WORDS, OTHER_ITEMS = "usual", "other words", "other items"


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  seed: NonNegativeInt
  """Seed of the world."""
  difficulty: str
  """Difficulty of the world."""
  prompts: PromptRows
  """File of prompts that were in no training data."""
  num_prompts: PositiveInt
  """Number of prompts, taken from the start of the file."""
  models: tuple[StageName, ...]
  """Stages whose language models are asked for log-probabilities."""
  reward_model: StageName
  """Stage of the reward model."""
  comparisons: ComparisonRows
  """File of the comparisons that the reward model was trained on, from which the style baseline learns."""
  batch_size: PositiveInt
  """Number of answers read at once."""


@counted_as("evaluation")
def run(config: Config, stage: Stage) -> None:
  """Writes the answers, scored by every model."""
  tokenizer, model = open_workspace(stage)
  world = make_world(config.seed, config.difficulty)
  rng = np.random.default_rng(stage.stage_seed)
  rows: list[dict[str, Any]] = []
  for prompt in read_given(config.prompts, stage, PROMPTS)[: config.num_prompts]:
    text = data.prompt_text(prompt)
    task = parse_prompt(world, text)
    if task is None:
      raise data.DataError(f"{config.prompts}: {text!r} is no request of the world")
    for kind, response in answers(world, task, rng):
      gold = round(gold_score(world, text, response).total, 4)
      rows.append({"prompt": text, "cluster": task.cluster, "kind": kind, "response": response, "gold": gold})
  asked = [data.Demonstration(row["prompt"], row["response"]) for row in rows]
  encoded, skips = data.demonstration_rows(tokenizer, asked, model.config.max_length)
  if skips:
    raise data.DataError(f"{skips.total()} of {len(asked)} answers cannot be read: {', '.join(skips)}")
  pairs = [(tokens[: mask.argmax()], tokens[mask]) for tokens, mask in zip(*encoded.values(), strict=True)]
  likelihood = make_likelihood(model, tokenizer.pad_id, config.batch_size, stage.transport)
  texts = [row["prompt"] for row in rows], [row["response"] for row in rows]

  def logprobs(name: str) -> list[float]:
    return likelihood(load_policy(stage, name, model, tokenizer), pairs)[0].tolist()

  def rewards() -> list[float]:
    judge = load_stage(stage, config.reward_model, model, tokenizer)
    return text_scorer(model, tokenizer, judge, config.batch_size, stage.transport)(*texts).tolist()

  with open_parts(stage, len(config.models) + 1) as parts:
    logp = {}
    for name in config.models:
      logp[name] = parts(logprobs, name)
      parts.update(len(logp))
    reward = parts(rewards)
    style = fit_style_baseline(read_given(config.comparisons, stage, COMPARISONS)).score(*texts).tolist()
    for place, row in enumerate(rows):
      row["tokens"] = len(pairs[place][1])
      row["logp"] = {name: round(values[place], 4) for name, values in logp.items()}
      row |= {"reward": round(reward[place], 4), "style": round(style[place], 4)}
    data.write_rows(stage.directory / "answers.jsonl", rows)


def answers(world: World, task: Task, rng: np.random.Generator) -> list[tuple[str, str]]:
  """(kind, text) of different answers to a task, the usual one first.

  All but the other items are written with the same random numbers: a list is the same but for the fault.
  """
  seed, other = rng.integers(2**32, size=2).tolist()

  def written(habit: str, seed: int = seed) -> str:
    return write(world, task, habit, np.random.default_rng(seed))

  found = {written("ideal"): USUAL}
  for text in complete_answers(world, task) or [written("ideal", other)]:
    found.setdefault(text, OTHER_WORDS if complete_answers(world, task) else OTHER_ITEMS)
  for habit in habits_of(task):
    found.setdefault(written(habit), habit)
  return [(kind, text) for text, kind in found.items()]
