"""Tokenised prompts of a file, for sampling."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rlhf_jax import data
from rlhf_jax.train.progress import report_skips
from rlhf_jax.types import Prompts


@dataclasses.dataclass(frozen=True)
class PromptSet:
  """N prompts as texts and as tokens."""

  texts: list[str]
  """Texts of the prompts."""
  tokens: np.ndarray
  """Tokens i32[N, P], padded at the end."""
  lengths: np.ndarray
  """Numbers of tokens before the padding, i32[N]."""

  def take(self, rows: Sequence[int] | np.ndarray) -> tuple[list[str], Prompts]:
    """The texts and the arrays of the given rows."""
    rows = np.asarray(rows)
    return [self.texts[row] for row in rows], Prompts(self.tokens[rows], self.lengths[rows])

  def narrow(self) -> PromptSet:
    """The same prompts, padded to the longest only: P may be the 100,000 tokens that a published model allows."""
    return dataclasses.replace(self, tokens=self.tokens[:, : self.lengths.max()])


def encode_prompts(texts: Sequence[str], tokenizer: data.Tokenizer, max_prompt_tokens: int, what: str) -> PromptSet:
  """Tokenises prompts. Prompts of more than `max_prompt_tokens` tokens are skipped; the report names them `what`.

  Raises:
    data.DataError: no prompt fits.
  """
  arrays, kept, skips = data.prompt_rows(tokenizer, texts, max_prompt_tokens)
  report_skips(what, skips, len(texts))
  if not kept:
    raise data.DataError(f"{what}: no prompt fits in max_prompt_tokens={max_prompt_tokens}")
  return PromptSet([texts[i] for i in kept], arrays["tokens"], arrays["lengths"])


def load_prompts(path: Path, tokenizer: data.Tokenizer, max_prompt_tokens: int) -> PromptSet:
  """The prompts of a file. Raises data.DataError where the file cannot be read or no prompt fits."""
  texts, skips = data.read_prompts(path)
  report_skips(str(path), skips, len(texts) + sum(skips.values()))
  return encode_prompts(texts, tokenizer, max_prompt_tokens, str(path))


def load_written(path: Path, num: int) -> Callable[[str], list[str]]:
  """`take(prompt) -> num texts`, answers that people wrote: each time the next of a prompt's, in turn.

  path: file of demonstrations with the answers.

  Raises:
    data.DataError: the file cannot be read, or (when called) holds fewer than `num` answers to the prompt.
  """
  answers: dict[str, collections.deque[str]] = collections.defaultdict(collections.deque)
  for row in data.read_demonstrations(path)[0]:
    answers[row.prompt].append(row.response)

  def take(prompt: str) -> list[str]:
    if len(answers[prompt]) < num:
      raise data.DataError(
        f"{path}: has {len(answers[prompt])} answers to {prompt!r}, and num_written={num} are wanted"
      )
    taken = [answers[prompt][i] for i in range(num)]
    answers[prompt].rotate(-num)
    return taken

  return take
