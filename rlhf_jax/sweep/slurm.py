"""The engine for SLURM, by submitit: an array of jobs for the units that are ready.

A job that is preempted saves, is queued again and goes on. Jobs outlive the sweep that submitted them: job.json in a
run directory names the job, so that another sweep does not submit it a second time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rlhf_jax.data.files import read_json, write_json
from rlhf_jax.settings import ConfigError
from rlhf_jax.sweep.units import Unit
from rlhf_jax.sweep.work import main

JOB = "job.json"
CLAIM_SECONDS = 120.0  # for which a sweep that is about to submit a unit keeps others from it
SUBMIT_SECONDS = 3.0  # that a job may need to be seen in the queue
LOOK_SECONDS = 2.0  # between two looks at the queue, which all users share


class Work:
  """What a job calls. At submitit's warning that the time is over it saves, and is queued again."""

  def __init__(self, directory: str) -> None:
    self.directory = directory

  def __call__(self) -> int:
    """Carries out the unit; returns the exit status of `rlhf_jax.sweep.work`."""
    warned: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
      if not warned:
        os.kill(os.getpid(), signal.SIGTERM)
      warned.append(number)

    queue_again = signal.signal(signal.SIGUSR2, stop)
    status = main([self.directory])
    if warned and status > 128 and callable(queue_again):
      queue_again(warned[0], None)  # submitit's own answer to the signal, which ends this process
    return status

  def checkpoint(self) -> Any:
    """The same call again: a run goes on from its last checkpoint."""
    import submitit

    return submitit.helpers.DelayedSubmission(self)


class Slurm:
  """Jobs of a cluster. See `rlhf_jax.sweep.engines.Engine`."""

  def __init__(self, root: Path, parameters: Mapping[str, Any], room: int | None) -> None:
    """parameters: of every job, in submitit's names; a cell's `resources` come before them. room: jobs in the queue at
    most, None for any number.

    Raises:
      ConfigError: submitit or SLURM is not there.
    """
    try:
      import submitit

      self._executor = submitit.AutoExecutor(folder=root / "slurm", cluster="slurm")
    except ModuleNotFoundError as error:
      raise ConfigError(f"--engine slurm: {error}; install it with pip install 'rlhf_jax[slurm]'") from error
    except RuntimeError as error:
      raise ConfigError(f"--engine slurm: {error}") from error
    self._root, self._parameters, self._room = root, dict(parameters), room
    self._looked, self._queue = 0.0, set[str]()

  def room(self) -> int:
    """How many jobs more may be in the queue."""
    return 10**6 if self._room is None else self._room - len(self.alive())

  def start(self, units: Sequence[Unit]) -> None:
    """Submits the units, those with the same resources as one array."""
    alike: dict[str, list[Unit]] = {}
    for unit in units:
      if self._claim(self._root / unit.name):
        alike.setdefault(json.dumps(unit.resources, sort_keys=True), []).append(unit)
    for group in alike.values():
      self._executor.update_parameters(**{"timeout_min": 24 * 60, **self._parameters, **group[0].resources})
      with self._executor.batch():
        jobs = [self._executor.submit(Work(str(self._root / unit.name))) for unit in group]
      for unit, job in zip(group, jobs, strict=True):
        write_json(self._root / unit.name / JOB, {"job": job.job_id, "since": time.time()})

  def alive(self) -> set[str]:
    """The units whose jobs wait or run, whichever sweep submitted them."""
    queue = self._look()
    found = set()
    for path in self._root.glob(f"*/*/{JOB}"):
      record = _read(path)
      new = LOOK_SECONDS + SUBMIT_SECONDS if "job" in record else CLAIM_SECONDS  # the last look may have missed it
      if record.get("job") in queue or time.time() - record.get("since", 0.0) < new:
        found.add(str(path.parent.relative_to(self._root)))
    return found

  def stop(self, name: str | None = None) -> None:
    """Cancels the job of the unit `name`; without a name nothing is cancelled: jobs outlive the sweep."""
    job = _read(self._root / name / JOB).get("job") if name else None
    if job:
      subprocess.run(["scancel", "--signal=TERM", "--full", job], capture_output=True)

  def _claim(self, directory: Path) -> bool:
    """Whether this sweep is to submit the unit: false where another one does so at this moment."""
    path = directory / JOB
    if str(directory.relative_to(self._root)) in self.alive():
      return False
    path.unlink(missing_ok=True)
    temporary = directory / f".{JOB}.{uuid.uuid4().hex}"
    write_json(temporary, {"since": time.time()})
    try:
      os.link(temporary, path)
      return True
    except FileExistsError:
      return False
    finally:
      temporary.unlink()

  def _look(self) -> set[str]:
    """The ids of all jobs in the queue, as they were `LOOK_SECONDS` ago at most."""
    if time.monotonic() - self._looked > LOOK_SECONDS:
      done = subprocess.run(["squeue", "-h", "-r", "-o", "%i"], capture_output=True, text=True)
      if done.returncode == 0:  # else the controller does not answer, and nothing is known to have changed
        self._looked, self._queue = time.monotonic(), set(done.stdout.split())
    return self._queue


def _read(path: Path) -> dict[str, Any]:
  with contextlib.suppress(OSError, ValueError):
    return read_json(path)
  return {}
