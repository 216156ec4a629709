"""What a command prints when it fails, and the exit status that it then has."""

from __future__ import annotations

import signal
import sys

from rlhf_jax.writing import explain


def told(error: BaseException, who: str = "") -> int | None:
  """Prints the line of an error that a user can cause; returns the exit status, None for any other error.

  who: the process of a job that fails, in words; "" for a process that is alone.
  """
  start = f"rlhf-jax: {who}: " if who else "rlhf-jax: "
  if isinstance(error, KeyboardInterrupt):  # `run` gives the number of another signal (rlhf_jax.train.signals.Stopped)
    print(f"{who}{': ' if who else ''}interrupted; the same command continues", file=sys.stderr)
    return 128 + getattr(error, "number", signal.SIGINT)
  if isinstance(error, ModuleNotFoundError):
    if not error.name or error.name.startswith("rlhf_jax"):
      return None
    print(f"{start}{error}; `pip install rlhf_jax` brings what this package needs", file=sys.stderr)
    return 2
  if isinstance(error, OSError):
    print(f"{start}{explain(error)}", file=sys.stderr)
    return 2
  if isinstance(error, (ValueError, FloatingPointError)):
    print(f"{start}{error}", file=sys.stderr)
    return 2
  return None
