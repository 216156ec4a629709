"""GGUF files (llama.cpp) as the config.json and the tensors they were converted from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_jax.foreign_files import check_gguf
from rlhf_jax.models.config import UnsupportedModelError
from rlhf_jax.models.hub.families import FAMILIES
from rlhf_jax.models.hub.family import Family, Gguf

if TYPE_CHECKING:
  from gguf import GGUFReader, ReaderTensor

_FIELDS = {  # field of the architecture -> field of config.json
  "block_count": "num_hidden_layers",
  "context_length": "max_position_embeddings",
  "embedding_length": "hidden_size",
  "feed_forward_length": "intermediate_size",
  "attention.head_count": "num_attention_heads",
  "attention.head_count_kv": "num_key_value_heads",
  "attention.key_length": "head_dim",
  "attention.layer_norm_rms_epsilon": "rms_norm_eps",
  "attention.sliding_window": "sliding_window",
  "attn_logit_softcapping": "attn_logit_softcapping",
  "final_logit_softcapping": "final_logit_softcapping",
  "rope.freq_base": "rope_theta",
}
_HEAD_SIZES = ("rope.dimension_count", "attention.value_length")  # which must be those of attention.key_length
_SCALING = ("rope.scaling.type", "rope.scaling.factor")
_MODULES = {  # of a layer: name in the file -> our name
  "attn_norm": "attention_norm",
  "post_attention_norm": "attention_post_norm",
  "ffn_norm": "mlp_norm",
  "post_ffw_norm": "mlp_post_norm",
  "attn_q": "query",
  "attn_k": "key",
  "attn_v": "value",
  "attn_output": "attention_out",
  "attn_q_norm": "query_norm",
  "attn_k_norm": "key_norm",
  "ffn_gate": "gate",
  "ffn_up": "up",
  "ffn_down": "mlp_out",
}
_TOP = {"token_embd": "embedding", "output_norm": "final_norm", "output": "unembedding"}


def open_gguf(path: Path) -> tuple[dict[str, Any], GGUFTensors]:
  """The config.json and the tensors of the model that a GGUF file was converted from.

  The tensors have the names of the family's safetensors files and are dequantised as they are read.

  Raises:
    UnsupportedModelError: the package `gguf` is missing, the file is damaged, or it holds an architecture or a field
      that is not supported.
  """
  try:
    from gguf import GGUFReader
  except ImportError as error:
    raise UnsupportedModelError(f"{path}: reading GGUF needs the package gguf: pip install 'rlhf_jax[gguf]'") from error
  try:
    check_gguf(path)  # as the library believes every count
    reader = GGUFReader(path)
  except Exception as error:  # the library looks up keys and indices without checks
    raise UnsupportedModelError(f"{path} is not a GGUF file, or damaged: {str(error)[:200]}") from error
  stated = reader.fields.get("general.architecture")
  architecture = stated and stated.contents()
  known = {family.gguf.architecture: (name, family) for name, family in FAMILIES.items() if family.gguf}
  if not isinstance(architecture, str) or architecture not in known:
    raise UnsupportedModelError(
      f"{path}: general.architecture={architecture!r:.80} is not supported. Known: {', '.join(known)}."
    )
  name, family = known[architecture]
  gguf = family.gguf
  assert gguf is not None  # of the families that are known here
  tensors = {_name(tensor.name, family, path): tensor for tensor in reader.tensors}
  values = {"model_type": name, **_config(reader, architecture, path)}
  values["tie_word_embeddings"] = f"{family.modules['unembedding']}.weight" not in tensors
  values["attention_bias"] = f"{family.modules['layers_{i}/query'].format(i=0)}.bias" in tensors
  values = gguf.complete(values)
  return values, GGUFTensors(tensors, gguf, values)


def _config(reader: GGUFReader, architecture: str, path: Path) -> dict[str, Any]:
  values: dict[str, Any] = {}
  for name, field in reader.fields.items():
    own = name.removeprefix(f"{architecture}.")
    if own == name or own == "vocab_size":
      continue  # a field of the file, the tokenizer or the quantisation
    if own in _FIELDS:
      stated = field.contents()
      # 1e-05 again: as a float32 it is 9.99999974e-06.
      values[_FIELDS[own]] = float(str(np.float32(stated))) if type(stated) is float else stated
    elif own not in (*_HEAD_SIZES, *_SCALING):
      raise UnsupportedModelError(f"{path}: the field {name}={field.contents()!r:.80} is not supported")
  width, heads = values.get("hidden_size"), values.get("num_attention_heads")
  if type(width) is int and type(heads) is int and heads > 0:  # else read_config names the field
    values.setdefault("head_dim", width // heads)
  for own in _HEAD_SIZES:
    found = reader.fields.get(f"{architecture}.{own}")
    if found is not None and found.contents() != values.get("head_dim"):
      raise UnsupportedModelError(f"{path}: {architecture}.{own}={found.contents()} is not supported, only head_dim")
  kind, factor = (reader.fields.get(f"{architecture}.{own}") for own in _SCALING)
  if kind is not None and kind.contents() != "none":
    values["rope_scaling"] = {"rope_type": kind.contents(), "factor": factor and factor.contents()}
  embedding = next((tensor for tensor in reader.tensors if tensor.name == "token_embd.weight"), None)
  if embedding is None or len(embedding.shape) != 2:
    raise UnsupportedModelError(f"{path} has no matrix token_embd.weight")
  return values | {"vocab_size": int(embedding.shape[1])}


class GGUFTensors:
  """The tensors of a GGUF file; one of them at a time is held dequantised."""

  def __init__(self, tensors: Mapping[str, ReaderTensor], gguf: Gguf, values: Mapping[str, Any]):
    self.shapes = {name: tuple(map(int, tensor.shape[::-1])) for name, tensor in tensors.items()}
    self._tensors, self._gguf, self._values = tensors, gguf, values  # read_config checks the values before a read
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
    return self._gguf.restore(name, array, self._values)


def _name(name: str, family: Family, path: Path) -> str:
  """The name of a tensor in the family's safetensors files."""
  stem, _, suffix = name.rpartition(".")
  block, _, rest = stem.removeprefix("blk.").partition(".")
  layer = f"layers_{{i}}/{_MODULES.get(rest)}" if stem.startswith("blk.") else ""
  module = family.modules.get(layer or _TOP.get(stem, ""))
  if module is None:
    raise UnsupportedModelError(f"{path}: the tensor {name!r} has no place in a model of this project")
  return f"{module.format(i=block)}.{suffix}"
