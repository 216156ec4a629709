"""The loop of every stage that learns: step, log, evaluate, checkpoint, and stop cleanly on a signal."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rlhf_jax.population import stopping
from rlhf_jax.stage import Stage
from rlhf_jax.train import checkpoint
from rlhf_jax.train.metrics import MetricsWriter, to_floats
from rlhf_jax.train.progress import StageProgress
from rlhf_jax.train.update import attach, detach, place
from rlhf_jax.types import Mean, TrainState

# (state, index of the step) -> (state, metrics); the step's data and random keys follow from the index.
StepFn = Callable[[TrainState, int], tuple[TrainState, Mapping[str, Mean | float]]]


class Interrupted(Exception):
  """The stage stopped on a signal, after saving a checkpoint that it continues from."""


def run_steps(
  stage: Stage,
  state: TrainState,
  step_fn: StepFn,
  num_steps: int,
  *,
  identity: dict[str, Any],
  checkpoint_every: int,
  evaluate: Callable[[TrainState], Mapping[str, Mean | float]] | None = None,
  evaluate_every: int = 0,
) -> TrainState:
  """Takes `num_steps` steps from `state`, or from the stage's latest checkpoint, and checkpoints the result.

  The state is placed as `stage.transport` says. The checkpoints of a model with adapters hold the adapters and the
  head, and name the base they belong to.

  `state.step` counts calls of `step_fn` (a step of RL holds several optimiser steps). `evaluate` runs every
  `evaluate_every` steps and at the end (0: at the end only). A run that is killed and continued ends bit-identical to
  an uninterrupted run.

  Raises:
    Interrupted: on SIGINT or SIGTERM, once the running step is done and saved.
    FloatingPointError: the loss is not finite; the last good checkpoint stays.
  """
  checkpoints = checkpoint.open_checkpoints(stage.directory / "checkpoints")
  state = place(state, stage.transport)
  identity = {**identity, **checkpoint.base_identity(state.params, stage)}
  state, frozen = detach(state)
  state = checkpoint.restore(checkpoints, state, identity) or state
  state = attach(state, frozen)
  start = int(state.step)
  writer = MetricsWriter(stage.directory, start)
  progress = StageProgress(stage.name, num_steps, start)
  with checkpoints, contextlib.closing(writer), progress, stop_on_signal() as signalled:
    for index in range(start, num_steps):
      state, metrics = step_fn(state, index)
      done = index + 1
      state = state.replace(step=state.step + 1)
      last = done == num_steps
      metrics = to_floats(metrics)
      if evaluate and (last or (evaluate_every and done % evaluate_every == 0)):
        metrics |= {f"eval/{name}": value for name, value in to_floats(evaluate(state)).items()}
      _refuse_nonfinite(stage, done, metrics)
      writer.write(done, metrics)
      progress.update(done, metrics)
      stop = signalled() or stopping()
      if last or stop or done % checkpoint_every == 0:
        checkpoint.save(checkpoints, detach(state)[0], identity)
      if stop:
        break
  if signalled() or stopping():  # also after a signal in the last step or its checkpoint: the next stage must not start
    raise Interrupted(f"stopped at step {int(state.step)} of {num_steps} of {stage.name}")
  return state


def _refuse_nonfinite(stage: Stage, step: int, metrics: Mapping[str, float]) -> None:
  loss = metrics.get("loss", 0.0)
  if loss != loss or abs(loss) == float("inf"):
    raise FloatingPointError(
      f"the loss of {stage.name} is {loss} at step {step}: lower its learning rate, or look at "
      f"{stage.directory / 'metrics.jsonl'}; the last good checkpoint is kept"
    )


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
  """Yields a function that tells whether SIGINT or SIGTERM has come. A second signal acts as usual.

  Outside the main thread no signal is caught, and the function returns False.
  """
  received: list[int] = []
  previous: dict[signal.Signals, Any] = {}

  def remember(number, frame):
    received.append(number)
    signal.signal(number, previous[number])

  with contextlib.suppress(ValueError):  # signal.signal raises it outside the main thread
    for number in (signal.SIGINT, signal.SIGTERM):
      previous[number] = signal.signal(number, remember)
  try:
    yield lambda: bool(received)
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
