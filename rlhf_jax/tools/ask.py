"""Ask the models of a run: a prompt side by side for a reader, or many prompts at once for annotators."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from rlhf_jax.feedback.collect import Policy
from rlhf_jax.pipeline.run import plan
from rlhf_jax.settings import ConfigError, nearest
from rlhf_jax.stage import Stage
from rlhf_jax.train import Sampling, encode_prompts, load_stage, make_sampler, open_workspace, policy_of

Models = dict[str, Callable[[str, int], str]]
SLOTS = 64  # responses sampled at a time


def open_run(run: Path, temperature: float, max_new_tokens: int) -> Models:
  """Stage name -> `answer(prompt, seed)`, for every finished stage of a run that trained a language model.

  Raises:
    ConfigError: where `run` is no run directory, or none of its language models is finished.
  """
  models = {}
  for stage in _finished(run):
    loaded = _load(stage, None)
    if loaded is not None:
      models[stage.name] = _asker(stage, *loaded, temperature, max_new_tokens)
  if not models:
    raise ConfigError(f"no language model of {run} is finished yet")
  return models


def open_policies(run: Path, names: Sequence[str], temperature: float, max_new_tokens: int) -> list[Policy]:
  """Samplers of many prompts at once: of the stages `names`, as "STAGE" or "STAGE@STEP", or of the last language model.

  Raises:
    ConfigError: where `run` is no run directory, or a name is of no finished language model.
    CheckpointError: where a stage has no checkpoint of that step.
  """
  stages = {stage.name: stage for stage in _finished(run)}
  names = names or [next((name for name in reversed(stages) if _load(stages[name], None)), "")]
  policies, sampler = [], None
  for name in names:
    stage_name, _, step = name.partition("@")
    if stage_name not in stages or not (step.isdecimal() or "@" not in name):
      raise ConfigError(f"{name!r} is no finished stage (or STAGE@STEP) of {run}.{nearest(stage_name, stages)}")
    loaded = _load(stages[stage_name], int(step) if step else None)
    if loaded is None:
      raise ConfigError(f"stage {stage_name!r} of {run} trained a reward model, which has nothing to say")
    model, tokenizer, params = loaded
    settings = Sampling(model.config.max_length - max_new_tokens, max_new_tokens, temperature, slots=SLOTS)
    if sampler is None:  # the stages of a run share model and tokenizer, so that one program serves them all
      sampler = make_sampler(model, tokenizer, settings, stages[stage_name].transport, any_shape=True)
    recorded = {"temperature": temperature, "max_new_tokens": max_new_tokens}
    source = {"checkpoint": f"{run}/{name}", "fingerprint": stages[stage_name].fingerprint, "sampling": recorded}
    policies.append(Policy(_many(sampler, tokenizer, params, settings.max_prompt_tokens), source))
  return policies


def answer(models: Models, prompt: str, seed: int) -> str:
  """The answers as a table of two columns, a line each; what cannot be printed in a line is shown as a dot."""
  width = max(map(len, models))
  lines = []
  for name, ask in models.items():
    text = "".join(char if char.isprintable() else "·" for char in ask(prompt, seed))
    lines.append(f"{name:>{width}} | {text}")
  return "\n".join(lines)


def _finished(run: Path) -> list[Stage]:
  """The finished stages of a run that have checkpoints."""
  if not (run / "config.json").is_file():
    raise ConfigError(f"{run} is no run directory: it has no config.json")
  stages = [step.stage for step in plan(json.loads((run / "config.json").read_text()), run.absolute())]
  directories = ((stage, stage.directory) for stage in stages)
  return [stage for stage, path in directories if (path / "done.json").exists() and (path / "checkpoints").is_dir()]


def _load(stage: Stage, step: int | None) -> tuple | None:
  """(model, tokenizer, params) of the language model of a stage; None of a reward model."""
  tokenizer, model = open_workspace(stage)
  params = load_stage(stage, stage.name, model, tokenizer, step)
  if "head" in params and "policy" not in params:
    return None
  return model, tokenizer, policy_of(params)


def _asker(stage, model, tokenizer, params, temperature, max_new_tokens):
  room = model.config.max_length - max_new_tokens
  sample = make_sampler(model, tokenizer, Sampling(room, max_new_tokens, temperature), stage.transport, any_shape=True)

  def ask(prompt, seed):
    batch = encode_prompts([prompt], tokenizer, room, "the prompt").narrow().take([0])[1]
    return sample(params, batch, jax.random.key(seed))[1][0]

  return ask


def _many(sampler, tokenizer, params, room):
  def sample(prompts, count, seed):
    found = encode_prompts(prompts, tokenizer, room, "the prompts").narrow()
    batch = found.take(range(len(found.texts)))[1]
    responses = sampler(params, batch, jax.random.key(seed), count)[1]
    of = {text: responses[i * count : (i + 1) * count] for i, text in enumerate(found.texts)}
    return [of.get(prompt, []) for prompt in prompts]

  return sample
