"""Responses against reference answers: exact match, a number, a regular expression.

The reference answers stand in a file of rows {"prompt" or "question", "answer"}. An answer is a text, a number, a list
of texts any of which is right, or, in a row with "choices", the index of the right choice. The row of a response is
found by its prompt.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from rlhf_jax.data import DataError, PromptValue, Source, prompt_of, prompt_value, renamed_rows
from rlhf_jax.verify.numbers import Number, UnreadableNumber, read_number

Answers = str | Mapping[str, Any]  # path of the file of reference answers, or the settings of a `Source` of them

MARKER = "####"  # the mark before an answer in GSM8K (Cobbe et al. 2021, arXiv 2110.14168)


def exact_match(prompts: Sequence[PromptValue], responses: Sequence[str], *, answers: Answers) -> np.ndarray:
  """f32[N]: 1 where the response equals a reference answer to its prompt, up to white space; otherwise 0.

  Args:
    answers: path of the file of reference answers, or settings of a source, such as dict(path="test/*.parquet").

  Raises:
    DataError: the file cannot be used, or has no answer to a prompt.
  """
  accepted = accepted_answers(prompts, answers)
  return as_scores(_plain(response) in map(_plain, texts) for response, texts in zip(responses, accepted, strict=True))


def number(
  prompts: Sequence[PromptValue], responses: Sequence[str], *, answers: Answers, marker: str = MARKER
) -> np.ndarray:
  """f32[N]: 1 where the number after `marker` in the response equals that of the reference ("1,000.0" is "1000").

  With marker "" the last numbers are compared. A reference answer without the marker counts by its last number; a
  response without the marker is wrong. Values are exact: "3/4" is "0.75" and not "4". "50%" is right for 1/2 and for
  50. A response whose number is in a form that is not read (see `number_in`) is wrong; a warning tells of the first
  one. `rlhf_jax.verify:math_answer` reads more.

  Raises:
    DataError: as `exact_match`, or an answer has no number, or one in a form that is not read.
  """
  scores = []
  for prompt, response, texts in zip(prompts, responses, accepted_answers(prompts, answers), strict=True):
    where = f"{_path(answers)}: the answer to {prompt!r}"
    wanted = [_reference(text, marker if marker in text else "", where) for text in texts]
    try:
      found = read_number(response, marker)
    except UnreadableNumber:
      warnings.warn(_UNREAD, stacklevel=2)  # the same text, so that Python tells of it once
      found = None
    scores.append(found is not None and any(found.equals(other) for other in wanted))
  return as_scores(scores)


_UNREAD = (
  "verify.number: a response ends in a number that it cannot read, such as 2\\pi or 10-12, and which counts as wrong; "
  "rlhf_jax.verify:math_answer reads more"
)


def _reference(text: str, marker: str, where: str) -> Number:
  """The number of a reference answer. Raises DataError."""
  try:
    found = read_number(text, marker)
  except UnreadableNumber as error:
    raise DataError(f"{where}: {error}; rlhf_jax.verify:math_answer reads more") from error
  if found is None:
    raise DataError(f"{where} has no number in it: {text!r}")
  return found


def number_in(text: str, marker: str = MARKER) -> Fraction | None:
  """The first number after the first `marker`; the last number of the text for marker ""; None where there is none.

  Read are integers, decimals and thousands ("$1,234.50" is 1234.5), fractions and mixed numbers, powers and powers of
  ten ("2^{10}", "1e3", "3 \\times 10^5"), percent ("50%" is 1/2), "5 million", the same in LaTeX, also in \\boxed, and
  the last side of an equation ("9 + 9 = 18" is 18). Of all else the number is refused, since a part of it would be
  another number: sums and products, ranges, dates and times, roots, symbols ("2x", "5k"), "1,2" and "10 000".

  Raises:
    UnreadableNumber: the number is in a form that is not read; the message quotes it.
  """
  found = read_number(text, marker)
  return found and found.value


def regular_expression(
  prompts: Sequence[PromptValue], responses: Sequence[str], *, pattern: str, answers: Answers = ""
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
    return as_scores(match is not None for match in matches)
  found = [match and match[min(compiled.groups, 1)] for match in matches]
  accepted = accepted_answers(prompts, answers)
  return as_scores(
    text is not None and _plain(text) in map(_plain, texts) for text, texts in zip(found, accepted, strict=True)
  )


def read_answers(answers: Answers) -> dict[str, object]:
  """The answers of a file by their prompts without white space at the ends; read again when the file changes.

  Raises:
    DataError: a row lacks a column, or a prompt has two answers.
  """
  source = Source(answers) if isinstance(answers, str) else Source(**answers)
  changed = [os.stat(name).st_mtime_ns for name in sorted(glob.glob(source.path))]
  return _read_answers(json.dumps(dataclasses.asdict(source)), *changed)


@functools.lru_cache(maxsize=8)
def _read_answers(source: str, *changed: int) -> dict[str, object]:
  found: dict[str, object] = {}
  for where, row in renamed_rows(Source(**json.loads(source))):
    asked = row.get("prompt", row.get("question"))
    if not isinstance(asked, (str, list)) or "answer" not in row:
      columns = ", ".join(row)
      raise DataError(f'{where}: found columns {{{columns}}}; need "answer" and a text "prompt" or "question"')
    prompt = _key(prompt_value(prompt_of({"prompt": asked}, where)))
    answer = row["answer"]
    if isinstance(row.get("choices"), list) and isinstance(answer, int):
      if not 0 <= answer < len(row["choices"]):
        raise DataError(f"{where}: answer {answer} is no index of {len(row['choices'])} choices")
      answer = row["choices"][answer]
    if found.setdefault(prompt, answer) != answer:
      raise DataError(f"{where}: a second answer to {asked!r}: {answer!r} after {found[prompt]!r}")
  return found


def _key(prompt: PromptValue) -> str:
  return prompt.strip() if isinstance(prompt, str) else json.dumps(prompt)


def answers_to(prompts: Sequence[PromptValue], answers: Answers) -> list[object]:
  """The answer to each prompt in a file.

  Raises:
    DataError: as `read_answers`, or the file has no answer to a prompt.
  """
  known = read_answers(answers)
  missing = [prompt for prompt in prompts if _key(prompt) not in known]
  if missing:
    raise DataError(
      f"{_path(answers)}: has no answer to {len(missing)} of {len(prompts)} prompts, such as {missing[0]!r}"
    )
  return [known[_key(prompt)] for prompt in prompts]


def _path(answers: Answers) -> str:
  return answers if isinstance(answers, str) else str(answers["path"])


def accepted_answers(prompts: Sequence[PromptValue], answers: Answers) -> list[list[str]]:
  """The texts of which any is a right answer, for each prompt. Raises as `answers_to`."""
  found = answers_to(prompts, answers)
  return [[str(text) for text in answer] if isinstance(answer, list) else [str(answer)] for answer in found]


def _plain(text: str) -> str:
  return " ".join(text.split())


def as_scores(right: Iterable[bool]) -> np.ndarray:
  """f32[N] of 1 and 0."""
  return np.fromiter((float(value) for value in right), np.float32)
