"""Low-rank adapters as a setting of any stage that trains: see `rlhf_jax.models.lora`."""

from __future__ import annotations

import dataclasses
import zlib

import jax
import numpy as np

from rlhf_jax.models import ATTENTION, add_lora, fold_lora
from rlhf_jax.ranges import PositiveFloat, PositiveInt
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import Stage
from rlhf_jax.train.workspace import stage_key
from rlhf_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Lora:
  """Settings of low-rank adapters; every other parameter of the language model is frozen."""

  rank: PositiveInt
  """Rank of the adapters."""
  alpha: PositiveFloat
  """Numerator of their scale, which is alpha / rank."""
  targets: tuple[str, ...] = ATTENTION
  """Matrices of every layer that get adapters, of query, key, value, attention_out, gate, up, mlp_out."""

  def __post_init__(self):
    if not self.targets:
      raise ValueError("targets is empty: name at least one kind of matrix")


def adapt(settings: Lora | None, stage: Stage, params: Params) -> Params:
  """The parameters a stage trains, made from those of the model it starts from, or from a dict of models by name.

  With settings, a model gets fresh adapters; a model that has adapters keeps them and goes on training them, so that
  all adapters of a run stand on one base. Without settings, adapters are merged and all parameters are trained.

  Raises:
    ConfigError: the model has adapters with other settings, or no layer has a target.
  """
  if "decoder" not in params:
    return {name: _adapt(settings, stage, model, name) for name, model in params.items()}
  return _adapt(settings, stage, params, "")


def _adapt(settings: Lora | None, stage: Stage, params: Params, name: str) -> Params:
  if settings is None:
    return fold_lora(params)
  if "lora" in params:
    found = _settings_of(params)
    if dataclasses.replace(settings, targets=tuple(sorted(settings.targets))) != found:
      raise ConfigError(
        f"config.{stage.name}.lora: the stage starts from adapters with rank={found.rank}, alpha={found.alpha:g} and "
        f"targets={found.targets}, which it goes on training: give the same settings"
      )
    return params
  key = jax.random.fold_in(stage_key(stage), zlib.crc32(f"lora/{name}".encode()))
  try:
    return add_lora(key, params, rank=settings.rank, alpha=settings.alpha, targets=settings.targets)
  except ValueError as error:
    raise ConfigError(f"config.{stage.name}.lora.targets: {error}") from error


def _settings_of(params: Params) -> Lora:
  pairs = {path[-2].key: leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params["lora"])[0]}  # b is last
  rank = next(iter(pairs.values())).shape[-2]
  return Lora(rank, round(float(np.float32(params["lora_scale"])) * rank, 4), tuple(sorted(pairs)))
