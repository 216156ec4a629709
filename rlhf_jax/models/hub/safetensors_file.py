"""Tensors of *.safetensors files (https://github.com/huggingface/safetensors, "Format")."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from rlhf_jax.models.config import UnsupportedModelError
from rlhf_jax.models.hub.tensor_places import Index

DTYPES: dict[str, DTypeLike] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
# Masks and frequencies that older versions of transformers stored: no parameters, and of any dtype.
OLD_BUFFER = re.compile(r"(\.attn|\.attention)\.(masked_)?bias$|rotary_emb\.inv_freq$")


class _Entry(NamedTuple):
  """Where a tensor stands."""

  path: Path
  dtype: np.dtype
  shape: tuple[int, ...]
  start: int
  """Position of its first byte in the file."""


class SafeTensors:
  """The tensors of a *.safetensors file, or of the files that a *.safetensors.index.json names."""

  def __init__(self, directory: Path):
    index = directory / "model.safetensors.index.json"
    if index.is_file():
      files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    elif (directory / "model.safetensors").is_file():
      files = ["model.safetensors"]
    else:
      raise UnsupportedModelError(f"{directory} has neither model.safetensors nor {index.name}")
    self._entries = {name: entry for file in files for name, entry in _read_header(directory / file)}
    self.shapes = {name: entry.shape for name, entry in self._entries.items()}

  def read(self, name: str, index: Index) -> np.ndarray:
    """The part `index` of a tensor, in the dtype of the file: its rows are read, its columns cut out of them."""
    path, dtype, shape, start = self._entries[name]
    first, last, _ = index[0].indices(shape[0])
    row = math.prod(shape[1:])
    rows = np.fromfile(path, dtype, (last - first) * row, offset=start + first * row * dtype.itemsize)
    return rows.reshape(last - first, *shape[1:])[(slice(None), *index[1:])]


def _read_header(path: Path) -> Iterator[tuple[str, _Entry]]:
  """The name and the place of every tensor in a file."""
  try:
    size = path.stat().st_size
    with path.open("rb") as file:
      length = int.from_bytes(file.read(8), "little")
      if length > size:
        raise ValueError("the header is longer than the file")
      header = json.loads(file.read(length))
  except (OSError, ValueError) as error:
    raise UnsupportedModelError(f"{path} is not a safetensors file: {error}") from error
  header.pop("__metadata__", None)
  for name, entry in header.items():
    if entry["dtype"] not in DTYPES:
      if OLD_BUFFER.search(name):
        continue
      raise UnsupportedModelError(f"{path}: {name} is of dtype {entry['dtype']}. Known: {', '.join(DTYPES)}.")
    start, end = (8 + length + offset for offset in entry["data_offsets"])
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
    if end > size or end - start != math.prod(shape) * dtype.itemsize:
      raise UnsupportedModelError(f"{path} is cut short or damaged at {name}: copy or download it again")
    yield name, _Entry(path, dtype, shape, start)
