"""A model of a run as a directory that transformers, vLLM and this project read."""

from __future__ import annotations

import json
from pathlib import Path

from rlhf_jax import data
from rlhf_jax.models import fold_lora
from rlhf_jax.models.hub import export_adapters, export_model
from rlhf_jax.pipeline.run import Step, plan
from rlhf_jax.settings import ConfigError, nearest
from rlhf_jax.stage import ImportedModel, Stage
from rlhf_jax.train import load_stage, open_workspace, policy_of
from rlhf_jax.train.checkpoint import base_identity


def export_run(run: Path, directory: Path, name: str = "", adapters: bool = False) -> str:
  """Writes the model of stage `name` of the run, by default the last policy, and returns the stage's name.

  A reward model becomes a sequence classifier of one label; of a policy trained with a value function, the policy is
  written. adapters: those of a policy alone, as PEFT reads them; otherwise they are merged.

  Raises:
    ConfigError: `run` is no run directory, the stage has no model or no adapters, or `directory` holds something.
  """
  if not (run / "config.json").is_file():
    raise ConfigError(f"{run} is no run directory: it has no config.json")
  if directory.exists() and any(directory.iterdir()):
    raise ConfigError(f"{directory} is not empty: choose another directory")
  steps = [step for step in plan(json.loads((run / "config.json").read_text()), run.absolute()) if _has_model(step)]
  names = [step.stage.name for step in steps]
  if name and name not in names:
    raise ConfigError(f"{run} has no finished model of a stage {name!r}.{nearest(name, names)}")
  for step in reversed(steps):
    if name and name != step.stage.name:
      continue
    tokenizer, model = open_workspace(step.stage)
    params = load_stage(step.stage, step.stage.name, model, tokenizer)
    if "policy" in params or "head" not in params or name:
      if adapters:
        return _export_adapters(step.stage, directory, model, params)
      ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
      policy = policy_of(params) if "policy" in params else params
      export_model(directory, model.config, fold_lora(policy), ids)
      data.export_tokenizer(tokenizer, directory)
      return step.stage.name
  raise ConfigError(f"no language model of {run} is finished yet")


def _export_adapters(stage: Stage, directory: Path, model, params) -> str:
  if "policy" not in params and "head" in params:
    raise ConfigError(f"the adapters of {stage.name} belong to a reward model, whose head they need: export it merged")
  policy = policy_of(params)
  if "lora" not in policy:
    raise ConfigError(f"stage {stage.name!r} was trained without adapters: leave --adapters out")
  base = stage.directory / base_identity(policy, stage)["base"][""]["checkpoint"]
  given = json.loads((base.parents[1] / "config.json").read_text())
  published = isinstance(stage.model, ImportedModel) and given["algorithm"] == "rlhf_jax.stages.import_model"
  export_adapters(directory, model.config, policy, stage.model.path if published else "")
  return stage.name


def _has_model(step: Step) -> bool:
  directory = step.stage.directory
  return (directory / "done.json").exists() and (directory / "checkpoints").is_dir()
