"""Calls of the functions that a config names: what they raise is told in one line, and a call may have a time limit.

A function with a limit runs in a process of its own, which is started once and killed when a call exceeds the limit.
It is a fresh Python process (no fork, which would copy locks that JAX's threads hold); arguments and results are
pickled. It ends with the process that started it.
"""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlhf_jax.settings import ConfigError, import_function
from rlhf_jax.streams import lasting_output

# Signals that a run waits for, to save and stop (`rlhf_jax.train.signals`); SIGUSR1 is what SLURM warns with. A process
# that runs a function leaves them to the run, since schedulers signal every process of a job.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
START_SECONDS = 600.0  # for a process to start and import its function, which may load a model
_SERVE = "import sys; from rlhf_jax.calls import serve; serve(int(sys.argv[1]))"
_PACKAGE = str(Path(__file__).parent)
_LIBRARIES = (*(path + os.sep for path in (_PACKAGE, *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))), "<")


class CallError(Exception):
  """A call failed. The message says how, as in "raised KeyError: 'a' (own.py:3)"; `trace` is the traceback."""

  def __init__(self, message: str, trace: str = "") -> None:
    super().__init__(message)
    self.trace = trace


class TimeLimitError(CallError):
  """A call took longer than its limit."""


class Call(Protocol):
  """A function with its keyword arguments: calls raise nothing but CallError, ConfigError and KeyboardInterrupt."""

  def __call__(self, *arguments: Any, **keywords: Any) -> Any:
    """The function's result; `keywords` are given beside its own keyword arguments."""

  def signature(self) -> inspect.Signature | None:
    """The parameters of the function as `signature_of` tells them, those of its keyword arguments included."""


def bind(name: str, arguments: Mapping[str, Any], time_limit: float) -> Call:
  """The function `name` with its keyword arguments.

  name: "package.module:name" or "path/to/file.py:name". time_limit: longest time of a call in seconds; 0 for no limit.

  Raises:
    ConfigError: there is no such function. With a limit it is a CallError of the first call.
    CallError: its module cannot be imported. With a limit this too is of the first call.
  """
  return _Limited(name, arguments, time_limit) if time_limit else _Here(name, arguments)


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
  """The names and kinds of the parameters, and None as the default of each that has one; None where Python knows none.

  Without annotations and values it can be sent to another process.
  """
  try:
    found = inspect.signature(function)
  except (TypeError, ValueError):
    return None
  return inspect.Signature(
    [
      inspect.Parameter(name, given.kind, default=given.empty if given.default is given.empty else None)
      for name, given in found.parameters.items()
    ]
  )


def guarded(function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Any:
  """The result of a call that raises nothing but CallError, ConfigError and KeyboardInterrupt."""
  try:
    return function(*arguments, **keywords)
  except (KeyboardInterrupt, ConfigError):  # a ConfigError says what is wrong by itself
    raise
  except BaseException as error:
    said = "called sys.exit" if isinstance(error, SystemExit) else f"raised {type(error).__name__}"
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    said += f": {text}" if text else ""
    raise CallError(f"{said} ({_place(error)})", "".join(traceback.format_exception(error))) from error


def _place(error: BaseException) -> str:
  """FILE:LINE of the last frame in the user's own code; of the last frame at all where no such code is involved."""
  if isinstance(error, SyntaxError):
    return f"{error.filename}:{error.lineno}"
  frames = traceback.extract_tb(error.__traceback__)
  own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
  return f"{(own or frames)[-1].filename}:{(own or frames)[-1].lineno}"


class _Here:
  """A function in this process."""

  def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
    self._function, self._arguments = guarded(import_function, name), arguments

  def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
    return guarded(self._function, *arguments, **self._arguments, **keywords)

  def signature(self) -> inspect.Signature | None:
    return signature_of(self._function)


class _Limited:
  """A function in a process of its own. A process that was killed, or ended by itself, is started anew when needed."""

  def __init__(self, name: str, arguments: Mapping[str, Any], seconds: float) -> None:
    self._name, self._arguments, self._seconds = name, arguments, seconds
    self._connection: Connection | None = None
    self._kill: Callable[[], Any] = lambda: None
    self._signature: inspect.Signature | None = None

  def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
    if self._connection is None:
      self._start()
    value, states = self._ask((arguments, keywords), self._seconds)
    generators = [given for given in arguments if isinstance(given, np.random.Generator)]
    for generator, state in zip(generators, states, strict=True):
      generator.bit_generator.state = state
    return value

  def signature(self) -> inspect.Signature | None:
    if self._connection is None:
      self._start()
    return self._signature

  def _start(self) -> None:
    here, there = Pipe()
    process = subprocess.Popen(
      [sys.executable, "-c", _SERVE, str(there.fileno())],
      stdin=subprocess.DEVNULL,
      pass_fds=(there.fileno(),),
      env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
      start_new_session=True,  # so that a Ctrl-C for the run is not one for the function
    )
    there.close()
    self._connection, self._kill = here, weakref.finalize(self, _kill, process)
    try:
      self._signature, _ = self._ask((self._name, self._arguments), START_SECONDS)
    except CallError:
      self._end()
      raise

  def _end(self) -> Any:
    """Kills the process and returns its status."""
    self._connection = None
    return self._kill()

  def _ask(self, message: tuple, seconds: float) -> tuple[Any, list[Any]]:
    """The value that the process answers, and the states of the random generators among the arguments."""
    assert self._connection is not None
    try:
      self._connection.send(message)
      answered = self._connection.poll(seconds)
      failure, value, states = self._connection.recv() if answered else (None, None, [])
    except (EOFError, ConnectionError) as error:
      raise CallError(f"ended its process with status {self._end()}") from error
    if not answered:
      self._end()
      raise TimeLimitError(f"took longer than its time limit of {seconds:g} s")
    if failure:
      raise CallError(*failure)
    return value, states


def _kill(process: subprocess.Popen) -> int:
  """Kills the process and all others of its group, and returns its status."""
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except ProcessLookupError:
    pass
  return process.wait()


def serve(descriptor: int) -> None:
  """Answers the calls of a `_Limited` over its pipe until the other end is closed: the main loop of the process."""
  for number in SIGNALS:
    signal.signal(
      number, lambda number, frame: None
    )  # not SIG_IGN, which programs that the function starts would inherit
  threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
  connection = Connection(descriptor)
  function: _Here | None = None
  with lasting_output():
    while True:
      try:
        given = connection.recv()
      except EOFError:
        return
      failure, value, states = None, None, list[Any]()
      try:
        if function is None:
          function = _Here(*given)
          value = function.signature()
        else:
          arguments, keywords = given
          value = _plain(function(*arguments, **keywords))
          states = [item.bit_generator.state for item in arguments if isinstance(item, np.random.Generator)]
      except CallError as error:
        failure = (str(error), error.trace)
      except ConfigError as error:
        failure = (str(error), "")
      try:
        connection.send((failure, value, states))
      except Exception as error:  # of pickling, of any kind
        failure = (f"returned what cannot be sent to the run's process: {type(error).__name__}: {error}", "")
        connection.send((failure, None, []))


def _plain(value: Any) -> Any:
  """The value with arrays of any library as NumPy's, so that the run's process needs no other library to read it."""
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  if isinstance(value, list):  # such as one array for each response
    return [np.asarray(item) if hasattr(item, "__array__") else item for item in value]
  return np.asarray(value) if hasattr(value, "__array__") else value


def _end_with(parent: int) -> None:
  while os.getppid() == parent:
    time.sleep(1.0)
  os._exit(1)
