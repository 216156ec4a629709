"""Chunks of arrays, the parts that devices hold: copied when a checkpoint is saved, verified when it is read.

A chunk is named by its ranges of indices, "0:128,64:128"; in a file it is called PATH[CHUNK], and PATH where it is all
of the array.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rlhf_jax.train.array_files import Entry, as_bytes
from rlhf_jax.train.checkpoint_errors import DamagedError
from rlhf_jax.train.processes import first_line, leader

Described = Mapping[str, list]  # {path of an array: [shape, dtype, {name of a chunk: SHA-256 of its bytes}]}


class Snapshot:
  """A copy on the host of what this process writes of a tree of arrays, which later steps do not change."""

  def __init__(self, tree: Any):
    for leaf in jax.tree.leaves(tree):
      leaf.copy_to_host_async()
    self.shapes = {path: (x.shape, str(x.dtype)) for path, x in paths(tree)}
    self.chunks = {
      path: {_chunk_name(index, x.shape): index for index in x.sharding.devices_indices_map(x.shape).values()}
      for path, x in paths(tree)
    }
    self.own = dict(self._copied(tree))

  def _copied(self, tree: Any) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """((path, name of the chunk), chunk) of the chunks that this process writes; no two processes write the same."""
    for path, x in paths(tree):
      # np.array: on a CPU np.asarray is the memory of the device, which the next step donates.
      if not x.is_fully_addressable:
        for shard in x.addressable_shards:
          if shard.replica_id == 0:
            yield (path, _chunk_name(shard.index, x.shape)), np.array(shard.data)
      elif leader():
        whole = np.array(x)
        yield from (((path, name), whole[index]) for name, index in self.chunks[path].items())

  def digests(self) -> dict[tuple[str, str], str]:
    """The SHA-256 of each of its own chunks."""
    return {name: sha256(chunk) for name, chunk in self.own.items()}

  def described(self, digests: Mapping[tuple[str, str], str]) -> Described:
    """Shape, dtype and checksums of every array, from the checksums of the chunks of all processes."""
    return {
      path: [list(shape), dtype, {name: digests[path, name] for name in self.chunks[path]}]
      for path, (shape, dtype) in self.shapes.items()
    }

  def named_chunks(self) -> dict[str, np.ndarray]:
    """Its own chunks, by their names in a file."""
    return {name_in_file(path, name, self.shapes[path][0]): chunk for (path, name), chunk in self.own.items()}


class StoredArray:
  """An array of a checkpoint, of which parts can be read; every chunk that is read is verified."""

  def __init__(self, what: str, entry: list, chunks: Mapping[str, Entry] | None, whole: np.ndarray | None = None):
    """what: the array in words. entry: its description. chunks: where its chunks lie. whole: the array, where it has
    no chunks, verified already."""
    self.shape, self.dtype = tuple(entry[0]), entry[1]
    self._what, self._digests, self._chunks = what, entry[2], chunks or {}
    self._read: dict[str, np.ndarray] = {} if whole is None else {_whole_name(self.shape): whole}

  def block(self, index: tuple[slice, ...] | None) -> np.ndarray:
    """The part of the array at `index`, one slice for each dimension; None for all of it.

    Raises:
      DamagedError: a chunk cannot be read, or is not the one that was saved.
    """
    wanted = _bounds((slice(None),) * len(self.shape) if index is None else index, self.shape)
    found = None
    for name in self._read if not self._chunks else self._chunks:
      held = _bounds(ranges(name), self.shape)
      common = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(wanted, held, strict=True)]
      if any(start >= stop for start, stop in common):
        continue
      part = self._chunk(name)[tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(common, held, strict=True))]
      if common == wanted:
        return part
      if found is None:
        found = np.empty([stop - start for start, stop in wanted], part.dtype)
      found[tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(common, wanted, strict=True))] = part
    return np.empty([stop - start for start, stop in wanted], np.dtype(self.dtype)) if found is None else found

  def whole(self) -> np.ndarray:
    """All of the array."""
    return self.block(None)

  def _chunk(self, name: str) -> np.ndarray:
    if name not in self._read:
      try:
        chunk = self._chunks[name].read()
      except (OSError, ValueError) as error:
        raise DamagedError(f"{self._what} cannot be read ({first_line(error)})") from error
      if sha256(chunk) != self._digests[name]:
        raise DamagedError(f"{self._what} does not have the checksum it was saved with")
      self._read[name] = chunk
    return self._read[name]


def paths(tree: Any) -> list[tuple[str, Any]]:
  """(path, leaf) of every leaf; the path is the names of its parents and its own, with "/" between them."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _chunk_name(index: tuple[slice, ...], shape: Sequence[int]) -> str:
  return ",".join(f"{start}:{stop}" for start, stop in _bounds(index, shape))


def ranges(name: str) -> tuple[slice, ...]:
  """The inverse of `chunk_name`."""
  return tuple(slice(*map(int, part.split(":"))) for part in name.split(",") if part)


def name_in_file(path: str, chunk: str, shape: Sequence[int]) -> str:
  """The name of a chunk in a file: the path alone where it is the whole array."""
  return path if chunk == _whole_name(shape) else f"{path}[{chunk}]"


def _whole_name(shape: Sequence[int]) -> str:
  return _chunk_name((slice(None),) * len(shape), shape)


def _bounds(index: tuple[slice, ...], shape: Sequence[int]) -> list[tuple[int, int]]:
  """(start, stop) of the slices of an array of a shape."""
  return [part.indices(length)[:2] for part, length in zip(index, shape, strict=True)]


def chunk_shape(chunk: str, shape: Sequence[int]) -> list[int]:
  """The shape of a chunk of an array."""
  return [stop - start for start, stop in _bounds(ranges(chunk), shape)]


def sha256(x: np.ndarray) -> str:
  """The SHA-256 of the bytes of an array, as hexadecimal digits."""
  return hashlib.sha256(as_bytes(x)).hexdigest()
