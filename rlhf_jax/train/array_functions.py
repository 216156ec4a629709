"""Functions of arrays that a config names in the place of an algorithm's own: objectives, losses, advantages.

They are traced into the compiled step and differentiated, so they are pure functions in JAX. What they raise is told
with stage, step, and the file and line of their own code; a result of another shape is refused while it is traced.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlhf_jax.calls import CallError, bind
from rlhf_jax.reduce import per_token
from rlhf_jax.settings import FunctionName
from rlhf_jax.train.functions import RewardError
from rlhf_jax.types import Array, Experience

BY_NAME = ("advantages", "mask", "logp_ref", "values", "returns", "tokens")  # arrays of an Experience, each [B, T]
# (logp f32[B, T], batch) -> the objective f32[B, T], and f32[B, T] that is 1 where no gradient flows, or None.
PolicyObjective = Callable[[jax.Array, Experience], tuple[jax.Array, jax.Array | None]]


@dataclasses.dataclass(frozen=True)
class ArrayFunction:
  """A pure function of arrays, in JAX; the field that holds it says of which."""

  function: FunctionName = ""
  """Name of the function, as "package.module:name" or "path/to/file.py:name"; "" for the algorithm's own."""
  arguments: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)
  """Keyword arguments of the function."""


def array_function(settings: ArrayFunction, own: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """`function(array, *arrays, **keywords)`: the function that the settings name, or `own` where they name none.

  The result is float32 and has the shape of the first array.

  Raises (when called):
    RewardError: the function failed, or returned an array of another shape, or no array.
  """
  if not settings.function:
    return own
  call = _named(settings)

  @functools.wraps(call)
  def function(array: jax.Array, *arrays: Any, **keywords: Any) -> jax.Array:
    return _checked(settings.function, call(array, *arrays, **keywords), jnp.shape(array))

  return function


def group_advantages(
  function: Callable[..., jax.Array], returns: jax.Array, mask: Array, samples_per_prompt: int
) -> jax.Array:
  """Advantages f32[B, T], one on all tokens of a response, by `function(returns[N, K], ...) -> [N, K]` of each group.

  A function with a parameter `lengths` gets the numbers of tokens f32[N, K] by that name. returns: f32[B], those of one
  prompt side by side; mask: bool[B, T].
  """
  groups = jnp.asarray(returns, jnp.float32).reshape(-1, samples_per_prompt)
  lengths = jnp.sum(mask, axis=1, dtype=jnp.float32).reshape(groups.shape)
  asked = {"lengths": lengths} if "lengths" in _parameters(function) else {}
  return per_token(function(groups, **asked).ravel(), mask)


def policy_objective(
  settings: ArrayFunction | None, own: Callable[..., tuple[jax.Array, jax.Array]]
) -> PolicyObjective:
  """`objective(logp, batch)`: the function that the settings name, or own(logp, logp_old, advantages, mask=mask).

  The function is `(logp f32[B, T], batch: Experience, **arguments)` and returns the objective f32[B, T], which is
  maximised, or the objective and an indicator f32[B, T] that is 1 where its gradient was cut off. logp is that of the
  policy that learns; batch.logp that of the policy that sampled. Positions outside batch.mask hold anything.

  A function with a parameter `logp_old` gets arrays [B, T] by their names in the place of the batch: logp_old, which is
  batch.logp, and those of advantages, mask, logp_ref, values, returns and tokens that are parameters too. So those of
  `rlhf_jax.objectives` are such functions.

  Raises (when called):
    RewardError: as in `array_function`.
  """
  if settings is None or not settings.function:
    return lambda logp, batch: own(logp, batch.logp, batch.advantages, mask=batch.mask)
  call = _named(settings)
  asked = _parameters(call) - settings.arguments.keys()

  def objective(logp: jax.Array, batch: Experience) -> tuple[jax.Array, jax.Array | None]:
    if "logp_old" in asked:
      named = {name: getattr(batch, name) for name in BY_NAME if name in asked}
      returned = call(logp, logp_old=batch.logp, **named)
    else:
      returned = call(logp, batch)
    value, clipped = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if clipped is not None:
      clipped = jax.lax.stop_gradient(_checked(settings.function, clipped, logp.shape))
    return _checked(settings.function, value, logp.shape), clipped

  return objective


def _named(settings: ArrayFunction) -> Callable[..., Any]:
  """The function with its arguments, whose failures are RewardErrors; their stage and step are set on the way up.

  It has the signature of the function. What the arguments of the config name stays as it is there.
  """
  name = settings.function
  try:
    call = bind(name, settings.arguments, 0.0)
  except CallError as error:
    raise RewardError("", f"{name} {error} when its module was imported") from error

  def named(*arrays: Any, **keywords: Any) -> Any:
    try:
      return call(*arrays, **{key: value for key, value in keywords.items() if key not in settings.arguments})
    except CallError as error:
      raise RewardError("", f"{name} {error}") from error

  named.__signature__ = call.signature()  # type: ignore[attr-defined]  # what `inspect` reads
  return named


def _parameters(function: Callable[..., Any]) -> set[str]:
  """The names of a function's parameters; none of a function that does not tell."""
  try:
    return {*inspect.signature(function).parameters}
  except (TypeError, ValueError):
    return set()


def _checked(name: str, returned: Any, shape: tuple[int, ...]) -> jax.Array:
  try:
    array = jnp.asarray(returned).astype(jnp.float32)
  except (TypeError, ValueError) as error:
    raise RewardError("", f"{name} returned {type(returned).__name__}, which is no array") from error
  if array.shape != shape:
    raise RewardError("", f"{name} returned an array of shape {array.shape}: it must have the shape {shape}")
  return array
