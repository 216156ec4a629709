"""Stage: import a published model, `config.model = dict(path=...)`, as a checkpoint of this run.

Later stages start from the checkpoint by the stage's name, and evaluations compare with it. A sequence classifier of
one label becomes a reward model, to be named as `reward.checkpoint`.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from rlhf_jax.stage import Stage
from rlhf_jax.train import identity, load_imported, open_workspace
from rlhf_jax.train.checkpoint import open_checkpoints, save
from rlhf_jax.types import TrainState


@dataclasses.dataclass(frozen=True)
class Config:
  """The stage has no further settings."""

  algorithm: str
  """Module that carries out the stage."""


def run(config: Config, stage: Stage) -> None:
  """Reads the weights and saves them. Raises UnsupportedModelError for a model that cannot be represented."""
  tokenizer, model = open_workspace(stage)
  state = TrainState(jnp.zeros((), jnp.int32), load_imported(stage), (), ())
  with open_checkpoints(stage.directory / "checkpoints") as checkpoints:
    save(checkpoints, state, identity(stage, model, tokenizer))
