"""A Python function of one response, run in processes of its own, where code can fail, hang or grow without harm.

What it does not protect from: a call can read every file that the user of the run can read. Code in the same process
as the check can forge the score. A fault of the kernel lets a call out, as nothing but the kernel keeps it in. For
programs of models whose intent is in doubt, put the whole run into a virtual machine.

What it does, on Linux: a call has an isolated interpreter (`python -I`), an empty environment, and limits on CPU
seconds, wall time, memory, open files and the size of a file. It has namespaces of its own: it sees and signals no
process outside, and ends with the run, also where that is killed. No network. All files are read-only but those of an
empty directory in memory, of 64 MB and 4,096 files together, that is gone with the call. A filter of system calls
refuses sockets (Unix sockets too; a pair of connected streams is allowed), new processes (threads are allowed) and
tracing.

Where the kernel refuses namespaces (containers and hardened systems may), the filter alone keeps a call from the
network, from new processes and from signals to others; it can write wherever the user can, and its own directory is
watched for its size and deleted afterwards. On processors other than x86-64 and arm64 there is no filter. On other
systems than Linux there is neither. What is missing is logged as a warning.
"""

import contextlib
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.data import PromptValue
from rlhf_jax.verify.answers import Answers, answers_to

_CHILD = Path(__file__).with_name("sandbox_child.py")
_WALL = 3  # seconds of wall time per second of CPU time: on a busy machine the start alone can take a second
_GRACE = 2.0  # seconds for the keeper to delete a directory
_REPORT = 4096  # bytes of what a call writes that are read
_LARGEST = float(np.finfo(np.float32).max)
_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
  """The outcome of a call."""

  score: float
  """Number that the function returned; 0 for a failure."""
  failure: str
  """Kind of the failure: "timeout", "crash" or "no number"; "" for none."""
  detail: str
  """Description of the failure for messages; "" for none."""
  offline: bool
  """True for a call that had no network."""
  contained: bool
  """True for a call that saw no other process and could write to a directory of its own alone."""


def sandboxed(
  prompts: Sequence[PromptValue],
  responses: Sequence[str],
  *,
  function: str,
  answers: Answers = "",
  seconds: float = 2.0,
  megabytes: int = 1024,
) -> np.ndarray:
  """f32[N]: the value of `function(prompt, response, answer)` in the sandbox; 0 where it fails, which is logged.

  Args:
    function: "path/to/file.py:name" or "package.module:name" of a file that runs by itself.
    answers: the file of reference answers (see `rlhf_jax.verify.answers`); "" for none, and answer is then None.
    seconds: the limit of CPU time; the limit of wall time is three times as long.
    megabytes: the limit of address space.

  Raises:
    ValueError: `function` names no file.
    DataError: a prompt has no answer.
  """
  references = answers_to(prompts, answers) if answers else [None] * len(prompts)
  calls = list(zip(prompts, responses, references, strict=True))
  outcomes = run_sandboxed(function, calls, seconds=seconds, megabytes=megabytes)
  failures = Counter(f"{outcome.failure} ({outcome.detail})" for outcome in outcomes if outcome.failure)
  if failures:
    reasons = "; ".join(f"{count} x {reason}" for reason, count in failures.most_common(5))
    _log.warning("%s: %d of %d calls failed and score 0: %s", function, failures.total(), len(calls), reasons)
  return np.array([outcome.score for outcome in outcomes], np.float32)


def run_sandboxed(function: str, calls: Sequence[Sequence[Any]], *, seconds: float, megabytes: int) -> list[Outcome]:
  """The outcome of `function(*call)` for each call; as many calls run at once as there are cores.

  Args:
    function, seconds, megabytes: as in `sandboxed`.
    calls: the arguments of each call, in types that JSON has.

  Raises:
    ValueError: `function` names no file.
  """
  path, name = _locate(function)

  def run(call: Sequence[Any]) -> Outcome:
    return _run(path, name, call, seconds, megabytes)

  with ThreadPoolExecutor(os.cpu_count()) as workers:
    outcomes = list(workers.map(run, calls))
  for lacking, what in (("offline", "network access"), ("contained", "access to other processes and to files")):
    if not all(getattr(outcome, lacking) for outcome in outcomes):
      _log.warning("the sandbox leaves a call %s: this system has not all that it needs (%s)", what, _CHILD.stem)
  return outcomes


def _run(path: Path, name: str, call: Sequence[Any], seconds: float, megabytes: int) -> Outcome:
  request = json.dumps(dict(path=str(path), name=name, call=list(call), seconds=seconds, megabytes=megabytes))
  receive, send = os.pipe()
  try:
    process = subprocess.Popen(
      [sys.executable, "-I", str(_CHILD), str(send), str(os.getpid())],
      stdin=subprocess.PIPE,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      pass_fds=(send,),
      cwd="/",
      env={"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "TMPDIR": tempfile.gettempdir()},
      start_new_session=True,
    )
    timed_out = False
    try:
      process.communicate(request.encode(), timeout=_WALL * seconds)
    except subprocess.TimeoutExpired:
      timed_out = True
    finally:
      _end(process)
    os.set_blocking(receive, False)  # a process that escaped may still hold the writing end
    try:
      written = os.read(receive, _REPORT)
    except BlockingIOError:
      written = b""
  finally:
    os.close(receive)
    os.close(send)
  protection, _, report = written.partition(b"\n")  # the first line is of the keeper, before any foreign code ran
  offline, contained = (bool(_object(protection).get(key)) for key in ("offline", "contained"))
  if timed_out or process.returncode == -signal.SIGXCPU:
    failure = "timeout", f"over {seconds:g} s of CPU or {_WALL * seconds:g} s of wall time"
  elif process.returncode == -signal.SIGXFSZ:
    failure = "crash", "the files that it wrote are too many or too large"
  else:
    return Outcome(*_read(report, process.returncode), offline, contained)
  return Outcome(0.0, *failure, offline, contained)


def _read(report: bytes, status: int) -> tuple[float, str, str]:
  """(score, failure, detail) of what a call wrote, which may be anything."""
  found = _object(report)
  if not {"error", "value"} <= found.keys():
    return 0.0, "crash", f"the process ended with status {status} and no result"
  error, value = found["error"], found["value"]
  if error:
    return 0.0, "crash", _printable(error)
  if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST:
    return 0.0, "no number", f"returned {_printable(value)}, which is no number that float32 holds"
  return float(value), "", ""


def _object(report: bytes) -> dict[str, Any]:
  """The JSON object that a call wrote; {} for anything else."""
  try:
    found = json.loads(report)
  except (ValueError, RecursionError):
    return {}
  return found if isinstance(found, dict) else {}


def _printable(value: object) -> str:
  """The start of a value as text for a log, on one line."""
  return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value)[:80])


def _end(process: subprocess.Popen) -> None:
  """Ends the processes of a call: the keeper is asked first, as it may have a directory to delete."""
  if process.poll() is None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(_GRACE)
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def _locate(function: str) -> tuple[Path, str]:
  module, _, name = function.rpartition(":")
  if module.endswith(".py"):
    path = Path(module).expanduser().absolute()
  else:
    try:
      spec = importlib.util.find_spec(module) if module else None
    except ModuleNotFoundError:
      spec = None
    path = Path(spec.origin) if spec and spec.origin else Path(module)
  if not path.is_file():
    raise ValueError(f"{function!r}: no file {path}; name 'path/to/file.py:function' or 'package.module:function'")
  return path, name
