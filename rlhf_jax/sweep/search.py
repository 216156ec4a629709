"""Search by Optuna: a file's `search(trial)` returns the config of a trial, `objective` is ("stage/metric", "max").

Trials are cells like those of a sweep, run in rounds. The study stands in DIR/search.journal, so that the same command
goes on after a kill. Hopeless trials may be stopped early, by successive halving (1810.05934) on the curve of the
objective.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhf_jax.pipeline.recipe import plain
from rlhf_jax.settings import ConfigError
from rlhf_jax.sweep import attempts
from rlhf_jax.sweep.cells import Cell, called, load_file, make_cells
from rlhf_jax.sweep.command import prepare, record, rows_of_sweep, tell
from rlhf_jax.sweep.drive import drive
from rlhf_jax.sweep.engines import Engine
from rlhf_jax.sweep.measures import measure
from rlhf_jax.sweep.units import write_units

LOOK_SECONDS = 5.0  # between two looks at the curve of a trial


def search(
  path: Path,
  root: Path,
  trials: int,
  sampler: str,
  prune: bool,
  engine: Callable[[], Engine],
  at_once: int,
  retries: int,
) -> str:
  """Runs trials until there are `trials`, writes the tables, and returns a line on the best one.

  sampler: "random", "sobol", "halton" or "tpe", learns from the trials of earlier rounds. at_once: trials of a round.

  Raises:
    ConfigError: a mistake in the file or in the config of a trial, or Optuna is not there.
    SweepStopped: on a signal.
  """
  study, module, (metric, direction) = _open(path.absolute(), root, sampler)
  cells: dict[str, Cell] = {}

  def cell_of(trial: Any) -> Cell:
    config = called(path.absolute(), lambda: module.search(trial))
    (cell,) = make_cells([plain(config)], [{}], [trial.params])
    cells[cell.name] = cell
    return cell

  optuna = _optuna()
  running = optuna.trial.TrialState.RUNNING
  for old in study.trials:
    if old.state != running:
      cell_of(optuna.trial.FixedTrial(old.params))
  while True:
    left = [optuna.trial.Trial(study, old._trial_id) for old in study.trials if old.state == running]
    batch = left or [study.ask() for _ in range(min(at_once, trials - len(study.trials)))]
    if not batch:
      break
    owners: dict[str, list[Any]] = {}
    for trial in batch:
      owners.setdefault(cell_of(trial).name, []).append(trial)
    units, _ = prepare(list(cells.values()), root)
    write_units(units, root)
    record(list(cells.values()), root)
    working = engine()
    if prune:
      study.pruner = _pruner(next(iter(cells.values())).config, metric)
    watch = _Watch(root, metric, {f"cells/{name}": own[0] for name, own in owners.items()}, working) if prune else None
    states = drive(units, root, working, retries, watch or (lambda name: None))
    for name, own in owners.items():
      value = measure(root / "cells" / name).finals.get(metric)
      for trial in own:
        if states[f"cells/{name}"].status == "pruned":
          study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif states[f"cells/{name}"].status != "done" or value is None:
          study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
          study.tell(trial, value)
    tell(rows_of_sweep(root, states), root, [])
  done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
  if not done:
    raise ConfigError(f"no trial has left {metric}: see the errors in {root / 'table.csv'}, or correct `objective`")
  best = study.best_trial
  return (
    f"Best of {len(done)} finished trials: {metric} = {best.value:.6g} ({direction}) with {json.dumps(best.params)}"
  )


class _Watch:
  """Reports the objective's curve of running trials, and stops those that are hopeless."""

  def __init__(self, root: Path, metric: str, trials: dict[str, Any], engine: Engine) -> None:
    self._root, self._metric, self._trials, self._engine = root, metric, trials, engine
    self._looked: dict[str, float] = {}
    self._reported: dict[str, float] = {}  # the last step, by unit

  def __call__(self, name: str) -> None:
    """Looks at the unit `name`, every few seconds."""
    trial = self._trials.get(name)
    if trial is None or time.monotonic() - self._looked.get(name, -LOOK_SECONDS) < LOOK_SECONDS:
      return
    self._looked[name] = time.monotonic()
    curve = measure(self._root / name).curves.get(self._metric)
    for step, value in zip(curve.steps, curve.values, strict=True) if curve else ():
      if step > self._reported.get(name, -1.0):
        trial.report(float(value), int(step))
        self._reported[name] = float(step)
    if curve and trial.should_prune():
      attempts.prune(self._root / name, f"stopped after step {self._reported[name]:.0f}: others are ahead")
      self._engine.stop(name)
      del self._trials[name]


def _pruner(config: Mapping[str, Any], metric: str) -> Any:
  """Successive halving after a sixteenth and a quarter of the stage's `num_steps`.

  Of a stage without that key Optuna measures the length by the first trial that has finished.
  """
  steps = config.get(metric.partition("/")[0], {}).get("num_steps")
  return _optuna().pruners.SuccessiveHalvingPruner(max(1, steps // 16) if isinstance(steps, int) else "auto")


def _open(path: Path, root: Path, sampler: str) -> tuple[Any, Any, tuple[str, str]]:
  """(the study, the module of the file, its objective)."""
  optuna = _optuna()
  module = load_file(path, "search")
  objective = getattr(module, "objective", None)
  if not (isinstance(objective, tuple) and len(objective) == 2 and objective[1] in ("max", "min")):
    raise ConfigError(f'{path}: objective must be ("stage/metric", "max" or "min"), not {objective!r}')
  root.mkdir(parents=True, exist_ok=True)
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(root / "search.journal")))
  samplers = {
    "random": lambda: optuna.samplers.RandomSampler(seed=0),
    "sobol": lambda: optuna.samplers.QMCSampler(
      qmc_type="sobol", scramble=True, seed=0, warn_independent_sampling=False
    ),
    "halton": lambda: optuna.samplers.QMCSampler(
      qmc_type="halton", scramble=True, seed=0, warn_independent_sampling=False
    ),
    "tpe": lambda: optuna.samplers.TPESampler(seed=0, constant_liar=True),
  }
  study = optuna.create_study(
    study_name="search",
    storage=storage,
    load_if_exists=True,
    direction={"max": "maximize", "min": "minimize"}[objective[1]],
    sampler=samplers[sampler](),
  )
  return study, module, objective


def _optuna() -> Any:
  try:
    import optuna
  except ModuleNotFoundError as error:
    raise ConfigError(f"--trials: {error}; install it with pip install 'rlhf_jax[search]'") from error
  return optuna
