"""The files of one checkpoint: written in one piece, and checked against their checksums when they are read.

DIRECTORY/STEP holds two trees of arrays, `params` and `rest`, each a directory with one file of each process,
`INDEX.safetensors`, and a record (`record/metadata`, JSON). The record names every array by its path in the tree and
gives [shape, dtype, {chunk: SHA-256 of its bytes}]; a chunk is the part of the array that one device held when it was
saved (see `rlhf_jax.train.chunks`). Each process writes a file of its own chunks, and reads the chunks that its devices
need, each checked on the host before anything is placed: a checkpoint opens under any mesh and any number of processes.

Checkpoints of 0.2.0 and before have orbax's format; the first records give one CRC-32 in place of the chunks, none for
an array that was spread over processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlhf_jax.data.files import read_json, write_json
from rlhf_jax.train.array_files import Entry, as_bytes, read_entries, write_arrays
from rlhf_jax.train.checkpoint_errors import DamagedError
from rlhf_jax.train.chunks import Described, Snapshot, StoredArray, chunk_shape, name_in_file, paths, ranges, sha256
from rlhf_jax.train.processes import first_line, gather, index, led, together

TREES = ("params", "rest")
_PARTIAL = ".partial"  # ends the name of a checkpoint that is being written


def stored_steps(directory: Path) -> list[int]:
  """The steps that `directory` has a checkpoint of, in order; [] where there is no directory."""
  names = [path.name for path in directory.iterdir() if path.is_dir()] if directory.is_dir() else []
  return sorted(int(name) for name in names if name.isdigit())


def write(directory: Path, step: int, trees: Mapping[str, Snapshot], record: Mapping[str, Any]) -> None:
  """Writes DIRECTORY/STEP at once or not at all. record: what is stored beside the descriptions of `trees`.

  The processes of a job call it together, each in a thread of its own: every process writes a file of its chunks, and
  the leader the record, when all are there.

  Raises:
    OSError: the files cannot be written, in any process.
  """
  partial = directory / f"{step}{_PARTIAL}"
  led("checkpoint begins", lambda: _make_partial(partial, trees))
  own = together("checkpoint files", lambda: _write_own(partial, trees))
  digests: dict[str, dict[tuple[str, str], str]] = {name: {} for name in trees}
  for found in gather("checkpoint digests", own):
    for name in trees:
      digests[name] |= found[name]
  led("checkpoint ends", lambda: _end_partial(partial, directory / str(step), trees, digests, record))


def _make_partial(partial: Path, trees: Iterable[str]) -> None:
  shutil.rmtree(partial, ignore_errors=True)
  for name in trees:
    (partial / name).mkdir(parents=True)


def _write_own(partial: Path, trees: Mapping[str, Snapshot]) -> dict[str, dict[tuple[str, str], str]]:
  """Writes this process's chunks; returns their checksums by tree."""
  for name, snapshot in trees.items():
    write_arrays(partial / name / f"{index()}.safetensors", snapshot.named_chunks())
    _sync(partial / name)
  return {name: snapshot.digests() for name, snapshot in trees.items()}


def _end_partial(partial: Path, where: Path, trees, digests, record) -> None:
  """Writes the record of a checkpoint and gives it its name."""
  whole = {**record, **{name: snapshot.described(digests[name]) for name, snapshot in trees.items()}}
  write_json(partial / "record" / "metadata", {**whole, "digest": _digest(whole)})
  _sync(partial)
  os.rename(partial, where)
  _sync(where.parent)


def remove_partial(directory: Path) -> None:
  """Removes what a killed process has left of a checkpoint that it was writing."""
  for path in directory.glob("*"):
    if path.name.endswith(_PARTIAL) or ".orbax-checkpoint-tmp" in path.name:  # the second is of 0.2.0
      shutil.rmtree(path, ignore_errors=True)


def remove(directory: Path, step: int) -> None:
  """Removes a checkpoint, at once for every reader."""
  doomed = directory / f"{step}{_PARTIAL}"
  os.rename(directory / str(step), doomed)
  shutil.rmtree(doomed)


def read_record(where: Path) -> dict[str, Any]:
  """The record of the checkpoint `where`, with the key "digest", the SHA-256 of the rest of it.

  Raises:
    DamagedError: there is no record, or it is not the one that was written.
  """
  path = where / "record" / "metadata"
  try:
    record = read_json(path)
    whole = {key: value for key, value in record.items() if key != "digest"}
    missing = [key for key in ("identity", *TREES) if key not in whole]
  except (OSError, ValueError, AttributeError) as error:
    raise DamagedError(f"{where} is damaged: {path.name} of its record cannot be read ({first_line(error)})") from error
  if missing:
    raise DamagedError(f"{where} is damaged: its record lacks {missing[0]!r}")
  digest = _digest(whole)
  if record.get("digest", digest) != digest:  # 0.2.0 wrote none
    raise DamagedError(f"{where} is damaged: its record does not have the checksum it was saved with")
  return {**whole, "digest": digest}


def read(where: Path, name: str, described: Described) -> dict[str, np.ndarray]:
  """The arrays of the tree `name` of a checkpoint, by their paths, all verified.

  Raises:
    DamagedError: an array cannot be read, or is not the one that was saved.
  """
  return {path: stored.whole() for path, stored in open_tree(where, name, described).items()}


def open_tree(where: Path, name: str, described: Described) -> dict[str, StoredArray]:
  """The arrays of the tree `name` of a checkpoint, by their paths, to be read as far as they are needed.

  Raises:
    DamagedError: its files are not those that were saved, as far as can be seen without reading the arrays.
  """
  damaged = f"{where} is damaged"
  try:
    files = sorted((where / name).glob("*.safetensors"))
    entries = {entry: place for file in files for entry, place in read_entries(file).items()}
    arrays = {} if files else _read_orbax(where / name)
  except Exception as error:  # those of orbax are of many kinds
    raise DamagedError(f"{damaged}: {name} cannot be read ({first_line(error)})") from error
  if not files:
    _check_names(arrays, described, damaged)
    for path, x in arrays.items():
      _verify(x, described[path], f"{damaged}: {path}")
    return {path: StoredArray(f"{damaged}: {path}", described[path], None, x) for path, x in arrays.items()}
  names: dict[str, tuple[str, str]] = {}
  for path, (shape, _, chunks) in described.items():
    held = sum(math.prod(chunk_shape(chunk, shape)) for chunk in chunks)
    if held != math.prod(shape):
      raise DamagedError(f"{damaged}: {path} has checksums for {held} of its {math.prod(shape)} numbers")
    names |= {name_in_file(path, chunk, shape): (path, chunk) for chunk in chunks}
  _check_names(entries, names, damaged)
  places: dict[str, dict[str, Entry]] = {path: {} for path in described}
  for entry, (path, chunk) in names.items():
    place, (shape, dtype, _) = entries[entry], described[path]
    if ([*place.shape], str(place.dtype)) != (chunk_shape(chunk, shape), dtype):
      raise DamagedError(f"{damaged}: {entry} is {place.dtype}{[*place.shape]}, not {dtype}{chunk_shape(chunk, shape)}")
    places[path][chunk] = place
  return {path: StoredArray(f"{damaged}: {path}", described[path], places[path]) for path in described}


def _check_names(found: Iterable[str], expected: Iterable[str], damaged: str) -> None:
  """Raises DamagedError where a file holds other arrays, or chunks of them, than the record names."""
  there, named = {*found}, {*expected}
  for path in sorted(there ^ named):
    raise DamagedError(f"{damaged}: {path} is not in {'its files' if path in named else 'its record'}")


def _read_orbax(directory: Path) -> dict[str, np.ndarray]:
  """The arrays of a tree that 0.2.0 or a version before it has written."""
  import orbax.checkpoint as ocp

  with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
    stored = handler.metadata(directory)
    wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), getattr(stored, "tree", stored))
    tree = handler.restore(directory, args=ocp.args.PyTreeRestore(restore_args=wanted))
  return {path: np.asarray(x) for path, x in paths(tree)}


def _verify(x: np.ndarray, entry: list, what: str) -> None:
  """Checks an array in orbax's format, which has no chunks in its files."""
  shape, dtype, checksum = entry
  if (list(x.shape), str(x.dtype)) != (shape, dtype):
    raise DamagedError(f"{what} is {x.dtype}{list(x.shape)}, not {dtype}{shape}")
  if isinstance(checksum, dict):
    whole = all(sha256(x[ranges(name)]) == digest for name, digest in checksum.items())
  else:
    whole = checksum in (None, zlib.crc32(as_bytes(x)))
  if not whole:
    raise DamagedError(f"{what} does not have the checksum it was saved with")


def _digest(record: Mapping[str, Any]) -> str:
  """SHA-256 of a record without its time, so that a checkpoint that is made once more has the digest of the first."""
  timeless = {key: value for key, value in record.items() if key != "time"}
  return hashlib.sha256(json.dumps(timeless, sort_keys=True).encode()).hexdigest()


def _sync(directory: Path) -> None:
  """Makes the names in a directory survive a loss of power."""
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
