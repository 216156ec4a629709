"""The undisturbed run that every outcome is compared with, and places that begin as copies of it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from fault_injection import library
from fault_injection.attempts import Attempt, Place, in_child, run
from fault_injection.recipe import LEARNERS, MODEL, UPSTREAM, needed
from fault_injection.results import differences, digest

FILES = ("functions.py", "learner.py")
LEARNER = '''"""The user's own {name}."""

from learner import own

module = own("{name}")
Config, run = module.Config, module.run
'''
USER = ("corpus.txt", "demonstrations.jsonl", "prompts.jsonl", "answers.jsonl", "eval_prompts.jsonl", "contrasts.jsonl")


@dataclasses.dataclass(frozen=True)
class Undisturbed:
  """A stage that ran with all programs in the cache: its results, seconds, and numbers of file operations."""

  results: dict[str, str]
  seconds: float
  operations: dict[str, int]


class Reference:
  """The finished chain of one version of the code, made by the first call that needs it and found by later ones."""

  def __init__(self, work: Path, version: str) -> None:
    self.work = work / version
    self.place = Place(self.work / "reference")

  def prepare(self, stages: Sequence[str]) -> dict[str, Undisturbed]:
    """Runs every stage, and once more with what the first run has compiled.

    Raises:
      RuntimeError: a run failed, or the second gave other results than the first.
    """
    if not (self.place.directory / "user" / "questions.jsonl").exists():
      self._write_user_files()
    found = {}
    for stage in UPSTREAM:
      if not any(stage in needed(other) for other in stages):
        continue
      record = self.work / f"{stage}.json"
      if not record.exists():
        _must_end(run(self.place, stage), stage)
        measured = self._measure(stage)
        record.write_text(json.dumps(dataclasses.asdict(measured), indent=2))
      found[stage] = Undisturbed(**json.loads(record.read_text()))
    return found

  def _measure(self, stage: str) -> Undisturbed:
    place = self.copy("measured", stage, done=False)
    control = library.make_control(self.work / "measured.control", place.run(stage))
    attempt = _must_end(run(place, stage, control=self.work / "measured.control"), stage)
    results = digest(self.place.stage(stage))
    if other := differences(digest(place.stage(stage)), results):
      raise RuntimeError(f"{stage}: two undisturbed runs differ in {', '.join(other)}")
    shutil.rmtree(place.directory)
    return Undisturbed(results, attempt.seconds, control.counts())

  def copy(self, name: str, stage: str, done: bool) -> Place:
    """A new place with the user's files and the finished stages that `stage` needs, `stage` itself only if `done`."""
    place = Place(self.work / "places" / name)
    shutil.rmtree(place.directory, ignore_errors=True)
    place.run(stage).mkdir(parents=True)
    for path in self.place.directory.iterdir():
      if path.suffix == ".py":
        shutil.copy2(path, place.directory)
    shutil.copytree(self.place.directory / "user", place.directory / "user")
    for other in needed(stage):
      if other != stage or done:
        shutil.copytree(self.place.stage(other), place.stage(other))
    return place

  def _write_user_files(self) -> None:
    """The user's data, of a world like the chain's, and the user's code."""
    user = self.place.directory / "user"
    shutil.rmtree(self.place.directory, ignore_errors=True)
    user.mkdir(parents=True)
    source = Path(__file__).with_name("place")
    for name in FILES:
      shutil.copy(source / name, self.place.directory)
    for name in LEARNERS:
      (self.place.directory / f"{name}.py").write_text(LEARNER.format(name=name))
    _must_end(run(self.place, "world"), "world")
    for name in USER:
      shutil.copy(self.place.stage("world") / name, user)
    shutil.rmtree(self.place.run("world"))
    rows = [json.loads(line) for line in (user / "demonstrations.jsonl").read_text().splitlines()]
    pairs = zip(rows, [*rows[1:], rows[0]], strict=True)
    comparisons = [
      dict(prompt=row["prompt"], chosen=row["response"], rejected=other["response"])
      for row, other in pairs
      if row["response"] != other["response"]
    ]
    _write_rows(user / "comparisons.jsonl", comparisons)
    pid = in_child(lambda: _publish(user), user, [Path(os.devnull), self.work / "publish.log"])
    if os.waitpid(pid, 0)[1]:
      raise RuntimeError(f"no model to import could be written:\n{(self.work / 'publish.log').read_text()}")
    questions = [
      dict(prompt=row["prompt"], answer=row["response"], choices=[row["response"], other["response"]])
      for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)
      if row["response"] != other["response"]
    ]
    _write_rows(user / "questions.jsonl", questions[:8])


def _publish(user: Path) -> int:
  """Writes user/published, a model with random weights and its tokenizer, as others publish it."""
  import jax

  from rlhf_jax import data
  from rlhf_jax.models import DecoderConfig, language_model
  from rlhf_jax.models.hub import export_model

  tokenizer = data.train_tokenizer([(user / "corpus.txt").read_text()], 300)
  config = DecoderConfig(tokenizer.vocab_size, **MODEL, tied=False)
  ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_id") for name in ("pad", "bos", "eos")}
  export_model(user / "published", config, language_model(config).init(jax.random.key(0)), ids)
  data.export_tokenizer(tokenizer, user / "published")
  return 0


def _write_rows(path: Path, rows: list[dict]) -> None:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _must_end(attempt: Attempt, stage: str) -> Attempt:
  if attempt.status != 0:
    raise RuntimeError(
      f"{stage} failed undisturbed ({attempt.status}):\n{attempt.stdout[-500:]}{attempt.stderr[-3000:]}"
    )
  return attempt
