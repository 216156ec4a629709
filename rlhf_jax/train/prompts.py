"""Prompts of a file, tokenised: what sampling starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlhf_jax import data
from rlhf_jax.train.progress import report_skips
from rlhf_jax.types import Prompts


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

  def narrow(self) -> PromptSet:
    """Only as wide as the longest prompt: the room that a published model leaves can be 100,000 tokens."""
    return dataclasses.replace(self, tokens=self.tokens[:, : self.lengths.max()])


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
