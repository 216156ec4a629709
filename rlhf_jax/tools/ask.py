"""Questions to the models of a run: a prompt side by side for a reader, or many prompts at once for annotators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from rlhf_jax import data
from rlhf_jax.feedback.collect import Policy
from rlhf_jax.pipeline.finished import FinishedModel, open_run
from rlhf_jax.settings import ConfigError
from rlhf_jax.train import Sampling, encode_prompts, make_sampler
from rlhf_jax.train.stored_arrays import stored_steps

Models = dict[str, Callable[[str, int], str]]
SLOTS = 64  # responses sampled at a time


def open_models(run: Path, temperature: float, max_new_tokens: int) -> Models:
  """Stage name -> `answer(prompt, seed)`, for every finished stage of a run that trained a language model.

  Raises:
    ConfigError: `run` is no run directory, or none of its language models is finished.
  """
  return {found.stage.name: _answerer(found, temperature, max_new_tokens) for found in open_run(run).language_models()}


def open_policies(run: Path, names: Sequence[str], temperature: float, max_new_tokens: int) -> list[Policy]:
  """Samplers of many prompts at once: of the stages `names`, as "STAGE" or "STAGE@STEP", or of the last language model.

  Raises:
    ConfigError: `run` is no run directory, or a name is not that of a finished language model.
    CheckpointError: a stage has no checkpoint of that step.
  """
  opened = open_run(run)
  policies: list[Policy] = []
  sampler = None
  for name in names or [opened.language_model().stage.name]:
    stage, at, step = name.partition("@")
    if not stage or (at and not step.isdecimal()):
      raise ConfigError(f"{name!r} is neither STAGE nor STAGE@STEP, as in {stage or 'sft'}@100")
    found = opened.language_model(stage, int(step) if step else None)
    room = found.model.config.max_length - max_new_tokens
    if sampler is None:  # the stages of a run share model and tokenizer, so that one program serves them all
      settings = Sampling(max_prompt_tokens=room, max_new_tokens=max_new_tokens, temperature=temperature, slots=SLOTS)
      sampler = make_sampler(found.model, found.tokenizer, settings, found.stage.transport, any_shape=True)
    recorded = {"temperature": temperature, "max_new_tokens": max_new_tokens}
    source = {
      "checkpoint": f"{run}/{name}",
      "stage": stage,
      "step": int(step) if step else stored_steps(found.stage.directory / "checkpoints")[-1],
      "fingerprint": found.stage.fingerprint,
      "sampling": recorded,
    }
    policies.append(Policy(_sampler_of_many(sampler, found, room), source))
  return policies


def answer(models: Models, prompt: str, seed: int) -> str:
  """The answers as a table of two columns, a line each; a character that cannot be printed is shown as a dot."""
  width = max(map(len, models))
  lines = []
  for name, ask in models.items():
    lines.append(f"{name:>{width}} | {printable(ask(prompt, seed))}")
  return "\n".join(lines)


def printable(text: str, keep: str = "") -> str:
  """The text with a dot for each character that cannot be printed, but for those in `keep`."""
  return "".join(char if char.isprintable() or char in keep else "·" for char in text)


def _answerer(found: FinishedModel, temperature: float, max_new_tokens: int) -> Callable[[str, int], str]:
  room = found.model.config.max_length - max_new_tokens
  settings = Sampling(max_prompt_tokens=room, max_new_tokens=max_new_tokens, temperature=temperature)
  sample = make_sampler(found.model, found.tokenizer, settings, found.stage.transport, any_shape=True)

  def ask(prompt: str, seed: int) -> str:
    asked = data.prompt_of({"prompt": prompt}, "the prompt")
    batch = encode_prompts([asked], found.tokenizer, room, "the prompt").narrow().take([0])[1]
    return sample(found.policy, batch, jax.random.key(seed))[1][0]

  return ask


def _sampler_of_many(
  sampler, found: FinishedModel, room: int
) -> Callable[[Sequence[data.Prompt], int, int], list[list[str]]]:
  def sample(prompts: Sequence[data.Prompt], count: int, seed: int) -> list[list[str]]:
    encoded = encode_prompts(prompts, found.tokenizer, room, "the prompts").narrow()
    batch = encoded.take(range(len(encoded.texts)))[1]
    responses = sampler(found.policy, batch, jax.random.key(seed), count)[1]
    of = {text: responses[i * count : (i + 1) * count] for i, text in enumerate(encoded.texts)}
    return [of.get(prompt, []) for prompt in prompts]

  return sample
