"""Reads a run directory for the report.

Only config.json is required. A file that is absent gives an empty part of `Run`. A file or line that cannot be read is
left out and named in `Run.notes`, which the page shows: a killed run may end in half a line.

Results are found by the files that a stage leaves in its directory, not by the module that wrote them, so that a run
with stages of a user's own, or with modules that have moved since, is reported in the same way.
"""

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.data.files import DataError, read_json
from rlhf_jax.intervals import Interval


class Series(NamedTuple):
  """One metric over a stage: steps[n] increasing, values[n] finite."""

  steps: np.ndarray
  values: np.ndarray

  @property
  def final(self) -> float:
    """Mean of the last tenth of the records (at least one): the end of a curve without its noise."""
    return float(self.values[-max(1, len(self.values) // 10) :].mean())


class StageRecord(NamedTuple):
  """A stage of the run: its part of the config and its metrics by name."""

  name: str
  algorithm: str  # name of the module without packages or suffix: ppo, my_algorithm; "" where the config names none
  config: Mapping[str, Any]
  series: dict[str, Series]
  not_finite: dict[str, list[float]]  # metric -> steps of its records that are not finite, which `series` lacks
  speed: dict[str, Series]  # what speed.jsonl has of its steps
  samples: list[dict[str, Any]]  # rows of samples.jsonl that were recorded while it learnt
  timeline: dict[str, float]  # part of `rlhf_jax.train.timeline` -> seconds; {} until the stage is done

  @property
  def optimises_reward(self) -> bool:
    """Whether the stage is reinforcement learning: it logs the reward that it maximises."""
    return "reward/proxy" in self.series


class OtherStage(NamedTuple):
  """A stage of another config in the same directory, with the models that it has measured, as in `Run`."""

  stage: StageRecord
  models: dict[str, dict[str, Interval]]


class Cell(NamedTuple):
  """What the prompts of a cell gave."""

  num: int  # number of prompts
  models: dict[str, dict[str, Interval]]  # model or baseline -> "gold", "full" -> interval
  copied: Interval | None  # share of the prompts on which a similar demonstration has an ideal answer
  clusters: dict[str, dict[str, Interval]]  # cluster -> model or baseline -> gold reward
  copied_clusters: dict[str, Interval]  # cluster -> as `copied`


class Kind(NamedTuple):
  """Accuracies on pairs of one kind of difference: "accuracy", "style", "gap" and "ceiling"."""

  measures: dict[str, Interval]
  clusters: dict[str, dict[str, Interval]]
  cells: dict[str, dict[str, Interval]]


class Run(NamedTuple):
  """Everything that the report shows; a part is empty where the directory lacks its files."""

  directory: Path
  name: str
  config: Mapping[str, Any]
  environment: Mapping[str, Any]  # environment.json: versions, commit, device, ...
  command: str | None
  stages: list[StageRecord]
  evaluation: str  # stage whose evaluation.json and samples.jsonl are shown
  reference: str | None
  models: dict[str, dict[str, Interval]]  # model -> measure -> interval, in stage order
  clusters: dict[str, dict[str, Any]]  # cluster -> {"held_out": bool, "models": {model: Interval}}
  baselines: dict[str, dict[str, Interval]]  # policies without a model, as `models`
  constants: dict[str, str]  # baseline that always answers alike -> its answer
  cells: dict[str, Cell]  # cells of prompts, in the order of the file
  reward_models: dict[str, dict[str, Any]]  # stage -> {"clear_accuracy": Interval, ..., "min_gap": float}
  style: dict[str, dict[str, Interval]]  # reward model -> the style baseline's accuracies beside its own
  kinds: dict[str, dict[str, Kind]]  # reward model -> kind of difference -> accuracies
  samples: list[dict[str, Any]]
  few_shot: Mapping[str, Mapping[str, Any]]  # "stage: task" -> model -> number of examples -> measure -> interval
  perplexity: Mapping[str, Mapping[str, Any]]  # "stage: text" -> model -> measure -> interval
  comparisons: Mapping[str, Mapping[str, Any]]  # stage -> its results.json
  judged: dict[str, Mapping[str, Any]]  # directory with an agreement.json -> its "models": who won
  others: dict[str, list[OtherStage]]  # other config ("" if it was not recorded) -> its stages
  notes: list[str]  # sentences on files and lines that could not be read


def read_run(directory: str | Path) -> Run:
  """Reads RUN/config.json, command.txt and environment.json, and the results that each stage has left.

  Metrics are RUN/STAGE/metrics.jsonl, with speed.jsonl and the samples.jsonl of a stage of RL beside it. Of the stages
  with an evaluation.json the last is shown, with its samples.jsonl. RUN/*/agreement.json is what `rlhf-jax agreement`
  writes with `--out RUN/NAME`.

  Raises:
    FileNotFoundError: there is no config.json.
    ValueError: config.json is not a JSON object.
  """
  directory = Path(directory)
  path = directory / "config.json"
  if not path.is_file():
    raise FileNotFoundError(f"{path} does not exist: {directory} is not the directory of a run")
  notes: list[str] = []
  config = read_json(path)
  if not isinstance(config, dict):
    raise ValueError(f"{path} must hold one JSON object, the resolved config of the run")
  stages = [_read_stage(directory, name, config, notes) for name in map(str, config.get("stages") or ())]
  source = _last_evaluation(directory, stages)
  evaluation = _read_object(directory / source / "evaluation.json", notes)
  reference = evaluation.get("reference")
  models = {str(name): _intervals(measures) for name, measures in mapping(evaluation.get("models")).items()}
  baselines = {str(name): measures for name, measures in mapping(evaluation.get("baselines")).items()}
  order = {stage.name: index for index, stage in enumerate(stages)}
  return Run(
    directory=directory,
    name=directory.resolve().name,
    config=config,
    environment=_read_object(directory / "environment.json", notes),
    command=_read_command(directory / "command.txt"),
    stages=stages,
    evaluation=source,
    reference=reference if isinstance(reference, str) else None,
    models={name: models[name] for name in sorted(models, key=lambda name: order.get(name, len(order)))},
    clusters={
      str(name): {"held_out": bool(cluster.get("held_out")), "models": _intervals(cluster.get("models"))}
      for name, cluster in mapping(evaluation.get("clusters")).items()
      if isinstance(cluster, dict)
    },
    baselines={name: _intervals(measures) for name, measures in baselines.items()},
    constants={
      name: measures["text"] for name, measures in baselines.items() if isinstance(mapping(measures).get("text"), str)
    },
    cells={str(name): _read_cell(found) for name, found in mapping(evaluation.get("cells")).items()},
    reward_models={
      str(name): {**_intervals(measures), "min_gap": mapping(measures).get("min_gap")}
      for name, measures in mapping(evaluation.get("reward_model")).items()
    },
    style={
      str(name): _intervals(mapping(measures).get("style"))
      for name, measures in mapping(evaluation.get("reward_model")).items()
    },
    kinds={
      str(name): {str(kind): _read_kind(found) for kind, found in mapping(mapping(measures).get("kinds")).items()}
      for name, measures in mapping(evaluation.get("reward_model")).items()
    },
    samples=[row for row in read_rows(directory, f"{source}/samples.jsonl", notes) if "prompt" in row],
    few_shot=_read_few_shot(directory, stages, notes),
    perplexity=_read_perplexity(directory, stages, notes),
    comparisons={
      stage.name: found for stage in stages if (found := _read_object(directory / stage.name / "results.json", notes))
    },
    judged={
      path.parent.name: found
      for path in sorted(directory.glob("*/agreement.json"))
      if (found := mapping(_read_object(path, notes).get("models")))
    },
    others=_read_others(directory, {stage.name for stage in stages}, notes),
    notes=notes,
  )


def _read_others(directory: Path, known: set[str], notes: list[str]) -> dict[str, list[OtherStage]]:
  found: dict[str, list[OtherStage]] = {}
  for path in sorted(directory.glob("*/config.json")):
    name = path.parent.name
    if name in known:
      continue
    given, record, evaluation = (
      _read_object(path.with_name(f"{kind}.json"), notes) for kind in ("config", "done", "evaluation")
    )
    models = {str(model): _intervals(measures) for model, measures in mapping(evaluation.get("models")).items()}
    other = OtherStage(_read_stage(directory, name, {name: given}, notes), models)
    found.setdefault(_config_of(record.get("command")), []).append(other)
  return dict(sorted(found.items()))


def _config_of(command: Any) -> str:
  """The value of --config in a command line; "" where there is none."""
  try:
    words = shlex.split(command) if isinstance(command, str) else []
  except ValueError:
    words = []
  given = [word.partition("=")[2] for word in words if word.startswith("--config=")]
  given += [after for word, after in zip(words, words[1:], strict=False) if word == "--config"]
  return given[0] if given else ""


def _read_cell(found: Any) -> Cell:
  groups = [mapping(mapping(found).get(group)) for group in ("models", "baselines")]
  clusters = mapping(mapping(found).get("clusters"))
  num = mapping(found).get("prompts")
  return Cell(
    num if isinstance(num, int) else 0,
    {str(name): _intervals(measures) for group in groups for name, measures in group.items()},
    read_interval(mapping(found).get("copied")),
    {str(cluster): _intervals(mapping(entry).get("models")) for cluster, entry in clusters.items()},
    _intervals({cluster: mapping(entry).get("copied") for cluster, entry in clusters.items()}),
  )


def _read_kind(found: Any) -> Kind:
  clusters, cells = (
    {str(name): _intervals(measures) for name, measures in mapping(mapping(found).get(group)).items()}
    for group in ("clusters", "cells")
  )
  return Kind(_intervals(found), clusters, cells)


def _read_few_shot(directory: Path, stages: list[StageRecord], notes: list[str]) -> dict[str, Any]:
  found = {}
  for stage in stages:
    tasks = _read_object(directory / stage.name / "few_shot.json", notes).get("tasks")
    for task, result in mapping(tasks).items():
      found[f"{stage.name}: {task}"] = {
        str(model): {str(n): _intervals(mapping(x).get("measures")) for n, x in mapping(by_shots).items()}
        for model, by_shots in mapping(mapping(result).get("models")).items()
      }
  return found


def _read_perplexity(directory: Path, stages: list[StageRecord], notes: list[str]) -> dict[str, Any]:
  found = {}
  for stage in stages:
    texts = _read_object(directory / stage.name / "perplexity.json", notes).get("texts")
    for text, result in mapping(texts).items():
      models = mapping(mapping(result).get("models"))
      found[f"{stage.name}: {text}"] = {str(model): _intervals(measures) for model, measures in models.items()}
  return found


def read_interval(value: Any) -> Interval | None:
  """{"mean", "low", "high", "num"}, or a number alone, as an Interval. Unknown bounds are NaN. None without a finite
  mean."""
  measure = value if isinstance(value, dict) else {"mean": value}
  mean, low, high = (_number(measure.get(key)) for key in ("mean", "low", "high"))
  if not math.isfinite(mean):
    return None
  return Interval(mean, low, high, int(measure["num"]) if math.isfinite(_number(measure.get("num"))) else 0)


def _last_evaluation(directory: Path, stages: list[StageRecord]) -> str:
  """The last stage that has left an evaluation.json; "evaluation" where there is none."""
  done = [stage.name for stage in stages if (directory / stage.name / "evaluation.json").is_file()]
  return done[-1] if done else "evaluation"


def _read_stage(directory: Path, name: str, config: Mapping[str, Any], notes: list[str]) -> StageRecord:
  stage_config = mapping(config.get(name))
  module = str(stage_config.get("algorithm") or "")  # "package.module" or "path/to/file.py"
  algorithm = PurePath(module).stem if module.endswith(".py") else module.rpartition(".")[2]
  series, broken = _read_series(directory, name, "metrics.jsonl", notes)
  speed, _ = _read_series(directory, name, "speed.jsonl", notes)
  rows = read_rows(directory, f"{name}/samples.jsonl", notes) if series else []
  samples = [row for row in rows if "response" in row and math.isfinite(_number(row.get("step")))]
  taken = mapping(_read_object(directory / name / "done.json", notes).get("timeline"))
  timeline = {part: _number(value) for part, value in taken.items() if math.isfinite(_number(value))}
  return StageRecord(name, algorithm, stage_config, series, broken, speed, samples, timeline)


def _read_series(
  directory: Path, name: str, file: str, notes: list[str]
) -> tuple[dict[str, Series], dict[str, list[float]]]:
  """The finite records of each metric, and the steps of the others."""
  columns: dict[str, dict[float, float]] = {}
  broken: dict[str, list[float]] = {}
  for row in read_rows(directory, f"{name}/{file}", notes):
    step = _number(row.get("step"))
    for key, value in row.items():
      is_number = isinstance(value, int | float | None) or value in ("nan", "inf", "-inf")
      if key == "step" or not is_number or not math.isfinite(step):
        continue
      if math.isfinite(number := _number(value)):
        # A run resumed from a checkpoint logs some steps twice: the later record counts.
        columns.setdefault(key, {})[step] = number
      else:
        broken.setdefault(key, []).append(step)
  for key, steps in broken.items():
    notes.append(f"{name}: {len(steps)} records of {key} are not finite and are not drawn.")
  series = {key: Series(*np.array(sorted(column.items()), np.float64).T) for key, column in columns.items()}  # by step
  return series, broken


def read_rows(directory: Path, relative: str, notes: list[str]) -> list[dict[str, Any]]:
  """The JSON objects in the lines of a file of a run, [] without the file; other lines get a note."""
  path = directory / relative
  if not path.is_file():
    return []
  rows, bad = [], []
  # Split at \n alone: str.splitlines would also cut at U+2028, which JSON strings may hold.
  for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except ValueError:
      row = None
    if isinstance(row, dict):
      rows.append(row)
    else:
      bad.append(number)
  if bad:
    shown = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
    notes.append(f"{relative}: {len(bad)} line(s) hold no JSON object and were left out (line {shown}).")
  return rows


def _read_object(path: Path, notes: list[str]) -> dict[str, Any]:
  """The JSON object in a file; {} without the file, and {} with a note where it holds something else."""
  if not path.is_file():
    return {}
  try:
    value = read_json(path)
  except DataError as error:
    notes.append(f"{path.parent.name}/{path.name} was left out: {error}.")
    return {}
  if not isinstance(value, dict):
    notes.append(f"{path.parent.name}/{path.name} does not hold a JSON object and was left out.")
    return {}
  return value


def _read_command(path: Path) -> str | None:
  return path.read_text(encoding="utf-8", errors="replace").strip() or None if path.is_file() else None


def _intervals(measures: Any) -> dict[str, Interval]:
  found = {str(name): read_interval(value) for name, value in mapping(measures).items()}
  return {name: interval for name, interval in found.items() if interval is not None}


def mapping(value: Any) -> dict[str, Any]:
  """The value where it is a mapping, and an empty one where a file holds something else."""
  return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
  return float(value) if isinstance(value, int | float) else float("nan")
