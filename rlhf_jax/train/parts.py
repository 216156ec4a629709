"""Work of a stage in numbered parts, so that an interrupted stage goes on after the last part that it finished.

The value of each part is appended to `parts.txt` in the stage's directory, one line a part: a digest, and the value as
JSON. A digest covers the stage's fingerprint and all lines up to its own, so that a line that is cut or damaged, or of
another config, is never taken, and neither is any line after it. The file is deleted when the stage has written its
results.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf_jax.stage import Stage
from rlhf_jax.train.functions import RewardTimeout, called_in
from rlhf_jax.train.processes import leader, led
from rlhf_jax.train.progress import StageProgress, console
from rlhf_jax.train.signals import Interrupted, stop_on_signal
from rlhf_jax.writing import named_errors


@contextlib.contextmanager
def open_parts(stage: Stage, total: int) -> Iterator[Parts]:
  """Yields the stage's parts, within which the stage also writes its results. total: the end of its progress.

  Raises:
    Interrupted: on a signal, once the running part is done and saved; also where a function exceeds its time limit
      after a signal, in a part or beside them.
  """
  with stop_on_signal() as signalled, contextlib.ExitStack() as stack:
    parts = Parts(stage, total, signalled, stack)
    try:
      yield parts
    except RewardTimeout:
      parts.stop_on_signal()
      raise
    parts.stop_on_signal()  # one that came while the results were written: the next stage must not start
  parts.path.unlink(missing_ok=True)


class Parts:
  """Calls of a stage that are kept: `parts(function, *arguments)` is the next part, and its value as JSON has it.

  The stage must ask for the same parts in the same order each time that it is run.
  """

  def __init__(self, stage: Stage, total: int, signalled: Callable[[], int], stack: contextlib.ExitStack) -> None:
    self.path = stage.directory / "parts.txt"
    self._stage, self._total, self._signalled, self._stack = stage, total, signalled, stack
    self._kept, self._digest = led("parts", lambda: _read(self.path, stage.fingerprint))
    self._number = 0  # of the part that was asked for last
    self._done = 0
    self._progress: StageProgress | None = None

  def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, which JSON must be able to hold, or the value of this part that was kept.

    Raises:
      Interrupted: on a signal, once the value is kept.
    """
    self._number += 1
    if self._number <= len(self._kept):
      return json.loads(self._kept[self._number - 1])
    if self._progress is None:
      self._progress = self._stack.enter_context(StageProgress(self._stage.name, self._total, self._done))
    try:
      with called_in(f"part {self._number}"):
        text = json.dumps(function(*arguments)).encode()
    except RewardTimeout:
      self._number -= 1
      raise
    text = led("part", lambda: text)  # functions of the user may differ in what they return
    self._digest = _digest(self._digest, text)
    if leader():
      self.path.parent.mkdir(parents=True, exist_ok=True)
      with named_errors(self.path), open(self.path, "ab") as file:
        file.write(b"%s %s\n" % (self._digest, text))
    self.stop_on_signal()
    return json.loads(text)

  def update(self, done: int, metrics: Mapping[str, float] | None = None) -> None:
    """Shows that `done` of the total are done; progress begins where the parts that were kept end."""
    self._done = done
    if self._progress:
      self._progress.update(done, metrics or {})

  def stop_on_signal(self) -> None:
    """Raises Interrupted if a signal has come."""
    if number := self._signalled():
      raise Interrupted(f"stopped after part {self._number} of {self._stage.name}", number)


def _read(path: Path, fingerprint: str) -> tuple[list[bytes], bytes]:
  """The values that verify, and the digest of the last one; what follows them in the file is cut off."""
  digest = hashlib.sha256(fingerprint.encode()).hexdigest().encode()
  lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
  kept: list[bytes] = []
  for line in lines[:-1]:
    text = line.partition(b" ")[2]
    if line != b"%s %s" % (_digest(digest, text), text):
      break
    digest = _digest(digest, text)
    kept.append(text)
  if lines[len(kept) :] != [b""]:
    console.print(
      f"{path}: what follows part {len(kept)} is cut, damaged or of another config, and is done anew", markup=False
    )
    with named_errors(path):
      os.truncate(path, sum(len(line) + 1 for line in lines[: len(kept)]))
  return kept, digest


def _digest(before: bytes, text: bytes) -> bytes:
  return hashlib.sha256(before + text).hexdigest().encode()
