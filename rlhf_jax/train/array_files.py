"""Arrays in *.safetensors files (https://github.com/huggingface/safetensors, "Format"), by plain reads and writes.

Every error of the file system is an OSError of the call that met it. Nothing is mapped into memory, where a fault of
the disk would end the process.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

DTYPES = {
  "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
  "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64",
  "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes arrays under their names, and returns when they are on the disk. Raises OSError."""
  ends = list(itertools.accumulate((x.nbytes for x in arrays.values()), initial=0))
  header = {
    name: {"dtype": _NAMES[str(x.dtype)], "shape": list(x.shape), "data_offsets": [start, end]}
    for (name, x), (start, end) in zip(arrays.items(), itertools.pairwise(ends), strict=True)
  }
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # the arrays start aligned
  with open(path, "wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for x in arrays.values():
      file.write(as_bytes(x))
    file.flush()
    os.fsync(file.fileno())


class Entry(NamedTuple):
  """The place of an array in a file."""

  path: Path
  """File."""
  name: str
  """Name of the array."""
  shape: tuple[int, ...]
  """Shape of the array."""
  dtype: np.dtype
  """Number format of the array."""
  start: int
  """Number of bytes in front of the array."""

  def read(self) -> np.ndarray:
    """The array. Raises OSError, and ValueError where the file is too short."""
    content = np.empty(math.prod(self.shape) * self.dtype.itemsize, np.uint8)
    with open(self.path, "rb") as file:
      file.seek(self.start)
      if file.readinto(content.data) != content.size:
        raise ValueError(f"the entry {self.name!r:.80} of {self.path.name} is damaged")
    return content.view(self.dtype).reshape(self.shape)


def read_entries(path: Path) -> dict[str, Entry]:
  """The places of a file's arrays, by their names. Raises OSError, and ValueError where its header is damaged."""
  with open(path, "rb") as file:
    size = os.fstat(file.fileno()).st_size
    start = 8 + int.from_bytes(file.read(8), "little")
    if start > size:
      raise ValueError(f"the header of {path.name} is longer than the file")
    header = json.loads(file.read(start - 8))
  found = {}
  for name, entry in header.items() if isinstance(header, dict) else ():
    try:
      dtype, shape = _dtype(entry["dtype"]), tuple(entry["shape"])
      first, last = entry["data_offsets"]
      if not 0 <= first <= last <= size - start or last - first != math.prod(shape) * dtype.itemsize:
        raise ValueError
      found[name] = Entry(path, name, shape, dtype, start + first)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise ValueError(f"the entry {name!r:.80} of {path.name} is damaged") from error
  return found


def as_bytes(x: np.ndarray) -> memoryview:
  """The bytes of an array in row-major order; bfloat16 has no buffer of its own."""
  return np.ascontiguousarray(x).reshape(-1).view(np.uint8).data


def _dtype(name: str) -> np.dtype:
  dtype = DTYPES[name]
  return np.dtype(getattr(ml_dtypes, dtype) if hasattr(ml_dtypes, dtype) else dtype)
