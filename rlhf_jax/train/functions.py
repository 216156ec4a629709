"""Functions of texts that a config names: their arguments are bound, and their results are checked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_jax.settings import FunctionName, import_function
from rlhf_jax.stage import Stage

if TYPE_CHECKING:  # the world is not loaded for algorithms that have no labellers
  from rlhf_jax.world import Labeller

ScoreFunction = Callable[[Sequence[str], Sequence[str]], np.ndarray]
MeasureFunction = Callable[[Sequence[str], Sequence[str]], dict[str, np.ndarray]]


class RewardError(ValueError):
  """A function that a config names returned a value that its stage cannot use."""


@dataclasses.dataclass(frozen=True)
class Function:
  """A Python function `(prompts, responses, **arguments) -> scores`, which need not be differentiable.

  It gets two lists of N strings and returns N finite numbers.
  """

  function: FunctionName
  """Name of the function, as "package.module:name" or "path/to/file.py:name"; "" for none."""
  arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
  """Keyword arguments of the function; `{run}` in a text, nested ones included, stands for the run directory."""


def make_score_function(settings: Function, stage: Stage) -> ScoreFunction:
  """`score(prompts, responses) -> f32[N]`, N finite numbers.

  Raises (when called):
    RewardError: the function returned the wrong number of scores, or a score that is no finite number.
  """
  function = _bound(settings, stage)

  def score(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    returned = function(list(prompts), list(responses))
    return _checked(returned, settings.function, prompts, responses)

  return score


def make_measure_function(settings: Function, stage: Stage) -> MeasureFunction:
  """`measure(prompts, responses) -> {"total": f32[N], ...}`: finite scores by name, such as the parts of a total.

  Raises (when called):
    RewardError: the function returned no mapping with "total", or an entry that `make_score_function` would refuse.
  """
  function = _bound(settings, stage)

  def measure(prompts: Sequence[str], responses: Sequence[str]) -> dict[str, np.ndarray]:
    returned = function(list(prompts), list(responses))
    if not isinstance(returned, Mapping) or "total" not in returned:
      found = f"one with {', '.join(map(str, returned))}" if isinstance(returned, Mapping) else type(returned).__name__
      raise RewardError(f"{settings.function} must return a mapping from names to scores with 'total', not {found}")
    return {
      name: _checked(scores, f"{settings.function}, entry {name!r},", prompts, responses)
      for name, scores in returned.items()
    }

  return measure


def make_critic(settings: Function, stage: Stage) -> Callable[[Labeller, str, str, np.random.Generator], str]:
  """`critic(labeller, prompt, response, rng) -> text`, the labeller's critique, "" where there is nothing to say.

  Raises (when called):
    RewardError: the function returned something that is no text.
  """
  function = _bound(settings, stage)

  def critic(labeller: Labeller, prompt: str, response: str, rng: np.random.Generator) -> str:
    returned = function(labeller, prompt, response, rng)
    if not isinstance(returned, str):
      raise RewardError(
        f"{settings.function} returned {returned!r} for prompt {prompt!r}, response {response!r}: "
        'it must return a text, "" where there is nothing to say'
      )
    return returned

  return critic


def _bound(settings: Function, stage: Stage) -> Callable[..., Any]:
  """The function with its arguments, in which paths of the run are filled in."""
  return functools.partial(import_function(settings.function), **_in_run(settings.arguments, stage))


def _in_run(value: Any, stage: Stage) -> Any:
  if isinstance(value, str):
    return str(stage.path(value)) if "{run}" in value else value
  if isinstance(value, Mapping):
    return {key: _in_run(item, stage) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return type(value)(_in_run(item, stage) for item in value)
  return value


def _checked(returned: Any, what: str, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
  """The returned value as finite f32[N]; `what` names the function in the errors."""
  try:
    scores = np.asarray(returned, dtype=np.float32)
  except (TypeError, ValueError) as error:
    raise RewardError(f"{what} returned something that is no array of numbers: {error}") from error
  if scores.shape != (len(prompts),):
    raise RewardError(
      f"{what} returned an array of shape {scores.shape} for {len(prompts)} prompts: it must return one number for each"
    )
  if not np.isfinite(scores).all():
    row = int(np.flatnonzero(~np.isfinite(scores))[0])
    raise RewardError(
      f"{what} returned {scores[row]} for row {row}: prompt {prompts[row]!r}, response {responses[row]!r}"
    )
  return scores
