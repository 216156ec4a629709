"""A stage's access to its run: the tokenizer, the model, and the parameters of earlier stages."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rlhf_jax import data
from rlhf_jax.models import (
  PLATFORM,
  Attention,
  DecoderConfig,
  LanguageModel,
  UnsupportedModelError,
  language_model,
  only_scored,
  quantize,
)
from rlhf_jax.objectives import ChunkedLogits
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import FrozenDtype, ImportedModel, Stage, Transport, split_step
from rlhf_jax.train.checkpoint_errors import CheckpointError
from rlhf_jax.train.mesh import Gather, is_matrix, make_gather, make_mesh, shardings
from rlhf_jax.train.parameters import load_params, stored_model
from rlhf_jax.types import Params


def open_workspace(stage: Stage) -> tuple[data.Tokenizer, LanguageModel]:
  """The run's tokenizer and its model. The model's vocabulary is the tokenizer's, or that of the imported model.

  Ids for which the tokenizer has no token are never sampled, and have no share of any probability.

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
    config = dataclasses.replace(opened.config, dtype=stage.model.dtype)
  else:
    tokenizer = data.load_tokenizer(stage.path(stage.tokenizer))
    config = DecoderConfig(tokenizer.vocab_size, **dataclasses.asdict(stage.model))
  unused = data.ids_without_token(tokenizer, config.vocab_size)
  return tokenizer, select_model(dataclasses.replace(config, ids_without_token=unused), stage.transport)


def select_model(config: DecoderConfig, transport: Transport) -> LanguageModel:
  """The model with the attention, rematerialisation and logits_chunk of the transport, and logits `with_lazy_logits`.

  Raises:
    ConfigError: the attention does not run on the mesh's devices, is not cut as it asks, or not in this model.
  """
  mesh = make_mesh(transport)
  found = mesh.devices.flat[0].platform
  if PLATFORM.get(transport.attention, found) != found:
    raise ConfigError(
      f"config.transport.attention={transport.attention!r} needs a {PLATFORM[transport.attention].upper()}, and this "
      f"process computes on {found.upper()}: use 'xla' or 'chunked'"
    )
  if transport.attention in PLATFORM and config.num_kv_heads % mesh.shape["tensor"]:
    raise ConfigError(
      f"config.transport.attention={transport.attention!r} cuts heads over transport.tensor={mesh.shape['tensor']} "
      f"devices, which does not divide {config.num_kv_heads} heads for keys and values: use 'xla', or fewer devices"
    )
  # One device reads its weights as they are; a hook would have the backward pass gather, and so compute, them anew.
  gather = _gather(config, transport.gradient_dtype) if mesh.shape["fsdp"] > 1 else None
  scan = is_scanned(config.num_layers, transport, found)
  try:
    model = language_model(config, transport.remat, select_attention(transport), scan, gather)
  except UnsupportedModelError as error:
    raise ConfigError(f"config.transport.attention: {error}") from error
  return with_lazy_logits(model, transport.logits_chunk)


def select_attention(transport: Transport) -> Attention:
  """The attention of the transport on the mesh's devices."""
  if transport.attention != "auto":
    return transport.attention
  return "chunked" if make_mesh(transport).devices.flat[0].platform == "cpu" else "xla"


def is_scanned(num_layers: int, transport: Transport, platform: str) -> bool:
  """Whether layers are stacked and scanned. platform: that of the mesh's devices, "cpu", "gpu" or "tpu".

  With transport.layers="auto" a CPU unrolls up to 8 layers, whose steps are faster so; compilation then takes about as
  long as that of a scan. It scans where layers are rematerialised, since its compiler undoes that in unrolled ones.
  """
  if transport.layers == "auto":
    return platform != "cpu" or num_layers > 8 or transport.remat != "none"
  return transport.layers == "scanned"


@functools.lru_cache(maxsize=8)
def _gather(config: DecoderConfig, gradient_dtype: str) -> Gather:
  shapes = jax.eval_shape(language_model(config).init, jax.random.key(0))
  return make_gather(shapes, config.dtype, gradient_dtype)


@functools.lru_cache(maxsize=8)
def with_lazy_logits(model: LanguageModel, chunk: int) -> LanguageModel:
  """The model with an `apply` and an `apply_with_value` that return `ChunkedLogits`: of the positions `at`, where these
  are given, and of `chunk` positions at a time, where that is not 0. Otherwise they return the array of all logits.
  """

  def logits(params, hidden, tokens, at):
    at = jax.tree.map(jnp.asarray, at)
    return ChunkedLogits(hidden, model.unembedding(params), chunk, at=at, length=tokens.shape[1])

  def apply(params, tokens, segments=None, at=None):
    if not chunk and at is None:
      return model.apply(params, tokens, segments)
    params = model.share_table(params)
    return logits(params, model.hidden(params, tokens, segments, at), tokens, at)

  def apply_with_value(params, tokens, segments=None, at=None):
    if not chunk and at is None:
      return model.apply_with_value(params, tokens, segments)
    params = model.share_table(params)
    hidden, values = model.hidden_with_value(params, tokens, segments, at)
    return logits(params, hidden, tokens, at), values

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
  return load_pretrained(opened, functools.partial(shardings, mesh))


def load_stage(
  stage: Stage, name: str, model: LanguageModel, tokenizer: data.Tokenizer, step: int | None = None
) -> Params:
  """The parameters of stage `name` of this run, or of the stage directory `name` (a path) of another run.

  step: the checkpoint's step; None takes that of a `name` as "ppo@16", else the last checkpoint. The parameters are
  placed as `place` does, and adapters come with their base. Two loads of the same checkpoint share its arrays.

  Raises:
    CheckpointError: there is no checkpoint, or it belongs to another model or tokenizer, or does not verify.
  """
  # Parameters on one device cannot be combined with a batch that is sharded over all devices.
  mesh = make_mesh(stage.transport)
  shard = functools.partial(shardings, mesh)
  origin = _origin(model, tokenizer)
  step = split_step(name)[1] if step is None else step
  return load_params(_checkpoints(stage, name), origin, step, shard, model.scan)


def load_reward_model(
  stage: Stage, name: str, model: LanguageModel, tokenizer: data.Tokenizer, where: str
) -> tuple[LanguageModel, Params]:
  """The reward model of stage `name`, and its parameters as `load_stage` gives them.

  model: that of the stage that reads it, which is returned where both have one shape; another shape is that of the
  checkpoint (InstructGPT's policies have 1.3B to 175B parameters, and all of them one reward model of 6B). where: the
  setting's place in the reader's config, for messages.

  Raises:
    ConfigError: the stage has trained no reward model.
    CheckpointError: as `load_stage`.
  """
  described = stored_model(_checkpoints(stage, name))
  if described and described != model.config.describe():
    config = DecoderConfig.from_description(described)
    unused = data.ids_without_token(tokenizer, config.vocab_size)
    model = select_model(dataclasses.replace(config, ids_without_token=unused), stage.transport)
  params = load_stage(stage, name, model, tokenizer)
  if "head" not in params:
    raise ConfigError(f"config.{stage.name}.{where}: stage {name!r} is no reward model")
  return model, params


def _checkpoints(stage: Stage, name: str) -> Path:
  """The checkpoints of stage `name`; runs of a sweep reach one directory by different links."""
  return stage.directory_of(name).resolve() / "checkpoints"


def load_policy(stage: Stage, name: str, model: LanguageModel, tokenizer: data.Tokenizer) -> Params:
  """The language model of a stage: like `load_stage`, without the value function or head trained beside it.

  Raises:
    CheckpointError: as `load_stage`; also where the stage trained a reward model without an output matrix.
  """
  params = policy_of(load_stage(stage, name, model, tokenizer))
  if not (model.config.tied or "unembedding" in params["decoder"]):
    raise CheckpointError(f"{name} is a reward model, which gives no text a probability: name a language model")
  return params


def policy_of(params: Params) -> Params:
  """The language model, with its adapters, among the parameters that a stage trained."""
  return {part: weights for part, weights in params.get("policy", params).items() if part != "head"}


def frozen(model: LanguageModel, params: Params, dtype: FrozenDtype = "", *, scores_only: bool = False) -> Params:
  """The parameters of a model that is not trained.

  Args:
    dtype: "" for matrices in the dtype in which the model reads them: its numbers are the same. "int8" rounds them, by
      `rlhf_jax.models.quantize`.
    scores_only: whether only the head is read, by `rlhf_jax.models.only_scored`.

  Raises:
    ConfigError: int8 of a model with adapters.
  """
  params = only_scored(params) if scores_only else params
  if dtype == "int8":
    if "lora" in params:
      raise ConfigError(
        "frozen_dtype='int8' does not work with a model with adapters (lora): its base is in memory already, shared by "
        "all models that stand on it, and int8 would be a copy of it. Set frozen_dtype to ''"
      )
    return {**params, "decoder": quantize(params["decoder"])}

  def read(path, x):
    return x.astype(model.config.dtype) if is_matrix(jax.tree_util.keystr(path, simple=True, separator="/")) else x

  return {**params, "decoder": jax.tree_util.tree_map_with_path(read, params["decoder"])}


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
