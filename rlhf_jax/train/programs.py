"""Compiled programs that runs share on disk, by JAX's persistent compilation cache.

The place is $RLHF_JAX_CACHE, else rlhf_jax below $XDG_CACHE_HOME or ~/.cache; RLHF_JAX_CACHE=off keeps nothing. Where
JAX is told a place itself (JAX_COMPILATION_CACHE_DIR), that one is used and left as it is. Kinds of processors have
folders of their own, since a program for one may use instructions that another lacks.

JAX writes a program in place and never again: half a file, of a process that was killed, would cost every run a
compilation. Here a program is written whole, with its SHA-256 in front of it, and a file that is damaged is deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache
from jax._src.compilation_cache_interface import CacheInterface

from rlhf_jax.writing import write_bytes

MAX_BYTES = 4_000_000_000  # of all programs that are kept
DIGEST_BYTES = hashlib.sha256().digest_size
MIN_SECONDS = 0.2  # of compilation, below which a program is not worth a file


def keep_programs() -> Path | None:
  """Keeps compiled programs on disk from here on, and drops the least recently used ones above `MAX_BYTES`.

  Returns the directory; None where nothing is kept, or JAX was told a place by somebody else. A place that cannot be
  written is none.
  """
  given = os.environ.get("RLHF_JAX_CACHE", "")
  config: Any = jax.config  # its attributes carry no types
  if given == "off" or config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
    return None
  home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
  root = Path(given).expanduser() if given else home / "rlhf_jax"
  place = root / "programs" / f"jax-{jax.__version__}-{_processor()}"
  try:
    place.mkdir(parents=True, exist_ok=True)
    drop_oldest(root / "programs", MAX_BYTES)
  except OSError:
    return None
  jax.config.update("jax_compilation_cache_dir", str(place))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
  compilation_cache.get_file_cache = lambda path: (_Files(Path(path)), path)
  compilation_cache.reset_cache()  # what was compiled before has settled that there is none
  return place


class _Files(CacheInterface):
  """The programs of a directory by JAX's keys, as JAX asks for them."""

  def __init__(self, place: Path) -> None:
    self._path = place

  def get(self, key: str) -> bytes | None:
    """The program, None where there is none, or none that is whole."""
    path = self._path / key
    try:
      content = path.read_bytes()
    except FileNotFoundError:
      return None
    digest, program = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    whole = hashlib.sha256(program).digest() == digest
    with contextlib.suppress(OSError):  # this user may not write there, or another process was faster
      if whole:
        os.utime(path)  # it was used: see `drop_oldest`
      else:
        path.unlink()
    return program if whole else None

  def put(self, key: str, value: bytes) -> None:
    """Keeps a program."""
    write_bytes(self._path / key, hashlib.sha256(value).digest() + value)


def drop_oldest(directory: Path, limit: int) -> None:
  """Deletes the files below `directory` that were not used for longest, until they take at most `limit` bytes."""
  found = []
  for path in directory.rglob("*"):
    with contextlib.suppress(FileNotFoundError):  # another process drops them too
      status = path.stat()
      if path.is_file():
        found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
  excess = sum(size for _, size, _ in found) - limit
  for _, size, path in sorted(found):
    if excess <= 0:
      return
    path.unlink(missing_ok=True)
    excess -= size


def _processor() -> str:
  """A name of the kind of processor: the same instructions, the same name."""
  features = ""
  with contextlib.suppress(OSError):
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
  return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
