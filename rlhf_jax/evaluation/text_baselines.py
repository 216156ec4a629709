"""Policies without a model, to which every model is compared: they repeat a training text whatever the prompt asks.

The commonest answer is a constant. The look-up answers each prompt with the response of the demonstration whose prompt
is most similar as a text, so that what copying reaches is known: where it has the reward of a model, the evaluation
asks what the training texts answer.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import scipy.sparse

from rlhf_jax.data import Demonstration, Prompt, prompt_text, response_text

NEAREST = 10  # demonstrations that a copier may choose from
_CHUNK = 256  # prompts compared at once
_WORD = re.compile(r"\w+")


def commonest_response(demonstrations: Sequence[Demonstration]) -> str:
  """The most frequent response, the first of several. Raises ValueError where there are no demonstrations."""
  if not demonstrations:
    raise ValueError("there are no demonstrations")
  return Counter(response_text(row.response) for row in demonstrations).most_common(1)[0][0]


def nearest_responses(
  prompts: Sequence[Prompt], demonstrations: Sequence[Demonstration], num: int = NEAREST
) -> list[list[str]]:
  """The responses of the `num` most similar demonstrations to each prompt, the most similar first, ties in file order.

  Two prompts are as similar as the words they share weigh: the cosine of their sets of words (in lower case, numbers
  included), where a word of n of the N demonstrations weighs log(1 + N / n). Rare words, such as names, decide. The
  first response is the look-up's answer.

  Raises:
    ValueError: there are no demonstrations.
  """
  if not demonstrations:
    raise ValueError("there are no demonstrations")
  known: dict[str, int] = {}
  for demonstration in demonstrations:
    for word in _words(prompt_text(demonstration.prompt)):
      known.setdefault(word, len(known))
  table = _incidence([demonstration.prompt for demonstration in demonstrations], known)  # [M, V]
  weights = np.log1p(len(demonstrations) / table.sum(axis=0))  # [V]
  table = _unit_rows(table * weights)
  asked = _unit_rows(_incidence(prompts, known) * weights)  # a word of no demonstration changes no order
  found: list[list[str]] = []
  for start in range(0, len(prompts), _CHUNK):
    similarity = (asked[start : start + _CHUNK] @ table.T).toarray().round(9)  # [chunk, M]
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :num]
    found += [[response_text(demonstrations[index].response) for index in row] for row in order]
  return found


def _words(text: str) -> set[str]:
  return set(_WORD.findall(text.lower()))


def _incidence(prompts: Sequence[Prompt], known: dict[str, int]) -> scipy.sparse.csr_array:
  """f64[N, V]: 1 where a prompt has a known word."""
  rows, columns = [], []
  for row, prompt in enumerate(prompts):
    for word in _words(prompt_text(prompt)) & known.keys():
      rows.append(row)
      columns.append(known[word])
  return scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(prompts), len(known))).tocsr()


def _unit_rows(table: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
  norms = np.sqrt(table.power(2).sum(axis=1))
  return scipy.sparse.csr_array(table / np.where(norms > 0, norms, 1.0)[:, None])
