"""Baselines of a reward model that understand nothing: a longer response wins, and a bag of words.

The bag of words is a linear Bradley-Terry model on how often each word stands in a response, fitted with the penalty
that is scikit-learn's default for logistic regression (C = 1). The prompt is not read.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

from rlhf_jax.data import Comparison, Prompt, Response, response_text
from rlhf_jax.evaluation.style_baseline import fit_bradley_terry
from rlhf_jax.train.comparisons import pair_weights

_WORD = re.compile(r"\w+")


def length_scores(prompts: Sequence[Prompt], responses: Sequence[Response]) -> np.ndarray:
  """The number of characters of each response, f64[N]."""
  return np.array([len(response_text(response)) for response in responses], np.float64)


class WordBaseline(NamedTuple):
  """A fitted bag of words."""

  words: dict[str, int]
  """Words in lower case, with their places in `weights`."""
  weights: np.ndarray
  """Logits for one more of each of V words, f64[V]."""

  def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> np.ndarray:
    """Logits f64[N] of N responses: the difference of two is the log-odds that the first one is preferred."""
    return np.asarray(word_counts(responses, self.words) @ self.weights)


def fit_word_baseline(comparisons: Sequence[Comparison]) -> WordBaseline:
  """The bag of words of the given comparisons, each of which weighs the same.

  Raises:
    ValueError: no comparison has two responses of different rank.
  """
  most = max((len(group.ranks) for group in comparisons), default=0)
  ranks = np.array([[*group.ranks] + [-1] * (most - len(group.ranks)) for group in comparisons], int)
  weights = pair_weights(ranks.reshape(len(comparisons), most))  # [N, K, K]
  group, better, worse = np.nonzero(weights)
  if not len(group):
    raise ValueError("no comparison has two responses of different rank")
  responses = [response for comparison in comparisons for response in comparison.responses]
  words = vocabulary(responses)
  starts = np.cumsum([0, *(len(comparison.responses) for comparison in comparisons)])[group]
  counts = word_counts(responses, words)
  differences = counts[starts + better] - counts[starts + worse]
  ridge = 1 / len({*group.tolist()})
  return WordBaseline(words, fit_bradley_terry(differences, weights[group, better, worse], ridge))


def vocabulary(responses: Iterable[Response]) -> dict[str, int]:
  """The words of the responses in lower case, numbered in the order in which they come."""
  words: dict[str, int] = {}
  for response in responses:
    for word in _words(response):
      words.setdefault(word, len(words))
  return words


def word_counts(responses: Sequence[Response], words: dict[str, int]) -> scipy.sparse.csr_array:
  """f64[N, V]: how often each known word stands in each response."""
  found = [
    (row, words[word], count)
    for row, response in enumerate(responses)
    for word, count in Counter(_words(response)).items()
    if word in words
  ]
  rows, columns, values = np.array(found, np.int64).reshape(-1, 3).T
  shape = (len(responses), len(words))
  return scipy.sparse.coo_array((values.astype(np.float64), (rows, columns)), shape=shape).tocsr()


def _words(response: Response) -> list[str]:
  return _WORD.findall(response_text(response).lower())
