"""Completions: a text as any language model goes on with it, without its chat form, and the perplexity of each.

The model reads <bos> and the tokens of the text. The perplexity of a completion is exp of the mean loss of its tokens
(with the end of the text where that was drawn) under the whole softmax at temperature 1, whatever the tokens were drawn
with. That of the prompt is over its tokens behind <bos>.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.data.files import Row
from rlhf_jax.data.row_formats import DEMONSTRATIONS, RowFormats
from rlhf_jax.data.sources import read_records
from rlhf_jax.evaluation.likelihood import make_likelihood
from rlhf_jax.evaluation.questions import Question, question_of, text_prompt
from rlhf_jax.sampling import before_stop
from rlhf_jax.settings import ConfigError
from rlhf_jax.tools.any_model import AnyModel
from rlhf_jax.tools.ask import SLOTS, printable
from rlhf_jax.train import Sampling, make_sampler, report_skips
from rlhf_jax.types import Params, Prompts

EXAMPLE_END = "\n\n"  # between the examples of a prompt, and at the end of an answer
LIKELIHOOD_ROWS = 8  # completions measured at once


class Completion(NamedTuple):
  """One way in which a text goes on."""

  text: str
  """Text of the completion, up to the stop string where one ended it."""
  num_tokens: int
  """Number of tokens drawn."""
  perplexity: float
  """Perplexity of a token drawn."""
  finished: bool
  """Whether the end of the text or a stop string was drawn."""


class Completed(NamedTuple):
  """A text and its completions by one model."""

  prompt_tokens: int
  """Number of the text's tokens, without <bos>."""
  prompt_perplexity: float
  """Perplexity of a token of the text."""
  completions: list[Completion]
  """Completions in the order of their draws, of which the first k are those that k draws give."""


def _example(row: Row, where: str) -> Iterator[Question]:
  if row.get("answer") is not None:
    yield question_of(row, where, False)
  else:
    for prompt, response in DEMONSTRATIONS.parse(row, where):
      yield Question(data.prompt_text(prompt).strip(), (), data.response_text(response).strip(), -1, "")


EXAMPLES = RowFormats({(): _example}, lambda example: None if example.answer else "empty answer")


def few_shot_text(examples: Path, shots: int, text: str) -> str:
  """A prompt of the first `shots` examples of a file and the text: "prompt answer", an empty line, and so on.

  Rows are demonstrations in any form of `rlhf_jax.data`, or {"prompt" or "question", "answer"}. An example that asks
  the text itself is passed over.

  Raises:
    DataError: the file cannot be read, or has fewer examples.
  """
  records, skips = read_records(examples, EXAMPLES)
  report_skips(str(examples), skips, len(records) + skips.total())
  found = [one for one in records if one.prompt != text.strip()]
  if len(found) < shots:
    raise data.DataError(f"{examples}: has {len(found)} examples beside the text, and --shots asks for {shots}")
  return text_prompt(found[:shots], text)


def check_fit(opened: AnyModel, text: str, max_new_tokens: int) -> None:
  """Raises ConfigError where the text with its completion is longer than the model."""
  num, longest = len(opened.tokenizer.encode(text)) + 1, opened.model.config.max_length
  if num + max_new_tokens > longest:
    raise ConfigError(
      f"the text has {num} tokens with <bos>, and {opened.name} reads {longest} at most, {max_new_tokens} new ones "
      "included: shorten the text, take fewer --shots, or a smaller --max-new-tokens"
    )


def ends_inside_a_token(tokenizer: data.Tokenizer, text: str) -> bool:
  """Whether a text ends in a space that the vocabulary has at the beginning of words.

  Behind such a space alone the model expects what follows no word of its training.
  """
  pieces = data.token_bytes(tokenizer) if text.endswith(" ") else []
  return any(piece.startswith(b" ") and not piece.isspace() for piece in pieces)


def complete(opened: AnyModel, params: Params, text: str, sampling: Sampling, num: int, seed: int) -> Completed:
  """`num` completions of a text that `check_fit` admits, and all perplexities. sampling: `max_prompt_tokens` is not
  read."""
  model, tokenizer = opened.model, opened.tokenizer
  ids = [tokenizer.bos_id, *tokenizer.encode(text)]
  settings = dataclasses.replace(sampling, max_prompt_tokens=len(ids), slots=SLOTS)
  sample = make_sampler(model, tokenizer, settings, opened.transport, any_shape=True)
  prompts = Prompts(np.array([ids], np.int32), np.array([len(ids)], np.int32))
  rollout, _ = sample(params, prompts, jax.random.key(seed), num)
  tokens, mask, finished = map(np.asarray, (rollout.tokens, rollout.mask, rollout.finished))
  drawn = [row[keep].tolist() for row, keep in zip(tokens, mask, strict=True)]

  def perplexities(pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    likelihood = make_likelihood(model, tokenizer.pad_id, min(len(pairs), LIKELIHOOD_ROWS), opened.transport)
    logp, _ = likelihood(params, pairs)
    return np.exp(-logp / [len(counted) for _, counted in pairs]).tolist()

  completions = [
    Completion(before_stop(_continuation(tokenizer, ids, new), sampling.stop), len(new), perplexity, bool(ended))
    for new, perplexity, ended in zip(drawn, perplexities([(ids, new) for new in drawn]), finished, strict=True)
  ]
  return Completed(len(ids) - 1, perplexities([(ids[:1], ids[1:])])[0], completions)


def completed_text(name: str, found: Completed) -> str:
  """The completions of one model for a reader, numbered; a character that cannot be printed is shown as a dot."""
  lines = [f"{name}: the prompt's {found.prompt_tokens} tokens have perplexity {found.prompt_perplexity:.2f}"]
  for number, one in enumerate(found.completions, 1):
    size = f"{one.num_tokens} token{'s' * (one.num_tokens > 1)}{', ended' * one.finished}"
    lines += ["", f"{number:>3}  perplexity {one.perplexity:.2f}, {size}", indented(one.text)]
  return "\n".join(lines)


def indented(text: str) -> str:
  """The lines of a text, set in; a character that cannot be printed is shown as a dot."""
  return "\n".join(f"     {line}".rstrip() for line in printable(text, keep="\n").split("\n"))


def _continuation(tokenizer: data.Tokenizer, before: Sequence[int], new: Sequence[int]) -> str:
  """The text that tokens add to those before them: alone, a vocabulary of SentencePiece drops their first space."""
  start, whole = tokenizer.decode(before), tokenizer.decode([*before, *new])
  return whole.removeprefix(start) if whole.startswith(start) else tokenizer.decode(new)
