"""The finished stages of a run and their models, opened for use after training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rlhf_jax import data
from rlhf_jax.data.files import read_json
from rlhf_jax.models import LanguageModel
from rlhf_jax.pipeline.plan import parse_shared
from rlhf_jax.settings import ConfigError, nearest
from rlhf_jax.stage import Stage
from rlhf_jax.train import load_stage, open_workspace, policy_of
from rlhf_jax.types import Params


@dataclasses.dataclass(frozen=True)
class FinishedModel:
  """The model that a stage trained; `params` may be {"policy", "value"}, or have a head, of a reward model."""

  stage: Stage
  model: LanguageModel
  tokenizer: data.Tokenizer
  params: Params

  @property
  def is_language_model(self) -> bool:
    """Whether the stage trained a language model (alone or with a value function), and not a reward model."""
    return "policy" in self.params or "head" not in self.params

  @property
  def policy(self) -> Params:
    """The parameters of the language model, adapters included."""
    return policy_of(self.params)


@dataclasses.dataclass(frozen=True)
class FinishedRun:
  """The stages of a run that are done and have checkpoints, by name and in order."""

  directory: Path
  stages: dict[str, Stage]

  def stage(self, name: str) -> Stage:
    """The stage `name`. Raises ConfigError where the run has no such finished model."""
    if name not in self.stages:
      raise ConfigError(f"{self.directory} has no finished model of a stage {name!r}.{nearest(name, self.stages)}")
    return self.stages[name]

  def model(self, name: str, step: int | None = None) -> FinishedModel:
    """The model of stage `name`, from the checkpoint after `step` steps, None for the last one.

    Raises:
      ConfigError: the run has no such finished model.
      CheckpointError: the stage has no checkpoint of that step.
    """
    stage = self.stage(name)
    tokenizer, model = open_workspace(stage)
    return FinishedModel(stage, model, tokenizer, load_stage(stage, name, model, tokenizer, step))

  def language_model(self, name: str = "", step: int | None = None) -> FinishedModel:
    """The language model of stage `name`, "" for the last stage that trained one; `step` as in `model`.

    Raises:
      ConfigError: the stage trained a reward model, or no language model of the run is finished.
    """
    if name:
      found = self.model(name, step)
      if not found.is_language_model:
        raise ConfigError(f"stage {name!r} of {self.directory} is a reward model, which gives no text a probability")
      return found
    for other in reversed(self.stages):
      if (found := self.model(other)).is_language_model:
        return found
    raise ConfigError(f"no language model of {self.directory} is finished yet")

  def language_models(self) -> list[FinishedModel]:
    """Every finished language model, in the order of the stages; there is at least one, else ConfigError."""
    found = [model for model in map(self.model, self.stages) if model.is_language_model]
    if not found:
      raise ConfigError(f"no language model of {self.directory} is finished yet")
    return found


def is_run(directory: Path) -> bool:
  """Whether the directory is that of a run: it may be that of a published model, which has a config.json too."""
  config = directory / "config.json"
  return config.is_file() and "stages" in read_json(config)


def open_run(directory: Path) -> FinishedRun:
  """The finished stages of a run, as they were recorded: an older version of this project may have made it.

  Raises:
    ConfigError: `directory` is no run directory, or its model or transport does not fit this version.
  """
  if not is_run(directory):
    raise ConfigError(f"{directory} is no run directory: it has no config.json with the stages of a run")
  config = read_json(directory / "config.json")
  shapes, transport = parse_shared(config, config["stages"])
  stages: dict[str, Stage] = {}
  for name in config["stages"]:
    done = directory / name / "done.json"
    if done.exists() and (directory / name / "checkpoints").is_dir():
      seed = config.get("seeds", {}).get(name, config["seed"])
      fingerprint = read_json(done)["fingerprint"]
      stages[name] = Stage(name, directory.absolute(), seed, config["tokenizer"], shapes[name], transport, fingerprint)
  return FinishedRun(directory, stages)
