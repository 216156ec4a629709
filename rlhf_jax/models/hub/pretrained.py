"""A published model on disk: a directory with config.json and safetensors, a GGUF file, or a name on the hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_jax.foreign_files import read_object
from rlhf_jax.models.config import DecoderConfig, UnsupportedModelError
from rlhf_jax.models.hub.families import read_config
from rlhf_jax.models.hub.gguf_file import open_gguf
from rlhf_jax.models.hub.safetensors_file import SafeTensors, other_form
from rlhf_jax.models.hub.tensor_places import Tensors
from rlhf_jax.models.hub.weights import load_weights
from rlhf_jax.types import Params

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja"]


class Pretrained(NamedTuple):
  """An opened model, none of whose weights has been read yet."""

  path: Path
  """Directory or GGUF file."""
  config: DecoderConfig
  """Shape of the decoder."""
  tensors: Tensors
  """Tensors under the names of its family."""
  score_bias: float = 0.0
  """Bias of the head of a sequence classifier that `export_model` wrote; 0 for all other models."""


def open_pretrained(name: str | Path) -> Pretrained:
  """Opens a local directory or *.gguf file, or else the model of that name on the Hugging Face hub.

  Raises:
    UnsupportedModelError: there is no model of that name, or a field of its config.json is not supported.
  """
  path = local_path(name)
  if path.is_file():
    values, tensors = open_gguf(path)
    return Pretrained(path, read_config(values, str(path)), tensors)
  file = path / "config.json"
  if not file.is_file():
    raise UnsupportedModelError(f"{file} cannot be read: it is not there{other_form(path)}")
  try:
    values = read_object(file)
  except (OSError, ValueError) as error:
    raise UnsupportedModelError(f"{file} cannot be read: {error}") from error
  config, bias = read_config(values, str(file)), values.get("score_bias", 0.0)
  if type(bias) not in (int, float) or not abs(bias) < 1e6:
    raise UnsupportedModelError(f"{file}: score_bias must be a number, not {bias!r:.80}")
  return Pretrained(path, config, SafeTensors(path), float(bias))


def load_pretrained(model: Pretrained, shard: Callable[[Any], Any] | None = None) -> Params:
  """The parameters of an opened model in float32: {"decoder": ...}, and a "head" for a sequence classifier.

  shard: a function from a tree of shapes to a like tree of shardings; by default all is on the first device.

  Raises:
    UnsupportedModelError: a tensor is missing, has another shape, or has no place in the model.
  """
  return load_weights(model.tensors, model.config, where=str(model.path), shard=shard, bias=model.score_bias)


def local_path(name: str | Path) -> Path:
  """The directory or GGUF file of a model; a model on the hub is downloaded first.

  Raises:
    UnsupportedModelError: there is no model of that name.
  """
  path = Path(name).expanduser()
  if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
    return path
  if path.is_file():
    raise UnsupportedModelError(f"{path} is no model: name the directory of a config.json, or a .gguf file")
  if not _HUB_NAME.fullmatch(str(name)):
    raise UnsupportedModelError(f"no model {name}: name a directory with a config.json, a .gguf file, or owner/name")
  try:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(name), allow_patterns=_HUB_FILES))
  except Exception as error:  # no network, no such model, no access: the library has an exception for each
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise UnsupportedModelError(f"{name} is no directory here, and the hub does not give it: {reason}") from error
