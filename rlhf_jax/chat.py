"""Ask the models of a run: the base, the SFT and the final model answer the same prompt side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jax

from rlhf_jax import data
from rlhf_jax.pipeline import plan
from rlhf_jax.settings import ConfigError
from rlhf_jax.train import Sampling, encode_prompts, load_stage, make_sampler, open_workspace

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
    directory = step.stage.directory
    if (directory / "done.json").exists() and (directory / "checkpoints").is_dir():
      tokenizer, model = open_workspace(step.stage)
      params = load_stage(step.stage, step.stage.name, model, tokenizer)
      if "policy" in params or "head" not in params:  # a head and no policy: a reward model, which has nothing to say
        decoder = {"decoder": params.get("policy", params)["decoder"]}
        models[step.stage.name] = _asker(step.stage, model, tokenizer, decoder, temperature, max_new_tokens)
  if not models:
    raise ConfigError(f"no language model of {run} is finished yet")
  return models


def answer(models: Models, prompt: str, seed: int) -> str:
  """The answers as a table of two columns, a line each; what cannot be printed in a line is shown as a dot."""
  width = max(map(len, models))
  lines = []
  for name, ask in models.items():
    text = "".join(char if char.isprintable() else "·" for char in ask(prompt, seed))
    lines.append(f"{name:>{width}} | {text}")
  return "\n".join(lines)


def _asker(stage, model, tokenizer, params, temperature, max_new_tokens):
  room = model.config.max_length - max_new_tokens
  sample = make_sampler(model, tokenizer, Sampling(room, max_new_tokens, temperature), stage.transport)

  def ask(prompt, seed):
    # Wide enough in powers of two, which bounds the compilations: a published model's own length can be 100,000.
    width = min(room, max(32, 1 << (len(data.prompt_ids(tokenizer, prompt)) - 1).bit_length()))
    batch = encode_prompts([prompt], tokenizer, width, "the prompt").take([0])[1]
    return sample(params, batch, jax.random.key(seed))[1][0]

  return ask
