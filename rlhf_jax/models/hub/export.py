"""Writes parameters as a directory that transformers, vLLM and `open_pretrained` read."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlhf_jax.models.config import DecoderConfig, UnsupportedModelError
from rlhf_jax.models.hub.families import FAMILIES, write_config
from rlhf_jax.models.hub.tensor_places import Layout, file_shape, join_leaves, leaf_paths, locate
from rlhf_jax.types import Params


def export_model(directory: Path, config: DecoderConfig, params: Params, token_ids: Mapping[str, int]) -> None:
  """Writes config.json, generation_config.json and model.safetensors (float32, so that reading them back is exact).

  Args:
    params: {"decoder": ...}. With a "head" beside it the model is written as a sequence classifier of one label, whose
      logit is that of the last token before the padding, as in `LanguageModel.score`. Published classifiers have no
      bias, so the head's bias is the field "score_bias" of config.json: `open_pretrained` reads it, other programs must
      add it to the logit.
    token_ids: the values of pad_token_id, bos_token_id and eos_token_id.

  Raises:
    UnsupportedModelError: the family's config.json has no words for a variant of this config, or for a head that
      weighs the likelihood of a response.
  """
  if "likelihood" in params.get("head", {}):
    raise UnsupportedModelError(
      "the reward model adds the likelihood of the response to its score, which no published classifier does; "
      "train it with likelihood=0 to export it"
    )
  directory.mkdir(parents=True, exist_ok=True)
  family = FAMILIES[config.family]
  values: dict[str, Any] = write_config(config) | dict(token_ids) | {"torch_dtype": "float32"}
  if "head" in params:
    values["architectures"] = [family.classifier]
    values |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}, "score_bias": float(params["head"]["bias"])}
  else:
    values["architectures"] = [family.language_model]
    _write(directory / "generation_config.json", json.dumps(dict(token_ids), indent=2) + "\n")
  _write_tensors(directory / "model.safetensors", config, params)
  _write(directory / "config.json", json.dumps(values, indent=2) + "\n")


def _write_tensors(path: Path, config: DecoderConfig, params: Params) -> None:
  """Writes a safetensors file, for which one tensor at a time comes to the host."""
  groups: dict[tuple[str, Layout], dict[int, jax.Array]] = defaultdict(dict)
  for leaf_name, leaf in leaf_paths(params):
    if leaf_name == "head/bias":
      continue
    place = locate(FAMILIES[config.family], leaf_name)
    groups[place.name, place.layout][place.part] = leaf
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  offset = 0
  for (name, layout), leaves in groups.items():
    shape = file_shape(layout, len(leaves), leaves[0].shape)
    end = offset + 4 * math.prod(shape)
    header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
    offset = end
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # the arrays start aligned
  with _whole_file(path) as partial, partial.open("wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for (_, layout), leaves in groups.items():
      arrays = [np.asarray(leaves[part], np.float32) for part in sorted(leaves)]
      np.ascontiguousarray(join_leaves(arrays, layout, config.num_heads)).tofile(file)


def _write(path: Path, text: str) -> None:
  with _whole_file(path) as partial:
    partial.write_text(text)


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
  """A path to write to, which is renamed to `path` at the end, so that a reader never sees half of a file."""
  partial = path.with_suffix(".partial")
  yield partial
  os.replace(partial, path)
