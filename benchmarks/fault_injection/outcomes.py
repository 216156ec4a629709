"""How a fault ended: with the same results, with an error that says what is wrong, or as it must not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fault_injection.attempts import Attempt

IDENTICAL, REPAIRED, NAMED, SILENT, CRASH = "identical", "repaired", "named error", "silent", "crash"
OUTCOMES = (IDENTICAL, REPAIRED, NAMED, SILENT, CRASH)
MEANING = {
  IDENTICAL: "the results are those of an undisturbed run",
  REPAIRED: "the run ended and named the file that it had to mend; all other results are those of an undisturbed run",
  NAMED: "one line on standard error, with what was found where, and a status that is not 0",
  SILENT: "the run ended with other results, or with damaged ones",
  CRASH: "a traceback, a hang, a wrong status, or an error that names neither file nor stage",
}
LINES = 8  # longest error, in lines


def fault_of(attempt: Attempt, stages: Sequence[str], directory: Path, allowed: Sequence[int] = ()) -> str:
  """What is wrong with how a run ended, "" if nothing is: it was done, or it stopped with a named error.

  allowed: statuses that a fault may give to the process, such as -9 after SIGKILL.
  """
  if attempt.status is None:
    return f"hung for {attempt.seconds:.0f} s"
  if "Traceback (most recent call last)" in attempt.stderr + attempt.stdout:
    lines = [line for line in attempt.stderr.splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    return f"traceback: {lines[-1] if lines else attempt.stderr[-200:]}"
  if attempt.status == 0 or attempt.status in allowed:
    return ""
  if attempt.status < 0:
    return f"died of signal {-attempt.status}"
  return unnamed(attempt.stderr, stages, directory)


def unnamed(error: str, stages: Sequence[str], directory: Path) -> str:
  """What the text of an error lacks; "" where it is short, names a stage or a file, and says more than the system."""
  lines = [line for line in error.splitlines() if line.strip()]
  if not lines:
    return "failed without a word"
  if len(lines) > LINES:
    return f"{len(lines)} lines of error, of which the last is: {lines[-1]}"
  last = lines[-1]
  if re.match(r"rlhf-jax: \[Errno", last):
    return f"says neither stage nor what to do: {last}"
  paths = (directory / word.rstrip(".:") for word in re.findall(r"[\w./-]+", last) if "/" in word or "." in word)
  named = str(directory) in last or any(re.search(rf"\b{name}\b", last) for name in stages)
  if named or any(path.is_file() for path in paths):
    return ""
  return f"names neither stage nor file: {last}"


def judge(
  attempts: Sequence[Attempt],
  wrong: Sequence[str],
  faults: Sequence[str],
  damaged: str = "",
) -> tuple[str, str]:
  """(outcome, detail) of a fault.

  attempts: the runs, of which the last one was undisturbed. wrong: the names of the results that differ afterwards.
  faults: what `fault_of` says of each run. damaged: the file that the fault damaged, if it did.
  """
  for fault in faults:
    if fault:
      return CRASH, fault
  last = attempts[-1]
  if last.status != 0:
    return NAMED, [line for line in last.stderr.splitlines() if line.strip()][-1]
  if not wrong:
    return IDENTICAL, ""
  name = Path(damaged).name
  if damaged and list(wrong) == [damaged] and name in last.stdout + last.stderr:
    return REPAIRED, next(line for line in (last.stdout + last.stderr).splitlines() if name in line)
  return SILENT, f"ended with other results: {', '.join(wrong)}"
