"""The section of a report on the stages of other configs in the same run directory."""

from rlhf_jax.report.read_run import OtherStage, Run
from rlhf_jax.report.sections import MEASURES
from rlhf_jax.report.words import interval_text, number

ENDINGS = ("eval/loss", "loss", "eval/accuracy", "accuracy", "reward/proxy", "reward/gold", "kl/reference")
SHOWN = ("gold", "proxy", "win_rate", "kl")


def other_stages(run: Run) -> list[tuple[str, list[tuple[str, str, list[str]]]]]:
  """[(config, [(stage, algorithm, its final values in words)])]."""
  shown = set(run.models)
  return [
    (config, [(other.stage.name, other.stage.algorithm, _results(other, shown)) for other in stages])
    for config, stages in run.others.items()
  ]


def _results(other: OtherStage, shown: set[str]) -> list[str]:
  """Final values of the stage's curves; for an evaluation the models that the run's own evaluation lacks."""
  series = other.stage.series
  ends = [f"{name} {number(series[name].final)}" for name in ENDINGS if name in series]
  if ends:
    steps = int(max(found.steps[-1] for found in series.values()))
    ends = [f"{steps} steps: {', '.join(ends)}"]
  for model, measures in other.models.items():
    found = [f"{MEASURES[key]} {interval_text(key, measures[key])}" for key in SHOWN if key in measures]
    if model not in shown and found:
      ends.append(f"{model}: {', '.join(found)}")
  return ends
