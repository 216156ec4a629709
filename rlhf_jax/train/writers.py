"""Where metrics go beside metrics.jsonl, by `config.writers`: TensorBoard, Weights & Biases, MLflow.

A writer has the three methods of `Writer`. Its library is imported only where it is asked for.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from rlhf_jax.settings import ConfigError, nearest
from rlhf_jax.stage import Stage
from rlhf_jax.writing import named_errors

_FLUSH_SECONDS = 30.0  # after which events are on the disk, for a viewer


class Writer(Protocol):
  """A destination of metrics."""

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes the metrics of one step."""

  def text(self, step: int, name: str, text: str) -> None:
    """Writes a text, in Markdown."""

  def close(self) -> None:
    """Writes what is left and closes."""


class TensorBoardWriter:
  """Events in STAGE/tensorboard; events after `start_step`, of an interrupted run, are hidden.

  The caller's thread writes them. tensorboardX's own writer has a thread that ends at the first error of the disk, with
  a traceback, and the caller then waits for it forever.
  """

  def __init__(self, stage: Stage, start_step: int):
    with _without("torch"):
      from tensorboardX.event_file_writer import EventsWriter
      from tensorboardX.proto.event_pb2 import Event, SessionLog
      from tensorboardX.summary import Summary, scalar, text

    self._event, self._summary, self._text = Event, Summary, text
    self._tag = functools.cache(lambda name: scalar(name, 0.0).value[0].tag)  # without signs that TensorBoard refuses
    self._directory = stage.directory / "tensorboard"
    self._directory.mkdir(parents=True, exist_ok=True)
    self._flushed = time.monotonic()
    with named_errors(self._directory):
      self._events = EventsWriter(str(self._directory / "events"))
    self._write(start_step + 1, session_log=SessionLog(status=SessionLog.START))

  def _write(self, step: int, **content: Any) -> None:
    with named_errors(self._directory):
      self._events.write_event(self._event(wall_time=time.time(), step=step, **content))
      if time.monotonic() - self._flushed > _FLUSH_SECONDS:
        self._events.flush()
        self._flushed = time.monotonic()

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes a scalar for each metric, in one event: an event each takes 40 microseconds more."""
    values = [self._summary.Value(tag=self._tag(name), simple_value=value) for name, value in metrics.items()]
    self._write(step, summary=self._summary(value=values))

  def text(self, step: int, name: str, text: str) -> None:
    """Writes the text to the tab "Text"."""
    self._write(step, summary=self._text(name, text))

  def close(self) -> None:
    """Closes the events."""
    with named_errors(self._directory):
      self._events.close()


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
  """Within it the import of a module that is not loaded yet fails, as where it is not installed.

  tensorboardX imports torch wherever it finds it, which takes seconds, and asks it only whether an array is its own.
  """
  loaded: Any = sys.modules  # None in it is no module, and what Python takes for one that cannot be imported
  hidden = module not in loaded
  if hidden:
    loaded[module] = None
  try:
    yield
  finally:
    if hidden:
      del loaded[module]


class WandbWriter:
  """A run of Weights & Biases for each stage, with STAGE/wandb as its directory; WANDB_* variables hold as ever.

  A resumed stage continues its run. Steps that are taken again are there twice, because Weights & Biases takes no row
  back.
  """

  def __init__(self, stage: Stage, start_step: int):
    import wandb

    self._wandb = wandb
    self._run = wandb.init(
      project=os.environ.get("WANDB_PROJECT") or "rlhf_jax",
      name=f"{stage.root.name}/{stage.name}",
      group=stage.root.name,
      id=_identifier(stage),
      dir=str(stage.directory),
      config={"stage": stage.name, "seed": stage.seed, "fingerprint": stage.fingerprint},
      resume="allow",
      reinit="create_new",  # the process may have one of its own
    )
    self._run.define_metric("*", step_metric="step")

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Logs the metrics against the metric "step"."""
    self._run.log({"step": step, **metrics})

  def text(self, step: int, name: str, text: str) -> None:
    """Logs the text as a panel of HTML that shows it as it is."""
    self._run.log({"step": step, name: self._wandb.Html(f"<pre>{_escape(text)}</pre>")})

  def close(self) -> None:
    """Ends the run."""
    self._run.finish()


class MlflowWriter:
  """A run of MLflow for each stage, in the store that MLFLOW_TRACKING_URI names; RUN/mlflow.db by default.

  A resumed stage continues its run, where steps that are taken again are there twice.
  """

  def __init__(self, stage: Stage, start_step: int):
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    root = stage.root.resolve()
    given = os.environ.get("MLFLOW_TRACKING_URI")
    self._client, self._metric = MlflowClient(given or f"sqlite:///{root / 'mlflow.db'}"), Metric
    artifacts = None if given else (root / "mlflow").as_uri()
    name, identifier = f"rlhf_jax/{stage.root.name}", _identifier(stage)
    experiment = self._client.get_experiment_by_name(name)
    number = experiment.experiment_id if experiment else self._client.create_experiment(name, artifacts)
    found = self._client.search_runs([number], f"tags.stage_id = '{identifier}'", max_results=1)
    tags = {"stage_id": identifier, "fingerprint": stage.fingerprint}
    run = found[0] if found else self._client.create_run(number, run_name=stage.name, tags=tags)
    self._id = run.info.run_id
    self._client.update_run(self._id, status="RUNNING")

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Logs the metrics of a step in one batch."""
    now = int(1000 * time.time())  # milliseconds
    values = [self._metric(name, value, now, step) for name, value in metrics.items()]
    self._client.log_batch(self._id, metrics=values)

  def text(self, step: int, name: str, text: str) -> None:
    """Logs the text as the artifact NAME/STEP.md."""
    self._client.log_text(self._id, text, f"{name}/{step}.md")

  def close(self) -> None:
    """Marks the run as finished."""
    self._client.set_terminated(self._id)


WRITERS: dict[str, tuple[str, Callable[[Stage, int], Writer]]] = {  # name: (library, class)
  "tensorboard": ("tensorboardX", TensorBoardWriter),
  "wandb": ("wandb", WandbWriter),
  "mlflow": ("mlflow", MlflowWriter),
}


def open_writers(stage: Stage, start_step: int) -> list[Writer]:
  """The writers that `config.writers` names, for a stage that continues behind `start_step`."""
  return [WRITERS[name][1](stage, start_step) for name in stage.writers]


def check_writers(names: object) -> tuple[str, ...]:
  """The value of `config.writers` as a tuple.

  Raises:
    ConfigError: it is no list of names of writers, or the library of one of them is not installed.
  """
  if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
    raise ConfigError(f"config.writers must be a tuple of names among {', '.join(WRITERS)}, not {names!r}.")
  for name in names:
    if name not in WRITERS:
      raise ConfigError(f"config.writers names {name!r}; known: {', '.join(WRITERS)}.{nearest(name, WRITERS)}")
    library = WRITERS[name][0]
    if importlib.util.find_spec(library) is None:
      raise ConfigError(f"config.writers: {name!r} needs the library {library}: pip install 'rlhf_jax[{name}]'")
  return tuple(names)


def _identifier(stage: Stage) -> str:
  """The same for every start of a stage: a hash of its directory and of what it is made from."""
  return hashlib.sha256(f"{stage.directory.resolve()} {stage.fingerprint}".encode()).hexdigest()[:16]


def _escape(text: str) -> str:
  return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
