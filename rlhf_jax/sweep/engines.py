"""What carries out the units of a sweep: this process, or processes of this machine. `slurm` has one for clusters."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rlhf_jax.sweep.units import Unit
from rlhf_jax.sweep.work import carry_out

MEMORY = 1.5e9  # bytes of a process beside its model: Python, JAX and its programs
COPIES = 3  # of a stage's state that a process may hold: itself, its gradients, and the one that is saved


class Engine(Protocol):
  """Carries out units; what became of them stands in their run directories."""

  def room(self) -> int:
    """How many units more may be started now."""

  def start(self, units: Sequence[Unit]) -> None:
    """Starts units, at most `room()` of them."""

  def alive(self) -> set[str]:
    """The names of the units that were started and may not have ended yet."""

  def stop(self, name: str | None = None) -> None:
    """Asks the unit `name`, or all, to save and end; they may take a while."""


class Inline:
  """One unit after the other in this process."""

  def __init__(self, root: Path) -> None:
    self._root = root

  def room(self) -> int:
    """One: `start` returns when the unit has ended."""
    return 1

  def start(self, units: Sequence[Unit]) -> None:
    """Carries the units out. Raises KeyboardInterrupt after a signal."""
    for unit in units:
      status = carry_out(unit, self._root / unit.name)
      if status > 128:
        raise KeyboardInterrupt

  def alive(self) -> set[str]:
    """None."""
    return set()

  def stop(self, name: str | None = None) -> None:
    """Does nothing: a signal reaches the unit itself."""


class Local:
  """Processes of this machine, each on a device of its own where there are GPUs."""

  def __init__(self, root: Path, workers: int) -> None:
    """workers: the number of processes at a time."""
    self._root, self._workers = root, workers
    self._devices = gpus()
    self._running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}  # unit -> its process and slot

  def room(self) -> int:
    """The number of free slots."""
    return self._workers - len(self.alive())

  def start(self, units: Sequence[Unit]) -> None:
    """Starts a process for each unit."""
    for unit in units:
      taken = {slot for _, slot in self._running.values()}
      slot = next(number for number in range(self._workers) if number not in taken)
      environment = dict(os.environ)
      if self._devices:
        environment["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
      command = [sys.executable, "-m", "rlhf_jax.sweep.work", str(self._root / unit.name)]
      # A session of its own: the terminal's Ctrl-C reaches the sweep alone, which then asks each process to stop.
      process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
      self._running[unit.name] = (process, slot)

  def alive(self) -> set[str]:
    """The units whose processes run."""
    self._running = {name: found for name, found in self._running.items() if found[0].poll() is None}
    return set(self._running)

  def stop(self, name: str | None = None) -> None:
    """Sends SIGTERM, at which a run saves and ends."""
    for unit in self.alive() if name is None else {name} & self.alive():
      with contextlib.suppress(ProcessLookupError):
        self._running[unit][0].send_signal(signal.SIGTERM)


def gpus() -> list[str]:
  """The GPUs that processes may use, as CUDA_VISIBLE_DEVICES names them."""
  given = os.environ.get("CUDA_VISIBLE_DEVICES")
  if given is not None:
    return [name for name in given.split(",") if name]
  return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))


def default_workers(state_bytes: float) -> int:
  """How many processes this machine has room for: one a GPU, else one a core as far as its memory goes.

  state_bytes: of the largest state of a stage (parameters and moments), in bytes. A host with TPUs has room for one,
  which takes all of them.
  """
  if gpus():
    return len(gpus())
  if any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev").glob("vfio/[0-9]*")):
    return 1
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  free = _free_memory()
  return max(1, min(cores, int(free / (MEMORY + COPIES * state_bytes)) if free else cores))


def _free_memory() -> int:
  """Bytes of memory that are available, 0 where the system does not tell."""
  with contextlib.suppress(OSError, StopIteration, ValueError):
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
  return 0
