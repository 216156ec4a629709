"""The processes inside the sandbox: a keeper, and the worker that calls the function.

The keeper is the process that `sandbox.py` starts. It enters namespaces of its own, says on the pipe what the kernel
allowed, forks the worker and ends as the worker ends. The worker limits itself, calls the function and writes the
outcome to the pipe. Standard library only: this file runs by its path, in an interpreter that does not know the
package.
"""

import ctypes
import errno
import json
import math
import os
import platform
import resource
import runpy
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
from typing import NoReturn

QUOTA = 64 << 20  # bytes of all files of a call together
FILES = 4096  # files and directories of a call
_OWN = b"/dev/shm"  # where a call's files lie in its own mount namespace, in memory that is gone with it

_NEW_USER, _NEW_OTHERS = 0x10000000, 0x08000000 | 0x20000000 | 0x40000000 | 0x00020000  # ipc, pid, net, mount
_PRIVATE, _NOSUID, _NODEV, _NOEXEC = 1 << 18 | 1 << 14, 2, 4, 8  # flags of mount(2); the first is recursive
_MOUNT_SETATTR, _HERE, _RECURSIVE = 442, -100, 0x8000
_DEATH_SIGNAL, _SECCOMP, _NO_NEW_PRIVILEGES = 1, 22, 38  # operations of prctl(2)

# Numbers of system calls by architecture. `forbidden` fail with EPERM: those that make sockets or processes, reach into
# other processes, enter namespaces, or start an io_uring, which makes sockets too. `signals` fail where there is no
# namespace of processes.
_CALLS = {
  "x86_64": dict(
    arch=0xC000003E, socketpair=53, clone=56, clone3=435, forbidden=(41, 57, 58, 101, 310, 311, 272, 308, 425, 438),
    signals=(62, 129, 200, 234, 297, 424),
  ),
  "aarch64": dict(
    arch=0xC00000B7, socketpair=199, clone=220, clone3=435, forbidden=(198, 117, 270, 271, 97, 268, 425, 438),
    signals=(129, 130, 131, 138, 240, 424),
  ),
}  # fmt: skip


def main() -> None:
  """Keeps the call that stdin describes. argv: the pipe's descriptor and the id of the process that started this."""
  pipe, parent = int(sys.argv[1]), int(sys.argv[2])
  signal.signal(signal.SIGTERM, stop)
  request = json.load(sys.stdin)
  apart = enter_namespaces()
  contained = apart and own_files()
  die_with_parent(signal.SIGTERM)
  if os.getppid() != parent:  # it died before
    return
  filtered = platform.machine() in _CALLS and hasattr(ctypes.CDLL(None), "prctl")
  os.write(pipe, json.dumps({"offline": apart or filtered, "contained": contained}).encode() + b"\n")
  directory, worker = "", 0
  try:
    directory = os.fsdecode(_OWN) if contained else tempfile.mkdtemp(prefix="sandbox")
    alive, keeping = os.pipe()
    worker = os.fork()
    if not worker:
      os.close(keeping)
      begin(request, pipe, directory, alive, apart)
    ended = keep(worker, request["seconds"], "" if contained else directory)
    worker = 0
  finally:  # also on SIGTERM
    if worker:
      os.kill(worker, signal.SIGKILL)
    if not contained:
      shutil.rmtree(directory, ignore_errors=True)
  end_as(ended)


def stop(*_: object) -> None:
  """Ends the keeper. Each thread of a parent that is killed gives a signal, and only the first may interrupt."""
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  sys.exit(1)


def enter_namespaces() -> bool:
  """Moves this process into namespaces of its own, its children into one of processes; False where Linux refuses."""
  user, group = os.geteuid(), os.getegid()
  try:
    unshare = ctypes.CDLL(None).unshare
  except (OSError, AttributeError):
    return False
  if unshare(_NEW_USER | _NEW_OTHERS) != 0:
    return unshare(_NEW_OTHERS) == 0  # as root
  for file, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
    with open(f"/proc/self/{file}", "w") as stream:
      stream.write(text)
  return True


def own_files() -> bool:
  """Makes all files read-only in this mount namespace, and a small file system in memory to write to."""
  libc = ctypes.CDLL(None)
  if not os.path.isdir(_OWN):
    return False
  libc.mount(b"none", b"/", None, ctypes.c_ulong(_PRIVATE), None)
  read_only = struct.pack("4Q", 1 | _NOSUID, 0, 0, 0)
  call, here, flags, length = map(ctypes.c_long, (_MOUNT_SETATTR, _HERE, _RECURSIVE, len(read_only)))
  if libc.syscall(call, here, b"/", flags, read_only, length) != 0:  # Linux 5.12 has this call
    return False
  size = f"size={QUOTA},nr_inodes={FILES},mode=700".encode()
  return libc.mount(b"sandbox", _OWN, b"tmpfs", ctypes.c_ulong(_NOSUID | _NODEV), size) == 0


def die_with_parent(number: int) -> None:
  """Asks for a signal at the death of this process's parent. A change of user namespace forgets an earlier wish."""
  prctl = getattr(ctypes.CDLL(None), "prctl", None)
  if prctl is not None:
    prctl(_DEATH_SIGNAL, ctypes.c_ulong(number), 0, 0, 0)


def keep(worker: int, seconds: float, directory: str) -> int:
  """Waits for the worker; returns its exit code, or minus the number of the signal that ended it.

  SIGXCPU stands for all the time it may take. A directory is watched: SIGXFSZ stands for too many or too large files.
  """
  while True:
    found, status, usage = os.wait4(worker, os.WNOHANG if directory else 0)
    if found:
      # The limit counts ticks, which on a busy machine are up to twice the time that is reported afterwards.
      spent = usage.ru_utime + usage.ru_stime > 0.5 * math.ceil(seconds)
      ended = os.waitstatus_to_exitcode(status)
      return -signal.SIGXCPU if ended == -signal.SIGKILL and spent else ended
    if not fits(directory):
      os.kill(worker, signal.SIGKILL)
      os.waitpid(worker, 0)
      return -signal.SIGXFSZ
    time.sleep(0.02)


def fits(directory: str) -> bool:
  """Whether the files in a directory keep to QUOTA and FILES."""
  size = count = 0
  for where, _, names in os.walk(directory):
    count += 1 + len(names)
    for name in names:
      try:
        size += os.lstat(os.path.join(where, name)).st_size
      except OSError:  # deleted meanwhile
        continue
    if size > QUOTA or count > FILES:
      return False
  return True


def end_as(ended: int) -> None:
  """Ends this process with an exit code, or by the signal that a negative number stands for."""
  if ended < 0:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(-ended, signal.SIG_DFL) if -ended not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), -ended)
  os._exit(ended)


def begin(request: dict, pipe: int, directory: str, alive: int, apart: bool) -> NoReturn:
  """The worker from its first step to its last. alive: a pipe that closes when the keeper ends."""
  try:
    die_with_parent(signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:  # the keeper died before
      os._exit(1)
    os.close(alive)
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(directory)
    os.environ.update(HOME=directory, TMPDIR=directory)
    tempfile.tempdir = None
    if apart:  # the list of this namespace's processes instead of all; refused where parts of the old one are hidden
      flags = ctypes.c_ulong(_NOSUID | _NODEV | _NOEXEC)
      ctypes.CDLL(None).mount(b"proc", b"/proc", b"proc", flags, None)
    limit(request["seconds"], request["megabytes"])
    drop_privileges(apart)
    os.write(pipe, json.dumps(work(request)).encode())
  finally:
    os._exit(0)


def work(request: dict) -> dict:
  """The outcome of the call that a request describes: its value and its error, "" for none."""
  value = None
  try:
    value = runpy.run_path(request["path"], run_name="sandbox")[request["name"]](*request["call"])
    if isinstance(value, (bool, int, float)) or hasattr(value, "__float__"):  # as a NumPy scalar has
      value = float(value)
    if not isinstance(value, float) or not math.isfinite(value):
      value = repr(value)[:200]
  except BaseException as raised:
    return {"value": None, "error": f"{type(raised).__name__}: {raised}"[:200]}
  return {"value": value, "error": ""}


def limit(seconds: float, megabytes: int) -> None:
  """Sets the limits of this process; that on new processes is the last, as loading a library may start threads."""
  cpu = math.ceil(seconds)
  limits = {
    "RLIMIT_CPU": (cpu, cpu),
    "RLIMIT_AS": (megabytes << 20,) * 2,
    "RLIMIT_FSIZE": (1 << 24,) * 2,
    "RLIMIT_NOFILE": (64,) * 2,
    "RLIMIT_CORE": (0, 0),
    "RLIMIT_NPROC": (0, 0),
  }
  for name, pair in limits.items():
    if hasattr(resource, name):
      resource.setrlimit(getattr(resource, name), pair)


def drop_privileges(apart: bool) -> None:
  """Gives up all capabilities and filters system calls, for good. apart: there is a namespace of processes."""
  libc, calls = ctypes.CDLL(None), _CALLS.get(platform.machine())
  if calls is None or not hasattr(libc, "prctl"):
    return
  libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24))
  program = socket_filter(calls, apart)
  code = ctypes.create_string_buffer(program, len(program))
  described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
  libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
  if libc.prctl(_SECCOMP, 2, described, 0, 0) != 0:
    raise OSError("the kernel refuses a filter of system calls")


def socket_filter(calls: dict, apart: bool) -> bytes:
  """A program of seccomp(2): no sockets but a pair of streams, no new processes but threads, no signals to others."""
  allow, kill, refuse, lacks = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
  load, equal, at_least, any_bit, mask, answer = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
  number, architecture, first, second = 0, 4, 16, 24  # offsets in struct seccomp_data
  program = [(load, 0, 0, architecture), (equal, 1, 0, calls["arch"]), (answer, 0, 0, kill), (load, 0, 0, number)]
  program += [(at_least, 0, 1, 0x40000000), (answer, 0, 0, kill)]  # the x32 form of x86_64, with other numbers
  for call in (*calls["forbidden"], *(() if apart else calls["signals"])):
    program += [(equal, 0, 1, call), (answer, 0, 0, refuse)]
  program += [(equal, 0, 1, calls["clone3"]), (answer, 0, 0, lacks)]  # its flags are out of reach; libc then uses clone
  program += [(equal, 0, 4, calls["clone"]), (load, 0, 0, first), (any_bit, 1, 0, 0x10000), (answer, 0, 0, refuse)]
  program += [(answer, 0, 0, allow)]
  program += [(equal, 0, 4, calls["socketpair"]), (load, 0, 0, second), (mask, 0, 0, 0xF), (equal, 1, 0, 1)]
  program += [(answer, 0, 0, refuse), (answer, 0, 0, allow)]
  return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


if __name__ == "__main__":
  main()
