"""Responses against reference answers as mathematics: numbers, expressions, sets, intervals.

By the library math-verify (https://github.com/huggingface/Math-Verify), an extra: pip install 'rlhf_jax[math]'.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf_jax.data import DataError, PromptValue
from rlhf_jax.settings import ConfigError
from rlhf_jax.verify.answers import Answers, accepted_answers, as_scores
from rlhf_jax.verify.numbers import Number, UnreadableNumber, count_numbers, read_number

_SECONDS = 5  # for an answer to be parsed, and for two to be compared
_IN_FORMULA = re.compile(r"\$|\\\(|\\\[|\\boxed")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")


def math_answer(
  prompts: Sequence[PromptValue], responses: Sequence[str], *, answers: Answers, marker: str = ""
) -> np.ndarray:
  """f32[N]: 1 where the answer of the response equals a reference answer to its prompt in mathematics; otherwise 0.

  The answer of a response is what follows the first `marker`, or for marker "" what math-verify finds in it: what is
  boxed, else the last formula or number. Where `rlhf_jax.verify.number` reads both, it decides: math-verify takes "1e3"
  for 1. Reward functions that parse what a policy wrote deserve a time limit
  (`config.<stage>.environment.reward.time_limit`), since an expression can take SymPy very long; in the main thread
  math-verify gives up after 5 seconds by itself.

  Raises:
    ConfigError: math-verify is not installed.
    DataError: as `exact_match`, or a reference answer is not understood.
  """
  _library()
  scores = []
  for prompt, response, texts in zip(prompts, responses, accepted_answers(prompts, answers), strict=True):
    found = response.partition(marker)[2] if marker else response
    wanted = [text.rpartition(marker)[2] if marker else text for text in texts]
    where = f"{answers}: the answer to {prompt!r}"
    scores.append(bool(found.strip()) and any(_equal(text, found, where) for text in wanted))
  return as_scores(scores)


def _equal(reference: str, response: str, where: str) -> bool:
  wanted, found = _number(reference), _number(response)
  if wanted and found and count_numbers(reference) == 1:
    return wanted.equals(found)
  gold = _parse(reference)
  if not gold:
    raise DataError(f"{where} is not understood as mathematics: {reference!r:.100}")
  seconds = _SECONDS if threading.current_thread() is threading.main_thread() else None
  return bool(_library().verify(gold, _parse(response), timeout_seconds=seconds))


def _number(text: str) -> Number | None:
  try:
    return read_number(text, "")
  except UnreadableNumber:
    return None


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> Any:
  """What math-verify finds in a text; [] for nothing. A bare formula is put between dollars, as the library asks."""
  if not (_IN_FORMULA.search(text) or _WORD.search(text)):
    text = f"${text.strip()}$"
  seconds = _SECONDS if threading.current_thread() is threading.main_thread() else None
  return _library().parse(text, parsing_timeout=seconds)


def _library() -> Any:
  try:
    import math_verify
  except ImportError as error:
    raise ConfigError(
      "rlhf_jax.verify:math_answer needs the package math-verify: pip install 'rlhf_jax[math]'"
    ) from error
  return math_verify
