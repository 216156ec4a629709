"""Files that are written at once or not at all, and errors of the file system in words: the path and what to do."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_ADVICE = {
  "make room there": (errno.ENOSPC, errno.EDQUOT),
  "make it writable": (errno.EROFS, errno.EACCES, errno.EPERM),
  "check the path": (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
}


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
  """Writes a whole file, as `whole_file`."""
  with whole_file(path) as file:
    file.write(data)


def write_figure(path: str | os.PathLike[str], figure: Figure, dpi: float = 110) -> None:
  """Writes a figure as a PNG file, as `whole_file`. dpi: pixels per inch."""
  drawn = io.BytesIO()
  figure.savefig(drawn, format="png", dpi=dpi, metadata={"Software": None})
  write_bytes(path, drawn.getvalue())


_writing = [True]


def leave_writing() -> None:
  """From here on this process writes none of the files of this module: the leader of its job writes the same ones."""
  _writing[0] = False


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
  """A file to write to, which is renamed to `path` at the end, so that a reader never sees half of it.

  What a process writes that has left writing to another (`leave_writing`) goes nowhere.

  Raises:
    OSError: with `path` as its file; what stood there before is untouched.
  """
  if not _writing[0]:
    yield io.BytesIO()
    return
  target = Path(path)
  temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
  try:
    with named_errors(target, temporary):
      target.parent.mkdir(parents=True, exist_ok=True)
      with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, target)
    _sync_directory(target.parent)
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink()


@contextlib.contextmanager
def named_errors(path: str | os.PathLike[str], *others: Path) -> Iterator[None]:
  """Within it an OSError that carries no path, as one of a write on a full disk, or one of `others`, gets this one."""
  try:
    yield
  except OSError as error:
    if error.filename in (None, *map(str, others), *others):
      error.filename, error.filename2 = os.fspath(path), None
    raise


def explain(error: OSError, place: str | os.PathLike[str] = "", otherwise: str = "") -> str:
  """ "PATH: No space left on device: make room there". place: the path where the error carries none. otherwise: the
  advice on errors that have none of their own."""
  advice = next((words for words, numbers in _ADVICE.items() if error.errno in numbers), otherwise)
  where = place if error.filename is None else error.filename
  told = (os.fsdecode(where) if isinstance(where, bytes) else str(where), error.strerror or str(error), advice)
  return ": ".join(filter(None, told))


def _sync_directory(directory: Path) -> None:
  """Makes a rename in the directory last through a crash of the machine, where the system can open directories."""
  with contextlib.suppress(OSError):
    opened = os.open(directory, os.O_RDONLY)
    try:
      os.fsync(opened)
    finally:
      os.close(opened)
