"""A stage's access to its run: the tokenizer, the model, and the parameters of earlier stages."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax

from rlhf_jax import data
from rlhf_jax.models import PLATFORM, DecoderConfig, LanguageModel, UnsupportedModelError, language_model
from rlhf_jax.objectives import ChunkedLogits
from rlhf_jax.population import shared
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import ImportedModel, Stage, Transport
from rlhf_jax.train import checkpoint
from rlhf_jax.train.update import make_mesh, parameter_sharding
from rlhf_jax.types import Params


def open_workspace(stage: Stage) -> tuple[data.Tokenizer, LanguageModel]:
  """The run's tokenizer and its model. The model's vocabulary is the tokenizer's, or that of the imported model.

  Raises:
    ConfigError: the imported model's vocabulary is smaller than the tokenizer's, or the model cannot run as
      config.transport asks.
  """
  if isinstance(stage.model, ImportedModel):
    from rlhf_jax.models.hub import open_pretrained  # here, so that runs on models of their own do not import readers

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
  """The model with the attention, rematerialisation and logits_chunk of the transport.

  Raises:
    ConfigError: the attention does not run on this backend, on several devices, or in this model.
  """
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
  """The model with an `apply` and an `apply_with_value` that return `ChunkedLogits` of `chunk` positions."""

  def logits(params, hidden):
    return ChunkedLogits(hidden, functools.partial(model.unembed, params), chunk)

  def apply(params, tokens, segments=None):
    return logits(params, model.hidden(params, tokens, segments))

  def apply_with_value(params, tokens, segments=None):
    hidden, values = model.hidden_with_value(params, tokens, segments)
    return logits(params, hidden), values

  return model._replace(apply=apply, apply_with_value=apply_with_value)


def identity(stage: Stage, model: LanguageModel, tokenizer: data.Tokenizer) -> dict[str, Any]:
  """The label of this stage's checkpoints: model, tokenizer and stage. A checkpoint with another label is refused."""
  return {**_origin(model, tokenizer), "stage": stage.fingerprint}


def load_imported(stage: Stage) -> Params:
  """The weights of config.model.path, placed on the run's mesh; with the head of a classifier.

  Raises:
    ConfigError: config.model names no path.
  """
  from rlhf_jax.models.hub import load_pretrained, open_pretrained

  if not isinstance(stage.model, ImportedModel):
    raise ConfigError(f"config.{stage.name} imports a model, so config.model must be dict(path=...)")
  mesh = make_mesh(stage.transport)
  opened = open_pretrained(stage.path(stage.model.path))
  return load_pretrained(opened, lambda shapes: parameter_sharding(mesh, shapes))


def load_stage(
  stage: Stage, name: str, model: LanguageModel, tokenizer: data.Tokenizer, step: int | None = None
) -> Params:
  """The parameters of stage `name` of this run, or of the stage directory `name` (a path) of another run.

  step: the checkpoint's step; None takes the last checkpoint. The parameters are placed as `place` does, and adapters
  come with their base. Two loads of the same checkpoint share its arrays.

  Raises:
    CheckpointError: there is no checkpoint, or it belongs to another model or tokenizer, or does not verify.
  """
  directory = stage.path(name) if "/" in name else stage.root / name
  directory = Path(directory).resolve()  # members of a population reach one directory by different links
  # Parameters on one device cannot be combined with a batch that is sharded over all devices.
  mesh = make_mesh(stage.transport)
  shard = functools.partial(parameter_sharding, mesh)
  origin = _origin(model, tokenizer)
  return shared((directory, step), lambda: checkpoint.load_params(directory / "checkpoints", origin, step, shard))


def load_policy(stage: Stage, name: str, model: LanguageModel, tokenizer: data.Tokenizer) -> Params:
  """The language model of a stage: like `load_stage`, without the value function or head trained beside it."""
  return policy_of(load_stage(stage, name, model, tokenizer))


def policy_of(params: Params) -> Params:
  """The language model, with its adapters, among the parameters that a stage trained."""
  return {part: weights for part, weights in params.get("policy", params).items() if part != "head"}


def stage_key(stage: Stage) -> jax.Array:
  """The random key of a stage; every other key derives from it by folding in the step and the global row."""
  return jax.random.key(stage.stage_seed)


def check_length(model: LanguageModel, length: int, what: str = "length") -> None:
  """Refuses rows that do not fit the model. length: tokens of a row; what: the key of the config, for messages.

  Raises:
    ValueError: `length` exceeds the model's maximal length.
  """
  if length > model.config.max_length:
    raise ValueError(f"{what}={length} exceeds model.max_length={model.config.max_length}")


def _origin(model: LanguageModel, tokenizer: data.Tokenizer) -> dict[str, Any]:
  return {"model": model.config.describe(), "tokenizer": tokenizer.fingerprint}
