"""Checkpoints: written in the background, verified when read, refused where they do not fit.

One checkpoint holds the whole `TrainState`, its identity (model, tokenizer and stage) and checksums of every array
(`rlhf_jax.train.stored_arrays`): a checkpoint of another model or tokenizer, or a damaged one, is never half-loaded.
The checkpoint of a model with adapters holds the adapters alone, and its identity names the base they belong to.
"""

from __future__ import annotations

import concurrent.futures
import errno
import functools
import os
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rlhf_jax.models import is_stacked
from rlhf_jax.train import stored_arrays
from rlhf_jax.train.checkpoint_errors import CheckpointError, DamagedError
from rlhf_jax.train.chunks import Snapshot, paths
from rlhf_jax.train.layer_forms import Part, in_form
from rlhf_jax.train.parameters import check_identity, put_stored, stored_shapes
from rlhf_jax.train.processes import first_line, leader, led, together
from rlhf_jax.train.progress import console
from rlhf_jax.train.stored_arrays import stored_steps
from rlhf_jax.types import TrainState

KEEP = 2  # newest checkpoints of a stage that stay


class Restored(NamedTuple):
  """A checkpoint that training goes on from."""

  state: TrainState
  notes: dict[str, Any]
  """JSON that was saved with the state."""


class Checkpoints:
  """The checkpoints of a stage, written by a thread of their own, one at a time. A context manager: its end waits.

  keep: number of the newest checkpoints that are kept. keep_minutes: minutes after which another checkpoint is kept for
  good; 0 for none.
  """

  def __init__(self, directory: Path, keep: int = KEEP, keep_minutes: float = 0.0):
    self.directory = Path(directory).absolute()
    self.keep, self.keep_minutes = keep, keep_minutes
    led("checkpoints", self._prepare)
    self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
    self._pending: concurrent.futures.Future[None] | None = None
    self._step = 0

  def _prepare(self) -> None:
    self.directory.mkdir(parents=True, exist_ok=True)
    stored_arrays.remove_partial(self.directory)

  def __enter__(self) -> Checkpoints:
    return self

  def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
    try:
      self.wait()
    except CheckpointError as failed:
      if error is None:
        raise
      console.print(str(failed), markup=False)  # beside the error that ends the stage
    finally:
      self._writer.shutdown()

  def save(
    self, state: TrainState, identity: dict[str, Any], notes: Mapping[str, Any], keep: Collection[int | None]
  ) -> None:
    """Copies the state and writes it in the background; see `save`."""
    self.wait()
    step = int(state.step)
    if led("checkpoint is there", lambda: self._has(step)):
      return
    rest = {"opt_state": state.opt_state, "extra": state.extra, "step": state.step}
    trees = {"params": Snapshot(state.params), "rest": Snapshot(rest)}
    record = {"identity": identity, "notes": dict(notes), "time": time.time()}
    self._step = step
    self._pending = self._writer.submit(self._write, step, trees, record, {*keep})

  def _has(self, step: int) -> bool:
    """Whether there is a whole checkpoint of a step; one that is damaged is set aside."""
    if step not in stored_steps(self.directory):
      return False
    try:
      verify_checkpoint(self.directory, step)
      return True
    except DamagedError as error:
      _set_aside(self.directory / str(step), error)
      return False

  def wait(self) -> None:
    """Returns when everything is written. Raises CheckpointError where the last checkpoint could not be written."""
    pending, self._pending = self._pending, None
    try:
      if pending:
        pending.result()
    except Exception as error:
      raise CheckpointError(self._failure(error)) from error

  def _write(self, step, trees, record, keep):
    stored_arrays.write(self.directory, step, trees, record)
    if leader():
      self._remove_old(keep)

  def _remove_old(self, keep: Collection[int | None]) -> None:
    found = stored_steps(self.directory)
    times = {other: _time(self.directory / str(other)) for other in found} if self.keep_minutes else {}
    for other in set(found) - kept(found, self.keep, times, self.keep_minutes) - {*keep}:
      stored_arrays.remove(self.directory, other)

  def _failure(self, error: Exception) -> str:
    text = str(error)
    full = getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT) or any(
      mark in text for mark in ("No space left", "RESOURCE_EXHAUSTED", "Disk quota")
    )
    why = "the disk is full" if full else getattr(error, "strerror", "") or first_line(error)
    before = [step for step in stored_steps(self.directory) if step != self._step]
    goes_on = f"from step {before[-1]}" if before else "from the start"
    return (
      f"stage {self.directory.parent.name}: the checkpoint of step {self._step} could not be written to "
      f"{self.directory}: {why}. {'Make room there' if full else 'Repair that'} and run again: it goes on {goes_on}"
    )


def open_checkpoints(directory: Path, keep: int = KEEP, keep_minutes: float = 0.0) -> Checkpoints:
  """The checkpoints in `directory`, for saving; the arguments are those of `Checkpoints`."""
  return Checkpoints(directory, keep, keep_minutes)


def save(
  checkpoints: Checkpoints,
  state: TrainState,
  identity: dict[str, Any],
  notes: Mapping[str, Any] | None = None,
  keep: Collection[int | None] = (),
) -> None:
  """Writes `state` under its step, in the background; does nothing where that step has a whole checkpoint already.

  The state may be donated at once. notes: JSON that `restore` returns with the state. keep: steps whose
  checkpoints are kept however old they are. Older checkpoints are removed when this one is written.

  Raises:
    CheckpointError: the checkpoint before could not be written; `Checkpoints.wait` and the end of its context raise the
      error of this one.
  """
  checkpoints.save(state, identity, notes or {}, keep)


def kept(steps: list[int], keep: int, times: Mapping[int, float], minutes: float) -> set[int]:
  """The steps whose checkpoints stay: the newest `keep`, and one whenever `minutes` have passed since the one before.

  times: seconds at which each step was saved; read where minutes is above 0.
  """
  chosen = set(steps[-keep:])
  if minutes:
    last = -np.inf
    for step in steps:
      if times[step] - last >= 60 * minutes:
        chosen.add(step)
        last = times[step]
  return chosen


def restore(
  checkpoints: Checkpoints, like: TrainState, identity: dict[str, Any], step: int | None = None
) -> Restored | None:
  """The newest state that verifies, with the structure and sharding of `like`; None where there is none.

  A damaged checkpoint is named on the console and set aside as DIRECTORY/STEP.damaged, and the one before it is taken.
  step: the only step that will do; None takes the newest.

  Raises:
    CheckpointError: the identity or a shape differs, or the checkpoint of `step` is damaged.
  """
  checkpoints.wait()
  skipped = False
  stored = led("stored steps", lambda: stored_steps(checkpoints.directory))
  for number in reversed(stored) if step is None else [step]:
    where = checkpoints.directory / str(number)
    try:
      found = together("restore", functools.partial(_restore, where, like, identity))
      if skipped:
        console.print(f"training goes on from {where}", markup=False)
      return found
    except DamagedError as error:
      if step is not None:
        raise
      led("set aside", functools.partial(_set_aside, where, error))
      skipped = True
  if skipped:
    console.print(f"{checkpoints.directory} has no checkpoint that is whole: training starts anew", markup=False)
  return None


def _set_aside(where: Path, error: DamagedError) -> None:
  aside = where.with_name(f"{where.name}.damaged")
  shutil.rmtree(aside, ignore_errors=True)
  os.rename(where, aside)
  console.print(f"{error}. It is set aside as {aside.name}", markup=False)


def _restore(where: Path, like: TrainState, identity: dict[str, Any]) -> Restored:
  record = stored_arrays.read_record(where)
  check_identity(record["identity"], identity, where)
  trees = {"params": like.params, "rest": {"opt_state": like.opt_state, "extra": like.extra, "step": like.step}}
  stacked = is_stacked(like.params)
  for name, tree in trees.items():
    _check_shapes(stored_shapes(record[name], stacked), tree, where)
  loaded = {}
  for name, tree in trees.items():
    arrays = in_form(stored_arrays.open_tree(where, name, record[name]), stacked)
    leaves = [put_stored(arrays.pop(path), leaf.sharding) for path, leaf in paths(tree)]
    loaded[name] = jax.tree.unflatten(jax.tree.structure(tree), leaves)
  if int(loaded["rest"]["step"]) != int(where.name):
    raise DamagedError(f"{where} is damaged: it holds the state after step {int(loaded['rest']['step'])}")
  state = TrainState(params=loaded["params"], **loaded["rest"])
  return Restored(state, record.get("notes", {}))


def last_checkpoint(directory: Path) -> tuple[int, str] | None:
  """(step, SHA-256 of the record) of the newest checkpoint whose record is whole; None where there is none.

  The record holds the checksums of all arrays, so that its digest stands for them; the arrays are not read.
  """
  for step in reversed(stored_steps(Path(directory))):
    try:
      return step, stored_arrays.read_record(Path(directory) / str(step))["digest"]
    except DamagedError:
      continue
  return None


def verify_checkpoint(directory: Path, step: int) -> str:
  """The SHA-256 of the record of a checkpoint, all of whose arrays have been read and verified.

  Raises:
    CheckpointError: there is no such checkpoint, or it is damaged.
  """
  where = Path(directory) / str(step)
  if not where.is_dir():
    raise DamagedError(f"{where} is missing")
  record = stored_arrays.read_record(where)
  for name in stored_arrays.TREES:
    stored_arrays.read(where, name, record[name])
  return record["digest"]


def _check_shapes(stored: Mapping[str, Part], like: Any, where: Path) -> None:
  here = {path: [list(x.shape), str(x.dtype)] for path, x in paths(like)}
  there = {path: [list(part.shape), part.dtype] for path, part in stored.items()}
  # 0.2.0 also trained output matrices that nothing reads, of models of which only a head is read.
  there = {path: entry for path, entry in there.items() if path in here or "decoder/unembedding/" not in path}
  for path in sorted({*here, *there}):
    if here.get(path) != there.get(path):
      raise CheckpointError(f"{where}: {path} is {there.get(path)} there and {here.get(path)} here")


def _time(where: Path) -> float:
  """Seconds at which a checkpoint was saved; 0 where its record is damaged or tells none."""
  try:
    return stored_arrays.read_record(where).get("time", 0.0)
  except DamagedError:
    return 0.0
