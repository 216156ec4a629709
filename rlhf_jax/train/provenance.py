"""The software and hardware that made a result, as plain data to be stored beside it."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import rlhf_jax

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
_PACKAGE = Path(rlhf_jax.__file__).parent


def provenance() -> dict[str, Any]:
  """What made a result: {"versions", "commit", "tree_changed", "platform", "device", "num_devices", "num_processes"}.

  versions: of Python, of this package and of `LIBRARIES`. commit: hash of the git checkout that the package is part of,
  None where it is part of none. tree_changed: whether tracked files of that checkout differ from the commit, None
  without a commit. platform: "cpu", "gpu" or "tpu". device: the model of the processor that computes. num_devices and
  num_processes: counts over the whole run.

  The answer is worked out once in a process, and waits for the devices the first time.
  """
  commit, tree_changed = _checkout(_PACKAGE)
  return {
    "versions": {
      "python": platform.python_version(),
      "rlhf_jax": rlhf_jax.__version__,
      **{name: metadata.version(name) for name in LIBRARIES},
    },
    "commit": commit,
    "tree_changed": tree_changed,
    "platform": jax.default_backend(),
    "device": _device(),
    "num_devices": jax.device_count(),
    "num_processes": jax.process_count(),
  }


@functools.cache
def _checkout(directory: Path) -> tuple[str | None, bool | None]:
  """The commit of the git checkout that `directory` is part of, and whether the checkout differs from the commit.

  A package that is installed below some other project's checkout is no part of it: git must track its files.
  """
  try:
    _git(directory, "ls-files", "--error-unmatch", "__init__.py")
    return _git(directory, "rev-parse", "HEAD"), bool(_git(directory, "status", "--porcelain", "--untracked-files=no"))
  except (OSError, subprocess.SubprocessError):  # no git here, no checkout, or one without a commit
    return None, None


def _git(directory: Path, *arguments: str) -> str:
  command = ["git", "-C", str(directory), *arguments]
  return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


@functools.cache
def _device() -> str:
  """The accelerator's model as JAX names it; on a CPU the processor's name as the system gives it."""
  kind = jax.devices()[0].device_kind
  if jax.default_backend() != "cpu":
    return kind
  try:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
  except OSError:
    names = []
  return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine() or kind
