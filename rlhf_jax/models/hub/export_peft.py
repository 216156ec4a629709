"""Writes adapters in the format of PEFT (https://huggingface.co/docs/peft/developer_guides/checkpoint)."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import safetensors.numpy

from rlhf_jax.models.config import DecoderConfig
from rlhf_jax.models.hub.weights import join_leaves, leaf_paths, locate
from rlhf_jax.types import Params


def export_adapters(directory: Path, config: DecoderConfig, params: Params, base: str = "") -> None:
  """Writes adapter_config.json and adapter_model.safetensors of a language model {"decoder", "lora", "lora_scale"}.

  base: the name or path of the model they belong to, as PEFT is to find it; "" leaves it to the reader. Where a family
  keeps query, key and value in one matrix, their adapters are joined to one of the sum of their ranks.
  """
  scale = float(params["lora_scale"])
  groups: dict = defaultdict(dict)
  for name, leaf in leaf_paths(params["lora"]):
    matrix, kind = name.rsplit("/", 1)
    place = locate(config, f"{matrix}/kernel")
    groups[place.name, place.layout].setdefault(place.part, {})[kind] = np.asarray(leaf, np.float32)
    groups[place.name, place.layout]["parts"] = place.parts
  tensors, ranks = {}, {}
  for (name, layout), group in groups.items():
    parts = group.pop("parts")
    a, b = _joined(group, parts, layout, config.num_heads)
    module = name.removesuffix(".weight")
    tensors |= {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    ranks[re.search(r"\.\d+\.(.+)$", module)[1]] = len(a)
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
    "fan_in_fan_out": config.family == "gpt2",  # whose matrices are [in, out]
    "lora_dropout": 0.0,
    "bias": "none",
    "inference_mode": True,
  }
  directory.mkdir(parents=True, exist_ok=True)
  safetensors.numpy.save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt"})
  (directory / "adapter_config.json").write_text(json.dumps(values, indent=2) + "\n")


def _joined(group: dict, parts: int, layout: str, num_heads: int) -> tuple[np.ndarray, np.ndarray]:
  """(lora_A[R, in], lora_B[out, R]) of the adapters that share a matrix; R is the sum of their ranks."""
  a = np.concatenate([pair["a"] for pair in group.values()], axis=1)  # [in, R]
  leaves, start = {}, 0
  for part, pair in group.items():
    rank, columns = pair["b"].shape
    leaves[part] = np.zeros((a.shape[1], columns), np.float32)
    leaves[part][start : start + rank] = pair["b"]
    start += rank
  empty = np.zeros_like(next(iter(leaves.values())))
  b = join_leaves([leaves.get(part, empty) for part in range(parts)], layout, num_heads)
  b = b if layout in ("transposed", "heads") else b.T  # the others leave it [R, out]
  return np.ascontiguousarray(a.T), np.ascontiguousarray(b)
