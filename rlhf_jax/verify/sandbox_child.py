"""The process inside the sandbox: it limits itself, calls the function and writes the outcome to a pipe.

Standard library only: it runs by its path, in an interpreter that does not know the package.
"""

import ctypes
import json
import math
import os
import resource
import runpy
import sys

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # flags of Linux's unshare(2)


def main() -> None:
  """Calls the function that stdin names and writes its value or its error as JSON to the pipe in argv[1]."""
  pipe, request = int(sys.argv[1]), json.load(sys.stdin)
  offline = leave_network()
  limit(request["seconds"], request["megabytes"])
  value, error = None, ""
  try:
    value = runpy.run_path(request["path"], run_name="sandbox")[request["name"]](*request["call"])
    if not isinstance(value, (bool, int, float)) and hasattr(value, "__float__"):  # a NumPy scalar
      value = float(value)
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
      value = repr(value)[:200]
  except BaseException as raised:
    error = f"{type(raised).__name__}: {raised}"[:200]
  os.write(pipe, json.dumps({"value": value, "error": error, "offline": offline}).encode())


def leave_network() -> bool:
  """Moves this process into an empty network namespace; returns whether the kernel allowed it."""
  try:
    unshare = ctypes.CDLL(None).unshare
  except (OSError, AttributeError):
    return False
  return unshare(_NEW_USER | _NEW_NET) == 0 or unshare(_NEW_NET) == 0


def limit(seconds: float, megabytes: int) -> None:
  """Sets the limits of this process; that on new processes is the last, as loading a library may start threads."""
  cpu = math.ceil(seconds)
  limits = {
    "RLIMIT_CPU": (cpu, cpu + 1),
    "RLIMIT_AS": (megabytes << 20,) * 2,
    "RLIMIT_FSIZE": (1 << 24,) * 2,
    "RLIMIT_NOFILE": (64,) * 2,
    "RLIMIT_CORE": (0, 0),
    "RLIMIT_NPROC": (0, 0),
  }
  for name, pair in limits.items():
    if hasattr(resource, name):
      resource.setrlimit(getattr(resource, name), pair)


if __name__ == "__main__":
  main()
