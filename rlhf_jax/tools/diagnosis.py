"""What a rule of `rlhf-jax doctor` sees of a stage, and what it says of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.intervals import Interval
from rlhf_jax.report.read_run import Kind, Series, StageRecord

ENOUGH = 8  # records of a metric; fewer have a start and an end, and no trend


class Samples(NamedTuple):
  """Responses of a policy: their lengths in words, and their rewards; both f64[N]."""

  lengths: np.ndarray
  rewards: np.ndarray


class Case(NamedTuple):
  """A stage that learns, as its run has recorded it."""

  name: str
  """Name of the stage."""
  stage: StageRecord
  """Config and metrics of the stage."""
  shared: Mapping[str, Any]
  """Config of the run, whose part `model` belongs to every stage."""
  samples: Samples | None = None
  """Responses of the stage's model that an evaluation or the stage itself has kept."""
  accuracies: Mapping[str, Interval] = {}
  """Accuracies of a reward model against the gold order, by the names of evaluation.json."""
  style: Mapping[str, Interval] = {}
  """Accuracies of the style baseline on the same pairs."""
  kinds: Mapping[str, Kind] = {}
  """Accuracies on pairs that differ in a known way."""

  def setting(self, key: str) -> Any:
    """The value of a dotted key of the stage's config, or of the run's ("model.dtype"); None where there is none."""
    value: Any = self.stage.config if key.partition(".")[0] in self.stage.config else self.shared
    for part in key.split("."):
      value = value.get(part) if isinstance(value, Mapping) else None
    return value

  def number(self, key: str) -> float:
    """The value of a key that is a number, NaN where it is none."""
    value = self.setting(key)
    return float(value) if isinstance(value, int | float) else float("nan")

  def changes(self, *wanted: tuple[str, str]) -> tuple[str, ...]:
    """Lines such as "raise config.ppo.kl_coef (0.15 in this run)" for pairs (verb, key).

    A key that neither the stage nor the run has is left out.
    """
    section = self.stage.name
    return tuple(
      f"{verb} config.{f'{section}.' if key.partition('.')[0] in self.stage.config else ''}{key} "
      f"({value_text(value)} in this run)"
      for verb, key in wanted
      if (value := self.setting(key)) is not None
    )

  def series(self, name: str, at_least: int = ENOUGH) -> Series | None:
    """A metric with at least `at_least` finite records, None without it."""
    found = self.stage.series.get(name)
    return found if found is not None and len(found.steps) >= at_least else None


class Finding(NamedTuple):
  """One cause, with what shows it and what to change."""

  symptom: str
  """Name of the symptom, as docs/doctor.md lists it."""
  evidence: str
  """Numbers and steps that show it."""
  meaning: str
  """What the symptom does to training."""
  changes: tuple[str, ...]
  """Settings to change, each with its value in this run and a direction."""
  fault: bool = True
  """False for what only looks like a fault."""


class Span(NamedTuple):
  """The mean of a metric from one step to another."""

  mean: float
  first: int
  last: int

  def __str__(self) -> str:
    steps = f"step {self.first}" if self.first == self.last else f"steps {self.first} to {self.last}"
    return f"{number_text(self.mean)} ({steps})"


def span(series: Series, start: float, stop: float) -> Span:
  """The records between two shares of the series, 0 to 1; at least one record.

  >>> str(span(Series(np.arange(1, 9), np.arange(8.0)), 0.75, 1))
  '6.5 (steps 7 to 8)'
  """
  low = min(int(len(series.steps) * start), len(series.steps) - 1)
  high = max(round(len(series.steps) * stop), low + 1)
  return Span(float(series.values[low:high].mean()), int(series.steps[low]), int(series.steps[high - 1]))


def first_tenth(series: Series) -> Span:
  """The first tenth of the records."""
  return span(series, 0, 0.1)


def first_quarter(series: Series) -> Span:
  """The first quarter of the records."""
  return span(series, 0, 0.25)


def last_quarter(series: Series) -> Span:
  """The last quarter of the records."""
  return span(series, 0.75, 1)


def number_text(value: float) -> str:
  """Three significant digits, without an exponent where four suffice: 0.31, 1234, 5.9e+06."""
  return f"{value:.0f}" if 100 <= abs(value) < 10_000 else f"{value:.3g}"


def value_text(value: Any) -> str:
  """A value of a config as it is shown: numbers and texts as Python writes them, without quotes."""
  return value if isinstance(value, str) else str(value)
