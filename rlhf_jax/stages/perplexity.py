"""Stage: perplexity of texts, per token, per word and per byte, with windows that slide over long texts.

A window holds <bos> and `length` - 1 tokens of the text and starts `stride` tokens after the one before it; only the
tokens that no window before it had are counted, so that each token counts once, and all but the first window's with
at least `length` - 1 - `stride` tokens of context. Perplexity per token depends on the tokenizer; per word (cut at
white space) and per byte it can be compared between models of different tokenizers, as in lm-evaluation-harness.

Writes `perplexity.json` and `report.html`. The 95 % intervals take windows as independent, which is somewhat narrow
where neighbours speak of the same thing.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np

from rlhf_jax import data
from rlhf_jax.evaluation.likelihood import make_likelihood
from rlhf_jax.evaluation.statistics import Interval, ratio_interval
from rlhf_jax.stage import Stage, StageName
from rlhf_jax.train import load_policy, open_workspace
from rlhf_jax.train.progress import StageProgress


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage.

  texts: name -> file of plain text, or of dialogues. length, stride: of a window, in tokens.
  """

  algorithm: str
  models: tuple[StageName, ...]
  texts: dict[str, str]
  length: int
  stride: int
  batch_size: int

  def __post_init__(self):
    if not 1 <= self.stride < self.length:
      raise ValueError(f"stride={self.stride} must be at least 1 and below length={self.length}")


def run(config: Config, stage: Stage) -> None:
  """Measures every model on every text and writes the file."""
  tokenizer, model = open_workspace(stage)
  if config.length > model.config.max_length:
    raise ValueError(f"length={config.length} exceeds model.max_length={model.config.max_length}")
  texts = {name: data.read_corpus(stage.path(path)) for name, path in config.texts.items()}
  cuts = {
    name: windows(tokenizer.encode(text), tokenizer.bos_id, config.length, config.stride)
    for name, text in texts.items()
  }
  likelihood = make_likelihood(model, tokenizer.pad_id, config.batch_size)
  result: dict[str, Any] = {name: {"models": {}} for name in texts}
  with StageProgress(stage.name, len(config.models) * len(texts)) as progress:
    for name in config.models:
      params = load_policy(stage, name, model, tokenizer)
      for text_name, text in texts.items():
        logp, _ = likelihood(params, cuts[text_name])
        sizes = np.array([len(counted) for _, counted in cuts[text_name]])
        result[text_name]["models"][name] = perplexities(-logp.astype(np.float64), sizes, text)
        progress.update(sum(len(entry["models"]) for entry in result.values()), {})
  stage.directory.mkdir(parents=True, exist_ok=True)
  (stage.directory / "perplexity.json").write_text(json.dumps({"texts": result}, indent=2) + "\n")


def windows(ids: list[int], bos_id: int, length: int, stride: int) -> list[tuple[list[int], list[int]]]:
  """(context, counted) ids of each window; the counted ones, one after the other, are `ids`.

  Raises:
    DataError: there are no ids.
  """
  if not ids:
    raise data.DataError("the text is empty: it has no perplexity")
  room = length - 1
  cuts = [([bos_id], ids[:room])]
  for end in range(room, len(ids), stride):
    counted = ids[end : end + stride]
    cuts.append(([bos_id, *ids[end + len(counted) - room : end]], counted))
  return cuts


def perplexities(losses: np.ndarray, sizes: np.ndarray, text: str) -> dict[str, dict]:
  """The measures of a text from each window's summed loss [W] (nats) and number of tokens [W]."""
  loss = ratio_interval(losses, sizes)
  num_tokens = int(sizes.sum())
  per_byte = num_tokens / max(len(text.encode()), 1)
  per_word = num_tokens / max(len(text.split()), 1)

  def scaled(function) -> dict:
    return Interval(*(function(bound) for bound in loss[:3]), loss.num)._asdict()

  return {
    "loss": loss._asdict(),
    "token_perplexity": scaled(_exp),
    "word_perplexity": scaled(lambda x: _exp(x * per_word)),
    "byte_perplexity": scaled(lambda x: _exp(x * per_byte)),
    "bits_per_byte": scaled(lambda x: x * per_byte / math.log(2)),
    "tokens": num_tokens,
  }


def _exp(x: float) -> float:
  return math.exp(x) if x < 700 else math.inf
