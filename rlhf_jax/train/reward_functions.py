"""Functions of the reward: what they may ask for by the names of their parameters, and what they may return.

A function is `(prompts, responses, **arguments)`. Where its signature has further parameters with a name of `ASKED`, it
gets, for N responses,

  token_ids  list of N lists: the tokens of each response, its end included
  counts     list of N ints: the numbers of these tokens
  finished   list of N bools: whether EOS or a stop string ended the response
  rows       list of N dicts: the row of the prompt, with all columns of its file
  step       int: the index of the step of RL, from 0; 0 in stages without steps

unless its `arguments` in the config have a value of that name, which then stays. It returns

  N numbers, the scores; or
  N lists of numbers, one for each token of the response (or an array [N, T], 0 behind the response's end), rewards of
    single tokens, whose sum is the score; or
  a mapping from names to either of these, parts of the score that are logged as reward/NAME: the score is the part
    "total", or the sum of all parts where no part has that name.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.calls import CallError, bind
from rlhf_jax.data import Prompt, prompt_value
from rlhf_jax.settings import nearest
from rlhf_jax.stage import Stage
from rlhf_jax.train.functions import NO_NUMBERS, BoundFunction, Function, RewardError, told
from rlhf_jax.train.processes import host, own_rows, shared_rows
from rlhf_jax.types import Array, Rollout

ASKED = ("token_ids", "counts", "finished", "rows", "step")
TOTAL = "total"
RESERVED = ("model", "function", "gold", "proxy", "std", "return", "groups_alike")  # other metrics reward/NAME

_Item = np.float32 | np.ndarray  # the number of a response, or those of its tokens f32[count]


@dataclasses.dataclass(frozen=True)
class Responses:
  """N responses to be scored."""

  rollout: Rollout
  """The sampled sequences, N rows."""
  prompts: Sequence[Prompt]
  """The N prompts."""
  texts: Sequence[str]
  """Texts of the N responses."""
  rows: Sequence[Mapping[str, Any]] = ()
  """Rows of the N prompts; () where they come from no file: a row then has the prompt alone."""
  step: int = 0
  """Index of the step."""


class Scored(NamedTuple):
  """Scores of N responses by one function."""

  total: Array
  """f32[N], the scores."""
  tokens: Array | None = None
  """f32[N, T], the part of the scores that is given on single tokens, 0 elsewhere; None for no such part."""
  named: Mapping[str, Array] = {}
  """{name: f32[N]} of the parts that the function named, but for the total."""


RewardFunction = Callable[[Responses], Scored]


def make_reward_function(settings: Function, stage: Stage) -> RewardFunction:
  """`score(responses) -> Scored` by the function that the settings name (see the head of the module).

  Of several processes, which all call it, each calls the function with its own rows, and all get all scores.

  Raises (when called):
    RewardError: the function failed, asks for what there is not, or returned something else than it may.
  """
  function = BoundFunction(settings, stage)

  def score(responses: Responses) -> Scored:
    try:
      asked = asked_parameters(settings.function, function.signature(), settings.arguments)
    except ValueError as error:
      raise RewardError(stage.name, str(error)) from error
    rollout = responses.rollout
    tokens, mask, finished = (own_rows(x) for x in (rollout.tokens, rollout.mask, rollout.finished))

    def of_own(rows: slice) -> list[dict[str, _Item]]:
      prompts, texts = responses.prompts[rows], responses.texts[rows]
      known = {
        "token_ids": lambda: [row[keep].tolist() for row, keep in zip(tokens, mask, strict=True)],
        "counts": lambda: mask.sum(axis=1).tolist(),
        "finished": lambda: finished.tolist(),
        "rows": lambda: [*responses.rows[rows]] or [{"prompt": prompt_value(prompt)} for prompt in prompts],
        "step": lambda: responses.step,
      }
      returned = function.of_rows(prompts, texts, rows.start, {name: known[name]() for name in asked})
      return _Reader(function, prompts, texts, mask.sum(axis=1).tolist(), rows.start).items(returned)

    return _scored(shared_rows(of_own, len(responses.prompts)), rollout.mask, function)

  return score


def check_function(settings: Function) -> None:
  """Raises ValueError where the function cannot be called with what it would get. Imports its module."""
  if not settings.function:
    return
  try:
    call = bind(settings.function, settings.arguments, 0.0)
  except CallError as error:
    raise ValueError(f"importing {settings.function} {error}") from error
  asked_parameters(settings.function, call.signature(), settings.arguments)


def asked_parameters(name: str, signature: inspect.Signature | None, arguments: Mapping[str, Any]) -> tuple[str, ...]:
  """The parameters of a function `(prompts, responses, ...)` that have a name of `ASKED` and no value in `arguments`.

  signature: None for a function of which Python knows no parameters, and which asks for nothing.

  Raises:
    ValueError: the function cannot be called with what it would get.
  """
  if signature is None:
    return ()
  parameters = [*signature.parameters.values()]
  kinds = {given.kind for given in parameters}
  texts = [given for given in parameters if given.kind in (given.POSITIONAL_ONLY, given.POSITIONAL_OR_KEYWORD)][:2]
  if len(texts) < 2 and inspect.Parameter.VAR_POSITIONAL not in kinds:
    raise ValueError(f"{name} must take prompts and responses as its first two parameters")
  by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
  named = {given.name: given for given in parameters if given.kind in by_name and given not in texts}
  asked = tuple(key for key in named if key in ASKED and key not in arguments)
  for key, given in named.items():
    if given.default is given.empty and key not in (*arguments, *asked):
      raise ValueError(
        f"{name} has the parameter {key!r} without a value: give one in its arguments; what a function may ask for by "
        f"the name of a parameter is {', '.join(ASKED)}"
      )
  unknown = [key for key in arguments if key not in named]
  if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
    raise ValueError(f"{name} has no parameter {unknown[0]!r}.{nearest(unknown[0], named)}")
  return asked


class _Reader:
  """Reads what a function returned for N responses, of which the first has the number `first`."""

  def __init__(
    self, function: BoundFunction, prompts: Sequence[Prompt], texts: Sequence[str], counts: list[int], first: int
  ) -> None:
    self._function, self._prompts, self._texts = function, prompts, texts
    self._counts, self._first = counts, first

  def items(self, returned: Any) -> list[dict[str, _Item]]:
    """{name: what it is for the response} of each response. Raises RewardError."""
    if not isinstance(returned, Mapping):
      return [{TOTAL: item} for item in self._column(returned, "")]
    if not returned or not all(isinstance(name, str) and name and name not in RESERVED for name in returned):
      known = ", ".join(RESERVED)
      raise self._function.error(f"returned parts of the names {[*returned]}: each needs a name, none of {known}")
    columns = {name: self._column(values, f", entry {name!r},") for name, values in returned.items()}
    return [dict(zip(columns, items, strict=True)) for items in zip(*columns.values(), strict=True)]

  def _column(self, values: Any, entry: str) -> list[_Item]:
    """The numbers of N responses, or those of their tokens. entry: the name of the part."""
    if hasattr(values, "__array__"):
      values = np.asarray(values)
    if isinstance(values, np.ndarray) and values.ndim == 2 and len(values) == len(self._counts):
      self._check_padding(values, entry)
      values = [row[:count] for row, count in zip(values, self._counts, strict=True)]
    is_listed = isinstance(values, (list, tuple)) and len(values) == len(self._counts)
    if is_listed and any(_is_list(item) for item in values):
      return [self._of_tokens(row, item, entry) for row, item in enumerate(values)]
    return list(self._function.checked(values, entry, self._prompts, self._texts, self._first))

  def _check_padding(self, values: np.ndarray, entry: str) -> None:
    if values.shape[1] < max(self._counts, default=0):
      raise self._error(
        int(np.argmax(self._counts)),
        f"returned an array of shape {values.shape}, which ends before the response",
        entry,
      )
    behind = np.arange(values.shape[1]) >= np.asarray(self._counts)[:, None]
    if (rows := np.flatnonzero((behind & (values != 0)).any(axis=1))).size:
      raise self._error(int(rows[0]), "returned rewards behind the end of the response", entry)

  def _of_tokens(self, row: int, item: Any, entry: str) -> np.ndarray:
    """The rewards f32[count] of the tokens of a response."""
    count = self._counts[row]
    try:
      array = np.asarray(item)
      with np.errstate(over="ignore"):
        found = array.astype(np.float32)
      if array.dtype.kind in NO_NUMBERS and array.size:
        raise TypeError(f"its elements are of type {array.dtype}")
    except (TypeError, ValueError) as error:
      raise self._error(row, f"returned {item!r}, which is no list of numbers ({error}),", entry) from error
    if found.shape != (count,):
      what = f"{len(found)} rewards" if found.ndim == 1 else repr(item)
      raise self._error(row, f"returned {what} for the {count} tokens of a response, one each is needed,", entry)
    if not np.isfinite(found).all():
      place = int(np.flatnonzero(~np.isfinite(found))[0])
      raise self._error(row, f"returned {array[place]} for token {place}", entry)
    return found

  def _error(self, row: int, message: str, entry: str) -> Exception:
    return self._function.error(f"{message} {told(row, self._prompts, self._texts, self._first)}", entry)


def _is_list(item: Any) -> bool:
  return isinstance(item, (list, tuple)) or getattr(item, "ndim", 0) > 0


def _scored(items: list[dict[str, _Item]], mask: Array, function: BoundFunction) -> Scored:
  """The scores of N responses from their parts. mask: bool[N, T], of the tokens of the responses."""
  names = [*items[0]] if items else [TOTAL]
  if any([*item] != names for item in items):
    raise function.error("returned parts of other names in another process")
  named = {name: np.array([np.sum(item[name]) for item in items], np.float32) for name in names}
  added = [name for name in names if TOTAL not in names or name == TOTAL]
  total = np.asarray(np.sum([named[name] for name in added], axis=0), np.float32)
  tokens = None
  if any(np.ndim(item[name]) for item in items for name in added):
    places = host(mask) != 0
    tokens = np.zeros(places.shape, np.float32)
    for row, item in enumerate(items):
      tokens[row, places[row]] = sum(item[name] for name in added if np.ndim(item[name]))
  return Scored(total, tokens, {name: values for name, values in named.items() if name != TOTAL})
