"""Stage: train a byte-level BPE tokenizer on the run's text and write `{run}/<stage>/tokenizer.json`."""

from __future__ import annotations

import dataclasses

from rlhf_jax import data
from rlhf_jax.stage import Stage

WRITES = ("tokenizer.json",)


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  texts: tuple[str, ...]
  """Files of plain text, or of rows (.jsonl, .json) with dialogues; each may be compressed (.gz)."""
  vocab_size: int
  """Number of tokens in the vocabulary, control tokens included."""


def run(config: Config, stage: Stage) -> None:
  """Trains and saves. Raises data.DataError for a file that cannot be read."""
  stage.directory.mkdir(parents=True, exist_ok=True)
  texts = (data.read_corpus(stage.path(name)) for name in config.texts)
  data.train_tokenizer(texts, config.vocab_size).save(stage.directory / "tokenizer.json")
