"""What the stages of a run will cost: parameters, memory of their state, steps, and bytes of their checkpoints."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from rlhf_jax.models import LanguageModel, add_lora, only_scored, split_lora
from rlhf_jax.pipeline.plan import Step
from rlhf_jax.settings import ConfigError
from rlhf_jax.stages import import_model
from rlhf_jax.train import Optimizer
from rlhf_jax.train.course import Loop

MOMENTS = 2  # arrays of Adam beside each trained parameter
FLOAT = 4  # bytes


class Cost(NamedTuple):
  """What one stage will cost."""

  stage: str
  """Name of the stage."""
  steps: str
  """Number of its steps in words; "" for a stage that does not learn."""
  trained: int
  """Number of the parameters that are trained, or imported; 0 where that is none or not known yet."""
  state_bytes: int
  """Memory of the state over all devices: the trained parameters and the moments of the optimiser, in bytes."""
  kept: int
  """Number of checkpoints that stay."""
  keep_minutes: float = 0.0
  """Minutes after which one checkpoint more stays; 0 for none."""

  @property
  def checkpoint_bytes(self) -> int:
    """Bytes of the checkpoints that stay, but for those of `keep_minutes`, whose number is not known before the run."""
    return self.kept * self.state_bytes


def of_stage(step: Step, model: LanguageModel | None) -> Cost:
  """What a stage will cost. model: None where its shape is not known before the run.

  Raises:
    ConfigError: the adapters name a matrix that the model does not have.
  """
  name, settings = step.stage.name, vars(step.config)
  if step.module.__name__ == import_model.__name__:
    trained = _count(model, None, name) if model else 0
    return Cost(name, "", trained, FLOAT * trained, 1)
  if not any(isinstance(value, Optimizer) for value in settings.values()):
    return Cost(name, "", 0, 0, 0)
  lora, trained = settings.get("lora"), 0
  if model:
    # Reward models whose score weighs no likelihood, and value functions of their own, have no output matrix.
    trained = _count(model, lora, name, settings.get("likelihood") == 0)
    if settings.get("shared_trunk") is False or settings.get("baseline") == "value":
      trained += _count(model, lora, name, True)
  loop = settings.get("loop", Loop())
  kept = loop.keep + bool(loop.keep_best)
  if "num_steps" in settings and "checkpoint_every" in settings and not loop.keep_best:  # it saves whenever it is best
    kept = min(kept, math.ceil(settings["num_steps"] / settings["checkpoint_every"]))
  return Cost(name, _steps(settings), trained, FLOAT * (1 + MOMENTS) * trained, kept, loop.keep_minutes)


def cost_lines(done: Sequence[str], costs: Sequence[Cost]) -> list[str]:
  """A line for each stage, and one for the checkpoints of all."""
  width = max(map(len, [*done, *(cost.stage for cost in costs)]), default=0)
  lines = [f"{name:<{width}}  done already" for name in done]
  for cost in costs:
    parts = [cost.steps] if cost.steps else []
    if cost.trained:
      parts += [f"{cost.trained:,} parameters", f"state {size(cost.state_bytes)}"]
      more = f" and {size(cost.state_bytes)} more every {cost.keep_minutes:g} minutes" if cost.keep_minutes else ""
      parts += [f"{cost.kept} checkpoint{'s' * (cost.kept > 1)} {size(cost.checkpoint_bytes)}{more}"]
    elif cost.steps:
      parts += ["parameters not known before the run"]
    lines.append(f"{cost.stage:<{width}}  {', '.join(parts) or 'trains nothing'}")
  lines.append(f"Checked; the checkpoints will take {size(sum(cost.checkpoint_bytes for cost in costs))}")
  return lines


def size(count: float) -> str:
  """Bytes in words: "29.6 MB"."""
  unit = min(int(math.log(max(count, 1), 1000)), 4)
  return f"{count / 1000**unit:.{1 if unit else 0}f} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}"


def _steps(settings: dict[str, Any]) -> str:
  if "num_steps" in settings:
    return f"{settings['num_steps']:,} steps"
  epochs = settings.get("num_epochs")
  return f"{epochs:,} epoch{'s' * (epochs > 1)} of its data" if epochs else "steps not known before the run"


@functools.lru_cache(maxsize=16)
def _count(model: LanguageModel, lora: Any, stage: str, scored: bool = False) -> int:
  """The number of parameters that are trained; nothing is computed. scored: whether only a head is read."""

  def trained(key):
    params = model.init(key)
    if scored:
      params = {"decoder": only_scored(model.init_head(key, params))["decoder"]}
    if lora is None:
      return params
    return split_lora(add_lora(key, params, rank=lora.rank, alpha=lora.alpha, targets=lora.targets))[0]

  try:
    shapes = jax.eval_shape(trained, jax.random.key(0))
  except ValueError as error:
    raise ConfigError(f"config.{stage}.lora.targets: {error}") from error
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
