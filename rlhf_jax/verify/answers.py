"""Responses against reference answers: exact match, a number, a regular expression.

The reference answers stand in a file of rows {"prompt" or "question", "answer"}. An answer is a text, a number, a list
of texts any of which is right, or, in a row with "choices", the index of the right choice. The row of a response is
found by its prompt.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

import numpy as np

from rlhf_jax.data import DataError, read_rows

MARKER = "####"  # the mark before an answer in GSM8K (Cobbe et al. 2021, arXiv 2110.14168)
_NUMBER = re.compile(r"(?:(?<![0-9])-)?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?")


def exact_match(prompts: Sequence[str], responses: Sequence[str], *, answers: str) -> np.ndarray:
  """f32[N]: 1 where the response equals a reference answer to its prompt, up to white space; otherwise 0.

  Args:
    answers: the file of reference answers.

  Raises:
    DataError: the file cannot be used, or has no answer to a prompt.
  """
  accepted = _accepted(prompts, answers)
  return _scores(_plain(response) in map(_plain, texts) for response, texts in zip(responses, accepted, strict=True))


def number(prompts: Sequence[str], responses: Sequence[str], *, answers: str, marker: str = MARKER) -> np.ndarray:
  """f32[N]: 1 where the number after `marker` in the response equals that of the reference ("1,000.0" is "1000").

  With marker "" the last numbers are compared. A reference answer without the marker counts by its last number; a
  response without the marker is wrong.

  Raises:
    DataError: as `exact_match`, or an answer has no number.
  """
  scores = []
  for prompt, response, texts in zip(prompts, responses, _accepted(prompts, answers), strict=True):
    wanted = [number_in(text, marker if marker in text else "") for text in texts]
    if None in wanted:
      raise DataError(f"{answers}: the answer to {prompt!r} has no number in it: {texts[wanted.index(None)]!r}")
    scores.append(number_in(response, marker) in wanted)
  return _scores(scores)


def number_in(text: str, marker: str = MARKER) -> Decimal | None:
  """The first number after the first `marker` ("$1,234.50" is 1234.5); the last number of the text for marker ""."""
  before, found, after = text.partition(marker) if marker else (text, "", "")
  numbers = _NUMBER.findall(after if marker else before)
  if not numbers or (marker and not found):
    return None
  return Decimal(re.sub(r"[$,]", "", numbers[0] if marker else numbers[-1]))


def regular_expression(
  prompts: Sequence[str], responses: Sequence[str], *, pattern: str, answers: str = ""
) -> np.ndarray:
  """f32[N]: 1 where the first match of `pattern` in the response is a reference answer; otherwise 0.

  The match counts by its first group if the pattern has groups. Without a file of answers the result is 1 where the
  pattern matches at all: a check of form. A pattern with nested repetitions can take exponential time on some texts,
  and a policy may find them.

  Raises:
    ValueError: the pattern is not a regular expression.
    DataError: as `exact_match`.
  """
  try:
    compiled = re.compile(pattern)
  except re.error as error:
    raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error
  matches = [compiled.search(response) for response in responses]
  if not answers:
    return _scores(match is not None for match in matches)
  found = [match and match[min(compiled.groups, 1)] for match in matches]
  accepted = _accepted(prompts, answers)
  return _scores(
    text is not None and _plain(text) in map(_plain, texts) for text, texts in zip(found, accepted, strict=True)
  )


def read_answers(path: str) -> dict[str, object]:
  """The answers of a file by their prompts without white space at the ends; read again when the file changes.

  Raises:
    DataError: a row lacks a column, or a prompt has two answers.
  """
  return _read_answers(path, os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read_answers(path: str, modified: int) -> dict[str, object]:
  found: dict[str, object] = {}
  for line, row in read_rows(path):
    prompt = row.get("prompt", row.get("question"))
    if not isinstance(prompt, str) or "answer" not in row:
      columns = ", ".join(row)
      raise DataError(f'{path}:{line}: found columns {{{columns}}}; need "answer" and a text "prompt" or "question"')
    answer = row["answer"]
    if isinstance(row.get("choices"), list) and isinstance(answer, int):
      if not 0 <= answer < len(row["choices"]):
        raise DataError(f"{path}:{line}: answer {answer} is no index of {len(row['choices'])} choices")
      answer = row["choices"][answer]
    if found.setdefault(prompt.strip(), answer) != answer:
      raise DataError(f"{path}:{line}: a second answer to {prompt!r}: {answer!r} after {found[prompt.strip()]!r}")
  return found


def answers_to(prompts: Sequence[str], path: str) -> list[object]:
  """The answer to each prompt in the file at `path`.

  Raises:
    DataError: as `read_answers`, or the file has no answer to a prompt.
  """
  known = read_answers(path)
  missing = [prompt for prompt in prompts if prompt.strip() not in known]
  if missing:
    raise DataError(f"{path}: has no answer to {len(missing)} of {len(prompts)} prompts, such as {missing[0]!r}")
  return [known[prompt.strip()] for prompt in prompts]


def _accepted(prompts: Sequence[str], path: str) -> list[list[str]]:
  found = answers_to(prompts, path)
  return [[str(text) for text in answer] if isinstance(answer, list) else [str(answer)] for answer in found]


def _plain(text: str) -> str:
  return " ".join(text.split())


def _scores(right: Iterable[bool]) -> np.ndarray:
  return np.fromiter((float(value) for value in right), np.float32)
