"""Stage: train a byte-level BPE tokenizer on the run's text and write `{run}/<stage>/tokenizer.json`."""

from __future__ import annotations

import dataclasses

from rlhf_jax import data
from rlhf_jax.stage import Stage


@dataclasses.dataclass(frozen=True)
class Config:
  """texts: files of plain text (.txt), or of rows (.jsonl, .json) whose prompts and responses are used; .gz or not."""

  algorithm: str
  texts: tuple[str, ...]
  vocab_size: int


def run(config: Config, stage: Stage) -> None:
  """Trains and saves. Raises data.DataError for a file that cannot be read."""
  stage.directory.mkdir(parents=True, exist_ok=True)
  texts = (text for name in config.texts for text in _texts(stage.path(name)))
  data.train_tokenizer(texts, config.vocab_size).save(stage.directory / "tokenizer.json")


def _texts(path):
  if ".json" not in path.name:
    yield data.read_text(path)
    return
  for demonstration in data.read_demonstrations(path)[0]:
    yield data.render_prompt(demonstration.prompt) + data.render_response(demonstration.response)
