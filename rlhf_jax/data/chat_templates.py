"""Chat templates of published models, which are programs of others: rendered by a process that may be killed.

Jinja's sandbox keeps a template from Python's objects, not from loops without end or strings without bound. So that
neither can harm a run, one process renders all templates, with limits of processor time, memory and length of the text
(`template_child.py`). It starts with the first template and ends with this process.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 1.0  # processor time for a text
MEGABYTES = 256  # memory of the process
CHARACTERS = 1_000_000  # of a text
BATCH = 256  # texts that the process is asked for at once
_CHILD = Path(__file__).with_name("template_child.py")
_lock = threading.Lock()
_running: subprocess.Popen[bytes] | None = None
_owner = 0  # id of the process that started it: a forked copy of this one starts its own


class TemplateFailure(ValueError):
  """A template that is broken, or takes too much, whatever its values are; the message has no place."""


class TemplateRefusal(ValueError):
  """Values that a template refuses, such as two turns of one role; the message is the template's."""


class Rendered(NamedTuple):
  """The text of a template."""

  text: str
  spans: tuple[tuple[int, int], ...]
  """Begin and end of each {% generation %} block, which templates put around the text of the assistant."""


def render(template: str, **values: Any) -> str:
  """The text of a Jinja template for some values of types that JSON has.

  Raises:
    TemplateRefusal: the template refuses the values.
    TemplateFailure: as `render_all`.
  """
  (found,) = render_all(template, [values])
  if isinstance(found, TemplateRefusal):
    raise found
  return found.text


def render_all(template: str, values: Sequence[Mapping[str, Any]]) -> list[Rendered | TemplateRefusal]:
  """The text of a Jinja template, or its refusal, for each of some values of types that JSON has.

  Raises:
    TemplateFailure: the template is broken, or needs more than SECONDS, MEGABYTES or CHARACTERS for one text.
  """
  found: list[Rendered | TemplateRefusal] = []
  for start in range(0, len(values), BATCH):
    found += _render_batch(template, values[start : start + BATCH])
  return found


def _render_batch(template: str, values: Sequence[Mapping[str, Any]]) -> list[Rendered | TemplateRefusal]:
  request = json.dumps({"template": template, "values": values}).encode() + b"\n"
  with _lock:
    process = _process()
    assert process.stdin is not None and process.stdout is not None  # as they are pipes
    try:
      replies = []
      with contextlib.suppress(BrokenPipeError):
        process.stdin.write(request)
        process.stdin.flush()
        for _ in values:
          replies.append(process.stdout.readline())
          if not replies[-1].endswith(b"\n") or b'"failed"' in replies[-1][:10]:
            break  # it has ended, or answers no more of this request
    except BaseException:  # an interruption between request and reply: the next reply would be that of this request
      stop()
      raise
    if not replies or not replies[-1].endswith(b"\n"):
      stop()
      if process.returncode == -signal.SIGVTALRM:
        raise TemplateFailure(f"it takes over {SECONDS:g} s")
      raise TemplateFailure(f"its process ended with status {process.returncode}")
    found: list[Rendered | TemplateRefusal] = []
    for reply in map(json.loads, map(bytes.decode, replies)):
      if "failed" in reply:
        raise TemplateFailure(reply["failed"])
      refused = "refused" in reply
      found.append(
        TemplateRefusal(reply["refused"]) if refused else Rendered(reply["text"], tuple(map(tuple, reply["spans"])))
      )
  return found


def stop() -> None:
  """Ends the process that renders; the next template starts another."""
  global _running
  process, _running = _running, None
  if process is None or os.getpid() != _owner:
    return
  for pipe in (process.stdin, process.stdout):
    with contextlib.suppress(OSError):
      pipe.close()  # type: ignore[union-attr]  # they are pipes
  with contextlib.suppress(subprocess.TimeoutExpired):
    process.wait(1.0)  # it may have been killed just now, and its status is wanted
  process.kill()
  process.wait()


def _process() -> subprocess.Popen[bytes]:
  global _running, _owner
  if _running is None or _owner != os.getpid():
    _owner = os.getpid()
    _running = subprocess.Popen(
      [sys.executable, "-I", str(_CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert _running.stdin is not None  # as it is a pipe
    limits = {"path": sys.path, "seconds": SECONDS, "megabytes": MEGABYTES, "characters": CHARACTERS}
    _running.stdin.write(json.dumps(limits).encode() + b"\n")
  return _running


atexit.register(stop)
