"""Tensors of *.safetensors files (https://github.com/huggingface/safetensors, "Format")."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from rlhf_jax.foreign_files import MAX_JSON, check_downloaded, decode_json, read_object
from rlhf_jax.models.config import UnsupportedModelError
from rlhf_jax.models.hub.tensor_places import Index

DTYPES: dict[str, DTypeLike] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
# Masks and frequencies that older versions of transformers stored: no parameters, and of any dtype.
OLD_BUFFER = re.compile(r"(\.attn|\.attention)\.(masked_)?bias$|rotary_emb\.inv_freq$")
# What torch.compile, DataParallel and FSDP put into the names of the tensors that they wrap.
_WRAPPER = re.compile(r"(?<![^.])(_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

MAX_DIMENSIONS, MAX_SIZE = 8, 1 << 48  # axes of a tensor; length of an axis, and place of a byte


class _Entry(NamedTuple):
  """Where a tensor stands."""

  path: Path
  dtype: np.dtype
  shape: tuple[int, ...]
  start: int
  """Position of its first byte in the file."""


class SafeTensors:
  """The tensors of a *.safetensors file, or of the files that a *.safetensors.index.json names.

  Names are those of the model itself, without what wrappers of torch put into them.
  """

  def __init__(self, directory: Path):
    self._entries: dict[str, _Entry] = {}
    for file in _files(directory):
      for name, entry in _read_header(directory / file):
        name = _WRAPPER.sub("", name)
        if name in self._entries:
          raise UnsupportedModelError(f"{directory / file}: {name!r:.80} is in {self._entries[name].path.name} too")
        self._entries[name] = entry
    self.shapes = {name: entry.shape for name, entry in self._entries.items()}

  def read(self, name: str, index: Index) -> np.ndarray:
    """The part `index` of a tensor, in the dtype of the file: its rows are read, its columns cut out of them."""
    path, dtype, shape, start = self._entries[name]
    first, last, _ = index[0].indices(shape[0])
    row = math.prod(shape[1:])
    rows = np.fromfile(path, dtype, (last - first) * row, offset=start + first * row * dtype.itemsize)
    return rows.reshape(last - first, *shape[1:])[(slice(None), *index[1:])]


def _files(directory: Path) -> list[str]:
  """The names of the files with a model's tensors.

  Raises:
    UnsupportedModelError: there are none, some are missing, or there are two models.
  """
  single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
  if not index.is_file():
    if not single.is_file():
      raise UnsupportedModelError(f"{directory} has neither {single.name} nor {index.name}{other_form(directory)}")
    return [single.name]
  shards = _read_index(index)
  missing = [file for file in shards if not (directory / file).is_file()]
  if not single.is_file():
    if missing:
      raise UnsupportedModelError(
        f"{directory} lacks {missing[0]}, {len(missing)} of {len(shards)} files that {index.name} names: copy or "
        "download it again"
      )
    return shards
  if not missing and shards != [single.name]:
    raise UnsupportedModelError(
      f"{directory} holds two models, {single.name} and the files that {index.name} names: delete the one that is old"
    )
  return [single.name]  # an index that outlived its files


def other_form(directory: Path) -> str:
  """What a directory holds in place of safetensors files, and what to do; "" for nothing known."""
  if (directory / "adapter_config.json").is_file():
    return ", but adapters of PEFT: merge them into their model first, with merge_and_unload()"
  pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in directory.glob(pattern))
  if pickled:
    return (
      f", but {pickled[0]}, a pickle that could run any code: write it anew with transformers, "
      "AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
    )
  if others := sorted(file.name for file in directory.glob("*.safetensors")):
    return f", but {others[0]}: if it holds the whole model, rename it"
  return ": a model that is published as pytorch_model.bin needs save_pretrained(...) of transformers first"


def _read_index(path: Path) -> list[str]:
  """The names of the files that an index names, all of them beside it."""
  try:
    files = read_object(path).get("weight_map")
  except (OSError, ValueError) as error:
    raise UnsupportedModelError(f"{path} cannot be read: {error}") from error
  if not isinstance(files, dict) or not files:
    raise UnsupportedModelError(f"{path} has no 'weight_map' from tensors to files")
  for file in files.values():
    if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
      raise UnsupportedModelError(f"{path} names {file!r:.80}, which is no *.safetensors file beside it")
  return sorted(set(files.values()))


def _read_header(path: Path) -> Iterator[tuple[str, _Entry]]:
  """The name and the place of every tensor in a file."""
  try:
    size = path.stat().st_size
    with path.open("rb") as file:
      check_downloaded(file.read(64))
      file.seek(0)
      length = int.from_bytes(file.read(8), "little")
      if length > min(size - 8, MAX_JSON):
        raise ValueError(f"its header is said to have {length} bytes, more than the file or than {MAX_JSON >> 20} MB")
      header = decode_json(file.read(length))
    if not isinstance(header, dict):
      raise ValueError("its header is no JSON object")
  except (OSError, ValueError) as error:
    raise UnsupportedModelError(f"{path} is not a safetensors file: {error}") from error
  header.pop("__metadata__", None)
  spans = []
  for name, found in header.items():
    if not name.isprintable():
      raise UnsupportedModelError(f"{path}: the name {name!r:.80} of a tensor has characters that cannot be printed")
    kind, shape, start, end = _read_entry(found, f"{path}: {name!r:.80}")
    if not end <= size - 8 - length:
      raise UnsupportedModelError(f"{path} is cut short or damaged at {name}: copy or download it again")
    spans.append((start, end, name))
    if kind not in DTYPES:
      if OLD_BUFFER.search(name):
        continue
      raise UnsupportedModelError(f"{path}: {name} is of dtype {kind:.40}. Known: {', '.join(DTYPES)}.")
    dtype = np.dtype(DTYPES[kind])
    if end - start != math.prod(shape) * dtype.itemsize:
      raise UnsupportedModelError(f"{path} is cut short or damaged at {name}: copy or download it again")
    yield name, _Entry(path, dtype, shape, 8 + length + start)
  for (_, end, name), (start, _, other) in itertools.pairwise(sorted(spans)):
    if start < end:
      raise UnsupportedModelError(f"{path}: the bytes of {name!r:.80} and {other!r:.80} overlap")


def _read_entry(found: Any, where: str) -> tuple[str, tuple[int, ...], int, int]:
  """(dtype, shape, start, end) of a tensor from its entry in the header."""
  entry = found if isinstance(found, dict) else {}
  kind, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
  if (
    not isinstance(kind, str)
    or not kind.isprintable()
    or not _whole(shape, MAX_DIMENSIONS)
    or not _whole(offsets, 2)
    or len(offsets) != 2
  ):
    raise UnsupportedModelError(f"{where} must have 'dtype', 'shape' and two 'data_offsets', whole numbers from 0")
  start, end = offsets
  if start > end:
    raise UnsupportedModelError(f"{where}: its data end before they start")
  return kind, tuple(shape), start, end


def _whole(numbers: Any, most: int) -> TypeGuard[list[int]]:
  """Whether it is a list of at most `most` whole numbers, none of which is negative or absurd."""
  return (
    isinstance(numbers, list) and len(numbers) <= most and all(type(n) is int and 0 <= n <= MAX_SIZE for n in numbers)
  )
