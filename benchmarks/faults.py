"""Faults of every kind in every kind of stage: does a run end with the same results, or with an error that names them?

  python benchmarks/faults.py --work /dev/shm/faults --out benchmarks/results/faults.json --table docs/reliability.md
  python benchmarks/faults.py --work /tmp/faults --count 1 --stages pretrain,ppo --kinds kill,NaN

A chain of seconds is run undisturbed first. Then each fault is injected into a copy of it, before one stage, and the
same command is run again: SIGKILL in the k-th operation on a file or at a random time; a full disk or an I/O error in
the k-th operation, by a preloaded library that is built on the spot with `cc` (without a compiler these two are left
out, by name); SIGTERM, SIGINT, SIGHUP and SIGUSR1; bits flipped in a file of the stage, or the file cut short, emptied,
deleted; the user's data or code, or a stage before, changed; NaN in a loss, a gradient or a reward; a second process.

docs/reliability.md says what counts as which outcome: "identical", "repaired", "named error", or "silent" and "crash",
which are mistakes of this project.

What was injected is kept in --work: a second call continues, and tries again what was tried with other code. With
--mended it tries again only what ended as a mistake: after a mend, before the next whole campaign. The figures say how
many were tried with which version. The same --seed gives the same faults. All of them, 20
of each kind for each kind of stage, took 52 minutes on two cores.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import pkgutil
import sys
from pathlib import Path

from fault_injection import campaign, library
from fault_injection.injections import KINDS
from fault_injection.recipe import UPSTREAM

SKIPPED = ("rlhf_jax.configs", "rlhf_jax.verify.sandbox_child", "rlhf_jax.tools.harness", "rlhf_jax.cli.__main__")


def restart(work: Path) -> None:
  """Starts this process anew with the library preloaded, and with a cache for the programs of all runs."""
  built = library.build(work)
  environment = {
    **os.environ,
    "FAULTS_WORK": str(work),
    "LD_PRELOAD": str(built or ""),
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(work / "programs"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TOKENIZERS_PARALLELISM": "false",
  }
  os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def prepare() -> None:
  """Imports the package and does what every run does alike, so that a forked child begins at once.

  Pictures of reports are left out: drawing them takes longer than some stages.

  Raises:
    RuntimeError: a device was initialised, after which no process can be forked.
  """
  import rlhf_jax

  for module in pkgutil.walk_packages(rlhf_jax.__path__, "rlhf_jax."):
    if not module.name.startswith(SKIPPED):
      importlib.import_module(module.name)
  from jax._src import xla_bridge

  from rlhf_jax.pipeline import code
  from rlhf_jax.report import pages, plots, report

  for name, module in list(sys.modules.items()):
    if name.startswith("rlhf_jax") and (path := getattr(module, "__file__", None)):
      code.imported_names(Path(path).absolute(), os.stat(path).st_mtime_ns, name)
  pages.page_template(report.TEMPLATE)
  plots.page_svg = lambda figure: "<svg></svg>"
  gc.collect()
  gc.freeze()

  if xla_bridge.backends_are_initialized():
    raise RuntimeError("an import of rlhf_jax initialises a device, after which no process can be forked")


def names(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
  """The names in a list with commas. Raises ValueError for one that is not known."""
  found = tuple(text.split(",")) if text else known
  if unknown := set(found) - set(known):
    raise ValueError(f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}")
  return found


def main() -> int:
  """Injects the faults and writes the figures; the status is 1 where an outcome was silent or a crash."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--work", type=Path, required=True, help="directory for runs and the log; best in memory")
  parser.add_argument("--stages", default="", help=f"kinds of stage with commas between them, of {', '.join(UPSTREAM)}")
  parser.add_argument("--kinds", default="", help=f"kinds of fault with commas between them, of {', '.join(KINDS)}")
  parser.add_argument("--count", type=int, default=20, help="number of faults of each kind for each kind of stage")
  parser.add_argument("--jobs", type=int, default=2, help="number of faults injected at a time")
  parser.add_argument("--minutes", type=float, default=60, help="minutes after which no fault is begun")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--mended", action="store_true", help="count what other versions of the code ended well with")
  parser.add_argument("--out", type=Path, help="a JSON file for the figures")
  parser.add_argument("--table", type=Path, help="a page of the documentation whose table is replaced")
  settings = parser.parse_args()
  work = settings.work.absolute()
  stages, kinds = names(settings.stages, tuple(UPSTREAM)), names(settings.kinds, tuple(KINDS))
  work.mkdir(parents=True, exist_ok=True)
  if os.environ.get("FAULTS_WORK") != str(work):
    restart(work)
  possible = campaign.kinds_possible()
  if left_out := [kind for kind in kinds if kind not in possible]:
    print(f"left out, since there is no C compiler or no LD_PRELOAD: {', '.join(left_out)}")
  prepare()
  trials = campaign.plan(stages, [kind for kind in kinds if kind in possible], settings.count)
  rows = campaign.run(trials, stages, work, settings.jobs, settings.seed, settings.minutes * 60, settings.mended)
  figures = campaign.figures(rows, len(trials))
  print(campaign.table(figures))
  if settings.out:
    from measure import machine  # asks for the devices, after which nothing is forked

    record = {"command": " ".join(["python", *sys.argv]), "seed": settings.seed, "machine": machine(), **figures}
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps(record, indent=2) + "\n")
  if settings.table:
    campaign.write_table(settings.table, figures)
  return int(bool(figures["found"]))


if __name__ == "__main__":
  sys.exit(main())
