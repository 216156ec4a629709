"""What a stage takes from the run it belongs to: tokenizer, model, and the parameters of the stages before it."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax

from rlhf_jax import data
from rlhf_jax.models import PLATFORM, DecoderConfig, LanguageModel, UnsupportedModelError, language_model
from rlhf_jax.models.hub import load_pretrained, open_pretrained
from rlhf_jax.objectives import ChunkedLogits
from rlhf_jax.population import shared
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import ImportedModel, Stage, Transport
from rlhf_jax.train import checkpoint
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
    return tokenizer, select_model(dataclasses.replace(opened.config, dtype=stage.model.dtype), stage.transport)
  tokenizer = data.load_tokenizer(stage.path(stage.tokenizer))
  config = DecoderConfig(tokenizer.vocab_size, **dataclasses.asdict(stage.model))
  return tokenizer, select_model(config, stage.transport)


def select_model(config: DecoderConfig, transport: Transport) -> LanguageModel:
  """The model with the attention, the rematerialisation and the logits that the transport asks for."""
  platform = PLATFORM.get(transport.attention, jax.default_backend())
  if platform != jax.default_backend():
    raise ConfigError(
      f"config.transport.attention={transport.attention!r} needs a {platform.upper()}, and this process computes on "
      f"{jax.default_backend().upper()}: use 'xla'"
    )
  if transport.attention == "splash" and jax.device_count() > 1:
    raise ConfigError("config.transport.attention='splash' is for one device: its kernel is not cut over a mesh")
  try:
    model = language_model(config, transport.remat, transport.attention)
  except UnsupportedModelError as error:
    raise ConfigError(f"config.transport.attention: {error}") from error
  return in_chunks(model, transport.logits_chunk) if transport.logits_chunk else model


@functools.lru_cache(maxsize=8)
def in_chunks(model: LanguageModel, chunk: int) -> LanguageModel:
  """The model whose `apply` and `apply_with_value` give `ChunkedLogits` of `chunk` positions."""

  def logits(params, hidden):
    return ChunkedLogits(hidden, functools.partial(model.unembed, params), chunk)

  def apply(params, tokens, segments=None):
    return logits(params, model.hidden(params, tokens, segments))

  def apply_with_value(params, tokens, segments=None):
    hidden, values = model.hidden_with_value(params, tokens, segments)
    return logits(params, hidden), values

  return model._replace(apply=apply, apply_with_value=apply_with_value)


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

  `step` names a checkpoint, None the last one. The parameters are placed as `place` does it, and adapters come with
  their base; whoever loads the same checkpoint shares its arrays.

  Raises:
    CheckpointError: where there is none, or it belongs to another model or tokenizer, or does not verify.
  """
  directory = stage.path(name) if "/" in name else stage.root / name
  directory = Path(directory).resolve()  # the members of a population have the same one by other names
  mesh = make_mesh(stage.transport)  # on one device alone they could not meet a batch that is spread over all of them
  shard = functools.partial(parameter_sharding, mesh)
  origin = _origin(model, tokenizer)
  return shared((directory, step), lambda: checkpoint.load_params(directory / "checkpoints", origin, step, shard))


def load_policy(stage: Stage, name: str, model: LanguageModel, tokenizer: data.Tokenizer) -> Params:
  """Like `load_stage`, but only the language model where the stage trained a policy and a value function."""
  return policy_of(load_stage(stage, name, model, tokenizer))


def policy_of(params: Params) -> Params:
  """The language model, its adapters included, of the parameters that a stage trained."""
  return {part: weights for part, weights in params.get("policy", params).items() if part != "head"}


def stage_key(stage: Stage) -> jax.Array:
  """The key all of a stage's randomness derives from, by folding in the step and the global row."""
  return jax.random.key(stage.stage_seed)


def _origin(model, tokenizer):
  return {"model": model.config.describe(), "tokenizer": tokenizer.fingerprint}
