"""A population: members run the unchanged code of a stage in threads, and their compiled functions run as one program.

A member has its own seed, config, files and Python reward. A call through `jit` waits until all members wait in such a
call; calls of the same program are stacked, vmapped over the members and run once. Two calls are the same program where
the traces of the two functions agree, constants included. A float of the config that differs between members is a
`Varying`: in a trace it is the member's element of an array, so that all members have the same trace. Any other
difference between members (such as the number of steps of a schedule) makes a second program; results stay right.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from rlhf_jax.population.member import Member, become
from rlhf_jax.population.trace import digest
from rlhf_jax.population.varying import Varying, at_index

T = TypeVar("T")


class Population:
  """`size` members that wait for each other at every call of a function made by `jit`.

  One member runs at a time, until it waits: the host code of the members is Python, whose threads take turns anyway,
  and programs for several devices must be started in one order.
  """

  def __init__(self, size: int, stop: Callable[[], bool] = lambda: False):
    """stop: the function that tells the members' loops to stop.

    Raises:
      ValueError: several processes run, in which the calls would not be in the same order.
    """
    if jax.process_count() > 1:
      raise ValueError(f"a population runs in one process, and there are {jax.process_count()}")
    self.size, self.stop = size, stop
    self.active = set(range(size))
    self.programs: dict[tuple, _Program] = {}
    self._of_function: dict[tuple, _Program] = {}
    self._waiting: dict[int, _Call] = {}
    self._calls = [0] * size
    self._turn = threading.Condition()
    self._shared: dict[Hashable, Any] = {}
    self._shared_leaves: dict[int, Any] = {}

  def run(
    self, tasks: Sequence[Callable[[], None]], varying: Sequence[Mapping[str, Varying]]
  ) -> list[Exception | None]:
    """Runs the function tasks[k] as member k, and returns each member's exception, or None where it finished."""
    errors: list[Exception | None] = [None] * self.size

    def live(number):
      become(Member(self, number, varying[number]))
      with self._turn:
        try:
          tasks[number]()
        except Exception as error:
          errors[number] = error
        finally:
          self.active.discard(number)
          self._advance()

    # Daemon threads, so that a second signal ends the process although members are still at work.
    threads = [threading.Thread(target=live, args=(number,), daemon=True) for number in range(self.size)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    return errors

  def counts(self) -> dict[str, int]:
    """{name of a function: number of programs compiled for arguments of one shape}; 1 where all members share one."""
    counted = collections.Counter((program.name, shape) for (_, shape), program in self.programs.items())
    return {name: max(count for (other, _), count in counted.items() if other == name) for name, _ in counted}

  def share(self, key: Hashable, make: Callable[[], T]) -> T:
    """`make()`, called once for all members that give the same key; its arrays are not stacked."""
    if key not in self._shared:
      self._shared[key] = make()
      self._shared_leaves |= {id(leaf): leaf for leaf in jax.tree.leaves(self._shared[key])}
    return self._shared[key]

  def call(self, number: int, function: Callable, args: tuple, donate_argnums: tuple[int, ...]) -> Any:
    """The result of `function(*args)` for member `number`, computed together with the other members' calls."""
    mine = self._request(function, args, donate_argnums)
    self._waiting[number] = mine
    self._advance()
    self._turn.wait_for(lambda: mine.done)  # another member's turn
    if mine.error:
      raise mine.error
    return mine.result

  def _advance(self):
    """Once all members wait: runs the program of the member with the fewest calls, for every member waiting for it."""
    if not self._waiting or len(self._waiting) < len(self.active):
      return
    first = self._waiting[min(self._waiting, key=lambda number: self._calls[number])]
    same = (first.program, first.common)
    group = {number: call for number, call in self._waiting.items() if (call.program, call.common) == same}
    try:
      results = first.program({number: call.leaves for number, call in group.items()})
    except Exception as error:
      for call in group.values():
        call.error = error
    for number, call in group.items():
      if not call.error:
        call.result = results[number]
      call.done = True
      self._calls[number] += 1
      del self._waiting[number]
    self._turn.notify_all()

  def _request(self, function, args, donate_argnums):
    """The call, with its program: one object for all members with the same trace."""
    leaves, structure = jax.tree.flatten(args)
    given = [number in donate_argnums for number, arg in enumerate(args) for _ in jax.tree.leaves(arg)]
    common = tuple(id(leaf) for leaf in leaves if id(leaf) in self._shared_leaves)
    roles = tuple(
      "common" if id(leaf) in self._shared_leaves else "given" if donated else "kept"
      for leaf, donated in zip(leaves, given, strict=True)
    )
    shape = (structure, tuple(map(jax.typeof, leaves)), roles)
    if (function, shape) not in self._of_function:
      trace, out = jax.make_jaxpr(at_index(function), return_shape=True)(np.int32(0), *args)
      signature = ((digest(trace), jax.tree.structure(out)), shape)
      if signature not in self.programs:
        name = getattr(function, "__qualname__", "program")
        self.programs[signature] = _Program(name, trace, jax.tree.structure(out), roles, self.size)
      self._of_function[function, shape] = self.programs[signature]
    return _Call(self._of_function[function, shape], common, leaves)


@dataclasses.dataclass
class _Call:
  program: _Program
  common: tuple[int, ...]  # ids of the arrays that are its shared arguments
  leaves: list
  done: bool = False
  result: Any = None
  error: Exception | None = None


class _Program:
  """One function of all members. roles: one for each argument, "common" (shared by the members), "kept" or "given"
  (donated)."""

  def __init__(self, name: str, trace: ClosedJaxpr, structure: Any, roles: Sequence[str], size: int):
    self.name, self.size, self._roles, self._structure = name, size, roles, structure
    function = jaxpr_as_fun(trace)

    def together(common, kept, given):
      stacked = {
        "kept": [jnp.stack(column) for column in zip(*kept, strict=True)],
        "given": [jnp.stack(column) for column in zip(*given, strict=True)],
      }

      def one(index, stacked):
        parts = {"common": iter(common)} | {role: iter(leaves) for role, leaves in stacked.items()}
        return function(index, *(next(parts[role]) for role in roles))

      results = jax.vmap(one)(jnp.arange(size), stacked)
      return [[leaf[number] for leaf in results] for number in range(size)]

    self.compiled = jax.jit(together, donate_argnums=2)

  def __call__(self, leaves: Mapping[int, list]) -> dict[int, Any]:
    """Takes {member: arguments}, returns {member: results}. A member that is not waiting gets a copy of another's
    arguments, so that the program keeps its shape."""
    lanes = {number: self._split(own) for number, own in leaves.items()}
    some = next(iter(lanes.values()))
    kept = [lanes.get(number, some)["kept"] for number in range(self.size)]
    given = [
      lanes[number]["given"] if number in lanes else [jnp.copy(leaf) for leaf in some["given"]]
      for number in range(self.size)
    ]
    results = self.compiled(some["common"], kept, given)
    return {number: jax.tree.unflatten(self._structure, results[number]) for number in leaves}

  def _split(self, leaves):
    pairs = list(zip(self._roles, leaves, strict=True))
    return {kind: [leaf for role, leaf in pairs if role == kind] for kind in ("common", "kept", "given")}
