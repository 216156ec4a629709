"""The loop of every stage that learns: step, log, evaluate, checkpoint, and stop cleanly on a signal."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import Stage
from rlhf_jax.train import checkpoint
from rlhf_jax.train.checkpoint_errors import DamagedError
from rlhf_jax.train.course import Course, Loop, not_finite, recoverable
from rlhf_jax.train.functions import RewardTimeout, called_in
from rlhf_jax.train.log import StageLog
from rlhf_jax.train.metrics import Metric, send_to_host, to_floats
from rlhf_jax.train.parameters import base_identity
from rlhf_jax.train.progress import StageProgress, console
from rlhf_jax.train.signals import Interrupted, stop_on_signal
from rlhf_jax.train.speed import Clock, device_peak, model_sizes, speed, split_seconds
from rlhf_jax.train.stored_arrays import stored_steps
from rlhf_jax.train.timeline import counted_as
from rlhf_jax.train.update import attach, detach, place
from rlhf_jax.types import TrainState

# (state, index of the step) -> (state, metrics); the step's data and random keys follow from the index.
StepFn = Callable[[TrainState, int], tuple[TrainState, Mapping[str, Metric]]]


def run_steps(
  stage: Stage,
  state: TrainState,
  step_fn: StepFn,
  num_steps: int,
  *,
  identity: dict[str, Any],
  checkpoint_every: int,
  evaluate: Callable[[TrainState], Mapping[str, Metric]] | None = None,
  evaluate_every: int = 0,
  loop: Loop | None = None,
  finish: Callable[[TrainState], TrainState] = lambda state: state,
  opened: Callable[[StageLog, int], None] | None = None,
) -> TrainState:
  """Takes `num_steps` steps from `state`, or from the stage's newest checkpoint, and checkpoints the result.

  The state is placed as `stage.transport` says. The checkpoints of a model with adapters hold the adapters and the
  head, and name the base they belong to.

  `state.step` counts calls of `step_fn` (a step of RL holds several optimiser steps). `evaluate` runs every
  `evaluate_every` steps and at the end (0: at the end only). `loop`, None for its defaults, may end the stage early and
  choose its best state as the result, which then is the last checkpoint. `finish` is applied once, to the result; where
  that is the last state, it is applied before the last evaluation. `opened` gets the stage's log and the number of
  steps taken before, ahead of the first step. A run that is killed and continued ends bit-identical to an uninterrupted
  run.

  Raises:
    Interrupted: on a signal (`rlhf_jax.train.signals`), once the running step is done and saved. Where a function
      exceeds its time limit after the signal, in a step or in its evaluation, the stage goes on before that step: from
      the state there, or, where the step has taken the arrays of that state, from the newest checkpoint.
    FloatingPointError: the loss, the gradient, a parameter, a reward or an advantage is not finite (see `Loop`).
      Nothing of the step is saved, and its row is in metrics.jsonl.
    ConfigError: `loop` chooses by a metric that there is not.
  """
  loop = loop or Loop()
  _check(loop, stage, evaluate, evaluate_every)
  state = place(state, stage.transport)
  keeper = _Keeper(stage, state, identity, loop, checkpoint_every)
  state = keeper.resume(state)
  start = int(state.step)
  reached, end = start, start if keeper.course.exhausted(loop) else num_steps
  log = keeper.open_log(start)
  if opened:
    opened(log, start)
  progress = StageProgress(stage.name, num_steps, start)
  row_of = functools.partial(speed, sizes=model_sizes(state.params), peak=device_peak(stage.transport.peak_flops))
  with keeper.checkpoints, contextlib.closing(log), progress, stop_on_signal() as signalled, counted_as("steps"):
    steps = _Steps(
      step_fn,
      num_steps,
      evaluate,
      evaluate_every,
      finish,
      keeper,
      log,
      progress,
      row_of,
      signalled,
    )
    for index in range(start, end):
      try:
        state, ended = steps.take(state, index)
      except RewardTimeout:
        if not steps.signalled():
          raise
        reached = keeper.save_before(state)
        break
      reached = index + 1
      if ended:
        break
    with counted_as("checkpoint"):
      keeper.checkpoints.wait()
  if number := steps.signalled():  # in the last step or its checkpoint too: the next stage must not start
    raise Interrupted(f"stopped at step {reached} of {num_steps} of {stage.name}", number)
  return state


@dataclasses.dataclass
class _Steps:
  """The steps of a stage: each is taken and logged, and evaluated and saved where that is due (see `run_steps`)."""

  step_fn: StepFn
  num_steps: int
  evaluate: Callable[[TrainState], Mapping[str, Metric]] | None
  evaluate_every: int
  finish: Callable[[TrainState], TrainState]
  keeper: _Keeper
  log: StageLog
  progress: StageProgress
  speed_row: Callable[[Mapping[str, float], Mapping[str, float]], dict[str, float]]
  signalled: Callable[[], int]
  clock: Clock = dataclasses.field(default_factory=Clock)
  waiting: _Waiting | None = None

  def take(self, state: TrainState, index: int) -> tuple[TrainState, bool]:
    """The state after step `index`, and whether the stage ends there.

    The metrics of a step are read when the next one has been started, so that the devices need not wait for the host:
    unless the step is evaluated, saved or the last, or its state would be gone that `loop` goes on from.
    """
    done, keeper, loop = index + 1, self.keeper, self.keeper.loop
    try:
      state, found = self._learn(state, index)
    finally:  # before anything is told of this step
      self._settle(state)
    last, is_best = done == self.num_steps, False
    evaluated = bool(self.evaluate) and (last or bool(self.evaluate_every and done % self.evaluate_every == 0))
    if loop.nonfinite == "stop" and not (last or evaluated or done % keeper.every == 0 or self.signalled()):
      self.waiting = _Waiting(done, found, _floats(state.extra), self.clock.take())
      return state, False
    metrics = to_floats(found)
    wrong = not_finite(found, metrics, state.extra)
    self.clock.lap("update")
    if last and not wrong and not loop.keep_best:
      state = self.finish(state)
    if self.evaluate and evaluated and not wrong:
      with called_in(f"step {done}", keeper.stage.name), counted_as("evaluation"):
        metrics |= {f"eval/{name}": value for name, value in to_floats(self.evaluate(state)).items()}
      is_best = keeper.course.evaluated(loop, done, metrics, f"{keeper.stage.name}.loop")
      last = last or keeper.course.exhausted(loop)
      self.clock.lap("evaluation")
    self.log.write(done, metrics)
    self.progress.update(done, metrics)
    state = keeper.answer(state, wrong, done)
    if last and (loop.keep_best or wrong):
      state = self.finish(keeper.best(state) if loop.keep_best else state)
    ended = last or bool(self.signalled())
    self.clock.lap("host")
    if ended or is_best or done % keeper.every == 0:
      with counted_as("checkpoint"):
        keeper.save(state)
      self.clock.lap("checkpoint")
    self.log.write_speed(done, self.speed_row(self.clock.take(), metrics))
    return state, ended

  def _learn(self, state: TrainState, index: int) -> tuple[TrainState, Mapping[str, Metric]]:
    """The state after step `index`, and the step's metrics, on their way to the host."""
    with called_in(f"step {index + 1}", self.keeper.stage.name):
      state, found = self.step_fn(state, index)
    found, seconds = split_seconds(found)
    send_to_host(found)
    self.clock.lap("host", without=sum(seconds.values()))
    self.clock.add(seconds)
    return state.replace(step=_next(state.step)), found

  def _settle(self, state: TrainState) -> None:
    """Writes the rows of the step before, if they wait; raises FloatingPointError where it was not finite."""
    step, self.waiting = self.waiting, None
    if not step:
      return
    metrics = to_floats(step.found)
    self.clock.lap("update")
    self.log.write(step.done, metrics)
    self.progress.update(step.done, metrics)
    self.log.write_speed(step.done, self.speed_row(step.seconds, metrics))
    self.keeper.answer(state, not_finite(step.found, metrics, step.extra), step.done)
    self.clock.lap("host")


_next = jax.jit(lambda step: step + 1)


class _Waiting(NamedTuple):
  """A step whose metrics are on their way to the host."""

  done: int
  """Number of steps taken, itself included."""
  found: Mapping[str, Metric]
  """Metrics, on the devices."""
  extra: Any
  """Floats of the algorithm in the state after it."""
  seconds: dict[str, float]
  """Seconds of its parts."""


def _floats(extra: Any) -> Any:
  """Copies of the arrays of floats, as the next step takes the arrays of the state; None in the place of others."""
  return jax.tree.map(lambda x: jnp.copy(x) if jnp.issubdtype(x.dtype, jnp.floating) else None, extra)


class _Keeper:
  """The states of a stage that are kept, with the course they were reached by and the log of their steps."""

  def __init__(self, stage: Stage, state: TrainState, identity: Mapping[str, Any], loop: Loop, every: int):
    self.checkpoints = checkpoint.open_checkpoints(stage.directory / "checkpoints", loop.keep, loop.keep_minutes)
    self.course = Course()
    self._log: StageLog | None = None
    self._digests: dict[str, str] = {}
    self._identity = {**identity, **base_identity(state.params, stage)}
    self.stage, self.loop, self.every = stage, loop, every

  def resume(self, state: TrainState) -> TrainState:
    """The state of the newest checkpoint, or `state` where there is none."""
    like, frozen = detach(state)
    restored = checkpoint.restore(self.checkpoints, like, self._identity)
    if restored:
      notes = dict(restored.notes)
      self._digests = notes.pop("log", {})
      self.course = Course(**notes)
    elif self.loop.nonfinite == "rollback":
      self.save(state)  # so that there is a checkpoint to go back to
    return attach(restored.state if restored else like, frozen)

  def open_log(self, start: int) -> StageLog:
    """The stage's log, which continues behind step `start`."""
    self._log = StageLog(self.stage, start, self._digests)
    return self._log

  def save(self, state: TrainState) -> None:
    """Writes a checkpoint, in the background, with the digests of the log's rows."""
    if self._log:
      self._log.sync()
    kept = {self.course.best_step}
    if self.loop.nonfinite == "rollback":
      step = int(state.step)
      kept.add(step - step % self.every)
    notes = {**self.course.notes(), **({"log": self._log.digests()} if self._log else {})}
    checkpoint.save(self.checkpoints, detach(state)[0], self._identity, notes, kept)

  def save_before(self, state: TrainState) -> int:
    """Saves the state before a failed step, unless the step has taken its arrays; returns the newest step saved."""
    if not any(leaf.is_deleted() for leaf in jax.tree.leaves(state)):
      self.save(state)
    self.checkpoints.wait()
    return max(stored_steps(self.checkpoints.directory), default=0)

  def best(self, state: TrainState) -> TrainState:
    """The state of the best evaluation, under the step of `state`; `state` where no evaluation was finite."""
    step = self.course.best_step
    if step is None:
      return state
    found = f"{self.loop.keep_best} {self.course.best_value} at step {step}"
    console.print(f"{self.stage.name}: ends at step {int(state.step)} with its best state, {found}", markup=False)
    return state if step == int(state.step) else self._read(state, step)

  def answer(self, state: TrainState, wrong: Mapping[str, float], step: int) -> TrainState:
    """The state to go on from after a step whose quantities `wrong` are not finite; `state` where there are none.

    Raises:
      FloatingPointError: `loop` does not let the stage go on.
    """
    how, course = self.loop.nonfinite, self.course
    if not wrong:
      course.failures = 0 if how == "skip" else course.failures
      return state
    course.failures += 1
    name = self.stage.name
    what = f"stage {name}, step {step}: {', '.join(f'{key} is {value}' for key, value in wrong.items())}"
    if how == "stop" or course.failures > self.loop.nonfinite_limit or (how == "skip" and not recoverable(wrong)):
      tried = (
        f" after {course.failures - 1} steps that were answered by nonfinite={how!r}" if course.failures > 1 else ""
      )
      raise FloatingPointError(
        f"{what}{tried}. Nothing of this step is saved, and its row is in {self.stage.directory / 'metrics.jsonl'}: "
        f"lower config.{name}.optimizer.learning_rate, or set config.{name}.loop.nonfinite to 'skip' or 'rollback'"
      )
    if how == "skip":
      console.print(f"{what}; its updates that are not finite are left out", markup=False)
      return state
    self.checkpoints.wait()
    found = [other for other in stored_steps(self.checkpoints.directory) if other < step]
    back = max([other for other in found if other % self.every == 0] or found)
    console.print(f"{what}; going on from the parameters of step {back}", markup=False)
    return self._read(state, back)

  def _read(self, state: TrainState, step: int | None) -> TrainState:
    """The state of another step as that of the step of `state`; its `extra`, such as a cursor in the data, stays."""
    like, frozen = detach(state)
    try:
      restored = checkpoint.restore(self.checkpoints, like, self._identity, step)
    except DamagedError as error:
      raise DamagedError(
        f"{error}. Stage {self.stage.name} needs it: delete the stage's directory and run again"
      ) from error
    assert restored is not None  # as `step` is given
    sound = not not_finite({}, {}, state.extra)
    found = restored.state.replace(step=state.step, extra=state.extra if sound else restored.state.extra)
    return attach(found, frozen)


def _check(loop: Loop, stage: Stage, evaluate: object, evaluate_every: int) -> None:
  """Raises ConfigError where `loop` chooses by evaluations that the stage does not make."""
  where = f"config.{stage.name}.loop"
  if loop.keep_best and not evaluate:
    raise ConfigError(f"{where}.keep_best: stage {stage.name!r} makes no held-out evaluations to choose by")
  if loop.patience and not evaluate_every:
    raise ConfigError(f"{where}.patience={loop.patience} needs evaluations before the end: set evaluate_every above 0")
