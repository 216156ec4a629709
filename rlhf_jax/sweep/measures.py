"""The numbers that a run has left, by "stage/metric": ends of curves, results of evaluations, seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_jax.data.files import DataError, read_json
from rlhf_jax.report.read_run import Series, read_run

RESULTS = ("evaluation.json", "results.json", "few_shot.json", "perplexity.json")  # files of stages that measure


class Measured(NamedTuple):
  """What a run has left."""

  finals: dict[str, float]
  """Number of each "stage/metric"; of a curve it is the mean of its last tenth."""
  curves: dict[str, Series]
  """Curve of each "stage/metric" over the steps of the stage."""


def measure(directory: Path) -> Measured:
  """What a run has left so far; nothing where it has not begun."""
  if not (directory / "config.json").is_file():
    return Measured({}, {})
  finals: dict[str, float] = {}
  curves: dict[str, Series] = {}
  for stage in read_run(directory).stages:
    curves |= {f"{stage.name}/{name}": series for name, series in stage.series.items()}
    finals |= {f"{stage.name}/{name}": series.final for name, series in stage.series.items()}
    for file in RESULTS:
      finals |= {f"{stage.name}/{name}": value for name, value in _numbers(_read(directory / stage.name / file))}
    seconds = _read(directory / stage.name / "done.json").get("seconds")
    if isinstance(seconds, int | float):
      finals[f"{stage.name}/seconds"] = float(seconds)
  return Measured(finals | _final(directory), curves)


def _final(directory: Path) -> dict[str, float]:
  """What the last evaluation says of its last model, as "final/METRIC", by which runs with other stages compare."""
  config = _read(directory / "config.json")
  for stage in reversed(config.get("stages") or []):
    models = _read(directory / stage / "evaluation.json").get("models")
    asked = (config.get(stage) or {}).get("models") or []
    if isinstance(models, dict) and asked:
      return {f"final/{name}": value for name, value in _numbers(models.get(asked[-1]))}
  return {}


def _numbers(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
  """(path, number) of all finite numbers in nested mappings; of an interval its mean. `models` is left out of paths."""
  if isinstance(value, dict):
    if "mean" in value:
      value = value["mean"]
    else:
      for key, item in value.items():
        yield from _numbers(item, prefix if key == "models" else f"{prefix}/{key}" if prefix else str(key))
      return
  if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
    yield prefix, float(value)


def _read(path: Path) -> dict[str, Any]:
  try:
    found = read_json(path) if path.is_file() else {}
  except DataError:
    return {}
  return found if isinstance(found, dict) else {}
