"""The plan of a sweep as command lines, for schedulers that this package does not speak to."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rlhf_jax.data.files import write_text
from rlhf_jax.sweep.units import Unit

FILE = "commands.txt"
HEAD = """\
# A command line for each run of the sweep, to be given to any scheduler: Ray, SkyPilot, xpk, gcloud, GNU parallel.
#
# Lines of one wave may run at the same time, anywhere that sees this directory; a wave needs the waves before it.
# Every line may be run again at any time: what is done is passed over, what was interrupted goes on. Its exit status is
# 0 when the run is done, 75 when another process is at work in it or a stage that it needs is not done yet (try again
# later), 128 + the number of a signal after which it has saved, and else that of an error, which log.txt in the run
# directory names. On several hosts start the same line on each, as for any program of jax.distributed.
# The same `rlhf-jax sweep` command writes the tables of what is there.
"""


def write_commands(units: Sequence[Unit], root: Path) -> Path:
  """Writes DIR/commands.txt: the lines of the units that are not done yet, in waves; returns its path."""
  depth: dict[str, int] = {}
  for unit in units:
    depth[unit.name] = 1 + max((depth[name] for name in unit.after), default=0)
  lines = [HEAD]
  for wave in range(1, max(depth.values()) + 1):
    own = [unit for unit in units if depth[unit.name] == wave and not unit.is_done(root)]
    lines += [f"# wave {wave}", *(command_line(unit, root) for unit in own)] if own else []
  write_text(root / FILE, "\n".join(lines) + "\n")
  return root / FILE


def command_line(unit: Unit, root: Path) -> str:
  """The command line of a unit, which may be started in any directory."""
  return shlex.join([sys.executable, "-m", "rlhf_jax.sweep.work", str(root / unit.name)])
