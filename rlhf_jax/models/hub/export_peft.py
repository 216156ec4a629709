"""Writes adapters in the format of PEFT (https://huggingface.co/docs/peft/developer_guides/checkpoint)."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from rlhf_jax.models.config import DecoderConfig
from rlhf_jax.models.hub.export import FileDtype
from rlhf_jax.models.hub.families import FAMILIES
from rlhf_jax.models.hub.tensor_places import Place, join_leaves, leaf_paths, locate
from rlhf_jax.models.stacked import unstack_layers
from rlhf_jax.types import Params
from rlhf_jax.writing import write_bytes


class Pair(NamedTuple):
  """The adapter of one matrix W[in, out]: a[in, r] and b[r, out], f32."""

  a: np.ndarray
  b: np.ndarray


def export_adapters(
  directory: Path, config: DecoderConfig, params: Params, base: str = "", dtype: FileDtype = "float32"
) -> None:
  """Writes adapter_config.json and adapter_model.safetensors.

  Where a family keeps query, key and value in one matrix, their adapters are joined to one, whose rank is the sum of
  theirs.

  Args:
    params: a language model {"decoder", "lora", "lora_scale"}.
    base: the name or path of the model below the adapters, for PEFT to find it; "" leaves it to the reader.
    dtype: the dtype of every tensor, to which it is rounded.
  """
  family, scale = FAMILIES[config.family], float(params["lora_scale"])
  shared: dict[Place, dict[int, Pair]] = defaultdict(dict)  # a tensor, as the place of its first part -> its adapters
  for matrix, pair in _pairs(params["lora"]):
    place = locate(family, f"{matrix}/kernel")
    shared[place._replace(part=0)][place.part] = pair
  tensors: dict[str, np.ndarray] = {}
  ranks: dict[str, int] = {}
  for place, pairs in shared.items():
    a, b = _joined(pairs, place, config.num_heads)
    module = place.name.removesuffix(".weight")
    named = {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    tensors |= {name: array.astype(jnp.dtype(dtype)) for name, array in named.items()}
    ranks[re.sub(r"^.*?\.\d+\.", "", module)] = len(a)  # the name within a layer
  rank = min(ranks.values())
  wider = {module: r for module, r in ranks.items() if r != rank}
  values = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": base or None,
    "r": rank,
    "lora_alpha": scale * rank,
    "rank_pattern": wider,
    "alpha_pattern": {module: scale * r for module, r in wider.items()},
    "target_modules": sorted(ranks),
    "fan_in_fan_out": family.input_first,
    "lora_dropout": 0.0,
    "bias": "none",
    "inference_mode": True,
  }
  write_bytes(directory / "adapter_model.safetensors", safetensors.numpy.save(tensors, {"format": "pt"}))
  write_bytes(directory / "adapter_config.json", (json.dumps(values, indent=2) + "\n").encode())


def _pairs(adapters: Params) -> Iterator[tuple[str, Pair]]:
  """The path of every adapted matrix and its adapter."""
  pairs: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
  for path, leaf in leaf_paths(unstack_layers(adapters)):
    matrix, name = path.rsplit("/", 1)
    pairs[matrix][name] = np.asarray(leaf, np.float32)
  for matrix, pair in pairs.items():
    yield matrix, Pair(**pair)


def _joined(pairs: Mapping[int, Pair], place: Place, num_heads: int) -> tuple[np.ndarray, np.ndarray]:
  """(lora_A[R, in], lora_B[out, R]) of the adapters that share a matrix; R is the sum of their ranks."""
  a = np.concatenate([pair.a for pair in pairs.values()], axis=1)  # [in, R]
  rank, columns = a.shape[1], next(iter(pairs.values())).b.shape[1]
  parts = [np.zeros((rank, columns), np.float32) for _ in range(place.parts)]
  start = 0
  for part, pair in pairs.items():
    parts[part][start : start + len(pair.b)] = pair.b
    start += len(pair.b)
  b = join_leaves(parts, place.layout, num_heads)
  b = b if place.layout in ("transposed", "heads") else b.T  # "same" and "columns" leave it [R, out]
  return np.ascontiguousarray(a.T), np.ascontiguousarray(b)
