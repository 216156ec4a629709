"""The files of the user that a stage reads, by the SHA-256 of their contents."""

from __future__ import annotations

import glob
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf_jax.data.files import DataError, read_json, write_json
from rlhf_jax.pipeline.plan import Step
from rlhf_jax.stage import ImportedModel

CACHE = "content_hashes.json"
_SETTLED_SECONDS = 2.0  # a file that was written less long ago may change again without another time


class ContentHashes:
  """SHA-256 of files, kept in a run directory: a file is read again only where its stat differs.

  A stat is size, time of modification, time of change and inode; the time of change cannot be set back.
  """

  def __init__(self, workdir: Path) -> None:
    self._path = workdir / CACHE
    self._known: dict[str, list[Any]] = {}
    self._changed = False
    if self._path.exists():
      try:
        self._known = dict(read_json(self._path))
      except (DataError, TypeError, ValueError):  # only a shortcut: what was cut is worked out again
        self._changed = True

  def of(self, path: Path) -> str:
    """SHA-256 (hex) of a file's contents. Raises DataError where it cannot be read."""

    def digest() -> str:
      with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

    try:
      return self._once(path, [path], digest)
    except OSError as error:
      raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error

  def verified(self, directory: Path, verify: Callable[[], str]) -> str:
    """The result of `verify`, which reads the files below a directory; it is called again where one of them differs."""
    return self._once(directory, sorted(path for path in directory.rglob("*") if path.is_file()), verify)

  def save(self) -> None:
    """Writes what was worked out to the run directory."""
    if self._changed:
      write_json(self._path, self._known)
      self._changed = False

  def _once(self, key: Path, files: list[Path], work: Callable[[], str]) -> str:
    before = [[path.name, *_stat(path)] for path in files]
    name = str(key.absolute())
    known = self._known.get(name)
    if known and known[0] == before:
      return known[1]
    started = time.time()
    result = work()
    settled = all(path.stat().st_ctime < started - _SETTLED_SECONDS for path in files)
    if settled and before == [[path.name, *_stat(path)] for path in files]:
      self._known[name] = [before, result]
      self._changed = True
    return result


def _stat(path: Path) -> list[int]:
  found = path.stat()
  return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def read_inputs(step: Step, hashes: ContentHashes, is_input: Callable[[str], bool]) -> dict[str, str]:
  """{file as the config names it: SHA-256} of the files that the stage's config names and that `is_input` lets pass.

  A text names a file by its path, which ":NAME" may follow, or files by a pattern or a directory.
  """
  return {name: hashes.of(path) for name, path in sorted(_files(step).items()) if is_input(name)}


def _files(step: Step) -> Mapping[str, Path]:
  module = f"{step.stage.name}.algorithm"  # code, not a file that is read
  others = ("stage", "function")  # results and code
  texts = [
    found.text
    for found in step.references
    if found.mark not in others and found.where != module and found.where not in step.inert
  ]
  texts.append(step.stage.tokenizer)
  if isinstance(step.stage.model, ImportedModel):
    texts.append(step.stage.model.path)
  return {name: path for text in texts for name, path in _named(text, step)}


def _named(text: str, step: Step) -> Iterator[tuple[str, Path]]:
  """(name, path) of the files that a text of a config names; none where it names something else."""
  if not text or "\0" in text or "\n" in text or len(text) > 1000:
    return
  path = step.stage.path(text)
  whole = step.stage.path(text.rpartition(":")[0])
  if _exists(path.is_file):
    yield text, path
  elif _exists(whole.is_file):
    yield text.rpartition(":")[0], whole
  elif glob.has_magic(text):
    for name in glob.glob(str(path)):
      if os.path.isfile(name):
        yield name.replace(str(step.stage.root), "{run}"), Path(name)
  elif "/" in text and "{run}" not in text and _exists(path.is_dir):  # a directory of the run is a stage's
    here = (Path.cwd(), step.stage.root)
    if any(inside.resolve().is_relative_to(path.resolve()) for inside in here):  # "/" and "../" are no data sets
      return
    for directory, _, files in os.walk(path):
      for file in files:
        found = Path(directory) / file
        if found.is_file():
          yield str(found), found


def _exists(test: Callable[[], bool]) -> bool:
  try:
    return test()
  except (OSError, ValueError):  # a text that can be no path: it is too long, for instance
    return False
