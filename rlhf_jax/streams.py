"""Standard output and error that outlast their reader: a run whose log is closed, as by `| head`, goes on quietly."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


class _Lasting:
  """A text stream that turns to the null device when it can no longer be written to."""

  def __init__(self, stream: TextIO) -> None:
    self._stream = stream

  def write(self, text: str) -> int:
    with self._quiet_once_closed():
      self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    with self._quiet_once_closed():
      self._stream.flush()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  @contextlib.contextmanager
  def _quiet_once_closed(self) -> Iterator[None]:
    try:
      yield
    except OSError:  # a pipe without a reader, a terminal that is gone, or a log on a full disk
      null = os.open(os.devnull, os.O_WRONLY)
      os.dup2(null, self._stream.fileno())  # what the stream's buffer still holds goes there too
      os.close(null)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
  """Within it a write to standard output or error never fails: once it cannot be written to, it is quiet."""
  before = sys.stdout, sys.stderr
  # A stream that was closed when the process started is None. The null device takes its number, so that no file does.
  sys.stdout, sys.stderr = (cast(TextIO, _Lasting(stream)) if stream else open(os.devnull, "w") for stream in before)
  try:
    yield
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout, sys.stderr = before
