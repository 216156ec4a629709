"""Checks of a whole run before its first stage: a run that cannot end for a reason that can be seen is not begun.

A stage's module may define `check(config, stage)`, which raises ConfigError, for checks of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax import data
from rlhf_jax.data.mixture import Mixture, Sources
from rlhf_jax.data.sources import Source
from rlhf_jax.models import DecoderConfig, LanguageModel
from rlhf_jax.pipeline.costs import Cost, cost_lines, of_stage, size
from rlhf_jax.pipeline.done import steps_to_run
from rlhf_jax.pipeline.first_rows import KINDS, check_file, check_source
from rlhf_jax.pipeline.lengths import left_out
from rlhf_jax.pipeline.plan import SHARED, Step, plan
from rlhf_jax.pipeline.references import check_names, check_path
from rlhf_jax.settings import ConfigError, values
from rlhf_jax.stage import ANY_SHAPE, ImportedModel, Model, Stage, split_step
from rlhf_jax.train import Environment, Reward, Sampling, check_length
from rlhf_jax.train.course import Loop
from rlhf_jax.train.mesh import make_mesh
from rlhf_jax.train.reward_functions import check_function
from rlhf_jax.train.rewards import check_functions
from rlhf_jax.train.row_sources import resolve_source
from rlhf_jax.train.stored_arrays import stored_steps
from rlhf_jax.train.workspace import open_workspace, select_model

BYTES = 256 + 3  # the smallest vocabulary, for a model whose tokenizer is not there yet


def check_run(
  config: Mapping[str, Any], workdir: Path, redo: Collection[str] = (), accept_changes: bool = False
) -> str:
  """Checks a run as `run` does before its first stage, writes nothing, and returns what each stage will cost.

  redo and accept_changes: as `rlhf_jax.pipeline.run.run`.

  Raises:
    ConfigError: a mistake, named with its key.
  """
  steps = plan(config, Path(workdir).absolute())
  todo = steps_to_run(steps, redo, accept_changes)
  check_references(config, steps, todo)
  return describe(steps, todo)


def describe(steps: Sequence[Step], todo: Sequence[Step]) -> str:
  """Checks steps by `check_steps` and returns what each will cost and leave out, in lines. Raises ConfigError."""
  costs = cost_lines([step.stage.name for step in steps if step not in todo], check_steps(steps, todo))
  return "\n".join([*left_out_lines(todo), *costs])


def left_out_lines(todo: Sequence[Step]) -> list[str]:
  """What the lengths of the stages that are still to run leave out of their files; [] before there is a tokenizer.

  Raises:
    ConfigError: a length leaves out all of a file, or a file cannot be read.
  """
  name = todo[0].stage.tokenizer if todo else ""
  if not name or "{model}" in name or not todo[0].stage.path(name).exists():
    return []
  lines: list[str] = []

  @functools.cache
  def tokenizer() -> data.Tokenizer:
    with _named("config.tokenizer"):
      return data.load_tokenizer(todo[0].stage.path(name))

  for step in todo:
    with _named(f"config.{step.stage.name}"):
      lines += left_out(step.config, step.stage, tokenizer)
  return lines


def check_steps(steps: Sequence[Step], todo: Sequence[Step]) -> list[Cost]:
  """Checks the stages that are still to run, and returns what each will cost.

  Checked are: the shape of the model and the use of the devices; files of the user's (they exist and their first rows
  parse); lengths of rows and of sampling, which fit the model; and the space on the disk for the checkpoints.

  todo: those of `steps` that are to run.

  Raises:
    ConfigError: a mistake, named with its key.
  """
  if not todo:
    return []
  vocab_size = _vocab_size(todo[0].stage, steps)
  shapes = {step.stage.name: step.stage.model for step in steps}
  makers = {step.stage.name: step.config for step in steps}
  models: dict[Model | ImportedModel, LanguageModel | None] = {}
  for step in todo:
    shape = step.stage.model
    if shape not in models:
      models[shape] = _model(step.stage, vocab_size or BYTES)
    model = models[shape]
    for where, value, marks in values(step.config, step.stage.name):
      _check_shape(where, value, marks, step.stage, shapes)
      _check_kept(where, value, marks, step.stage, makers)
      with _named(f"config.{where}"):
        _check_value(where, value, marks, step.stage, model)
    if hasattr(step.module, "check"):
      step.module.check(step.config, step.stage)
  known = {shape: vocab_size is not None or isinstance(shape, ImportedModel) for shape in models}
  costs = [of_stage(step, models[step.stage.model] if known[step.stage.model] else None) for step in todo]
  _check_disk(todo[0].stage.root, todo, costs)
  return costs


def _check_value(where: str, value: Any, marks: tuple[Any, ...], stage: Stage, model: LanguageModel | None) -> None:
  kinds = KINDS & set(marks)
  if isinstance(value, str) and value and kinds:
    (kind,) = kinds
    path = stage.path(value)
    if not value.startswith("{run}/") or path.exists():
      check_file(path, kind)
  elif isinstance(value, (Source, Sources)) and kinds:
    (kind,) = kinds
    given = value.sources if isinstance(value, Sources) else {"": value}
    for name, source in given.items():
      with _named(f"config.{where}.sources.{name}" if name else f"config.{where}"):
        resolved = resolve_source(source, stage)
        if not source.path.startswith("{run}/") or Path(resolved.path).exists():
          check_source(resolved, "text file" if isinstance(value, Mixture) else kind)
  elif model and "row length" in marks:
    check_length(model, value, where.rpartition(".")[2])
  elif isinstance(value, Reward):
    check_functions(value)
  elif isinstance(value, Environment):
    check_function(value.monitor)
  elif model and isinstance(value, Sampling):
    check_length(model, value.max_prompt_tokens + value.max_new_tokens, "max_prompt_tokens + max_new_tokens")


def _check_shape(
  where: str, value: Any, marks: tuple[Any, ...], stage: Stage, shapes: Mapping[str, Model | ImportedModel]
) -> None:
  """Refuses a stage whose model has another shape than the one of the stage that reads it, where both must have one."""
  if "stage" not in marks or ANY_SHAPE in marks:
    return
  shape = shapes.get(split_step(value)[0], stage.model)
  if shape == stage.model:
    return
  here, there = ({"path": ""} | dataclasses.asdict(shape) for shape in (stage.model, shape))
  differs = ", ".join(
    f"{key}={there.get(key)!r} there, {here.get(key)!r} here"
    for key in sorted({*here, *there})
    if here.get(key) != there.get(key)
  )
  raise ConfigError(
    f"config.{where} is {value!r}, whose model has another shape ({differs}): give config.models the same for both"
  )


def _check_kept(where: str, value: Any, marks: tuple[Any, ...], stage: Stage, makers: Mapping[str, Any]) -> None:
  """Refuses "NAME@STEP" where stage NAME has not kept the checkpoint of that step, or will not. makers: {stage: its
  config}."""
  name, step = split_step(value) if "stage" in marks else ("", None)
  if step is None:
    return
  directory = stage.directory_of(value)
  kept: list[int] | None = None
  if (directory / "done.json").exists():
    kept = stored_steps(directory / "checkpoints")
  elif name in makers:
    kept = _kept_steps(makers[name])
  if kept is not None and step not in kept:
    told = f"the checkpoints of steps {', '.join(map(str, kept))}" if kept else "no checkpoint"
    raise ConfigError(
      f"config.{where} is {value!r}, and {name} keeps {told}: set config.{name}.checkpoint_every and loop.keep there"
    )


def _kept_steps(config: Any) -> list[int] | None:
  """The steps whose checkpoints a stage keeps; None where that is not known before it has run."""
  settings = vars(config)
  loop = settings.get("loop", Loop())
  if not {"num_steps", "checkpoint_every"} <= settings.keys() or loop.keep_best or loop.keep_minutes:
    return None
  last, every = settings["num_steps"], settings["checkpoint_every"]
  return sorted({*range(every, last, every), last})[-loop.keep :]


@contextlib.contextmanager
def _named(key: str) -> Iterator[None]:
  """Names the key of the config in a mistake."""
  try:
    yield
  except ConfigError:
    raise
  except (ValueError, ImportError) as error:
    raise ConfigError(f"{key}: {error}") from error


def _vocab_size(stage: Stage, steps: Sequence[Step]) -> int | None:
  """The size of the vocabulary; None where its tokenizer does not exist yet, and no stage of this run says its size."""
  if not stage.tokenizer or "{model}" in stage.tokenizer:
    return None
  trained = [step for step in steps if stage.tokenizer.startswith(f"{{run}}/{step.stage.name}/")]
  if trained:
    return vars(trained[0].config).get("vocab_size")
  path = stage.path(stage.tokenizer)
  if stage.tokenizer.startswith("{run}/") and not path.exists():
    return None  # a stage of a later run trains it
  with _named("config.tokenizer"):
    return data.load_tokenizer(path).vocab_size


def _model(stage: Stage, vocab_size: int) -> LanguageModel | None:
  """The run's model, which computes nothing yet; None for a published model that is not on this disk, or whose
  tokenizer is not there yet."""
  with _named("config"):
    make_mesh(stage.transport)
  if isinstance(stage.model, Model):
    with _named("config.model"):
      return select_model(DecoderConfig(vocab_size, **dataclasses.asdict(stage.model)), stage.transport)
  is_made_later = stage.tokenizer.startswith("{run}/") and not stage.path(stage.tokenizer).exists()
  if is_made_later or not stage.path(stage.model.path).exists():
    return None
  with _named("config.model.path"):
    return open_workspace(stage)[1]


def _check_disk(root: Path, steps: Sequence[Step], costs: Sequence[Cost]) -> None:
  needed = sum(cost.checkpoint_bytes for cost in costs) - sum(_stored(step.stage.directory) for step in steps)
  place = next(path for path in (root, *root.parents) if path.exists())
  free = shutil.disk_usage(place).free
  if needed > free:
    raise ConfigError(
      f"the checkpoints of config.stages need {size(needed)}, and {place} has {size(free)} free: make room, or choose "
      "another --workdir"
    )


def _stored(directory: Path) -> int:
  """Bytes of the checkpoints that a stage has written already."""
  return sum(path.stat().st_size for path in (directory / "checkpoints").rglob("*") if path.is_file())


def check_references(config: Mapping[str, Any], steps: Sequence[Step], todo: Sequence[Step]) -> None:
  """Raises ConfigError where a stage of `todo`, which is to run, names a stage, file or function that is not there."""
  writes = {step.stage.name: getattr(step.module, "WRITES", None) for step in steps}
  names = [step.stage.name for step in steps]
  for step in todo:
    earlier = names[: names.index(step.stage.name)]
    check_names(step.references, step.stage, {name: writes[name] for name in earlier})
  if config["tokenizer"].startswith("{run}/") and todo:
    # The stage that trains it may come in a later run.
    sections = {key: writes.get(key) for key in config if key not in SHARED}
    check_path("tokenizer", config["tokenizer"], steps[0].stage, sections)
