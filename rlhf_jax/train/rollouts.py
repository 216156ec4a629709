"""From prompts to sampled responses as text: the compiled sampler and its host side."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.models import LanguageModel
from rlhf_jax.sampling import generate
from rlhf_jax.stage import Transport
from rlhf_jax.train.population import jit
from rlhf_jax.train.progress import console
from rlhf_jax.train.update import batch_sharding, make_mesh
from rlhf_jax.types import Params, Prompts, Rollout


@dataclasses.dataclass(frozen=True)
class Sampling:
  """max_prompt_tokens: longer prompts are skipped, and counted. max_new_tokens: of the response, EOS included."""

  max_prompt_tokens: int
  max_new_tokens: int
  temperature: float

  def __post_init__(self):
    if self.temperature < 0 or self.max_new_tokens < 1:
      raise ValueError(f"temperature={self.temperature} must be >= 0 and max_new_tokens={self.max_new_tokens} >= 1")


@dataclasses.dataclass(frozen=True)
class PromptSet:
  """Tokenised prompts beside their texts: tokens i32[N, P], lengths i32[N]."""

  texts: list[str]
  tokens: np.ndarray
  lengths: np.ndarray

  def take(self, rows: Sequence[int]) -> tuple[list[str], Prompts]:
    """The texts and the arrays of the given rows."""
    rows = np.asarray(rows)
    return [self.texts[row] for row in rows], Prompts(self.tokens[rows], self.lengths[rows])


Sampler = Callable[[Params, Prompts, jax.Array], tuple[Rollout, list[str]]]


def encode_prompts(texts: Sequence[str], tokenizer: data.Tokenizer, max_prompt_tokens: int, what: str) -> PromptSet:
  """Tokenises prompts; those that are too long are skipped and reported under the name `what`.

  Raises:
    data.DataError: where none is left.
  """
  arrays, kept, skips = data.prompt_rows(tokenizer, texts, max_prompt_tokens)
  report_skips(what, skips, len(texts))
  if not kept:
    raise data.DataError(f"{what}: no prompt fits in max_prompt_tokens={max_prompt_tokens}")
  return PromptSet([texts[i] for i in kept], arrays["tokens"], arrays["lengths"])


def load_prompts(path: Path, tokenizer: data.Tokenizer, max_prompt_tokens: int) -> PromptSet:
  """The prompts of a file. Raises data.DataError where it has none that fits."""
  texts, skips = data.read_prompts(path)
  report_skips(str(path), skips, len(texts) + sum(skips.values()))
  return encode_prompts(texts, tokenizer, max_prompt_tokens, str(path))


def make_sampler(
  model: LanguageModel, tokenizer: data.Tokenizer, settings: Sampling, transport: Transport
) -> Sampler:
  """`sample(params, prompts, key) -> (rollout, responses)`, compiled once per shape and spread over all devices.

  Raises:
    ValueError: where prompt and response together do not fit the model.
  """
  width = settings.max_prompt_tokens + settings.max_new_tokens
  if width > model.config.max_length:
    raise ValueError(
      f"max_prompt_tokens + max_new_tokens = {width} exceeds model.max_length = {model.config.max_length}"
    )
  mesh = make_mesh(transport)
  compiled = _compiled_sampler(
    model, settings.max_new_tokens, settings.temperature, tokenizer.eos_id, tokenizer.pad_id
  )

  def sample(params, prompts, key):
    if prompts.tokens.shape[0] % mesh.size == 0:
      prompts = jax.device_put(prompts, batch_sharding(mesh))
    rollout = compiled(params, prompts, key)
    return rollout, decode(tokenizer, rollout)

  return sample


@functools.lru_cache(maxsize=8)
def _compiled_sampler(model: LanguageModel, max_new_tokens: int, temperature: float, eos_id: int, pad_id: int):
  """One jitted function for all stages of a process that sample alike: it compiles once for each shape of batch."""

  @jit
  def compiled(params, prompts, key):
    return generate(
      model,
      params,
      prompts,
      key,
      max_new_tokens=max_new_tokens,
      temperature=temperature,
      eos_id=eos_id,
      pad_id=pad_id,
    )

  return compiled


def decode(tokenizer: data.Tokenizer, rollout: Rollout) -> list[str]:
  """The responses as text, control tokens and surrounding white space removed."""
  tokens, mask = np.asarray(rollout.tokens), np.asarray(rollout.mask)
  return [tokenizer.decode(row[keep].tolist()).strip() for row, keep in zip(tokens, mask, strict=True)]


def report_skips(where: str, skips, total: int) -> None:
  """Says what was left out and why; nothing is dropped silently."""
  for reason, count in sorted(skips.items()):
    console.print(f"{where}: skipped {count} of {total} rows: {reason}", markup=False)
