"""`rlhf-jax compile`: every program of every stage of a config, for chips that are not there."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.data.files import write_bytes, write_json
from rlhf_jax.models import DecoderConfig, LanguageModel
from rlhf_jax.pipeline.plan import Step, parse_shared, plan
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import ImportedModel, Model, Stage, Transport
from rlhf_jax.tools.compile import roofline
from rlhf_jax.tools.compile.chips import Target
from rlhf_jax.tools.compile.counts import kept
from rlhf_jax.tools.compile.program import bytes_on_chip, compiled, traced
from rlhf_jax.tools.compile.report import Report, as_html, as_json
from rlhf_jax.tools.compile.search import Candidate, Estimate, candidates, search, words
from rlhf_jax.tools.compile.stages import StagePrograms, programs_of
from rlhf_jax.train.environment import PolicyConfig
from rlhf_jax.train.mesh import make_mesh, using_devices
from rlhf_jax.train.workspace import select_model

Tell = Callable[[str], None]


def compile_config(config: Mapping[str, Any], name: str, target: Target, only: Sequence[str], tell: Tell) -> Report:
  """Compiles all programs of the stages of a config, or of those named in `only`.

  Raises:
    ConfigError: a mistake of the config, a stage in `only` that it does not have, or no stage that learns.
  """
  steps = _steps(config, only)
  figures, skipped = [], {}
  with using_devices(target.devices):
    mesh = _named(lambda: make_mesh(steps[0].stage.transport))
    for step in steps:
      found = _programs(step, config)
      if found is None:
        skipped[step.stage.name] = "runs no program of its own to compile"
        continue
      for program in found.programs:
        start = time.perf_counter()
        figures.append(compiled(step.stage.name, program, target, _held(found, program)))
        tell(f"{step.stage.name}/{program.name}: {time.perf_counter() - start:.0f} s")
  if not figures:
    raise ConfigError(f"no stage of config.stages {tuple(only or config['stages'])} learns, so there is no program")
  versions = f"jax {importlib.metadata.version('jax')}, libtpu {importlib.metadata.version('libtpu')}"
  return Report(name, target, dict(mesh.shape), figures, skipped, versions)


def search_config(
  config: Mapping[str, Any], name: str, target: Target, only: Sequence[str], best: int, tell: Tell
) -> tuple[str, Report]:
  """(overrides of config.transport, the report with them): the fastest use of the chips by prediction that fits.

  All mesh shapes, microbatches, remat and logits_chunk are estimated, and the `best` fastest ones are compiled, until
  one fits.

  Raises:
    ConfigError: none of them fits, or see `compile_config`.
  """
  steps = _steps(config, only)
  transport = steps[0].stage.transport
  estimates: dict[tuple[int, str, int], Estimate] = {}

  def estimate(choice: Transport) -> Candidate:
    """By one trace for each tensor, remat and logits_chunk, scaled to fsdp and to the microbatches."""
    key = (choice.tensor, choice.remat, choice.logits_chunk)
    whole = len(target.devices) // target.slices // choice.tensor
    if key not in estimates:
      first = dataclasses.replace(choice, fsdp=whole, microbatches=1)
      estimates[key] = _estimate(_changed(config, first), only, target)
    at = estimates[key]
    size = at.state * whole / choice.fsdp + max(at.activations / choice.microbatches, at.serving)
    return Candidate(choice, max(at.seconds, at.links * choice.microbatches), size)

  def compile_one(choice: Transport) -> tuple[bool, Any]:
    report = compile_config(_changed(config, choice), name, target, only, tell)
    return report.fits, report

  least = min(_rows(step) for step in steps)
  found = search(candidates(transport, target, least), estimate, compile_one, target.chip.hbm, best, tell)
  if found is None:
    raise ConfigError(f"none of the {best} best uses of {target.name} fits: take more chips, or a smaller batch")
  return words(found[0]), found[1]


def write(report: Report, path: Path) -> None:
  """Writes PATH.json and PATH.html."""
  path.parent.mkdir(parents=True, exist_ok=True)
  write_json(path.with_suffix(".json"), as_json(report))
  write_bytes(path.with_suffix(".html"), as_html(report).encode())


def _steps(config: Mapping[str, Any], only: Sequence[str]) -> list[Step]:
  steps = plan(config, Path("run"))
  unknown = set(only) - {step.stage.name for step in steps}
  if unknown:
    raise ConfigError(f"--stages {sorted(unknown)[0]}: config.stages has no such stage, only {tuple(config['stages'])}")
  return [step for step in steps if not only or step.stage.name in only]


def _programs(step: Step, config: Mapping[str, Any]) -> StagePrograms | None:
  return _named(lambda: programs_of(step, _model(step.stage, config), _judge(step, config)))


def _judge(step: Step, config: Mapping[str, Any]) -> LanguageModel | None:
  """The model of a stage's reward, where it is a stage of the config that has another shape."""
  name = step.config.environment.reward.checkpoint if isinstance(step.config, PolicyConfig) else ""
  if name not in config:
    return None
  shapes, _ = parse_shared(config, [name])
  return _model(dataclasses.replace(step.stage, model=shapes[name]), config)


def _named(make: Callable[[], Any]) -> Any:
  try:
    return make()
  except ConfigError:
    raise
  except ValueError as error:
    raise ConfigError(f"config: {error}") from error


def _model(stage: Stage, config: Mapping[str, Any]) -> LanguageModel:
  if isinstance(stage.model, ImportedModel):
    from rlhf_jax.models.hub import open_pretrained

    opened = open_pretrained(stage.path(stage.model.path))
    return select_model(dataclasses.replace(opened.config, dtype=stage.model.dtype), stage.transport)
  assert isinstance(stage.model, Model)
  return select_model(DecoderConfig(_vocab_size(stage, config), **dataclasses.asdict(stage.model)), stage.transport)


def _vocab_size(stage: Stage, config: Mapping[str, Any]) -> int:
  """That of the stage which trains the tokenizer, whether it is in config.stages or not, or of the tokenizer's file."""
  trained = [
    section["vocab_size"]
    for name, section in config.items()
    if stage.tokenizer.startswith(f"{{run}}/{name}/") and "vocab_size" in section
  ]
  if trained:
    return trained[0]
  if stage.tokenizer.startswith("{run}/"):
    raise ConfigError(f"config.tokenizer is {stage.tokenizer}, and no section of the config says its vocab_size")
  from rlhf_jax import data

  return data.load_tokenizer(stage.path(stage.tokenizer)).vocab_size


def _held(found: StagePrograms, program: Any) -> float:
  return sum(bytes_on_chip(tree) for name, tree in found.resident.items() if name not in program.weights)


def _changed(config: Mapping[str, Any], transport: Transport) -> dict[str, Any]:
  return {**config, "transport": dataclasses.asdict(transport)}


def _rows(step: Step) -> int:
  """Rows of one update; as many as there may be for a stage that learns nothing."""
  settings = vars(step.config)
  if "environment" in settings:
    environment = settings["environment"]
    return environment.batch_size * environment.samples_per_prompt // settings.get("minibatches", 1)
  return settings["batch_size"] if "optimizer" in settings else sys.maxsize


def _estimate(config: Mapping[str, Any], only: Sequence[str], target: Target) -> Estimate:
  """Of one step of all stages together."""
  seconds = links = activations = state = serving = 0.0
  with using_devices(target.devices):
    for step in _steps(config, only):
      found = _programs(step, config)
      for program in found.programs if found else ():
        trace, counts, _ = traced(program, len(target.devices))
        at = roofline.times(counts, target.chip, partitioned=program.partitioned, slices=target.slices)
        seconds += program.calls * (at.compute + at.memory)
        links += program.calls * at.interconnect
        largest = max((size for _, size, _ in counts.products), default=0.0)  # as a rule that of the logits
        activations = max(activations, kept(trace.jaxpr, len(target.devices)) + 2 * largest)
        serving = max(serving, bytes_on_chip(program.weights.get("serving copy", ())))
      if found:
        state = max(state, sum(bytes_on_chip(tree) for tree in found.resident.values()))
  return Estimate(seconds, links, activations, state, serving)
