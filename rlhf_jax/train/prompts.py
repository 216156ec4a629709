"""Tokenised prompts of a file, for sampling."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.files import Row
from rlhf_jax.data.row_formats import DEMONSTRATIONS, PROMPT_ROWS
from rlhf_jax.stage import Stage
from rlhf_jax.train.progress import report_skips
from rlhf_jax.train.row_sources import AnyRows, path_of, read_given
from rlhf_jax.types import Prompts


@dataclasses.dataclass(frozen=True)
class PromptSet:
  """N prompts and their tokens."""

  texts: list[data.Prompt]
  """The prompts: the text of a bare question, the messages of a dialogue."""
  tokens: np.ndarray
  """Tokens i32[N, P], padded at the end."""
  lengths: np.ndarray
  """Numbers of tokens before the padding, i32[N]."""
  rows: Sequence[Row] = ()
  """Rows of the file that the prompts were read from, with all their columns; () for prompts of no file."""

  def take(self, rows: Sequence[int] | np.ndarray) -> tuple[list[data.Prompt], Prompts]:
    """The prompts and the arrays of the given rows."""
    rows = np.asarray(rows)
    return [self.texts[row] for row in rows], Prompts(self.tokens[rows], self.lengths[rows])

  def rows_of(self, rows: Sequence[int] | np.ndarray) -> list[Row]:
    """The rows of the file of the given prompts; [] for prompts of no file."""
    return [self.rows[row] for row in rows] if self.rows else []

  def first(self, num: int) -> PromptSet:
    """The first `num` prompts."""
    return PromptSet(self.texts[:num], self.tokens[:num], self.lengths[:num], self.rows[:num])

  def narrow(self) -> PromptSet:
    """The same prompts, padded to the longest only: P may be the 100,000 tokens that a published model allows."""
    return dataclasses.replace(self, tokens=self.tokens[:, : self.lengths.max()])


def encode_prompts(
  texts: Sequence[data.Prompt],
  tokenizer: data.Tokenizer,
  max_prompt_tokens: int,
  what: str,
  rows: Sequence[Row] = (),
) -> PromptSet:
  """Tokenises prompts. Prompts of more than `max_prompt_tokens` tokens are skipped; the report names them `what`.

  rows: those that the prompts were read from; () for prompts of no file.

  Raises:
    data.DataError: no prompt fits.
  """
  arrays, kept, skips = data.prompt_rows(tokenizer, texts, max_prompt_tokens)
  report_skips(what, skips, len(texts))
  if not kept:
    raise data.DataError(f"{what}: no prompt fits in max_prompt_tokens={max_prompt_tokens} ({', '.join(skips)})")
  kept_rows = [rows[i] for i in kept] if rows else ()
  return PromptSet([texts[i] for i in kept], arrays["tokens"], arrays["lengths"], kept_rows)


def load_prompts(given: AnyRows, stage: Stage, tokenizer: data.Tokenizer, max_prompt_tokens: int) -> PromptSet:
  """The prompts that a config asks for. Raises data.DataError where they cannot be read or none fits."""
  prompts, rows = zip(*read_given(given, stage, PROMPT_ROWS), strict=True)  # a file without a prompt raises DataError
  return encode_prompts(prompts, tokenizer, max_prompt_tokens, path_of(given), rows)


def load_written(given: AnyRows, stage: Stage, num: int) -> Callable[[data.Prompt], list[str]]:
  """`take(prompt) -> num texts`, answers that people wrote: each time the next of a prompt's, in turn.

  given: rows of demonstrations with the answers.

  Raises:
    data.DataError: the rows cannot be read, or (when called) hold fewer than `num` answers to the prompt.
  """
  answers: dict[data.Prompt, collections.deque[str]] = collections.defaultdict(collections.deque)
  for row in read_given(given, stage, DEMONSTRATIONS):
    answers[row.prompt].append(data.response_text(row.response))

  def take(prompt: data.Prompt) -> list[str]:
    if len(answers[prompt]) < num:
      raise data.DataError(
        f"{path_of(given)}: has {len(answers[prompt])} answers to {prompt!r}, and num_written={num} are wanted"
      )
    taken = [answers[prompt][i] for i in range(num)]
    answers[prompt].rotate(-num)
    return taken

  return take
