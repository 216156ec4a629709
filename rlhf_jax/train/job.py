"""How a job of several processes begins, and how its processes end together.

A process that fails tells the others why, by a key of the coordination service that all look at each second. One that
is killed tells nothing: the others see its connection closed (see `rlhf_jax.train.lifelines`).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Collection
from typing import NoReturn

import jax
from jax._src.clusters import ClusterEnv

from rlhf_jax.settings import ConfigError
from rlhf_jax.train import lifelines
from rlhf_jax.train.processes import FAILED, GOES_ON, JobEnded, client, count, failure, first_line, index, leader, name

HEARTBEAT_SECONDS = 30  # without a sign of life, after which JAX ends all processes of a job
JOIN_SECONDS = 300  # that the processes of a job wait for each other at its start
_TELL_SECONDS = 20.0  # that a leader that fails stays, so that the others can read why
_SAY_SECONDS = 3.0  # that another process tries to reach the leader, which may be gone by then
_POLL_SECONDS = 1.0  # between two looks whether another process has failed
_ADDRESS, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"  # environment variables

_ended = threading.Event()  # this process is on its way out


def start(coordinator: str = "", process_count: int | None = None, process_index: int | None = None) -> None:
  """Joins this process to its job; nothing happens where it is alone. Called before anything is computed.

  The arguments are the flags of the same names; what they leave open is taken from JAX_COORDINATOR_ADDRESS (HOST:PORT),
  JAX_NUM_PROCESSES and JAX_PROCESS_ID, else from a cluster that JAX knows: tasks of SLURM, TPU pods, GKE, Open MPI.

  Raises:
    ConfigError: the arguments do not say all of it, or the other processes cannot be reached.
  """
  coordinator = coordinator or os.environ.get(_ADDRESS, "")
  size = _number(process_count, _COUNT, "--process-count")
  number = _number(process_index, _INDEX, "--process-index")
  devices = None
  if None in (size, number) or not coordinator:
    cluster = next((kind for kind in ClusterEnv._cluster_types if _is_present(kind)), None)
    if cluster:
      try:
        size = cluster.get_process_count() if size is None else size
        if size > 1:
          number = cluster.get_process_id() if number is None else number
          port = os.environ.get("JAX_COORDINATOR_PORT")
          coordinator = coordinator or cluster.get_coordinator_address(JOIN_SECONDS, port)
          devices = _own_devices(cluster)
      except Exception as error:  # each cluster has its own
        raise ConfigError(
          f"this looks like a job of {cluster.__name__.removesuffix('Cluster')}, which does not name its processes "
          f"({first_line(error)}): give --process-count 1 for a process that is alone, else --coordinator too"
        ) from error
  if size == 1 or (size is None and number is None and not coordinator):
    return
  if None in (size, number) or not coordinator:
    raise ConfigError(
      "a job of several processes needs --coordinator HOST:PORT, --process-count and --process-index, all three"
    )
  assert size is not None and number is not None
  if not 0 <= number < size:
    raise ConfigError(f"--process-index {number} must be at least 0 and below --process-count {size}")
  if not coordinator.rpartition(":")[2].isdecimal():
    raise ConfigError(f"--coordinator {coordinator} must be HOST:PORT, the address of process 0")
  jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM away from `rlhf_jax.train.signals`
  try:
    jax.distributed.initialize(
      coordinator,
      size,
      number,
      devices,
      cluster_detection_method="deactivate",  # all is known
      initialization_timeout=JOIN_SECONDS,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=HEARTBEAT_SECONDS,
    )
    jax.devices()  # all processes meet
    lines = lifelines.connect(coordinator.rpartition(":")[0].strip("[]"), JOIN_SECONDS)
  except (RuntimeError, OSError) as error:
    raise ConfigError(f"process {number} of {size} could not join the job at {coordinator}: {error}") from error
  _wait_before_aborting()
  watch = threading.Thread(target=_watch, args=(lines,), daemon=True, name="processes")
  watch.start()
  atexit.register(_stop_watching, watch, lines)  # before JAX takes leave of the coordinator


def end(error: BaseException, status: int) -> NoReturn:
  """Tells the other processes why this one, of several, fails, and ends it with `status`."""
  told = isinstance(error, JobEnded)  # of another process
  _leave(str(error) if told else f"{name()} on {socket.gethostname()} failed: {first_line(error)}", status)


def _leave(why: str, status: int, gone: Collection[int] = ()) -> NoReturn:
  """Ends this process. why: what the others are told; "" for nothing. gone: numbers of processes that are not there."""
  _ended.set()
  if 0 not in gone:
    telling = threading.Thread(target=_tell, args=(why, gone), daemon=True)
    telling.start()
    telling.join(None if leader() else _SAY_SECONDS)  # calls to a leader that is gone take longer than JAX's abort
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)  # JAX would wait at the exit for processes that are gone


def _tell(why: str, gone: Collection[int]) -> None:
  """Leaves word for the others why this process ends; the leader stays until they have read it."""
  with contextlib.suppress(jax.errors.JaxRuntimeError):  # another process was the first
    client().key_value_set(FAILED, why)
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    client().key_value_set(f"{FAILED}/{index()}", "seen")
  if leader():  # without it the others cannot read why
    for other in {*range(1, count())} - {*gone}:
      with contextlib.suppress(jax.errors.JaxRuntimeError):
        client().blocking_key_value_get(f"{FAILED}/{other}", int(1000 * _TELL_SECONDS / (count() - 1)))


def _watch(lines: lifelines.Lines) -> None:
  """Ends this process when another has failed: it may be in a call that waits for that one, and never returns."""
  while not _ended.is_set():
    gone = lifelines.broken(lines, _POLL_SECONDS)
    why = "" if 0 in gone else failure()
    if gone and not why:
      why = f"process {gone[0]} of {count()} has ended, and told nothing: {GOES_ON}"
    if why and not _ended.is_set():
      print(f"rlhf-jax: {name()} ends, because {why}", file=sys.stderr, flush=True)
      _leave(why, 2, gone)


def _stop_watching(watch: threading.Thread, lines: lifelines.Lines) -> None:
  _ended.set()
  watch.join()
  lifelines.take_leave(lines)


def _wait_before_aborting() -> None:
  """Has an abort of this process wait for six seconds.

  Where the leader is gone, JAX aborts the others at once; `_watch` then has the time to say why, and to end the process
  with its own status. The handler is a function of C that is safe in a handler: sleep(SIGABRT), and SIGABRT is 6.
  """
  libc = ctypes.CDLL(None)
  libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
  libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def _number(given: int | None, variable: str, flag: str) -> int | None:
  if given is not None or not os.environ.get(variable):
    return given
  try:
    return int(os.environ[variable])
  except ValueError as error:
    raise ConfigError(f"{variable}={os.environ[variable]!r} is no whole number; {flag} takes its place") from error


def _is_present(kind: type[ClusterEnv]) -> bool:
  return not kind.opt_in_only_method and kind.is_env_present()


def _own_devices(cluster: type[ClusterEnv]) -> list[int] | None:
  """The devices of a host that a process is to use: its own where several processes share the host, None for all."""
  local = cluster.get_local_process_id()
  alone = os.environ.get("SLURM_NTASKS", "") == os.environ.get("SLURM_STEP_NUM_NODES", "1")
  return None if local is None or alone else [local]
