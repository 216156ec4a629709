"""Several processes of one job: who leads, what they tell each other, and how they share rows.

Every process runs the same program. The leader, process 0, writes the run directory and decides what was read there;
the others take its decisions. Small values go through the coordination service of `jax.distributed`, by names that all
processes use in the same order, so that a thread in the background may talk too. Rows go through the devices. In one
process nothing here costs anything.
"""

from __future__ import annotations

import collections
import contextlib
import pickle
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

T = TypeVar("T")

FAILED = "rlhf_jax/failed"  # the key under which a process that fails tells why
GOES_ON = "the same command goes on from what is saved"
_WAIT_MILLISECONDS = 1000  # of one call that waits: signals are heard in between
_FAILURE_SECONDS = 3.0  # within which `rlhf_jax.train.job` finds out which process is gone

_numbers: collections.Counter[str] = collections.Counter()  # {name: times that it was used}


class JobEnded(ValueError):
  """Another process of the job has failed or is gone; the message names it where that is known."""


def several() -> bool:
  """Whether this process is one of several."""
  return distributed.global_state.client is not None and distributed.global_state.num_processes > 1


def count() -> int:
  """The number of processes of the job."""
  return distributed.global_state.num_processes if several() else 1


def index() -> int:
  """The number of this process in its job, from 0."""
  return distributed.global_state.process_id if several() else 0


def leader() -> bool:
  """Whether this process leads its job; true for a process that is alone."""
  return not several() or distributed.global_state.process_id == 0


def name() -> str:
  """ "process 1 of 4"; "" for a process that is alone."""
  state = distributed.global_state
  return f"process {state.process_id} of {state.num_processes}" if several() else ""


def barrier(what: str) -> None:
  """Returns when all processes have come here. what: a name, the same in every process."""
  gather(what, None)


def gather(what: str, value: T) -> list[T]:
  """The values of all processes, in their order; they must be small, and pickle must know them.

  what: a name, the same in every process. A thread may gather by names that no other thread uses.

  Raises:
    JobEnded: a process is gone.
  """
  if not several():
    return [value]
  key = _next_key(what)
  if index():
    _put(f"{key}/{index()}", value)
  else:
    others = [_get(f"{key}/{other}") for other in range(1, count())]
    # All have taken part in this one, so that nobody reads the one before any more.
    client().key_value_delete(f"rlhf_jax/{what}/{_numbers[what] - 1}")
    _put(f"{key}/all", [value, *others])
  return _get(f"{key}/all")


def led(what: str, decide: Callable[[], T]) -> T:
  """`decide()` as the leader has found it; an error of the leader is raised by all. what: as in `gather`."""
  if not several():
    return decide()
  key = _next_key(what)
  if leader():
    try:
      value = decide()
    except Exception as error:
      _put(f"{key}/all", (None, _portable(error)))
      raise
    _put(f"{key}/all", (value, None))
    return value
  value, failure = _get(f"{key}/all")
  if failure is not None:
    raise failure
  return value


def together(what: str, act: Callable[[], T]) -> T:
  """`act()`, which all processes call; where it fails in some, all raise the first error. what: as in `gather`."""
  if not several():
    return act()
  value, error = _attempt(act)
  _raise_first(gather(what, _portable(error)), error)
  return value  # type: ignore[return-value]  # without an error there is a value


def highest(number: int) -> int:
  """The largest `number` of all processes, which call it together."""
  return int(multihost_utils.process_allgather(np.int32(number)).max()) if several() else number


def host(tree: Any) -> Any:
  """A tree of arrays as NumPy arrays, those that are spread over processes included; all processes call it."""
  for leaf in jax.tree.leaves(tree):
    if isinstance(leaf, jax.Array) and _is_here(leaf):
      leaf.copy_to_host_async()  # all together
  return jax.tree.map(_host, tree)


def _host(x: Any) -> np.ndarray:
  if isinstance(x, jax.Array) and not _is_here(x):
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
  return np.asarray(x)


def _is_here(x: jax.Array) -> bool:
  """Whether this process holds all of an array."""
  return x.is_fully_addressable or x.is_fully_replicated


def share(num_rows: int) -> slice:
  """The rows out of `num_rows` that are this process's to work on; all rows where it is alone."""
  return _shares(num_rows)[index()]


def shared_rows(work: Callable[[slice], list[T]], num_rows: int) -> list[T]:
  """`work(all rows)`, a value for each row, of which each process does its own; all processes call it, and get all.

  work: function from a part of the rows to their values, which pickle must know. An error in one process is raised by
  all.
  """
  mine = share(num_rows)
  if not several():
    return work(mine)
  value, error = _attempt(lambda: work(mine) if mine.start < mine.stop else [])
  content = np.frombuffer(pickle.dumps((value, _portable(error))), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(len(content)))
  room = 1 << (int(sizes.max()) - 1).bit_length()  # a power of two bounds the number of compiled programs
  padded = multihost_utils.process_allgather(np.pad(content, (0, room - len(content))))
  found = [pickle.loads(row[:size].tobytes()) for row, size in zip(padded, sizes.reshape(-1), strict=True)]
  _raise_first([error for _, error in found], error)
  return [item for values, _ in found for item in values]


def own_rows(x: jax.Array | np.ndarray) -> np.ndarray:
  """The rows `share(len(x))` of an array on the host, without a transfer between processes where they are here.

  All processes call it.
  """
  if not several():
    return np.asarray(x)
  mine = share(len(x))
  if not isinstance(x, jax.Array) or not _is_local(x):
    return _host(x)[mine]
  found = np.empty((mine.stop - mine.start, *x.shape[1:]), x.dtype)
  for shard in x.addressable_shards:
    start, stop, _ = shard.index[0].indices(len(x))
    first, last = max(start, mine.start), min(stop, mine.stop)
    if first < last:
      found[first - mine.start : last - mine.start] = np.asarray(shard.data)[first - start : last - start]
  return found


def client() -> Any:
  """The connection to the coordination service, of one of several processes."""
  return distributed.global_state.client


def failure() -> str:
  """What a process that fails has told, "" as long as none has."""
  with contextlib.suppress(jax.errors.JaxRuntimeError):  # there is no such key, or the leader is gone
    return client().key_value_try_get(FAILED)
  return ""


def lost(error: BaseException) -> JobEnded | None:
  """The error as one of a process that is gone; None where it tells of something else."""
  text = str(error)
  if not several() or not any(mark in text for mark in ("Gloo", "coordination service", "heartbeat", "Socket closed")):
    return None
  return _gone(error)


def _gone(error: BaseException) -> JobEnded:
  """The error of a process that is gone, once there was time to find out which one, or why."""
  end = time.monotonic() + _FAILURE_SECONDS
  while time.monotonic() < end:
    if told := failure():
      return JobEnded(told)
    time.sleep(0.1)
  return JobEnded(f"another process of the job is gone ({first_line(error)}): {GOES_ON}")


def _next_key(what: str) -> str:
  """A key of the coordination service that no other use of the name `what` has."""
  _numbers[what] += 1
  return f"rlhf_jax/{what}/{_numbers[what]}"


def _put(key: str, value: Any) -> None:
  try:
    client().key_value_set_bytes(key, pickle.dumps(value))
  except jax.errors.JaxRuntimeError as error:  # in many words, of which none is always there
    raise _gone(error) from error


def _get(key: str) -> Any:
  while True:
    try:
      return pickle.loads(client().blocking_key_value_get_bytes(key, _WAIT_MILLISECONDS))
    except jax.errors.JaxRuntimeError as error:
      if "DEADLINE_EXCEEDED" not in str(error):
        raise _gone(error) from error


def _attempt(act: Callable[[], T]) -> tuple[T | None, Exception | None]:
  try:
    return act(), None
  except Exception as error:
    return None, error


def _portable(error: Exception | None) -> Exception | None:
  """An error that pickle can send: of the same kind, else a RuntimeError with the same message."""
  if error is None:
    return None
  try:
    if str(pickle.loads(pickle.dumps(error))) == str(error):
      return error
  except Exception:
    pass
  return RuntimeError(f"{type(error).__name__}: {error}")


def _raise_first(errors: list[Exception | None], own: Exception | None) -> None:
  """Raises the first error, as this process's own where it has one, with its traceback."""
  first = next((error for error in errors if error is not None), None)
  if first is not None:
    raise own or first


def _shares(num_rows: int) -> list[slice]:
  bounds = [num_rows * index // count() for index in range(count() + 1)]
  return [slice(*pair) for pair in zip(bounds, bounds[1:], strict=False)]


def _is_local(x: jax.Array) -> bool:
  """Whether the rows of each process's share are on its own devices; the same answer in all processes."""
  held: dict[int, set[int]] = collections.defaultdict(set)
  places: Mapping[Any, Any] = x.sharding.devices_indices_map(x.shape)
  for device, place in places.items():
    if all(part.indices(length)[:2] == (0, length) for part, length in zip(place[1:], x.shape[1:], strict=True)):
      held[device.process_index] |= set(range(*place[0].indices(len(x))))
  return all(held[process] >= set(range(rows.start, rows.stop)) for process, rows in enumerate(_shares(len(x))))


def first_line(error: BaseException) -> str:
  """The first line of an error's message, or the name of its kind."""
  text = str(error).strip() or type(error).__name__
  return text.splitlines()[0][:300]
