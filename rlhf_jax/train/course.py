"""The course of a stage that learns: which checkpoints it keeps, when it ends early, and what it does about NaN.

`Loop` are the settings. `Course` is what a stage remembers beside its state; every checkpoint holds it, so that a stage
that is killed and continued takes the same course.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.ranges import NEUTRAL, NonNegativeFloat, NonNegativeInt, PositiveInt
from rlhf_jax.settings import ConfigError, nearest
from rlhf_jax.train.processes import host

FINITE = ("loss", "grad_norm", "param_norm")  # metrics of an update that must be finite, and all of these groups:
FINITE_GROUPS = ("reward/", "advantage/")


@dataclasses.dataclass(frozen=True)
class Loop:
  """Settings of the loop over a stage's steps: its checkpoints, its early end, and numbers that are not finite."""

  keep: Annotated[PositiveInt, NEUTRAL] = 2
  """Number of the newest checkpoints that are kept."""
  keep_minutes: Annotated[NonNegativeFloat, NEUTRAL] = 0.0
  """Minutes after which another checkpoint is kept for good; 0 for none."""
  keep_best: str = ""
  """Metric of the held-out evaluations, such as "eval/loss", by which a stage's result is chosen. The state of the best
  evaluation is kept, and is the stage's last checkpoint when it ends; "" makes the last state the result."""
  best: Literal["lowest", "highest"] = "lowest"
  """Value of the metric `keep_best` that is the best."""
  patience: NonNegativeInt = 0
  """Number of evaluations without a better value after which the stage ends; 0 for no early end."""
  nonfinite: Literal["stop", "skip", "rollback"] = "stop"
  """Answer to a step whose loss, gradient, parameters, rewards or advantages are not finite. "stop" ends the stage with
  an error. "skip" goes on without the updates that were not finite. "rollback" goes on with the next data from the
  parameters and the optimiser's state of the last checkpoint."""
  nonfinite_limit: PositiveInt = 3
  """Number of steps, in succession for "skip" and in all for "rollback", that are answered so; one more ends the
  stage."""

  def __post_init__(self) -> None:
    if self.keep_best and not self.keep_best.startswith("eval/"):
      raise ValueError(f"keep_best={self.keep_best!r} must be a metric of the held-out evaluations, 'eval/...'")
    if self.patience and not self.keep_best:
      raise ValueError(f"patience={self.patience} needs keep_best, the metric that is to become better")


@dataclasses.dataclass
class Course:
  """What a stage remembers of its evaluations and of its steps that were not finite."""

  best_step: int | None = None
  """Step of the best evaluation."""
  best_value: float | None = None
  """Value of the metric `keep_best` there."""
  worse: int = 0
  """Number of evaluations since then."""
  failures: int = 0
  """Number of steps that were not finite: in succession for "skip", in all for "rollback"."""

  def evaluated(self, loop: Loop, step: int, metrics: Mapping[str, float], where: str) -> bool:
    """Enters an evaluation; returns whether it is the best so far. where: the place of `loop` in the config.

    Raises:
      ConfigError: the evaluation has no metric `keep_best`.
    """
    if not loop.keep_best:
      return False
    if loop.keep_best not in metrics:
      known = [name for name in metrics if name.startswith("eval/")]
      raise ConfigError(
        f"config.{where}.keep_best: no evaluation has {loop.keep_best!r}.{nearest(loop.keep_best, known)}"
      )
    value = metrics[loop.keep_best]
    sign = 1.0 if loop.best == "lowest" else -1.0
    if math.isfinite(value) and (self.best_value is None or sign * value < sign * self.best_value):
      self.best_step, self.best_value, self.worse = step, value, 0
      return True
    self.worse += 1
    return False

  def exhausted(self, loop: Loop) -> bool:
    """Whether the stage is to end early."""
    return bool(loop.patience) and self.worse >= loop.patience

  def notes(self) -> dict[str, Any]:
    """The course as JSON."""
    return dataclasses.asdict(self)


def not_finite(metrics: Mapping[str, Any], values: Mapping[str, float], extra: Any) -> dict[str, float]:
  """{quantity: value} of the quantities of a step that must be finite and are not.

  metrics: as the step returned them; of rewards and advantages a Mean without any weight stands for nothing and is left
  out, while a loss without any weight is a step that learns from nothing. values: the same as floats. extra: arrays of
  the algorithm, in the state.
  """
  found = {
    name: value
    for name, value in values.items()
    if not math.isfinite(value)
    and (name in FINITE or (name.startswith(FINITE_GROUPS) and np.any(getattr(metrics[name], "weights", 1.0))))
  }
  for path, leaf in jax.tree_util.tree_flatten_with_path(host(extra))[0]:
    if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
      found[jax.tree_util.keystr(path, simple=True, separator="/")] = float(np.asarray(leaf)[~np.isfinite(leaf)][0])
  causes = ("", *FINITE)  # what comes first explains what follows
  return dict(sorted(found.items(), key=lambda item: causes.index(item[0] if item[0] in FINITE else "")))


def recoverable(quantities: Mapping[str, float]) -> bool:
  """Whether the state after such a step is sound: an update that is not finite changes nothing (`make_update`)."""
  return all(name.startswith(FINITE_GROUPS) or name in ("loss", "grad_norm") for name in quantities)
