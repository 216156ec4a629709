"""Stage: train a byte-level BPE tokenizer on the run's text and write `{run}/<stage>/tokenizer.json`."""

from __future__ import annotations

import dataclasses

from rlhf_jax import data
from rlhf_jax.stage import Stage

WRITES = ("tokenizer.json",)


@dataclasses.dataclass(frozen=True)
class Config:
  """texts: files of plain text, or of rows (.jsonl, .json) whose dialogues are used; each may be .gz."""

  algorithm: str
  texts: tuple[str, ...]
  vocab_size: int


def run(config: Config, stage: Stage) -> None:
  """Trains and saves. Raises data.DataError for a file that cannot be read."""
  stage.directory.mkdir(parents=True, exist_ok=True)
  texts = (data.read_corpus(stage.path(name)) for name in config.texts)
  data.train_tokenizer(texts, config.vocab_size).save(stage.directory / "tokenizer.json")
