"""What the file of a family states: how its config.json is read and written, and how its tensors are named.

To add a family: write a file like gpt2.py, put its `Family` into `rlhf_jax.models.hub.families.FAMILIES`, its name into
`rlhf_jax.models.config.FamilyName`, and a small random model of it into tests/models/test_families.py, which compares
logits and exports with transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from rlhf_jax.models.config import DecoderConfig
from rlhf_jax.models.hub.config_fields import Fields


class Gguf(NamedTuple):
  """The GGUF files of a family, as convert_hf_to_gguf.py of llama.cpp writes them."""

  architecture: str
  """Value of their field general.architecture."""
  complete: Callable[[dict[str, Any]], dict[str, Any]]
  """Function from the fields that the files state, by their names in config.json, to all that `Family.read` needs.
  Where a field may be absent or of any type, it is left for `Family.read` to refuse."""
  restore: Callable[[str, np.ndarray, Mapping[str, Any]], np.ndarray]
  """Function from the name of a tensor in safetensors files, the tensor as GGUF has it and the fields of `complete` to
  the tensor as safetensors files have it."""


def as_it_is(name: str, tensor: np.ndarray, values: Mapping[str, Any]) -> np.ndarray:
  """`Gguf.restore` of a family whose tensors are the same in both files."""
  return tensor


class Family(NamedTuple):
  """The files of one family of published models."""

  read: Callable[[Fields], DecoderConfig]
  """Function from the fields of a config.json to the decoder; fields that it does not take are refused."""
  write: Callable[[DecoderConfig], dict[str, Any]]
  """Function from a decoder to the fields of its config.json, without model_type."""
  modules: Mapping[str, str]
  """Names of our modules and of the same modules in the family's files; "{i}" is the number of a layer. A parameter
  "kernel", "scale" or "embedding" is the tensor "weight" of the module there, a parameter "bias" its "bias"."""
  language_model: str
  """Class of transformers that predicts the next token."""
  classifier: str
  """Class of transformers that reads a score from the last token: the form of an exported reward model."""
  fused: Literal["", "columns", "heads"] = ""
  """Layout of query, key and value in a matrix they share, the module "layers_{i}/qkv": [in, 3 d] with the three side
  by side, or [3 d, in] with the three of each head together. "" for a family that keeps three matrices."""
  input_first: bool = False
  """Axes of the matrices in layers: True for [in, out], as here, False for [out, in], as in torch.nn.Linear."""
  optional_prefix: str = ""
  """Prefix of tensor names that some files of the family leave out."""
  gguf: Gguf | None = None
  """Form of the family's GGUF files; None where they are not read."""
