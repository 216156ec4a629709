"""`rlhf-jax doctor RUN`: known causes of trouble that the files of a run show, with what to change.

Files alone are read: metrics, samples and results. No model is opened, and no code of the run is imported.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.intervals import Interval
from rlhf_jax.report.read_run import Run, StageRecord, mapping, read_run
from rlhf_jax.tools import learner_symptoms, policy_symptoms
from rlhf_jax.tools.diagnosis import Case, Finding, Samples

RECORDED = 40  # last rows of samples.jsonl that stand for the policy at its end
RULES = (*learner_symptoms.RULES, *policy_symptoms.RULES)


class Diagnosis(NamedTuple):
  """What was found in a run."""

  stages: list[str]
  """Names of the stages with metrics, which were examined."""
  findings: list[tuple[str, Finding]]
  """Pairs of a stage's name and a finding, in the order of the stages."""
  unread: list[str]
  """Sentences on files and lines that could not be read."""

  @property
  def faults(self) -> int:
    """Number of findings that are faults."""
    return sum(finding.fault for _, finding in self.findings)


def examine(directory: str | Path) -> Diagnosis:
  """Examines every stage of a run that has metrics: those of its config, and of other configs in the same
  directory.

  Raises:
    FileNotFoundError: there is no config.json.
    ValueError: config.json is not a JSON object.
  """
  run = read_run(directory)
  cases = [case for case in _cases(run) if case.stage.series or case.stage.not_finite]
  findings = [
    (case.name, finding) for case in cases for finding in (rule(case) for rule in RULES) if finding is not None
  ]
  return Diagnosis([case.name for case in cases], findings, run.notes)


def diagnosis_text(diagnosis: Diagnosis) -> str:
  """The findings, each with its evidence, its meaning and the settings to change; or "nothing found" and where."""
  blocks = []
  for name, finding in diagnosis.findings:
    lines = [f"{name}: {finding.symptom}" + ("" if finding.fault else " (no fault)")]
    lines += [f"  seen    {finding.evidence}", f"  meaning {finding.meaning}"]
    lines += [f"  change  {change}" for change in finding.changes]
    blocks.append("\n".join(lines))
  blocks += [f"could not be read: {note}" for note in diagnosis.unread]
  if not diagnosis.faults:
    looked = f"in the metrics of {', '.join(diagnosis.stages)}" if diagnosis.stages else "no stage has metrics yet"
    blocks.append(f"nothing found {looked}" if diagnosis.stages else f"nothing found: {looked}")
  return "\n\n".join(blocks)


def _cases(run: Run) -> Iterator[Case]:
  records = [*run.stages, *(other.stage for stages in run.others.values() for other in stages)]
  for stage in records:
    yield Case(
      name=stage.name,
      stage=stage,
      shared=run.config,
      samples=_evaluated(run, stage) or _recorded(stage),
      accuracies={
        name: value for name, value in run.reward_models.get(stage.name, {}).items() if isinstance(value, Interval)
      },
      style=run.style.get(stage.name, {}),
      kinds=run.kinds.get(stage.name, {}),
    )


def _evaluated(run: Run, stage: StageRecord) -> Samples | None:
  """The stage's responses that the evaluation has kept, None without any."""
  rows = ([mapping(row.get(key)).get(stage.name) for key in ("responses", "proxy")] for row in run.samples)
  return _samples(rows)


def _recorded(stage: StageRecord) -> Samples | None:
  """The last responses that the stage recorded while it learnt, None without any."""
  return _samples([row.get(key) for key in ("response", "reward")] for row in stage.samples[-RECORDED:])


def _samples(rows: Iterable[Sequence[Any]]) -> Samples | None:
  """Lengths and rewards of rows of a response and its reward; rows that lack one are left out."""
  found = [
    (len(response.split()), reward)
    for response, reward in rows
    if isinstance(response, str) and isinstance(reward, int | float)
  ]
  return Samples(*np.array(found, np.float64).T) if found else None
