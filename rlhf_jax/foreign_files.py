"""Small files of others, read within bounds: a file made to exhaust memory or to loop is a ValueError."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

MAX_JSON = 16 << 20  # bytes of a JSON file; those of published models have a few MB at most, and decoded they grow
_MAX_ELEMENTS = (
  4 << 20
)  # elements of all arrays in the header of a GGUF file, of which a vocabulary has about a million
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # type of a GGUF value -> its bytes
_STRING, _ARRAY = 8, 9
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_json(path: Path, limit: int = MAX_JSON) -> Any:
  """The JSON value in a file of at most `limit` bytes.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is larger, or no whole JSON value, or nested too deeply.
  """
  with path.open("rb") as file:
    data = file.read(limit + 1)
  check_downloaded(data)
  if len(data) > limit:
    raise ValueError(f"it is larger than {limit >> 20} MB")
  return decode_json(data)


def read_object(path: Path) -> dict[str, Any]:
  """The JSON object in a file. Raises as `read_json`."""
  value = read_json(path)
  if not isinstance(value, dict):
    raise ValueError("it holds no JSON object")
  return value


def decode_json(data: bytes) -> Any:
  """The JSON value of some bytes. Raises ValueError, also for deep nesting and for keys that stand twice."""
  try:
    return json.loads(data.decode(), object_pairs_hook=_without_duplicates)
  except RecursionError as error:
    raise ValueError("it is nested too deeply") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found: dict[str, Any] = {}
  for key, value in pairs:
    if key in found:
      raise ValueError(f"the key {key!r:.80} stands twice")
    found[key] = value
  return found


def check_downloaded(start: bytes) -> None:
  """Raises ValueError where the first bytes of a file show that a clone without Git LFS left its pointer there."""
  if start.startswith(_LFS_POINTER):
    raise ValueError(
      "it is a pointer of Git LFS and not the file itself: run `git lfs pull` there, or download it again"
    )


def check_gguf(path: Path) -> None:
  """Walks the header of a GGUF file, whose counts and lengths a reader would believe.

  https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

  Raises:
    OSError: the file cannot be read.
    ValueError: a count or a length points beyond the end of the file, or there are too many elements.
  """
  with path.open("rb") as file:
    _Header(file, path.stat().st_size).walk()


class _Header:
  """A position in the header of a GGUF file of little-endian numbers."""

  def __init__(self, file: BinaryIO, size: int) -> None:
    self.file, self.size, self.elements = file, size, 0

  def walk(self) -> None:
    """Passes over all keys with their values, and over the descriptions of all tensors."""
    magic = self.file.read(4)
    if magic != b"GGUF":
      check_downloaded(magic + self.file.read(len(_LFS_POINTER)))
      raise ValueError("it does not start with GGUF")
    self.number("I")
    tensors, keys = self.number("Q"), self.number("Q")
    for _ in range(keys):
      self.skip(self.number("Q"))
      self.value(self.number("I"))
    for _ in range(tensors):
      self.skip(self.number("Q"))
      dimensions = self.number("I")
      if dimensions > 8:
        raise ValueError(f"a tensor has {dimensions} dimensions")
      self.skip(8 * dimensions + 4 + 8)

  def value(self, kind: int) -> None:
    """Passes over a value."""
    if kind == _STRING:
      self.skip(self.number("Q"))
    elif kind == _ARRAY:
      inner, count = self.number("I"), self.number("Q")
      self.elements += count
      if self.elements > _MAX_ELEMENTS:
        raise ValueError(f"its arrays have more than {_MAX_ELEMENTS} elements")
      if inner in _SCALARS:
        self.skip(_SCALARS[inner] * count)
      elif inner == _STRING:
        for _ in range(count):
          self.skip(self.number("Q"))
      else:
        raise ValueError(f"an array is of the unknown type {inner}")
    elif kind in _SCALARS:
      self.skip(_SCALARS[kind])
    else:
      raise ValueError(f"a value is of the unknown type {kind}")

  def number(self, form: str) -> int:
    """The next unsigned number of struct's `form`."""
    data = self.file.read(struct.calcsize(f"<{form}"))
    if len(data) < struct.calcsize(f"<{form}"):
      raise ValueError("it is cut short, or a count in it is wrong")
    return struct.unpack(f"<{form}", data)[0]

  def skip(self, length: int) -> None:
    """Passes over `length` bytes, which must be there."""
    if length > self.size - self.file.tell():
      raise ValueError("it is cut short, or a length in it is wrong")
    self.file.seek(length, 1)
