"""Functions of texts that a config names: their arguments are bound, and their failures and results are told by row."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from rlhf_jax.calls import CallError, TimeLimitError, bind
from rlhf_jax.data import Prompt, prompt_value
from rlhf_jax.ranges import NEUTRAL, NonNegativeFloat
from rlhf_jax.settings import FunctionName
from rlhf_jax.stage import Stage
from rlhf_jax.train.processes import leader, name, shared_rows
from rlhf_jax.writing import write_bytes

if TYPE_CHECKING:  # the world is not loaded for algorithms that have no labellers
  from rlhf_jax.world import Labeller

ScoreFunction = Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]
MeasureFunction = Callable[[Sequence[Prompt], Sequence[str]], dict[str, np.ndarray]]

# A batch that fails is called again row by row, to name the row, within these bounds.
SEARCHED_ROWS = 64
SEARCH_SECONDS = 30.0
NO_NUMBERS = "UScMm"  # kinds of arrays, such as texts, that NumPy would turn into float32


class RewardError(ValueError):
  """A function that a config names failed, or returned a value that its stage cannot use.

  `place`, the step or part in which it was called, is set on the way up (see `called_in`) and stands in the message.
  """

  def __init__(self, stage: str, message: str) -> None:
    super().__init__(message)
    self.stage, self.place = stage, ""

  def __reduce__(self) -> tuple[Any, ...]:
    return type(self), (self.stage, super().__str__()), {"place": self.place}

  def __str__(self) -> str:
    return f"{self.stage}{self.place and f', {self.place}'}: {super().__str__()}"


class RewardTimeout(RewardError):
  """A call of a function took longer than its time limit."""


@contextlib.contextmanager
def called_in(place: str, stage: str = "") -> Iterator[None]:
  """Within it a RewardError gets its place, such as "step 7", and the name of its stage where it has none."""
  try:
    yield
  except RewardError as error:
    error.place, error.stage = error.place or place, error.stage or stage
    raise


@dataclasses.dataclass(frozen=True)
class Function:
  """A Python function `(prompts, responses, **arguments) -> scores`, which need not be differentiable.

  It gets two lists of N strings and returns N finite numbers. A function of the reward may ask for more and return more
  (see `rlhf_jax.train.reward_functions`).
  """

  function: FunctionName
  """Name of the function, as "package.module:name" or "path/to/file.py:name"; "" for none."""
  arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
  """Keyword arguments of the function; `{run}` in a text, nested ones included, stands for the run directory."""
  time_limit: Annotated[NonNegativeFloat, NEUTRAL] = 0.0
  """Longest time of one call in seconds, at which the call is killed and the stage fails; the function then runs in a
  process of its own. 0 for no limit."""


def make_score_function(settings: Function, stage: Stage) -> ScoreFunction:
  """`score(prompts, responses) -> f32[N]`, N finite numbers.

  Of several processes, which all call it, each calls the function with its own rows, and all get all scores.

  Raises (when called):
    RewardError: the function failed, or returned the wrong number of scores or a score that is no finite number.
  """
  function = BoundFunction(settings, stage)

  def score(prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
    def of_own(rows: slice) -> list[np.float32]:
      own = prompts[rows], responses[rows]
      return list(function.checked(function.of_rows(*own, rows.start), "", *own, rows.start))

    return np.array(shared_rows(of_own, len(prompts)), np.float32)

  return score


def make_measure_function(settings: Function, stage: Stage) -> MeasureFunction:
  """`measure(prompts, responses) -> {"total": f32[N], ...}`: finite scores by name, such as the parts of a total.

  Raises (when called):
    RewardError: the function failed, or returned no mapping with "total", or an entry that `make_score_function` would
      refuse.
  """
  function = BoundFunction(settings, stage)

  def measure(prompts: Sequence[Prompt], responses: Sequence[str]) -> dict[str, np.ndarray]:
    returned = function.of_rows(prompts, responses)
    if not isinstance(returned, Mapping) or "total" not in returned:
      found = f"one with {', '.join(map(str, returned))}" if isinstance(returned, Mapping) else type(returned).__name__
      raise function.error(f"must return a mapping from names to scores with 'total', not {found}")
    return {
      name: function.checked(scores, f", entry {name!r},", prompts, responses) for name, scores in returned.items()
    }

  return measure


def make_critic(settings: Function, stage: Stage) -> Callable[[Labeller, Prompt, str, np.random.Generator], str]:
  """`critic(labeller, prompt, response, rng) -> text`, the labeller's critique, "" where there is nothing to say.

  Raises (when called):
    RewardError: the function failed, or returned something that is no text.
  """
  function = BoundFunction(settings, stage)

  def critic(labeller: Labeller, prompt: Prompt, response: str, rng: np.random.Generator) -> str:
    where = f"for prompt {prompt!r}, response {response!r}"
    try:
      returned = function.call(labeller, prompt_value(prompt), response, rng)
    except CallError as error:
      raise function.failure(error, where) from error
    if not isinstance(returned, str):
      raise function.error(f'returned {returned!r} {where}: it must return a text, "" where there is nothing to say')
    return returned

  return critic


class BoundFunction:
  """A function with its arguments, in which paths of the run are filled in, and the errors that name it."""

  def __init__(self, settings: Function, stage: Stage) -> None:
    self.name, self.stage = settings.function, stage
    try:
      self.call = bind(settings.function, _in_run(settings.arguments, stage), settings.time_limit)
    except CallError as error:
      raise self.failure(error, "when its module was imported") from error

  def signature(self) -> inspect.Signature | None:
    """The parameters of the function, as `rlhf_jax.calls.signature_of`. Raises RewardError where it has no module."""
    try:
      return self.call.signature()
    except CallError as error:
      raise self.failure(error, "when its module was imported") from error

  def of_rows(
    self, prompts: Sequence[Prompt], responses: Sequence[str], first: int = 0, more: Mapping[str, Any] | None = None
  ) -> Any:
    """What the function returns for N prompts and responses, of which `first` is the number of the first row.

    more: {name: values of the N rows} of what else the function is given; a value that is no sequence is of all rows.

    Raises RewardError, with the row where one is found.
    """
    more = more or {}
    try:
      return self.call([prompt_value(prompt) for prompt in prompts], list(responses), **more)
    except CallError as error:
      row = None if isinstance(error, TimeLimitError) else self._failing_row(prompts, responses, more)
      where = f"for {len(prompts)} rows together" if row is None else told(row, prompts, responses, first)
      raise self.failure(error, where) from error

  def _failing_row(self, prompts: Sequence[Prompt], responses: Sequence[str], more: Mapping[str, Any]) -> int | None:
    """The first row that fails alone too, within the bounds of the search; None where there is none."""
    end = time.monotonic() + SEARCH_SECONDS
    for row, (prompt, response) in enumerate(zip(prompts[:SEARCHED_ROWS], responses, strict=False)):
      alone = {name: value[row : row + 1] if isinstance(value, Sequence) else value for name, value in more.items()}
      try:
        self.call([prompt_value(prompt)], [response], **alone)
      except CallError:
        return row
      if time.monotonic() > end:
        break
    return None

  def checked(
    self, returned: Any, entry: str, prompts: Sequence[Prompt], responses: Sequence[str], first: int = 0
  ) -> np.ndarray:
    """The returned value as finite f32[N]. entry: the name of its part of what the function returned. first: as in
    `of_rows`."""
    num = len(prompts)
    try:
      array = np.asarray(returned)
      if array.dtype.kind in NO_NUMBERS:
        raise TypeError(f"its elements are of type {array.dtype}")
      with np.errstate(over="ignore"):  # a number beyond f32 becomes inf, which is refused below
        scores = array.astype(np.float32)
    except (TypeError, ValueError) as error:
      row = next((row for row, item in enumerate(_items(returned, num)) if not _is_number(item)), None)
      where = "" if row is None else f", {_items(returned, num)[row]!r} {told(row, prompts, responses, first)}"
      raise self.error(f"returned something that is no array of numbers{where}: {error}", entry) from error
    if scores.shape != (num,):
      raise self.error(
        f"returned an array of shape {scores.shape} for {num} prompts: it must return one number for each", entry
      )
    if not np.isfinite(scores).all():
      row = int(np.flatnonzero(~np.isfinite(scores))[0])
      raise self.error(f"returned {array[row]} {told(row, prompts, responses, first)}", entry)
    return scores

  def error(self, message: str, entry: str = "") -> RewardError:
    """An error that names the stage and the function."""
    return RewardError(self.stage.name, f"{self.name}{entry} {message}")

  def failure(self, error: CallError, where: str) -> RewardError:
    """The error of a call that failed; the traceback of the function is written to a file of the stage."""
    kind = RewardTimeout if isinstance(error, TimeLimitError) else RewardError
    message = f"{self.name} {error} {where}"
    path = self.stage.directory / "traceback.txt"
    if error.trace and not leader():  # the leader alone writes files
      print(error.trace, file=sys.stderr)
      return kind(self.stage.name, f"{message}; the output of {name()} has the traceback")
    with contextlib.suppress(OSError):  # a full disk must not hide the error itself
      if error.trace:
        write_bytes(path, error.trace.encode())
        message += f"; {path} has the traceback"
    return kind(self.stage.name, message)


def told(row: int, prompts: Sequence[Prompt], responses: Sequence[str], first: int) -> str:
  """A row in messages; `first` is the number of the first row."""
  return f"for row {first + row}: prompt {prompt_value(prompts[row])!r}, response {responses[row]!r}"


def _items(returned: Any, num: int) -> Any:
  """The N items of what a function returned; [] where it has no N items."""
  return returned if isinstance(returned, (list, tuple, np.ndarray)) and len(returned) == num else []


def _is_number(item: Any) -> bool:
  try:
    return np.asarray(item).dtype.kind not in NO_NUMBERS and np.asarray(item).astype(np.float32).shape == ()
  except (TypeError, ValueError):
    return False


def _in_run(value: Any, stage: Stage) -> Any:
  if isinstance(value, str):
    return str(stage.path(value)) if "{run}" in value else value
  if isinstance(value, Mapping):
    return {key: _in_run(item, stage) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return type(value)(_in_run(item, stage) for item in value)
  return value
