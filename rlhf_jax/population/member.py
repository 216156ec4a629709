"""The member of a population whose code this thread runs. Outside of a population there is none, and `jit` is jax's."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import jax

from rlhf_jax.population.varying import Varying, is_traced

T = TypeVar("T")
_here = threading.local()  # its attribute `member` is the Member whose code this thread runs


class Group(Protocol):
  """What a member needs of its population: see `rlhf_jax.population.program.Population`."""

  active: set[int]
  stop: Callable[[], bool]

  def call(self, number: int, function: Callable, args: tuple, donate_argnums: tuple[int, ...]) -> Any:
    """The result of `function(*args)` for member `number`."""

  def share(self, key: Hashable, make: Callable[[], T]) -> T:
    """`make()`, called once for all members."""


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of a population."""

  population: Group
  number: int
  varying: Mapping[str, Varying]  # by key of the config, such as "ppo.optimizer.learning_rate"


def become(member: Member) -> None:
  """Makes this thread run the code of `member`."""
  _here.member = member


def jit(function: Callable[..., T], donate_argnums: tuple[int, ...] = ()) -> Callable[..., T]:
  """`jax.jit`; in a member of a population, a call is one lane of a program of all members."""
  solo = jax.jit(function, donate_argnums=donate_argnums)

  @functools.wraps(function)
  def call(*args):
    if is_traced():
      return function(*args)  # inside a larger trace: the cache of a nested jit would keep tracers of that trace
    member = _member()
    if member is None or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args)):
      return solo(*args)
    return member.population.call(member.number, function, args, donate_argnums)

  return call


def shared(key: Hashable, make: Callable[[], T]) -> T:
  """`make()`, called once for all members; its arrays are not stacked."""
  member = _member()
  return member.population.share(key, make) if member else make()


def varied(name: str, config: T) -> T:
  """The config (a dataclass) of stage `name`, its varied floats replaced by the member's `Varying`s."""
  member = _member()
  for key, value in member.varying.items() if member else ():
    stage, *path = key.split(".")
    if stage == name:
      config = _replaced(config, path, value)
  return config


def stopping() -> bool:
  """Whether the population of this thread is to stop; False outside of a population."""
  member = _member()
  return member is not None and member.population.stop()


def speaks() -> bool:
  """Whether this thread prints. Members do the same at the same time, so only the first active member prints."""
  member = _member()
  return member is None or member.number == min(member.population.active, default=member.number)


def _member() -> Member | None:
  return getattr(_here, "member", None)


def _replaced(config: Any, path: Sequence[str], value: Varying) -> Any:
  if not dataclasses.is_dataclass(config):  # arguments of a function on the host, which hold the member's own numbers
    return config
  inner = _replaced(getattr(config, path[0]), path[1:], value) if path[1:] else value
  return dataclasses.replace(config, **{path[0]: inner})  # type: ignore[type-var]  # of a config of any class
