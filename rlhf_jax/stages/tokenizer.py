"""Stage: train a byte-level BPE tokenizer on the run's text and write `{run}/<stage>/tokenizer.json`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from rlhf_jax import data
from rlhf_jax.ranges import AtLeast
from rlhf_jax.stage import Stage
from rlhf_jax.train.row_sources import TextRows, read_text

WRITES = ("tokenizer.json",)
ON_LEADER = True  # it computes nothing on the devices: one process of a job carries it out


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  texts: tuple[TextRows, ...]
  """Files of plain text, or of rows {text} or dialogues, or sources of them (see `rlhf_jax.train.row_sources`)."""
  vocab_size: Annotated[int, AtLeast(259)]
  """Number of tokens in the vocabulary, the 256 bytes and 3 control tokens included."""


def run(config: Config, stage: Stage) -> None:
  """Trains and saves. Raises data.DataError for a file that cannot be read."""
  stage.directory.mkdir(parents=True, exist_ok=True)
  texts = (read_text(given, stage) for given in config.texts)
  data.train_tokenizer(texts, config.vocab_size).save(stage.directory / "tokenizer.json")
