"""One run, one owner: a lock in the run directory, so that two processes never write the same run.

RUN/owner.json names the process that is at work: its host, process id, start time and job. While it works, a thread
renews the file's modification time, the heartbeat. The lock of a process that has died is taken over: at once where the
death can be seen (on the same host) or the same job of a scheduler comes back, after `STALE_SECONDS` elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_jax.settings import ConfigError
from rlhf_jax.train import processes

FILE = "owner.json"
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "JOB_ID")  # variables in which schedulers name a job
_SETTLE_SECONDS = 0.2  # between taking a lock over and looking whether another process did so at the same time

_held: dict[Path, int] = {}  # lock -> times that this process has entered `own` for it
_guard = threading.Lock()


class RunIsOwned(ConfigError):
  """Another process is at work in the run directory; the message names it."""


@contextlib.contextmanager
def own(workdir: Path) -> Iterator[None]:
  """Holds the lock of a run directory, which is made where there is none.

  The processes of one `jax.distributed` job share one lock, which the leader holds.

  A process that loses its lock, because its heartbeat stood still for `STALE_SECONDS` and another process took over,
  ends at once: two processes must not write the same run.

  Raises:
    RunIsOwned: another process is at work there.
  """
  workdir = Path(workdir).absolute()
  path = workdir / FILE
  mine = processes.led("owner", lambda: _enter(path))
  if not processes.leader():
    yield
    return
  ended = threading.Event()
  if mine:
    threading.Thread(target=_beat, args=(path, mine, ended), daemon=True, name="owner").start()
  try:
    yield
  finally:
    ended.set()
    with _guard:
      _held[path] -= 1
      if mine and _read(path) == mine:
        path.unlink(missing_ok=True)


def owned(workdir: Path) -> bool:
  """Whether another process, or this one, is at work in a run directory, as far as can be seen."""
  path = workdir / FILE
  found = _read(path)
  try:
    if found is not None:
      _refuse(path, found)
  except RunIsOwned:
    return True
  return False


def _enter(path: Path) -> bytes | None:
  """Takes the lock; returns its bytes, None where this process holds it already. Raises RunIsOwned."""
  with _guard:
    first = not _held.get(path)
    if first:
      path.parent.mkdir(parents=True, exist_ok=True)
    mine = _acquire(path) if first else None
    _held[path] = _held.get(path, 0) + 1
    return mine


def _acquire(path: Path) -> bytes:
  """Writes the lock and returns its bytes. Raises RunIsOwned."""
  record = {
    "host": socket.gethostname(),
    "process": os.getpid(),
    "process_start": _start(os.getpid()),
    "job": job_id(),
    "processes": processes.count(),
    "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    "token": uuid.uuid4().hex,
  }
  mine = (json.dumps(record, indent=2) + "\n").encode()
  while True:
    try:
      _create(path, mine)
      return mine
    except FileExistsError:
      found = _read(path)
    if found is None:  # released in between
      continue
    _refuse(path, found)
    if _read(path) == found:
      temporary = path.with_name(f".{FILE}.{record['token']}")
      temporary.write_bytes(mine)
      os.replace(temporary, path)
    time.sleep(_SETTLE_SECONDS)
    if _read(path) == mine:
      return mine


def _create(path: Path, content: bytes) -> None:
  """Writes the lock, whole, where there is none. Raises FileExistsError.

  Half a lock, of a process that was killed or found the disk full, would keep everybody out for a while.
  """
  temporary = path.with_name(f".{FILE}.{uuid.uuid4().hex}")
  try:
    temporary.write_bytes(content)
    os.link(temporary, path)
  except OSError as error:
    if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
      raise
    with open(path, "xb") as file:  # the file system has no hard links
      file.write(content)
  finally:
    temporary.unlink(missing_ok=True)


def _refuse(path: Path, found: bytes) -> None:
  """Raises RunIsOwned unless the lock with the bytes `found` may be taken over."""
  try:
    owner = json.loads(found)
    host, process, start, job = (owner[key] for key in ("host", "process", "process_start", "job"))
    who = f"process {process} on {host}" + (f" ({job})" if job else "")
  except (ValueError, TypeError, KeyError):  # a process is writing it at this moment, or died in doing so
    host = process = start = job = None
    who = f"a process that {path} does not name"
  age = _age(path)
  if age is None or age > STALE_SECONDS:
    return
  here = host == socket.gethostname()
  if here and not _is_alive(process, start):
    return
  if not here and job is not None and job == job_id():
    return
  raise RunIsOwned(
    f"{path.parent} is the run of {who}, whose last sign of life was {max(age, 0):.0f} s ago: wait for it or stop it, "
    f"or choose another --workdir (the lock is {path})"
  )


def _beat(path: Path, mine: bytes, ended: threading.Event) -> None:
  """Renews the lock until `ended`; ends the process where the lock has become another's."""
  while not ended.wait(HEARTBEAT_SECONDS):
    with contextlib.suppress(OSError):  # the disk may come back; a lock that nobody can renew becomes stale
      found = _read(path)
      if found == mine:
        os.utime(path)
      elif not ended.is_set():
        owner = "nobody" if found is None else found.decode(errors="replace").replace("\n", "")
        print(f"rlhf-jax: the run {path.parent} is no longer this process's ({path}: {owner})", file=sys.stderr)
        os._exit(2)


def _age(path: Path) -> float | None:
  """Seconds since the last heartbeat, None without a lock; by the clock of the file system, which all hosts share."""
  probe = path.with_name(f".{FILE}.{uuid.uuid4().hex}")
  try:
    probe.touch()
    return probe.stat().st_mtime - path.stat().st_mtime
  except FileNotFoundError:
    return None
  finally:
    probe.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
  try:
    return path.read_bytes()
  except FileNotFoundError:
    return None


def job_id() -> str | None:
  """The id that the scheduler gave this job: a job that is queued again keeps it."""
  return next((f"{name}={os.environ[name]}" for name in _JOBS if os.environ.get(name)), None)


def _start(process: int) -> str | None:
  """When a process of this host started, in the system's ticks since boot; None where the system does not tell.

  A process that has ended and waits for its parent to notice has no start any more.
  """
  try:
    # The name of the program, in parentheses, may hold spaces; behind it are the state and, 19 fields on, the start.
    state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]
  except (OSError, ValueError, IndexError):
    return None


def _is_alive(process: Any, start: Any) -> bool:
  """Whether the process still runs: a process of that id that started at another time is another process."""
  try:
    os.kill(int(process), 0)
  except PermissionError:
    pass
  except (ProcessLookupError, OverflowError, ValueError, TypeError):
    return False
  return start is None or _start(int(process)) == start
