"""Ask the models of a run: the base, the SFT and the final model answer the same prompt side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jax

from rlhf_jax.pipeline import plan
from rlhf_jax.settings import ConfigError
from rlhf_jax.train import Sampling, encode_prompts, load_policy, make_sampler, open_workspace

Models = dict[str, Callable[[str, int], str]]


def open_run(run: Path, temperature: float, max_new_tokens: int) -> Models:
  """Stage name -> `answer(prompt, seed)`, for every finished stage of a run that trained a language model.

  Raises:
    ConfigError: where `run` is no run directory, or none of its language models is finished.
  """
  if not (run / "config.json").is_file():
    raise ConfigError(f"{run} is no run directory: it has no config.json")
  config = json.loads((run / "config.json").read_text())
  models = {}
  for step in plan(config, run.absolute()):
    kind = step.given["algorithm"].removesuffix(".py").replace("/", ".").rsplit(".", 1)[-1]
    if kind == "reward_model" or not (step.stage.directory / "checkpoints").is_dir():
      continue
    if (step.stage.directory / "done.json").exists():
      models[step.stage.name] = _open_model(step.stage, temperature, max_new_tokens)
  if not models:
    raise ConfigError(f"no language model of {run} is finished yet")
  return models


def answer(models: Models, prompt: str, seed: int) -> str:
  """The answers as a table of two columns."""
  width = max(map(len, models))
  return "\n".join(f"{name:>{width}} | {ask(prompt, seed)}" for name, ask in models.items())


def _open_model(stage, temperature, max_new_tokens):
  tokenizer, model = open_workspace(stage)
  params = load_policy(stage, stage.name, model, tokenizer)
  room = model.config.max_length - max_new_tokens
  sample = make_sampler(model, tokenizer, Sampling(room, max_new_tokens, temperature), stage.transport)

  def ask(prompt, seed):
    batch = encode_prompts([prompt], tokenizer, room, "the prompt").take([0])[1]
    return sample(params, batch, jax.random.key(seed))[1][0]

  return ask
