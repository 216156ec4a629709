"""All faults of a campaign: which there are, their injection by a few workers, and the figures."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fault_injection.injections import KINDS, PRELOADED, Scene, Trial, applies
from fault_injection.outcomes import CRASH, OUTCOMES, SILENT
from fault_injection.recipe import UPSTREAM
from fault_injection.reference import Reference, Undisturbed

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- faults: the table -->", "<!-- faults: its end -->"
Row = dict[str, Any]


def plan(stages: Sequence[str], kinds: Sequence[str], count: int) -> list[Trial]:
  """`count` faults of each kind for each stage that it applies to; every stage and kind comes before a second round."""
  cells = [(stage, kind) for kind in kinds for stage in stages if applies(kind, stage)]
  return [Trial(stage, kind, number) for number in range(count) for stage, kind in cells]


def version() -> str:
  """A hash of the code that is put to the test, and of the code that tests it."""
  whole = hashlib.sha256()
  for folder in ("rlhf_jax", "configs", "benchmarks/fault_injection"):
    for path in sorted((ROOT / folder).rglob("*")):
      if path.suffix in (".py", ".c"):
        whole.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
  return whole.hexdigest()[:16]


def inject(trial: Trial, seed: int, reference: Reference, undisturbed: Mapping[str, Undisturbed]) -> Row:
  """Injects one fault; returns its row of the log."""
  scene = Scene(trial, seed, reference, undisturbed)
  injected, outcome, detail = KINDS[trial.kind](scene)
  runs = [[attempt.status, round(attempt.seconds, 1)] for attempt in scene.attempts]
  if outcome in (SILENT, CRASH):
    outputs = "\n".join(f"== {attempt.status}\n{attempt.stdout}\n{attempt.stderr}" for attempt in scene.attempts)
    (scene.place.directory / "outputs.txt").write_text(outputs)
  else:
    shutil.rmtree(scene.place.directory)
  detail = detail.replace(f"{scene.place.directory}/", "")
  cpu_seconds = round(sum(attempt.cpu_seconds for attempt in scene.attempts), 2)
  found = dict(injected=injected, outcome=outcome, detail=detail, runs=runs, cpu_seconds=cpu_seconds)
  return {**dataclasses.asdict(trial), **found}


def run(
  trials: Sequence[Trial], stages: Sequence[str], work: Path, jobs: int, seed: int, seconds: float, mended: bool = False
) -> list[Row]:
  """Injects all faults that the log has not yet, and begins none after `seconds`; returns the rows of `trials`.

  The log is a file of JSON rows in `work`. A row counts for the version of the code and the seed that it names. mended:
  whether rows of other versions count too, but for mistakes.
  """
  mark = {"version": version(), "seed": seed}
  log = work / "log.jsonl"
  reference = Reference(work, mark["version"])
  undisturbed = reference.prepare(stages)
  known = _read(log, mark, mended)
  left = [trial for trial in trials if trial not in known]
  end = time.monotonic() + seconds
  workers = []
  for worker in range(jobs):
    pid = os.fork()
    if not pid:
      _work(left[worker::jobs], log, mark, end, lambda trial: inject(trial, seed, reference, undisturbed))
    workers.append(pid)
  for pid in workers:
    if os.waitpid(pid, 0)[1]:
      raise RuntimeError("a worker failed; its error stands above")
  known = _read(log, mark, mended)
  return [known[trial] for trial in trials if trial in known]


def _work(trials, log, mark, end, inject_one) -> None:
  """Injects faults until `end`; ends the process."""
  status = 1
  try:
    for trial in trials:
      if time.monotonic() > end:
        break
      row = inject_one(trial)
      with log.open("a") as file:
        file.write(json.dumps({**row, **mark}) + "\n")
      print(
        f"{trial.stage}, {trial.kind} {trial.number}: {row['injected']}: {row['outcome']}. {row['detail']}", flush=True
      )
    status = 0
  except BaseException:
    traceback.print_exc()
  finally:
    os._exit(status)


def _read(log: Path, mark: Mapping[str, Any], mended: bool = False) -> dict[Trial, Row]:
  """The rows of the log that count (see `run`), the last one of each trial; a last line cut short is left out."""
  rows: dict[Trial, Row] = {}
  for line in log.read_text().splitlines() if log.exists() else ():
    try:
      row = json.loads(line)
    except json.JSONDecodeError:
      continue
    other = mended and row["outcome"] not in (SILENT, CRASH)
    if row["seed"] == mark["seed"] and (other or row["version"] == mark["version"]):
      rows[Trial(row["stage"], row["kind"], row["number"])] = row
  return rows


def figures(rows: Sequence[Row], planned: int) -> dict[str, Any]:
  """Counts of the outcomes, by kind and stage, and what must not have happened."""
  counts: dict[str, dict[str, collections.Counter[str]]] = {}
  for row in rows:
    counts.setdefault(row["kind"], {}).setdefault(row["stage"], collections.Counter())[row["outcome"]] += 1
  found = [row for row in rows if row["outcome"] in (SILENT, CRASH)]
  return {
    "planned": planned,
    "tried": len(rows),
    "outcomes": dict(collections.Counter(row["outcome"] for row in rows)),
    "fewest_of_a_kind_and_stage": min(
      (sum(c.values()) for stages in counts.values() for c in stages.values()), default=0
    ),
    "cpu_seconds": round(sum(row["cpu_seconds"] for row in rows)),
    "versions": dict(collections.Counter(row["version"] for row in rows)),
    "by_kind_and_stage": {kind: {stage: dict(c) for stage, c in stages.items()} for kind, stages in counts.items()},
    "found": found,
  }


def table(found: Mapping[str, Any]) -> str:
  """The figures as two tables in Markdown, by kind and by stage."""
  by_kind = {kind: sum((collections.Counter(c) for c in stages.values()), collections.Counter())
             for kind, stages in found["by_kind_and_stage"].items()}  # fmt: skip
  by_stage: dict[str, collections.Counter[str]] = {}
  for stages in found["by_kind_and_stage"].values():
    for stage, counts in stages.items():
      by_stage.setdefault(stage, collections.Counter()).update(counts)
  whole = "" if found["tried"] == found["planned"] else f" of {found['planned']} planned"
  minutes, fewest = found["cpu_seconds"] / 60, found["fewest_of_a_kind_and_stage"]
  told = (
    f"at least {fewest} of each kind for each kind of stage, with {minutes:.0f} minutes of processor time for the runs"
  )
  lines = [f"{found['tried']:,} faults{whole} were injected, {told}.", ""]
  for title, rows in (("fault", by_kind), ("stage", {s: by_stage[s] for s in UPSTREAM if s in by_stage})):
    lines += [f"| {title} | tried | {' | '.join(OUTCOMES)} |", f"|---|{'---|' * (len(OUTCOMES) + 1)}"]
    total = sum(rows.values(), collections.Counter())
    for name, counts in {**rows, "all": total}.items():
      lines.append(f"| {name} | {counts.total()} | {' | '.join(str(counts[outcome]) for outcome in OUTCOMES)} |")
    lines.append("")
  return "\n".join(lines)


def write_table(page: Path, found: Mapping[str, Any]) -> None:
  """Replaces what stands between the two marks of the page. Raises ValueError where they are not there."""
  text = page.read_text()
  if text.count(BEGIN) != 1 or text.count(END) != 1:
    raise ValueError(f"{page} must hold the lines {BEGIN} and {END} once each")
  before, after = text.split(BEGIN)[0], text.split(END)[1]
  page.write_text(f"{before}{BEGIN}\n\n{table(found)}\n{END}{after}")


def is_preloaded() -> bool:
  """Whether this process was started with the library."""
  return "library.so" in os.environ.get("LD_PRELOAD", "")


def kinds_possible() -> tuple[str, ...]:
  """The kinds of fault that can be injected here: two of them need the library."""
  return tuple(kind for kind in KINDS if is_preloaded() or kind not in PRELOADED)
