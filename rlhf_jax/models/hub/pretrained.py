"""A published model on disk: a directory with config.json and safetensors, a GGUF file, or a name on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_jax.models.config import DecoderConfig, UnsupportedModelError
from rlhf_jax.models.hub.families import read_config
from rlhf_jax.models.hub.gguf_file import open_gguf
from rlhf_jax.models.hub.weights import SafeTensors, Tensors, load_weights
from rlhf_jax.types import Params

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja"]


class Pretrained(NamedTuple):
  """An opened model: nothing of its weights is read yet. score_bias: of a sequence classifier this project wrote."""

  path: Path
  config: DecoderConfig
  tensors: Tensors
  score_bias: float = 0.0


def open_pretrained(name: str | Path) -> Pretrained:
  """Opens a local directory or *.gguf file, or else the model of that name on the Hugging Face hub.

  Raises:
    UnsupportedModelError: nothing of that name, or a model that cannot be represented, naming the field.
  """
  path = local_path(name)
  if path.is_file():
    values, tensors = open_gguf(path)
    return Pretrained(path, read_config(values, str(path)), tensors)
  file = path / "config.json"
  try:
    values = json.loads(file.read_text())
  except (OSError, ValueError) as error:
    raise UnsupportedModelError(f"{file} cannot be read: {error}") from error
  return Pretrained(path, read_config(values, str(file)), SafeTensors(path), float(values.get("score_bias", 0.0)))


def load_pretrained(model: Pretrained, shard: Callable[[Any], Any] | None = None) -> Params:
  """The parameters of an opened model; see `load_weights`."""
  return load_weights(model.tensors, model.config, where=str(model.path), shard=shard, bias=model.score_bias)


def local_path(name: str | Path) -> Path:
  """The directory or GGUF file of a model; one on the hub is downloaded first.

  Raises:
    UnsupportedModelError: there is nothing of that name.
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
