"""Writes parameters as a directory that transformers, vLLM and `open_pretrained` read."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_jax.models.config import DecoderConfig
from rlhf_jax.models.hub.families import write_config
from rlhf_jax.models.hub.weights import file_shape, join_leaves, leaf_paths, locate
from rlhf_jax.types import Params

_CLASSES = {
  "llama": "Llama",
  "mistral": "Mistral",
  "qwen2": "Qwen2",
  "qwen3": "Qwen3",
  "gemma2": "Gemma2",
  "gemma3_text": "Gemma3",
  "gpt2": "GPT2",
  "gpt_neox": "GPTNeoX",
}


def export_model(directory: Path, config: DecoderConfig, params: Params, token_ids: Mapping[str, int]) -> None:
  """Writes config.json, generation_config.json and model.safetensors (float32, so that reading them back is exact).

  params: {"decoder": ...}, and with a head a sequence classifier of one label: its logit is read at the last token that
  is not padding, as `LanguageModel.score` does. The published classifiers have no bias, so that of the head is stated
  in config.json as "score_bias": here it is read back, elsewhere add it. token_ids: pad_token_id, bos_token_id,
  eos_token_id.

  Raises:
    UnsupportedModelError: the family cannot say one of the config's variants.
  """
  directory.mkdir(parents=True, exist_ok=True)
  name = _CLASSES[config.family]
  values: dict[str, Any] = write_config(config) | dict(token_ids) | {"torch_dtype": "float32"}
  if "head" in params:
    part = "Text" if config.family == "gemma3_text" else ""
    values["architectures"] = [f"{name}{part}ForSequenceClassification"]
    values |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}, "score_bias": float(params["head"]["bias"])}
  else:
    values["architectures"] = [f"{name}LMHeadModel" if config.family == "gpt2" else f"{name}ForCausalLM"]
    _write(directory / "generation_config.json", json.dumps(dict(token_ids), indent=2) + "\n")
  _write_tensors(directory / "model.safetensors", config, params)
  _write(directory / "config.json", json.dumps(values, indent=2) + "\n")


def _write_tensors(path: Path, config: DecoderConfig, params: Params) -> None:
  """One tensor at a time comes to the host."""
  groups = defaultdict(dict)
  for leaf_name, leaf in leaf_paths(params):
    if leaf_name == "head/bias":
      continue
    place = locate(config, leaf_name)
    groups[place.name, place.layout][place.part] = leaf
  header, offset = {"__metadata__": {"format": "pt"}}, 0
  for (name, layout), leaves in groups.items():
    shape = file_shape(layout, len(leaves), leaves[0].shape)
    end = offset + 4 * math.prod(shape)
    header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
    offset = end
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # the arrays start aligned
  partial = path.with_suffix(".partial")
  with partial.open("wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for (_, layout), leaves in groups.items():
      arrays = [np.asarray(leaves[part], np.float32) for part in sorted(leaves)]
      np.ascontiguousarray(join_leaves(arrays, layout, config.num_heads)).tofile(file)
  os.replace(partial, path)


def _write(path: Path, text: str) -> None:
  partial = path.with_suffix(".partial")
  partial.write_text(text)
  os.replace(partial, path)
