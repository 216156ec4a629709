"""GGUF files (llama.cpp) as the config.json and the tensors they were converted from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_jax.models.config import UnsupportedModelError

if TYPE_CHECKING:
  from gguf import GGUFReader

_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_FIELDS = {  # field of the architecture -> field of config.json
  "block_count": "num_hidden_layers",
  "context_length": "max_position_embeddings",
  "embedding_length": "hidden_size",
  "feed_forward_length": "intermediate_size",
  "attention.head_count": "num_attention_heads",
  "attention.head_count_kv": "num_key_value_heads",
  "attention.key_length": "head_dim",
  "attention.layer_norm_rms_epsilon": "rms_norm_eps",
  "rope.freq_base": "rope_theta",
}
_MODULES = {
  "attn_norm": "input_layernorm",
  "ffn_norm": "post_attention_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "attn_q_norm": "self_attn.q_norm",
  "attn_k_norm": "self_attn.k_norm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def open_gguf(path: Path) -> tuple[dict[str, Any], GGUFTensors]:
  """The config.json and the tensors of the model that a GGUF file was converted from.

  The tensors have the names of Llama's safetensors files and are dequantised as they are read.

  Raises:
    UnsupportedModelError: the package `gguf` is missing, or the file holds an architecture or a field that is not
      supported.
  """
  try:
    from gguf import GGUFReader
  except ImportError as error:
    raise UnsupportedModelError(f"{path}: reading GGUF needs the package gguf: pip install 'rlhf_jax[gguf]'") from error
  try:
    reader = GGUFReader(path)
  except ValueError as error:
    raise UnsupportedModelError(f"{path} is not a GGUF file: {error}") from error
  values = _config(reader, path)
  tensors = GGUFTensors(reader, values, path)
  values["tie_word_embeddings"] = "lm_head.weight" not in tensors.shapes
  values["attention_bias"] = "model.layers.0.self_attn.q_proj.bias" in tensors.shapes
  if values["model_type"] == "qwen2":
    del values["attention_bias"]  # Qwen 2 has no such field: its queries, keys and values always have a bias
  return values, tensors


def _config(reader: GGUFReader, path: Path) -> dict[str, Any]:
  architecture = reader.fields["general.architecture"].contents()
  if architecture not in _ARCHITECTURES:
    raise UnsupportedModelError(
      f"{path}: general.architecture={architecture!r} is not supported. Known: {', '.join(_ARCHITECTURES)}."
    )
  values = {"model_type": architecture, "hidden_act": "silu"}
  for name, field in reader.fields.items():
    own = name.removeprefix(f"{architecture}.")
    if own == name or own == "vocab_size":
      continue  # a field of the file, the tokenizer or the quantisation
    if own in _FIELDS:
      values[_FIELDS[own]] = field.contents()
    elif own not in ("rope.dimension_count", "attention.value_length"):
      raise UnsupportedModelError(f"{path}: the field {name}={field.contents()!r} is not supported")
  for name in ("rms_norm_eps", "rope_theta"):
    if name in values:
      values[name] = float(str(np.float32(values[name])))  # 1e-05 again: as a float32 it is 9.99999974e-06
  values.setdefault("head_dim", values["hidden_size"] // values["num_attention_heads"])
  for own in ("rope.dimension_count", "attention.value_length"):
    stated = reader.fields.get(f"{architecture}.{own}")
    if stated is not None and stated.contents() != values["head_dim"]:
      raise UnsupportedModelError(f"{path}: {architecture}.{own}={stated.contents()} is not supported, only head_dim")
  embedding = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
  return values | {"vocab_size": int(embedding.shape[1])}


class GGUFTensors:
  """The tensors of a GGUF file; one of them at a time is held dequantised."""

  def __init__(self, reader: GGUFReader, values: Mapping[str, Any], path: Path):
    self._tensors = {_name(tensor.name, path): tensor for tensor in reader.tensors}
    self.shapes = {name: tuple(map(int, tensor.shape[::-1])) for name, tensor in self._tensors.items()}
    self._heads: dict[str, int] = {}
    if values["model_type"] == "llama":
      self._heads = {"q_proj": values["num_attention_heads"], "k_proj": values["num_key_value_heads"]}
    self._last: tuple[str, np.ndarray] | None = None

  def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
    """A part of a tensor in float32."""
    if self._last is None or self._last[0] != name:
      self._last = None  # frees the last tensor before the next one is made
      self._last = (name, self._dequantise(name))
    return self._last[1][index]

  def _dequantise(self, name: str) -> np.ndarray:
    from gguf import dequantize

    tensor = self._tensors[name]
    array = dequantize(tensor.data, tensor.tensor_type).reshape(self.shapes[name])
    heads = next((count for part, count in self._heads.items() if f".{part}." in name), 0)
    if not heads:
      return array
    # llama.cpp rotates neighbouring features, so its files hold the rows of Llama's queries and keys interleaved.
    return array.reshape(heads, -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _name(name: str, path: Path) -> str:
  """The name of a tensor in Llama's safetensors files."""
  stem, _, suffix = name.rpartition(".")
  if stem in _TOP:
    return f"{_TOP[stem]}.{suffix}"
  block, _, rest = stem.removeprefix("blk.").partition(".")
  if not stem.startswith("blk.") or rest not in _MODULES:
    raise UnsupportedModelError(f"{path}: the tensor {name!r} has no place in a model of this project")
  return f"model.layers.{block}.{_MODULES[rest]}.{suffix}"
