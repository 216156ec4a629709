"""Contenders as live processes: started with the cores they may use, and released a few steps at a time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contenders.comparisons import Contender
from contenders.gate import MARK, STARTED, THREADS

BENCHMARKS = Path(__file__).parents[1]
QUIET = dict(
  HF_HUB_OFFLINE="1", WANDB_MODE="disabled", WANDB_DISABLED="true", TRL_EXPERIMENTAL_SILENCE="1",
  TOKENIZERS_PARALLELISM="false", PYTHONDONTWRITEBYTECODE="1",
)  # fmt: skip


class Failed(RuntimeError):
  """A contender ended by itself; the message is the end of what it said."""


@contextlib.contextmanager
def _on_cores(number: int) -> Iterator[None]:
  """Leaves this thread the first so many of its cores, which a process that it starts inherits."""
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, sorted(before)[:number])
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


class Live:
  """A contender's process."""

  def __init__(
    self, contender: Contender, work: Path, cores: int, trl_ppo: Path | None, environment: Mapping[str, str]
  ):
    """Starts it on the first `cores` cores. trl_ppo: the folder of TRL 1.12, for a contender that needs it."""
    path = [str(BENCHMARKS), str(BENCHMARKS.parent)]
    if contender.trl_ppo:
      path = [str(trl_ppo), *path] if trl_ppo else path
    settings = {**QUIET, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(cores), THREADS: str(cores), **environment}
    self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
    with _on_cores(cores):
      self._process = subprocess.Popen(
        [sys.executable, "-m", f"contenders.{contender.module}", str(work), *contender.arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._errors,
        text=True,
        cwd=work,
        env={**os.environ, **settings, "PYTHONPATH": os.pathsep.join(path), STARTED: str(time.time())},
      )

  def result(self) -> dict[str, Any]:
    """What the steps took that it was released for; those of the first step need no release. Raises Failed."""
    for line in self._process.stdout:
      if line.startswith(MARK):
        return json.loads(line.removeprefix(MARK))
    status = self._process.wait()
    self._errors.seek(0)
    said = self._errors.read().strip().splitlines()
    raise Failed(f"ended with status {status}: {' | '.join(said[-3:])[-600:]}")

  def take(self, steps: int) -> dict[str, Any]:
    """Releases it for some steps, and returns what they took. Raises Failed."""
    self._process.stdin.write(f"{steps}\n")
    self._process.stdin.flush()
    return self.result()

  def close(self) -> None:
    """Ends it."""
    self._process.stdin.close()
    try:
      self._process.wait(5)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._process.stdout.close()
    self._errors.close()
