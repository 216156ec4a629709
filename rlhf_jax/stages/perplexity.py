"""Stage: perplexity of texts, per token, per word and per byte, with windows that slide over long texts.

A window holds <bos> and `length` - 1 tokens of the text and starts `stride` tokens after the window before. Only tokens
that were in no earlier window count, so that each token counts once, after the first window with at least
`length` - 1 - `stride` tokens of context. Perplexity per token depends on the tokenizer; per word (cut at
white space) and per byte, models of different tokenizers can be compared, as in lm-evaluation-harness.

Writes `perplexity.json`. The 95 % intervals take windows as independent, and are somewhat too narrow where neighbouring
windows are of one subject.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rlhf_jax import data
from rlhf_jax.evaluation.likelihood import make_likelihood
from rlhf_jax.evaluation.results import write_results
from rlhf_jax.evaluation.statistics import ratio_interval
from rlhf_jax.intervals import Interval
from rlhf_jax.ranges import PositiveInt
from rlhf_jax.stage import RowLength, Stage, StageName
from rlhf_jax.train import check_length, load_policy, open_workspace
from rlhf_jax.train.parts import open_parts
from rlhf_jax.train.row_sources import TextRows, read_text
from rlhf_jax.train.timeline import counted_as
from rlhf_jax.types import Params

PART_BATCHES = 16  # batches of windows that are measured between two looks at signals


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  models: tuple[StageName, ...]
  """Stages whose models are measured."""
  texts: dict[str, TextRows]
  """Texts by name: {name: file of plain text, or of rows {text} or dialogues, or a source of them}."""
  length: RowLength = 0
  """Length of a window in tokens, <bos> included."""
  stride: PositiveInt
  """Distance in tokens between the starts of two windows; at least 1 and below `length`."""
  batch_size: PositiveInt
  """Number of windows evaluated at once."""

  def __post_init__(self) -> None:
    if self.length and self.stride >= self.length:
      raise ValueError(f"stride={self.stride} must be below length={self.length}")


@counted_as("evaluation")
def run(config: Config, stage: Stage) -> None:
  """Measures every model on every text and writes the file."""
  tokenizer, model = open_workspace(stage)
  check_length(model, config.length)
  texts = {name: read_text(given, stage) for name, given in config.texts.items()}
  cuts = {
    name: windows(tokenizer.encode(text), tokenizer.bos_id, config.length, config.stride)
    for name, text in texts.items()
  }
  likelihood = make_likelihood(model, tokenizer.pad_id, config.batch_size, stage.transport)
  result: dict[str, Any] = {name: {"models": {}} for name in texts}
  step, done = PART_BATCHES * config.batch_size, 0

  def losses(load: Callable[[], Params], text_name: str, start: int) -> list[float]:
    return (-likelihood(load(), cuts[text_name][start : start + step])[0]).tolist()

  with open_parts(stage, len(config.models) * sum(map(len, cuts.values()))) as parts:
    for name in config.models:
      load = functools.cache(functools.partial(load_policy, stage, name, model, tokenizer))
      for text_name, text in texts.items():
        found: list[float] = []
        for start in range(0, len(cuts[text_name]), step):
          found += parts(losses, load, text_name, start)
          parts.update(done + len(found))
        done += len(found)
        sizes = np.array([len(counted) for _, counted in cuts[text_name]])
        result[text_name]["models"][name] = perplexities(np.array(found), sizes, text)
    write_results(stage, "perplexity.json", {"texts": result})


def windows(ids: list[int], bos_id: int, length: int, stride: int) -> list[tuple[list[int], list[int]]]:
  """(context, counted) ids of each window; the counted ids of all windows, one after the other, are `ids`.

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


def perplexities(losses: np.ndarray, sizes: np.ndarray, text: str) -> dict[str, Any]:
  """Measures of a text with their intervals, and its number of tokens.

  losses: f64[W], summed loss of each window in nats. sizes: i64[W], number of tokens counted in each window.
  """
  loss = ratio_interval(losses, sizes)
  num_tokens = int(sizes.sum())
  per_byte = num_tokens / max(len(text.encode()), 1)
  per_word = num_tokens / max(len(text.split()), 1)

  def scaled(function: Callable[[float], float]) -> dict[str, Any]:
    return Interval(function(loss.mean), function(loss.low), function(loss.high), loss.num)._asdict()

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
