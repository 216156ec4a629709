"""Stage: learning from language feedback: rewrite responses by their critiques; writes `demonstrations.jsonl`.

Imitation learning from language feedback (ILF; Scheurer et al. 2023, arXiv 2303.16755, algorithm 1): a critique says in
words what is wrong with a response, a model gives N rewrites by the critique, the best rewrite is kept, and an `sft`
stage learns from the file. A critique tells the right answer, a rank does not.

DEVIATIONS: the paper chooses the rewrite that heeds the critique best according to an instruct model; here the rewrite
with the highest reward is chosen, and only above the reward of the response. A rewrite that did not end with <eos>, is
empty or repeats the response cannot be chosen; a response without a better rewrite is skipped and counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import data
from rlhf_jax.feedback.exchange import read_records
from rlhf_jax.feedback.learner_rows import critiques
from rlhf_jax.feedback.records import SETTLED, answers, current
from rlhf_jax.ranges import PositiveInt
from rlhf_jax.stage import RecordFile, RowLength, Stage, StageName
from rlhf_jax.train import (
  PromptSet,
  Reward,
  Sampling,
  load_served,
  make_sampler,
  make_scorer,
  open_workspace,
  report_skips,
  stage_key,
)
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.parts import open_parts
from rlhf_jax.train.processes import host
from rlhf_jax.train.rewards import Scorer
from rlhf_jax.types import Rollout

WRITES = ("demonstrations.jsonl",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  policy: StageName
  """Stage whose model rewrites."""
  feedback: tuple[RecordFile, ...]
  """Files of records with critiques."""
  template: str
  """Prompt that asks for a rewrite, with {prompt}, {response} and {critique}."""
  rewrites: PositiveInt
  """Number of rewrites for each critique, N."""
  batch_size: PositiveInt
  """Number of critiques processed at once."""
  length: RowLength = 0
  """Longest prompt with rewrite that the reward scores, in tokens."""
  sampling: Sampling
  """Sampling of the rewrites."""
  reward: Reward
  """Reward by which the best rewrite is chosen."""

  def __post_init__(self) -> None:
    for slot in ("prompt", "response", "critique"):
      if f"{{{slot}}}" not in self.template:
        raise ValueError(f"template lacks {{{slot}}}: {self.template!r}")


def run(config: Config, stage: Stage) -> None:
  """Rewrites, scores and writes rows {prompt, response, score, before, score_before, critique, annotator}."""
  tokenizer, model = open_workspace(stage)
  params = load_served(stage, config.policy, model, tokenizer)
  sample = make_sampler(model, tokenizer, config.sampling, stage.transport)
  reward = make_scorer(config.reward, stage, model, tokenizer, where="reward")
  records = read_records(*(stage.path(name) for name in config.feedback))
  found = critiques(records)
  if overruled := len(current(records[2])) - len(answers(records[2])):
    report_skips(stage.name, {SETTLED: overruled}, len(current(records[2])))
  found = [{**row, "prompt": data.prompt_of(row, stage.name)} for row in found if row["critique"]]
  asked = [config.template.format(**{**row, "prompt": data.prompt_text(row["prompt"])}) for row in found]
  arrays, fitting, skips = data.prompt_rows(tokenizer, asked, config.sampling.max_prompt_tokens)
  if not fitting:
    raise data.DataError(
      f"{stage.name}: none of {len(found)} critiques fits in max_prompt_tokens={config.sampling.max_prompt_tokens}"
    )
  found = [found[i] for i in fitting]
  requests = PromptSet([*(asked[i] for i in fitting)], arrays["tokens"], arrays["lengths"])

  def refined_rows(start: int, indices: np.ndarray, kept: int) -> list[dict[str, Any]]:
    _, batch = requests.take(np.repeat(indices, config.rewrites))
    rollout, texts = sample(params, batch, jax.random.fold_in(stage_key(stage), start))
    finished = host(rollout.finished).reshape(-1, config.rewrites)
    groups = [
      [found[index]["response"], *texts[place * config.rewrites : (place + 1) * config.rewrites]]
      for place, index in enumerate(indices)
    ]
    prompts = [found[index]["prompt"] for index in indices]
    scores, fits = score_texts(reward, tokenizer, prompts, groups, config.length)
    new = [[text not in ("", group[0]) for text in group[1:]] for group in groups]
    usable = np.array(new) & finished & fits[:, 1:] & fits[:, :1]
    return [
      {
        "prompt": data.prompt_value(found[indices[place]]["prompt"]),
        "response": groups[place][winner],
        "score": float(scores[place, winner]),
        "before": found[indices[place]]["response"],
        "score_before": float(scores[place, 0]),
        "critique": found[indices[place]]["critique"],
        "annotator": found[indices[place]]["annotator"],
      }
      for place, winner in enumerate(better(scores, usable)[:kept])
      if winner >= 0
    ]

  rows: list[dict[str, Any]] = []
  with open_parts(stage, len(found)) as parts:
    for batch in fixed_batches(len(found), config.batch_size):
      rows += parts(refined_rows, *batch)
      parts.update(batch.start + batch.kept)
    if unchanged := len(found) - len(rows):
      skips["no rewrite is better"] = unchanged
    report_skips(stage.name, skips, len(asked))
    if not rows:
      raise data.DataError(f"{stage.name}: {config.policy} gave no rewrite of {len(found)} that has a higher reward")
    data.write_rows(stage.directory / "demonstrations.jsonl", rows)


def better(scores: np.ndarray, usable: np.ndarray) -> np.ndarray:
  """Column of the best usable rewrite where its score is above that of the response, else -1: i64[B].

  scores: f[B, 1 + N], the response in column 0 and its rewrites. usable: bool[B, N], of the rewrites.
  """
  masked = np.where(usable, scores[:, 1:], -np.inf)
  return np.where(masked.max(axis=1) > scores[:, 0], masked.argmax(axis=1) + 1, -1)


def score_texts(
  reward: Scorer,
  tokenizer: data.Tokenizer,
  prompts: Sequence[data.Prompt],
  groups: Sequence[Sequence[str]],
  length: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Rewards f32[B, K] of K texts as answers to each of B prompts, and whether each fits in `length` tokens: bool[B, K].

  prompts: the prompts of the original responses, not those that asked for rewrites.
  """
  pairs = [(prompt, text) for prompt, group in zip(prompts, groups, strict=True) for text in group]
  rows, kept, _ = data.comparison_rows(tokenizer, [data.Comparison(p, (t or " ",), (0,)) for p, t in pairs], length)
  tokens, mask = (np.zeros((len(pairs), length), rows[key].dtype) for key in ("tokens", "mask"))
  tokens[kept], mask[kept] = rows["tokens"][:, 0], rows["mask"][:, 0]
  fits = np.zeros(len(pairs), bool)
  fits[kept] = True
  rollout = Rollout(jnp.asarray(tokens), jnp.asarray(mask), jnp.zeros(mask.shape), jnp.asarray(fits))
  scores = reward(rollout, [prompt for prompt, _ in pairs], [text for _, text in pairs])
  return np.asarray(scores).reshape(len(groups), -1), fits.reshape(len(groups), -1)
