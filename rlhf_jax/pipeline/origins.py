"""What the stages of a run would be made from now, against what their records say that they were made from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.pipeline.code import read_code
from rlhf_jax.pipeline.inputs import ContentHashes, read_inputs
from rlhf_jax.pipeline.plan import Step, steps_field
from rlhf_jax.pipeline.stage_files import DONE, Record, config_then, differences, done_record, listed
from rlhf_jax.stage import split_step
from rlhf_jax.train.checkpoint import last_checkpoint


class Origins:
  """Files, code and results of the stages of a run, as they are now.

  hashes: SHA-256 of files, kept in the run directory. code: {stage: the code that it runs}, as it was imported.
  """

  def __init__(self, steps: Sequence[Step], workdir: Path) -> None:
    self._names = {step.stage.name for step in steps}
    self.hashes = ContentHashes(workdir)
    self.code = {step.stage.name: read_code(step, self.hashes) for step in steps}

  def now(self, step: Step) -> Record:
    """What a stage would be made from if it began now."""
    own, package = self.code[step.stage.name]
    upstream = {name: self._result(directory) for name, directory in read_from(step)}
    return {"inputs": self.inputs(step), "code": own, "package": package, "upstream": upstream}

  def inputs(self, step: Step) -> dict[str, str]:
    """The user's files that the stage reads; what other stages have written is in their results."""
    upstream = dict(read_from(step))

    def is_input(name: str) -> bool:
      if not name.startswith("{run}/"):
        return True
      stage, _, file = name.removeprefix("{run}/").partition("/")
      if stage in upstream:
        return file not in done_record(upstream[stage]).get("files", {})
      return stage not in self._names  # else it is this stage's own file, or the tokenizer that a later stage makes

    return read_inputs(step, self.hashes, is_input)

  def _result(self, directory: Path) -> Record:
    """The result of a stage that was read: its final step, the digest of its last checkpoint, and its files."""
    done = done_record(directory)
    last = (done["step"], done["checkpoint"]) if "step" in done else last_checkpoint(directory / "checkpoints")
    return {**({"step": last[0], "checkpoint": last[1]} if last else {}), "files": self.files(directory, done)}

  def files(self, directory: Path, done: Mapping[str, Any], key: str = "files") -> dict[str, str]:
    """The SHA-256 of the files that a stage has written, as they are now; key: "shown" for those nobody else reads."""
    return {name: self.hashes.of(directory / name) for name in done.get(key, {}) if (directory / name).is_file()}

  def changed_results(self, step: Step, record: Record) -> list[str]:
    """Sentences on the stage's own files, where it is done, and on the results of the finished stages it reads from."""
    name, found = step.stage.name, []
    own = differences(record.get("files", {}), self.files(step.stage.directory, record))
    if own:
      found.append(f"{listed([(f'{name}/{file}', how) for file, how in own])} since stage {name!r} ended")
    for other, directory in read_from(step):
      before, now = record["upstream"].get(other), self._result(directory)
      if before in (None, now) or not (directory / DONE).exists():
        continue
      files = differences(before["files"], now["files"])
      if files:
        found.append(f"{listed([(f'{other}/{file}', how) for file, how in files])} since stage {name!r} began")
      else:
        steps = [result.get("step") for result in (before, now)]
        detail = f" (step {steps[0]} then, {steps[1]} now)" if steps[0] != steps[1] else ""
        found.append(f"the result of stage {other!r} has changed since stage {name!r} began{detail}")
    return found

  def changed_inputs(self, step: Step, record: Record) -> list[tuple[str, str]]:
    """`differences` of the user's files that the stage reads."""
    return differences(record["inputs"], self.inputs(step)) if "inputs" in record else []

  def changed_code(self, step: Step, record: Record) -> list[tuple[str, str]]:
    """`differences` of the user's code."""
    return differences(record["code"], self.code[step.stage.name].own)

  def changed_meanwhile(self, step: Step) -> list[tuple[str, str]]:
    """`differences` of the user's code since it was imported."""
    return differences(self.code[step.stage.name].own, read_code(step, self.hashes).own)

  def changed_package(self, step: Step, record: Record) -> list[str]:
    """The modules of this package that the stage imports and that are not what they were when it began."""
    if "package" not in record:  # versions before 0.3 recorded none
      return []
    return [file for file, _ in differences(record["package"], self.code[step.stage.name].package)]


def read_from(step: Step) -> Iterator[tuple[str, Path]]:
  """(name, directory) of the stages that a stage reads from: of this run, and of other runs by their paths."""
  for name in step.upstream:
    yield name, step.stage.root / name
  for reference in step.references:
    if reference.mark == "stage" and reference.text and split_step(reference.text)[0] not in step.upstream:
      yield reference.text, step.stage.directory_of(reference.text)


def changed_config(step: Step, record: Record) -> str:
  """How the config that a stage was made with differs, or its steps, where more were taken than asked for; else ""."""
  stage, then = step.stage, config_then(step.stage)
  field = steps_field(step.config)
  is_first = "inputs" not in record  # made before 0.3, when every key counted
  known = {step.first_fingerprint} if is_first else {stage.fingerprint}
  fewer = field and then.get(field, 0) > step.given[field]
  if record["fingerprint"] in known and not fewer:
    return ""
  before, now = dict(_flatten(then)), dict(_flatten(json.loads(json.dumps(step.given))))
  changed = [
    f"{stage.name}.{key}: {before.get(key)!r} then, {now.get(key)!r} now"
    for key in sorted({*before, *now})
    if before.get(key) != now.get(key) and (is_first or f"{stage.name}.{key}" not in step.inert)
  ]
  what = "; ".join(changed) or "something it reads from (an earlier stage, seed, model or tokenizer) has changed"
  if not fewer and len(changed) == 1 and "num_steps" in before and before["num_steps"] < now.get("num_steps", 0):
    what += ", and more steps go on only where optimizer.decay is 'constant' and warmup 0, which no schedule depends on"
  return what


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
  if isinstance(value, Mapping):
    for key, item in value.items():
      yield from _flatten(item, f"{prefix}.{key}" if prefix else key)
  else:
    yield prefix, value
