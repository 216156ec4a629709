"""A language model wherever it is: of a run, or a published one in a directory, a GGUF file or on the hub."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rlhf_jax import data
from rlhf_jax.models import LanguageModel, language_model
from rlhf_jax.models.hub import load_pretrained, open_pretrained
from rlhf_jax.pipeline.finished import FinishedRun, is_run, open_run
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import Transport
from rlhf_jax.train import open_workspace, policy_of
from rlhf_jax.train.mesh import make_mesh, shardings
from rlhf_jax.types import Params


class AnyModel(NamedTuple):
  """A language model whose weights have not been read yet, so that mistakes are found before they are."""

  name: str
  """Name of a stage, or the path of a published model."""
  model: LanguageModel
  tokenizer: data.Tokenizer
  transport: Transport
  load: Callable[[], Params]
  """Function that reads the weights and places them as the transport says."""


def open_models(path: Path, stages: Sequence[str] = ()) -> list[AnyModel]:
  """The models of stages of a run, () for the last that trained a language model; or the published model at `path`.

  Raises:
    ConfigError: the run has no such finished stage, or stages are asked of a published model; when loaded, the model is
      a reward model.
    UnsupportedModelError: there is no model at `path`, or it cannot be represented.
  """
  if not is_run(path):
    if stages:
      raise ConfigError(f"{path} is no run, and has no stage {stages[0]!r}: leave the stage out, or name a run")
    return [_published(path)]
  run = open_run(path)
  if not stages:
    last = run.language_model()
    return [AnyModel(last.stage.name, last.model, last.tokenizer, last.stage.transport, lambda: last.policy)]
  found = [run.stage(name) for name in stages]
  tokenizer, model = open_workspace(found[0])  # the stages of a run share them
  return [
    AnyModel(stage.name, model, tokenizer, stage.transport, functools.partial(_policy, run, stage.name))
    for stage in found
  ]


def _policy(run: FinishedRun, name: str) -> Params:
  return run.language_model(name).policy


def _published(path: Path) -> AnyModel:
  opened = open_pretrained(path)
  tokenizer = data.load_tokenizer(opened.path)
  unused = data.ids_without_token(tokenizer, opened.config.vocab_size)
  transport = Transport("jit", fsdp=1, microbatches=1)
  model = language_model(dataclasses.replace(opened.config, ids_without_token=unused))

  def load() -> Params:
    params = policy_of(load_pretrained(opened, functools.partial(shardings, make_mesh(transport))))
    if not (opened.config.tied or "unembedding" in params["decoder"]):
      raise ConfigError(f"{path} is a classifier without an output matrix, which gives no text a probability")
    return params

  return AnyModel(str(path), model, tokenizer, transport, load)
