"""The kinds of fault. Each injects one fault into a run of one stage and runs the same command again."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from fault_injection import library
from fault_injection.attempts import Attempt, Place, Running, run
from fault_injection.outcomes import IDENTICAL, NAMED, SILENT, fault_of, judge
from fault_injection.recipe import LEARNERS, UPSTREAM, needed
from fault_injection.reference import Reference, Undisturbed
from fault_injection.results import differences, digest

# Kind of stage -> the user's files that it reads and no stage before it does, and the file with the user's code.
DATA = {
  "vocabulary": ("demonstrations.jsonl",),
  "pretrain": ("corpus.txt",),
  "sft": ("demonstrations.jsonl",),
  "preferences": ("prompts.jsonl", "answers.jsonl"),
  "reward_model": ("prompts.jsonl",),
  "dpo": ("comparisons.jsonl",),
  "ppo": ("prompts.jsonl",),
  "reinforce": ("prompts.jsonl",),
  "grpo": ("prompts.jsonl",),
  "best_of_n": ("prompts.jsonl",),
  "judgements": ("prompts.jsonl", "answers.jsonl"),
  "evaluation": ("eval_prompts.jsonl", "contrasts.jsonl"),
  "few_shot": ("questions.jsonl",),
  "import_model": ("published/model.safetensors",),
}
SCORED = ("preferences", "ppo", "reinforce", "grpo", "best_of_n", "judgements", "evaluation", "few_shot")
CODE = {**dict.fromkeys(SCORED, "functions.py"), **dict.fromkeys(LEARNERS, "learner.py")}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@dataclasses.dataclass(frozen=True)
class Trial:
  """The `number`-th fault of a kind in a kind of stage."""

  stage: str
  kind: str
  number: int


class Scene:
  """One trial in a place of its own: what is injected follows from the seed alone."""

  def __init__(self, trial: Trial, seed: int, reference: Reference, undisturbed: Mapping[str, Undisturbed]) -> None:
    self.trial, self.reference, self.undisturbed = trial, reference, undisturbed[trial.stage]
    self.all_undisturbed = undisturbed
    self.random = random.Random(f"{seed} {trial.stage} {trial.kind} {trial.number}")
    self.name = re.sub(r"[^\w-]", "_", f"{trial.stage}-{trial.kind}-{trial.number}")
    self.attempts: list[Attempt] = []
    self.faults: list[str] = []
    self.place: Place

  def begin(self, done: bool) -> None:
    """Makes the place, with the stages before, and the stage itself if `done`."""
    self.place = self.reference.copy(self.name, self.trial.stage, done)

  def add(self, attempt: Attempt, allowed: tuple[int, ...] = ()) -> Attempt:
    """Keeps an attempt and what is wrong with its end; `allowed` as in `fault_of`."""
    self.attempts.append(attempt)
    self.faults.append(fault_of(attempt, needed(self.trial.stage), self.place.directory, allowed))
    return attempt

  def run(self, **options) -> Attempt:
    """Runs the stage without a fault; options are those of `Running`."""
    return self.add(run(self.place, self.trial.stage, **options))

  def run_until_killed(self) -> None:
    """Runs the stage and kills it at a random time."""
    running = Running(self.place, self.trial.stage)
    running.sleep(self.random.uniform(0.3, 1.0) * self.undisturbed.seconds)
    running.send(signal.SIGKILL)
    self.add(running.wait(), (-signal.SIGKILL,))

  def strike(self, classes: tuple[str, ...], turn: int, allowed: tuple[int, ...] = (), **settings: int) -> str:
    """Runs the stage with a fault in an operation of the class whose turn it is; returns which one it was."""
    known = [name for name in classes if self.undisturbed.operations[name]]
    name = known[turn % len(known)]
    count = self.undisturbed.operations[name]
    at = self.random.randint(1, count)
    file = self.place.directory / "control"
    directory = self.place.run(self.trial.stage)
    control = library.make_control(file, directory, class_=library.CLASSES.index(name), at=at, **settings)
    self.add(run(self.place, self.trial.stage, control=file), allowed)
    where = os.fsdecode(control.path).removeprefix(f"{directory}/") if control.struck else "which did not come"
    return f"{name} {at} of {count}, {where}"

  def wrong(self, stages: tuple[str, ...] = ()) -> list[str]:
    """The results of the stage, or of `stages`, that are not those of the undisturbed run."""
    found = []
    for stage in stages or (self.trial.stage,):
      changed = differences(digest(self.place.stage(stage)), self.all_undisturbed[stage].results)
      found += changed if stage == self.trial.stage else [f"{stage}/{name}" for name in changed]
    return found

  def end(self, damaged: str = "", stages: tuple[str, ...] = ()) -> tuple[str, str]:
    """The outcome and its detail; arguments are those of `judge` and `wrong`."""
    wrong = self.wrong(stages) if self.attempts[-1].status == 0 else []
    return judge(self.attempts, wrong, self.faults, damaged)

  def again(self) -> tuple[str, str]:
    """Runs the same command again, and judges; a disturbed run that ended as if nothing were must have been right."""
    if self.attempts[-1].status == 0 and (wrong := self.wrong()):
      return SILENT, f"the disturbed run ended with other results: {', '.join(wrong)}"
    self.run()
    return self.end()


Ended = tuple[str, str, str]  # what was injected, outcome, detail


def kill(scene: Scene) -> Ended:
  """SIGKILL before, amid or after the k-th operation of a class, or at a random time."""
  scene.begin(done=False)
  number = scene.trial.number
  if number % 2:
    scene.run_until_killed()
    injected = f"killed after {scene.attempts[-1].seconds:.2f} s"
  else:
    after = scene.random.randrange(2)
    classes = ("create", "write", "fsync", "rename", "mkdir", "remove")
    injected = (
      f"killed {'after' if after else 'in'} {scene.strike(classes, number // 2, (-signal.SIGKILL,), after=after)}"
    )
  return injected, *scene.again()


def full(scene: Scene) -> Ended:
  """A disk that is full from the k-th operation on; it has room again when the command is run again."""
  scene.begin(done=False)
  injected = scene.strike(("create", "write", "fsync", "mkdir"), scene.trial.number, error=errno.ENOSPC, stays=1)
  return f"ENOSPC from {injected}", *scene.again()


def broken_disk(scene: Scene) -> Ended:
  """EIO in the k-th operation."""
  scene.begin(done=False)
  injected = scene.strike(("read", "open", "create", "write", "fsync", "rename"), scene.trial.number, error=errno.EIO)
  return f"EIO in {injected}", *scene.again()


def signalled(scene: Scene) -> Ended:
  """A signal that asks to stop, at a random time."""
  scene.begin(done=False)
  number = SIGNALS[scene.trial.number % len(SIGNALS)]
  running = Running(scene.place, scene.trial.stage)
  running.sleep(scene.random.uniform(0, 1.0) * scene.undisturbed.seconds)
  running.send(number)
  attempt = scene.add(running.wait(), (128 + number, -number))
  return f"{number.name} after {attempt.seconds:.2f} s", *scene.again()


def damage(scene: Scene) -> Ended:
  """A file of the stage is damaged, after the stage was done or, once in three, after it was killed."""
  half = scene.random.random() < 1 / 3
  scene.begin(done=not half)
  if half:
    scene.run_until_killed()
  file = _file_to_damage(scene)
  if file is None:
    return "killed before there was a file", *scene.again()
  how = _damage(scene, file)
  name = str(file.relative_to(scene.place.stage(scene.trial.stage)))
  scene.run()
  outcome, detail = scene.end(damaged=name)
  if outcome == NAMED and "--redo" in detail:  # the advice must lead to the right results
    scene.run(flags=("--redo", scene.trial.stage))
    followed, more = scene.end(damaged=name)
    if followed != IDENTICAL:
      return f"{name} {how}", SILENT if followed == SILENT else followed, f"{detail}; and by this advice: {more}"
  return f"{name} {how}{', of a killed run' if half else ''}", outcome, detail


def _file_to_damage(scene: Scene) -> Path | None:
  """Each entry of the stage's directory takes its turn, and within it a file at random."""
  directory = scene.place.stage(scene.trial.stage)
  entries = sorted(directory.iterdir()) if directory.exists() else []
  groups = [[entry] if entry.is_file() else sorted(x for x in entry.rglob("*") if x.is_file()) for entry in entries]
  groups = [group for group in groups if group]
  if not groups:
    return None
  number = scene.trial.number
  return scene.random.choice(groups[(number + number // 4) % len(groups)])


def _damage(scene: Scene, file: Path) -> str:
  """Flips bits, cuts, empties or deletes a file; returns which."""
  content = bytearray(file.read_bytes())
  how = ("flipped", "cut short", "emptied", "deleted")[scene.trial.number % 4]
  if how == "deleted" or not content:
    file.unlink()
    return "deleted"
  if how == "flipped":
    for _ in range(3):
      content[scene.random.randrange(len(content))] ^= 1 << scene.random.randrange(8)
  file.write_bytes({"flipped": content, "cut short": content[: len(content) * 2 // 3], "emptied": b""}[how])
  return how


def changed_input(scene: Scene) -> Ended:
  """The user's data or code, or a stage before, changes after the stage was done or, once in three, killed."""
  stage, half = scene.trial.stage, scene.random.random() < 1 / 3
  scene.begin(done=not half)
  if half:
    scene.run_until_killed()
  changes = [*(("data", name) for name in DATA.get(stage, ()))]
  changes += [("code", CODE[stage])] if stage in CODE else []
  changes += [(how, other) for other in UPSTREAM[stage] for how in ("deleted", "edited")]
  changes += [("touched", name) for name in DATA.get(stage, ())]
  what, name = changes[scene.trial.number % len(changes)]
  injected = f"{what}: {name}{', of a killed run' if half else ''}"
  if what in ("data", "code"):
    variant = scene.random.randrange(2)
    _edit(scene.place, name, variant)
    attempt = scene.run()
    if attempt.status == 0 and not any(scene.faults):
      expected = _fresh(scene, name, variant)
      found = digest(scene.place.stage(stage))
      if expected is None or differences(found, expected):
        stale = not differences(found, scene.undisturbed.results)
        return injected, SILENT, f"ended with {'the results of before' if stale else 'results of neither input'}"
      return injected, IDENTICAL, "made anew from the changed input"
    return injected, *judge(scene.attempts, [], scene.faults)
  if what == "touched":
    path = scene.place.directory / "user" / name
    copied = path.read_bytes()
    path.unlink()
    path.write_bytes(copied)
  elif what == "deleted":
    shutil.rmtree(scene.place.stage(name))
  else:
    _edit_stage(scene, name)
  scene.run()
  return injected, *scene.end(stages=(name, stage) if what in ("deleted", "edited") else ())


def _edit(place: Place, name: str, variant: int) -> None:
  """Changes code, a byte of weights, or rows: the first half of them is left (variant 0), or they are turned round."""
  if name.endswith(".py"):
    path = place.directory / name
    text = path.read_text().replace("WEIGHT = 0.1", "WEIGHT = 0.2").replace("FACTOR = 1.0", "FACTOR = 0.5")
    path.write_text(text)
    return
  path = place.directory / "user" / name
  if name.endswith(".safetensors"):
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    return
  lines = path.read_text().splitlines()
  path.write_text("\n".join(lines[::-1] if variant else lines[: len(lines) // 2]) + "\n")


def _fresh(scene: Scene, name: str, variant: int) -> dict[str, str] | None:
  """The results of the stage when it begins with the changed input; None where the run is refused."""
  stage = scene.trial.stage
  record = scene.reference.work / "fresh" / f"{stage}-{name.replace('/', '_')}-{variant}.json"
  if not record.exists():
    place = scene.reference.copy(f"{scene.name}-fresh", stage, done=False)
    _edit(place, name, variant)
    ended = run(place, stage).status == 0
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps(digest(place.stage(stage)) if ended else None))
    shutil.rmtree(place.directory)
  return json.loads(record.read_text())


def _edit_stage(scene: Scene, name: str) -> None:
  """Changes the results of a stage before: its last checkpoint is lost, or the rows of a file are turned round."""
  directory = scene.place.stage(name)
  steps = sorted((int(x.name) for x in directory.glob("checkpoints/*") if x.name.isdigit()), reverse=True)
  if steps:
    shutil.rmtree(directory / "checkpoints" / str(steps[0]))
    return
  for path in sorted(directory.iterdir()):
    if path.suffix in (".jsonl", ".txt"):
      path.write_text("\n".join(path.read_text().splitlines()[::-1]) + "\n")
    elif path.name == "tokenizer.json":
      content = json.loads(path.read_text())
      merges = content["model"]["merges"]
      merges[-1], merges[-2] = merges[-2], merges[-1]
      path.write_text(json.dumps(content))


def not_a_number(scene: Scene) -> Ended:
  """A loss, a gradient or a reward is NaN in step k; the command is run again without it."""
  stage = scene.trial.stage
  where = [*(("loss", "gradient") if stage in LEARNERS else ()), *(("reward",) if stage in SCORED else ())]
  what = where[scene.trial.number % len(where)]
  metrics = scene.reference.place.stage(stage) / "metrics.jsonl"
  steps = len(metrics.read_text().splitlines()) if metrics.exists() else 3
  at = scene.random.randint(1, steps)
  scene.begin(done=False)
  broken = scene.run(environment={"NAN_IN": what, "NAN_AT": str(at)})
  said = broken.stderr.strip().splitlines()[-1:]
  outcome, detail = scene.again()
  if outcome == IDENTICAL and broken.status != 0:
    outcome, detail = NAMED, f"{said[0]} (and then identical)"
  return f"NaN in the {what} of step {at} of {steps}", outcome, detail


def two_processes(scene: Scene) -> Ended:
  """A second process begins with the same command at a random time; then the command is run once more."""
  scene.begin(done=False)
  first = Running(scene.place, scene.trial.stage)
  delay = scene.random.uniform(0, 0.9) * scene.undisturbed.seconds
  first.sleep(delay)
  second = Running(scene.place, scene.trial.stage)
  for running in (first, second):
    scene.add(running.wait())
  ended = [attempt.status for attempt in scene.attempts]
  injected = f"a second process after {delay:.2f} s: {ended[0]} and {ended[1]}"
  return injected, *scene.again()


KINDS: dict[str, Callable[[Scene], Ended]] = {
  "kill": kill, "full disk": full, "I/O error": broken_disk, "signal": signalled, "damage": damage,
  "changed input": changed_input, "NaN": not_a_number, "two processes": two_processes,
}  # fmt: skip
PRELOADED = ("full disk", "I/O error")  # kinds that need the library; without it a kill comes at a random time
APPLIES = {"changed input": tuple(DATA), "NaN": tuple(dict.fromkeys((*LEARNERS, *SCORED)))}


def applies(kind: str, stage: str) -> bool:
  """Whether a stage has what a kind of fault disturbs."""
  return stage in APPLIES.get(kind, UPSTREAM)
