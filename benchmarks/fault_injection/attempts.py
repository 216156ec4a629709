"""Runs of `rlhf-jax run` in children of this process, which has imported everything and initialised no device."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fault_injection import library

PATIENCE = 300.0  # seconds, after which an attempt counts as hung
RECIPE = Path(__file__).with_name("recipe.py")


@dataclasses.dataclass(frozen=True)
class Attempt:
  """How a run ended. `status` is minus the number of the signal that killed the process, and None if it hung."""

  status: int | None
  stdout: str
  stderr: str
  seconds: float
  cpu_seconds: float


@dataclasses.dataclass(frozen=True)
class Place:
  """The current directory of a run: the user's files and code, and the run directory `run`."""

  directory: Path

  def run(self, stage: str) -> Path:
    """The run directory of the recipe of `stage`."""
    return self.directory / ("imported" if stage == "import_model" else "run")

  def stage(self, stage: str) -> Path:
    """The directory of `stage`."""
    return self.run(stage) / stage


class Running:
  """`rlhf-jax run` for one stage and those that it needs, in a child that has just started."""

  def __init__(
    self, place: Place, stage: str, flags: Sequence[str] = (), control: Path | None = None,
    environment: Mapping[str, str] | None = None,
  ) -> None:  # fmt: skip
    arguments = ["run", "--config", f"{RECIPE}:{stage}", "--workdir", place.run(stage).name, *flags]
    self._start = time.monotonic()
    self._output = [place.directory / f"output.{time.monotonic_ns()}.{number}" for number in (1, 2)]
    for path in self._output:
      path.touch()  # a child that a signal kills at once opens nothing
    self.pid = in_child(lambda: _command(arguments, control), place.directory, self._output, environment)

  def send(self, number: int) -> None:
    """Sends a signal to the child, unless it has ended."""
    with contextlib.suppress(ProcessLookupError):
      os.kill(self.pid, number)

  def has_ended(self) -> bool:
    """Whether the child has ended, without waiting for it."""
    return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

  def sleep(self, seconds: float) -> None:
    """Waits so long, or until the child ends."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not self.has_ended():
      time.sleep(0.003)

  def wait(self) -> Attempt:
    """How the child ended; a child that hangs is killed."""
    self.sleep(PATIENCE)
    hung = not self.has_ended()
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.pid, signal.SIGKILL)  # what the child has started too
    _, status, used = os.wait4(self.pid, 0)
    texts = [path.read_text(errors="replace") for path in self._output]
    for path in self._output:
      path.unlink()
    seconds = time.monotonic() - self._start
    ended = None if hung else os.waitstatus_to_exitcode(status)
    return Attempt(ended, *texts, seconds, used.ru_utime + used.ru_stime)


def run(place: Place, stage: str, **options) -> Attempt:
  """Runs a stage to its end; options are those of `Running`."""
  return Running(place, stage, **options).wait()


def in_child(
  function: Callable[[], int], directory: Path, output: Sequence[Path], environment: Mapping[str, str] | None = None
) -> int:
  """Calls `function` in a forked child, whose status is what it returns; returns the child's process id.

  directory: the child's current directory. output: the files of its standard output and standard error.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  pid = os.fork()
  if pid:
    return pid
  status = 1
  try:
    os.setsid()
    os.chdir(directory)
    os.environ.update(environment or {})
    for number, file in enumerate((Path(os.devnull), *output)):
      os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644), number)
    status = function()
    for thread in threading.enumerate():
      if thread is not threading.current_thread() and not thread.daemon:
        thread.join()
  except SystemExit as stop:
    status = stop.code if isinstance(stop.code, int) else 1
  except BaseException:
    traceback.print_exc()
  finally:
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError, ValueError):
        stream.flush()
    os._exit(status)


def _command(arguments: list[str], control: Path | None) -> int:
  from rlhf_jax.cli import main

  if control is not None:
    library.arm(control)
  return main(arguments)
