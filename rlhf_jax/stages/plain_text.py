"""Stage: the tokenizer of an imported model for plain text, in which a response goes on where its prompt ends.

A published model's own chat form speaks of a user and an assistant. In the form that is written here a prompt is the
beginning of a text and its response the rest, one space behind it; a dialogue of several turns is refused. The run
takes it by `config.tokenizer = "{run}/STAGE/tokenizer.json"`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rlhf_jax import data
from rlhf_jax.models.hub import open_pretrained
from rlhf_jax.settings import ConfigError, nearest
from rlhf_jax.stage import ImportedModel, Stage

WRITES = ("tokenizer.json",)
ON_LEADER = True  # it computes nothing on the devices: one process of a job carries it out

TEMPLATE = (
  "{% if tools or messages | length > 2 or messages[0]['role'] != 'user' %}"
  "{{ raise_exception('plain text has no turns: a prompt is one text without a role') }}{% endif %}"
  "{{ bos_token }}{% for message in messages %}{{ '' if loop.first else ' ' }}{{ message['content'] | trim }}"
  "{% endfor %}"
)


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  boundary: str = ""
  """Control token that stands before and behind each text of the model's pretraining, such as <|endoftext|>; "" for the
  tokenizer's own <bos> and <eos>."""


def run(config: Config, stage: Stage) -> None:
  """Writes tokenizer.json, and beside it the control tokens, the form and the tokens that end a response.

  Raises:
    ConfigError: config.model names no published model, or its tokenizer has no such boundary.
  """
  if not isinstance(stage.model, ImportedModel):
    raise ConfigError(f"config.{stage.name} reads a published model, so config.model must be dict(path=...)")
  own = data.load_tokenizer(open_pretrained(stage.path(stage.model.path)).path)
  if config.boundary and config.boundary not in own.control:
    raise ConfigError(
      f"config.{stage.name}.boundary={config.boundary!r} is no control token of {stage.model.path}."
      f"{nearest(config.boundary, own.control)}"
    )
  write_plain_text(own, config.boundary, stage.directory)


def write_plain_text(own: data.Tokenizer, boundary: str, directory: Path) -> data.Tokenizer:
  """Writes the tokenizer of a published model in the form of plain text, and returns it as it is read from there.

  boundary: control token before and behind a text; "" for the tokenizer's own <bos> and <eos>.
  """
  names = {index: name for name, index in own.control.items()}
  bos, eos = (boundary or names[index] for index in (own.bos_id, own.eos_id))
  # No token that a response may end with, nor one that starts a turn, may stand for padding.
  taken = {bos, eos, names[own.bos_id], *own.end_tokens}
  pad = next((token for token in (own.backend.id_to_token(own.pad_id), *own.control) if token not in taken), None)
  own.save(directory / "tokenizer.json")
  settings = {"bos_token": bos, "eos_token": eos, "chat_template": TEMPLATE} | ({"pad_token": pad} if pad else {})
  data.write_json(directory / "tokenizer_config.json", settings)
  ends = [own.control[eos], *own.end_ids]
  data.write_json(directory / "generation_config.json", {"eos_token_id": [*dict.fromkeys(ends)]})
  return data.load_tokenizer(directory / "tokenizer.json")  # a faulty one is refused here, not in the next stage
