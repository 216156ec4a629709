"""What a stage takes from the run it belongs to: tokenizer, model, and the parameters of the stages before it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from rlhf_jax import data
from rlhf_jax.models import DecoderConfig, LanguageModel, language_model, load_pretrained, open_pretrained
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import ImportedModel, Stage
from rlhf_jax.train import checkpoint
from rlhf_jax.train.population import shared
from rlhf_jax.train.update import make_mesh, parameter_sharding
from rlhf_jax.types import Params


def open_workspace(stage: Stage) -> tuple[data.Tokenizer, LanguageModel]:
  """The run's tokenizer and its model, whose vocabulary is the tokenizer's, or that of the model it imports.

  Raises:
    ConfigError: the imported model has too few words for the tokenizer.
  """
  if isinstance(stage.model, ImportedModel):
    opened = open_pretrained(stage.path(stage.model.path))
    tokenizer = data.load_tokenizer(stage.path(stage.tokenizer.replace("{model}", str(opened.path))))
    if tokenizer.vocab_size > opened.config.vocab_size:
      raise ConfigError(
        f"config.tokenizer has {tokenizer.vocab_size} tokens, and config.model.path only {opened.config.vocab_size}: "
        "name the model's own tokenizer, '{model}'"
      )
    return tokenizer, language_model(dataclasses.replace(opened.config, dtype=stage.model.dtype))
  tokenizer = data.load_tokenizer(stage.path(stage.tokenizer))
  return tokenizer, language_model(DecoderConfig(tokenizer.vocab_size, **dataclasses.asdict(stage.model)))


def identity(stage: Stage, model: LanguageModel, tokenizer: data.Tokenizer) -> dict[str, Any]:
  """What a checkpoint of this stage is labelled with, and must agree with when it is read."""
  return {**_origin(model, tokenizer), "stage": stage.fingerprint}


def load_imported(stage: Stage) -> Params:
  """The weights of config.model.path, read into the arrays of the run's mesh; a classifier's head is read too.

  Raises:
    ConfigError: config.model names no path.
  """
  if not isinstance(stage.model, ImportedModel):
    raise ConfigError(f"config.{stage.name} imports a model, so config.model must be dict(path=...)")
  mesh = make_mesh(stage.transport)
  opened = open_pretrained(stage.path(stage.model.path))
  return load_pretrained(opened, lambda shapes: parameter_sharding(mesh, shapes))


def load_stage(
  stage: Stage, name: str, model: LanguageModel, tokenizer: data.Tokenizer, step: int | None = None
) -> Params:
  """The parameters of stage `name` of this run, or of the stage directory `name` (a path) of another run.

  `step` names a checkpoint, None the last one. The parameters are placed as `place` does it.

  Raises:
    CheckpointError: where there is none, or it belongs to another model or tokenizer, or does not verify.
  """
  directory = stage.path(name) if "/" in name else stage.root / name
  directory = Path(directory).resolve()  # the members of a population have the same one by other names

  def load():
    params = checkpoint.load_params(directory / "checkpoints", _origin(model, tokenizer), step)
    # On one device alone they could not meet a batch that is spread over all of them in one jit.
    return jax.device_put(params, parameter_sharding(make_mesh(stage.transport), params))

  return shared((directory, step), load)


def load_policy(stage: Stage, name: str, model: LanguageModel, tokenizer: data.Tokenizer) -> Params:
  """Like `load_stage`, but only the language model where the stage trained a policy and a value function."""
  params = load_stage(stage, name, model, tokenizer)
  return {"decoder": params.get("policy", params)["decoder"]}


def stage_key(stage: Stage) -> jax.Array:
  """The key all of a stage's randomness derives from, by folding in the step and the global row."""
  return jax.random.key(stage.stage_seed)


def _origin(model, tokenizer):
  return {"model": model.config.describe(), "tokenizer": tokenizer.fingerprint}
