"""A model of a run as a directory that transformers, vLLM and this project read."""

from __future__ import annotations

from pathlib import Path

from rlhf_jax import data
from rlhf_jax.models import fold_lora
from rlhf_jax.models.hub import FileDtype, export_adapters, export_model
from rlhf_jax.pipeline.finished import FinishedModel, open_run
from rlhf_jax.pipeline.old_names import current_names
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import ImportedModel
from rlhf_jax.train.parameters import base_identity


def export_run(run: Path, directory: Path, name: str = "", adapters: bool = False, dtype: FileDtype = "float32") -> str:
  """Writes the model of stage `name` of the run, by default the last policy, and returns the stage's name.

  A reward model becomes a sequence classifier of one label; of a policy trained with a value function, the policy is
  written.

  Args:
    adapters: whether those of a policy are written alone, as PEFT reads them; otherwise they are merged, in float32.
    dtype: the dtype of the files, to which the parameters are rounded.

  Raises:
    ConfigError: `run` is no run directory, the stage has no model or no adapters, or `directory` holds something.
  """
  opened = open_run(run)
  if directory.exists() and any(directory.iterdir()):
    raise ConfigError(f"{directory} is not empty: choose another directory")
  found = opened.model(name) if name else opened.language_model()
  if adapters:
    _export_adapters(found, directory, dtype)
  else:
    tokenizer = found.tokenizer
    ends = tokenizer.eos_id if tokenizer.end_ids == (tokenizer.eos_id,) else [*tokenizer.end_ids]
    ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": ends}
    params = found.policy if found.is_language_model else found.params
    export_model(directory, found.model.config, fold_lora(params), ids, dtype)
    data.export_tokenizer(tokenizer, directory)
  return found.stage.name


def _export_adapters(found: FinishedModel, directory: Path, dtype: FileDtype) -> None:
  stage = found.stage
  if not found.is_language_model:
    raise ConfigError(f"the adapters of {stage.name} belong to a reward model, whose head they need: export it merged")
  if "lora" not in found.policy:
    raise ConfigError(f"stage {stage.name!r} was trained without adapters: leave --adapters out")
  base = stage.directory / base_identity(found.policy, stage)["base"][""]["checkpoint"]
  given = current_names(data.read_json(base.parents[1] / "config.json"))
  path = ""  # of a base that is published, and not trained here
  if isinstance(stage.model, ImportedModel) and given["algorithm"] == "rlhf_jax.stages.import_model":
    path = stage.model.path
  export_adapters(directory, found.model.config, found.policy, path, dtype)
