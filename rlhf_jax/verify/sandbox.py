"""A Python function of one response, run in a process of its own, where code can fail, hang or grow without harm.

A call has an isolated interpreter (`python -I`), an empty environment, an empty directory that is deleted afterwards,
limits on CPU seconds, wall time, memory, file size and open files, no new processes (except as root, which Linux
exempts), and no network where the kernel allows user namespaces. Its process group is killed at the end.

The sandbox does not protect files: a call can read, write and delete what the user of the run can. There is no filter
of system calls, and code in the same process as the check can forge the score. For programs of models whose intent is
in doubt, put the whole run into a container or a virtual machine.
"""

import importlib.util
import json
import logging
import math
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

from rlhf_jax.verify.answers import answers_to

_CHILD = Path(__file__).with_name("sandbox_child.py")
_WALL = 3  # seconds of wall time per second of CPU time: on a busy machine the start alone can take a second
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


def sandboxed(
  prompts: Sequence[str],
  responses: Sequence[str],
  *,
  function: str,
  answers: str = "",
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
  if not all(outcome.offline or outcome.failure for outcome in outcomes):
    _log.warning("the sandbox has network access: this kernel gives it no network namespace of its own")
  return outcomes


def _run(path: Path, name: str, call: Sequence[Any], seconds: float, megabytes: int) -> Outcome:
  request = json.dumps(dict(path=str(path), name=name, call=list(call), seconds=seconds, megabytes=megabytes))
  receive, send = os.pipe()
  try:
    with tempfile.TemporaryDirectory(prefix="sandbox", ignore_cleanup_errors=True) as directory:
      process = subprocess.Popen(
        [sys.executable, "-I", str(_CHILD), str(send)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(send,),
        cwd=directory,
        env={"HOME": directory, "TMPDIR": directory, "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,
      )
      timed_out = False
      try:
        process.communicate(request.encode(), timeout=_WALL * seconds)
      except subprocess.TimeoutExpired:
        timed_out = True
      finally:
        _kill(process)
    os.set_blocking(receive, False)  # a process that escaped may still hold the writing end
    try:
      written = os.read(receive, 1 << 16)
    except BlockingIOError:
      written = b""
  finally:
    os.close(receive)
    os.close(send)
  if timed_out or process.returncode == -signal.SIGXCPU:
    return Outcome(0.0, "timeout", f"over {seconds:g} s of CPU or {_WALL * seconds:g} s of wall time", False)
  return _read(written, process.returncode)


def _read(written: bytes, status: int) -> Outcome:
  try:
    report = json.loads(written)
    offline, error, value = report["offline"], report["error"], report["value"]
  except (ValueError, TypeError, KeyError):
    return Outcome(0.0, "crash", f"the process ended with status {status} and no result", False)
  if error:
    return Outcome(0.0, "crash", str(error), bool(offline))
  if not isinstance(value, (int, float)) or not math.isfinite(value):
    return Outcome(0.0, "no number", f"returned {str(value)[:80]}", bool(offline))
  return Outcome(float(value), "", "", bool(offline))


def _kill(process: subprocess.Popen) -> None:
  """Kills the process and all others of its group."""
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except ProcessLookupError:
    pass
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
