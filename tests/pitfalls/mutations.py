"""Puts each known bug of `bugs.py` into a copy of the package, and checks that its test goes red.

  python tests/pitfalls/mutations.py [--only WORD ...]

prints a line for each bug and the score, and exits with 1 unless it is N of N. Ten to twenty minutes on one core.
"""

import argparse
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bugs import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("tests") / "pitfalls"
# Imported once, before any copy of the package: each test runs in a process forked from the one that did.
PRELOAD = ["pytest", "jax", "flax.linen", "optax", "tensorboardX", "tokenizers", "rich.progress"]


def mutated(mutation: Mutation, root: Path = ROOT) -> str:
  """The text of the mutation's file with the bug in it.

  Raises:
    ValueError: where the text to replace does not stand there exactly once.
  """
  text = (root / "rlhf_jax" / mutation.file).read_text()
  if text.count(mutation.old) != 1:
    raise ValueError(
      f"mutation {mutation.name!r}: its old text stands {text.count(mutation.old)} times in rlhf_jax/{mutation.file}, "
      f"not once; write it anew in {HERE / 'bugs.py'}:\n{mutation.old}"
    )
  return text.replace(mutation.old, mutation.new)


def in_child(copy: Path, nodes: Sequence[str], log: Path, devices: int) -> None:
  """Runs the tests against the package in `copy` and exits with pytest's code."""
  descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
  os.dup2(descriptor, 1)
  os.dup2(descriptor, 2)
  os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
  os.chdir(copy)
  sys.path.insert(0, str(copy))
  sys.dont_write_bytecode = True  # a stale .pyc of the same second would hide the next mutation
  import pytest

  code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *(str(HERE / node) for node in nodes)]))
  package = sys.modules.get("rlhf_jax")
  assert package is None or Path(package.__file__).is_relative_to(copy), f"{package.__file__} is not the copy"
  sys.exit(code)


def run_tests(copy: Path, nodes: Sequence[str], devices: int) -> tuple[int, str]:
  """(pytest's exit code, what it printed)."""
  log = copy / "log.txt"
  process = multiprocessing.get_context("forkserver").Process(target=in_child, args=(copy, nodes, log, devices))
  process.start()
  process.join()
  return process.exitcode, log.read_text()


def verdict(code: int, output: str) -> tuple[bool, str]:
  """Whether a test failed (an error outside of a test does not count), and pytest's reason."""
  reason = re.search(r"^FAILED \S+( - .*)?$", output, re.M)
  if code == 1 and reason:
    cause = re.search(r"^E\s+(.*)$", output, re.M)
    return True, cause.group(1) if cause else ""
  return False, "SURVIVED" if code == 0 else f"no verdict, exit code {code}:\n{output[-2000:]}"


def check(mutations: Sequence[Mutation]) -> bool:
  """Prints the table and the score; True where every mutation was caught."""
  start, caught = time.monotonic(), 0
  os.environ["JAX_PLATFORMS"] = "cpu"
  multiprocessing.set_forkserver_preload(PRELOAD)
  with tempfile.TemporaryDirectory() as directory:
    copy = Path(directory).resolve()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("rlhf_jax", "tests/pitfalls"):
      shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for name in ("tests/conftest.py", "pyproject.toml"):
      shutil.copy(ROOT / name, copy / name)
    code, output = run_tests(copy, sorted({mutation.test for mutation in mutations}), 8)
    if code:
      print(output)
      sys.exit("the tests do not pass without a mutation")
    for mutation in mutations:
      path, begin = copy / "rlhf_jax" / mutation.file, time.monotonic()
      original = path.read_text()
      path.write_text(mutated(mutation, copy))
      red, reason = verdict(*run_tests(copy, [mutation.test], mutation.devices))
      path.write_text(original)
      caught += red
      seconds = time.monotonic() - begin
      test = mutation.test.split("::test_")[1]
      print(f"{'red ' if red else '----'} {seconds:5.1f} s  {mutation.name}  [{test}]  {reason[:2000]}", flush=True)
  print(f"{caught} of {len(mutations)} known bugs are caught ({time.monotonic() - start:.0f} s)")
  return caught == len(mutations)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
  parser.add_argument("--only", nargs="+", metavar="WORD", help="mutations with one of these in their name or test")
  only = parser.parse_args().only
  chosen = [m for m in MUTATIONS if not only or any(word in f"{m.name} {m.test}" for word in only)]
  if not chosen:
    sys.exit(f"no mutation has any of {only} in its name or test")
  sys.exit(not check(chosen))


if __name__ == "__main__":
  main()
