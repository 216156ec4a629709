"""A model of a run as a directory that transformers, vLLM and this project read."""

from __future__ import annotations

import json
from pathlib import Path

from rlhf_jax import data
from rlhf_jax.models import export_model
from rlhf_jax.pipeline import Step, plan
from rlhf_jax.settings import ConfigError, nearest
from rlhf_jax.train import load_stage, open_workspace


def export_run(run: Path, directory: Path, name: str = "") -> str:
  """Writes the model of stage `name` of the run, by default the last policy, and returns the stage's name.

  A reward model becomes a sequence classifier of one label; of a policy trained with a value function, the policy is
  written.

  Raises:
    ConfigError: `run` is no run directory, the stage has no model, or `directory` holds something already.
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
      ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
      policy = {"decoder": params["policy"]["decoder"]} if "policy" in params else params
      export_model(directory, model.config, policy, ids)
      data.export_tokenizer(tokenizer, directory)
      return step.stage.name
  raise ConfigError(f"no language model of {run} is finished yet")


def _has_model(step: Step) -> bool:
  directory = step.stage.directory
  return (directory / "done.json").exists() and (directory / "checkpoints").is_dir()
