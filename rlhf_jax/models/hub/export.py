"""Writes parameters as a directory that transformers, vLLM and `open_pretrained` read."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.models.config import DecoderConfig, UnsupportedModelError
from rlhf_jax.models.hub.families import FAMILIES, write_config
from rlhf_jax.models.hub.tensor_places import Layout, file_shape, join_leaves, leaf_paths, locate
from rlhf_jax.models.stacked import unstack_layers
from rlhf_jax.types import Params
from rlhf_jax.writing import whole_file, write_bytes

FileDtype = Literal["float32", "bfloat16"]  # what parameters are written in
_DTYPE_NAMES = {"float32": "F32", "bfloat16": "BF16"}  # as in the header of a safetensors file


def export_model(
  directory: Path,
  config: DecoderConfig,
  params: Params,
  token_ids: Mapping[str, int | list[int]],
  dtype: FileDtype = "float32",
) -> None:
  """Writes config.json, generation_config.json and model.safetensors.

  Args:
    params: {"decoder": ...}. With a "head" beside it the model is written as a sequence classifier of one label, whose
      logit is that of the last token before the padding, as in `LanguageModel.score`. Published classifiers have no
      bias, so the head's bias is the field "score_bias" of config.json: `open_pretrained` reads it, other programs must
      add it to the logit.
    token_ids: the values of pad_token_id, bos_token_id and eos_token_id, which may be a list. generation_config.json
      suppresses ids without a token, which the model was trained without.
    dtype: the dtype of every tensor. "float32" reads back exactly; "bfloat16" is half the size, each number rounded to
      its nearest, ties to even, and config.json asks readers to compute in it.

  Raises:
    UnsupportedModelError: the family's config.json has no words for a variant of this config, or for a head that
      weighs the likelihood of a response.
  """
  if "likelihood" in params.get("head", {}):
    raise UnsupportedModelError(
      "the reward model adds the likelihood of the response to its score, which no published classifier does; "
      "train it with likelihood=0 to export it"
    )
  family = FAMILIES[config.family]
  values: dict[str, Any] = write_config(config) | dict(token_ids) | {"torch_dtype": dtype}
  if "head" in params:
    values["architectures"] = [family.classifier]
    values |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}, "score_bias": float(params["head"]["bias"])}
  else:
    values["architectures"] = [family.language_model]
    unused = [index for first, end in config.ids_without_token for index in range(first, end)]
    generation = dict(token_ids) | ({"suppress_tokens": unused} if unused else {})
    _write_json(directory / "generation_config.json", generation)
  _write_tensors(directory / "model.safetensors", config, params, dtype)
  _write_json(directory / "config.json", values)


def _write_tensors(path: Path, config: DecoderConfig, params: Params, dtype: FileDtype) -> None:
  """Writes a safetensors file, for which one tensor at a time comes to the host."""
  groups: dict[tuple[str, Layout], dict[int, jax.Array]] = defaultdict(dict)
  params = unstack_layers(params)
  for leaf_name, leaf in leaf_paths(params):
    if leaf_name == "head/bias":
      continue
    place = locate(FAMILIES[config.family], leaf_name)
    groups[place.name, place.layout][place.part] = leaf
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  offset = 0
  for (name, layout), leaves in groups.items():
    shape = file_shape(layout, len(leaves), leaves[0].shape)
    end = offset + jnp.dtype(dtype).itemsize * math.prod(shape)
    header[name] = {"dtype": _DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
    offset = end
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # the arrays start aligned
  with whole_file(path) as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for (_, layout), leaves in groups.items():
      arrays = [np.asarray(leaves[part], jnp.dtype(dtype)) for part in sorted(leaves)]
      joined = np.ascontiguousarray(join_leaves(arrays, layout, config.num_heads))
      file.write(joined.view(np.uint8).data)  # bfloat16 has no buffer of its own


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
  write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())
