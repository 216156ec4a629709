"""The style baseline: a linear Bradley-Terry model on features of the texts that read no value.

A reward model that has learnt nothing but style can have a high accuracy, because most of what people compare differs
in style too. The baseline is fitted on the same comparisons as the reward model, and what the reward model is right on
beyond it is what style cannot reach.

The features of a response count its words, sentences, capitals, marks and repeated words, name its opening word and
the function words it holds (those of `FUNCTION_WORDS`: "I", "cannot", "not", "know", "sorry", "the", "is", "yes", "no"
...), and measure the overlap with the prompt: how many words the response adds, and how many of the prompt it has. Each
stands once for all prompts and once for each type of prompt, which is how the prompt begins.

The baseline cannot read a content word, a digit, a number word or a name: two responses that differ in nothing else
have the same features, and so the same score. Two things come close to a value. "Yes" and "no" are function words: the
baseline sees which of them was said, and nothing that tells which is right. And where the answer is a copy of words of
the prompt, the overlap tells whether the copy is whole.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # its parts are loaded when they are used: those that a run does not need take a quarter of a second

from rlhf_jax.data import Comparison, Prompt, prompt_text, response_text
from rlhf_jax.train.comparisons import pair_weights

FUNCTION_WORDS = (
  "i", "you", "he", "she", "it", "we", "they", "me", "my", "your", "his", "her", "its", "this", "that", "these",
  "there", "the", "a", "an", "is", "are", "was", "were", "be", "am", "do", "does", "did", "have", "has", "had", "can",
  "cannot", "will", "would", "should", "not", "no", "yes", "know", "sorry", "help", "and", "or", "but", "so", "then",
  "if", "because", "of", "in", "on", "at", "to", "from", "for", "with", "as", "than", "by", "what", "who", "where",
)  # fmt: skip
MARKS = ".,?!:;'\"-"
RIDGE = 0.02  # penalty on the squared weights, beside the mean loss of a pair
PROMPT_SHARE = 0.01  # share of the prompts that a beginning has at least to be a type of prompt
_LONGEST_BEGINNING = 3  # words
_WORD = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z]+)?")
_DIGITS = re.compile(r"[0-9]+")


class StyleBaseline(NamedTuple):
  """A fitted baseline."""

  beginnings: tuple[str, ...]
  """Beginnings of prompts that are types, of several words or one, in lower case with "#" for a number."""
  scale: np.ndarray
  """Factor on each of F features, f64[F]: their root mean square difference within a pair is 1 after it."""
  weights: np.ndarray
  """Weights f64[(1 + types) * F]: for all prompts, then for those of each type; the last type is all other prompts."""

  def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
    """Logits f64[N] of N responses: the difference of two is the log-odds that the first one is preferred."""
    rows = np.array([features(*texts) for texts in zip(map(prompt_text, prompts), responses, strict=True)]).reshape(
      -1, NUM_FEATURES
    )
    types = np.array([prompt_type(prompt_text(prompt), self.beginnings) for prompt in prompts], int)
    return np.asarray(_crossed(rows * self.scale, types, len(self.beginnings) + 1) @ self.weights)


def fit_style_baseline(comparisons: Sequence[Comparison], ridge: float = RIDGE) -> StyleBaseline:
  """The baseline of the given comparisons, in which each group has the weight 1 as for the reward model.

  Raises:
    ValueError: no comparison has two responses of different rank.
  """
  most = max((len(group.responses) for group in comparisons), default=0)
  ranks = np.array([[*group.ranks] + [-1] * (most - len(group.ranks)) for group in comparisons]).reshape(
    len(comparisons), most
  )
  weights = pair_weights(ranks)  # [N, K, K]
  group, better, worse = np.nonzero(weights)
  if not len(group):
    raise ValueError("no comparison has two responses of different rank")
  prompts = [prompt_text(comparison.prompt) for comparison in comparisons]
  beginnings = prompt_beginnings(prompts)
  rows = np.zeros((*ranks.shape, NUM_FEATURES))
  for index, comparison in enumerate(comparisons):
    for slot, response in enumerate(comparison.responses):
      rows[index, slot] = features(prompts[index], response_text(response))
  differences = rows[group, better] - rows[group, worse]  # [pairs, F]
  spread = np.sqrt((differences**2).mean(axis=0))
  scale = 1 / np.where(spread > 0, spread, 1.0)
  types = np.array([prompt_type(prompt, beginnings) for prompt in prompts])[group]
  design = _crossed(differences * scale, types, len(beginnings) + 1)
  return StyleBaseline(beginnings, scale, fit_bradley_terry(design, weights[group, better, worse], ridge))


def fit_bradley_terry(differences: scipy.sparse.csr_array, pair_weight: np.ndarray, ridge: float) -> np.ndarray:
  """Weights f64[F] that minimise sum(pair_weight * -log sigmoid(differences @ weights)) + ridge / 2 * |weights|^2.

  differences: features of the preferred response less those of the response it was preferred to, [pairs, F].
  pair_weight: f64[pairs], at least 0. This is logistic regression without intercept, and convex.
  """
  share = np.asarray(pair_weight, np.float64)
  used = np.unique(differences.indices)  # the weight of a feature that never differs is 0
  design = differences[:, used]

  def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
    logits = design @ weights
    slope = design.T @ (-share * scipy.special.expit(-logits)) + ridge * weights
    return float(share @ np.logaddexp(0.0, -logits) + 0.5 * ridge * weights @ weights), slope

  options = dict(maxiter=500, ftol=1e-7, gtol=1e-5)
  found = scipy.optimize.minimize(loss, np.zeros(len(used)), jac=True, method="L-BFGS-B", options=options)
  weights = np.zeros(differences.shape[1])
  weights[used] = found.x
  return weights


def features(prompt: str, response: str) -> list[float]:
  """The F features of a response, without its prompt's type."""
  spoken, asked = _WORD.findall(response), _WORD.findall(prompt.lower())
  words = [word.lower() for word in spoken]
  counts = Counter(words)
  shared = (counts & Counter(asked)).total()
  sentences = [part for part in re.split(r"[.?!]+", response) if part.strip()]
  opening = words[0] if words else ""
  return [
    len(words),
    np.log1p(len(words)),
    *(float(len(words) <= limit) for limit in (0, 1, 2, 3)),
    len(sentences),
    float(len(sentences) > 1),
    *(response.count(mark) for mark in MARKS),
    float(response.endswith((".", "!", "?"))),
    float(response[:1].isupper()),
    sum(word[0].isupper() for word in spoken[1:]),
    sum(part.strip()[0].islower() for part in sentences),
    len(words) - len(counts),
    response.count("\n"),
    float(len(words) - shared),
    shared / max(len(words), 1),
    shared / max(len(asked), 1),
    float(bool(words) and " ".join(words) in " ".join(asked)),
    *(float(word in counts) for word in FUNCTION_WORDS),
    *(float(word == opening) for word in FUNCTION_WORDS),
  ]


NUM_FEATURES = len(features("", ""))


def prompt_beginnings(prompts: Sequence[str]) -> tuple[str, ...]:
  """Beginnings of up to three words that at least `PROMPT_SHARE` of the prompts have, the longest first."""
  counts = Counter(beginning for prompt in prompts for beginning in _beginnings(prompt))
  common = [beginning for beginning, count in counts.items() if count >= max(PROMPT_SHARE * len(prompts), 2)]
  return tuple(sorted(common, key=lambda beginning: (-beginning.count(" "), beginning)))


def prompt_type(prompt: str, beginnings: Sequence[str]) -> int:
  """Index of the first of the beginnings that the prompt has, their number where it has none."""
  mine = set(_beginnings(prompt))
  return next((index for index, beginning in enumerate(beginnings) if beginning in mine), len(beginnings))


def _beginnings(prompt: str) -> list[str]:
  words = _DIGITS.sub("#", prompt.lower()).split()[:_LONGEST_BEGINNING]
  return [" ".join(words[: size + 1]) for size in range(len(words))]


def _crossed(rows: np.ndarray, types: np.ndarray, num_types: int) -> scipy.sparse.csr_array:
  """rows f64[N, F] beside their copies in the columns of their types: [N, (1 + num_types) * F]."""
  num, width = rows.shape
  shared = scipy.sparse.coo_array(rows)
  index, column = shared.coords
  own = (index, (1 + types[index]) * width + column)
  values = np.concatenate([shared.data, shared.data])
  places = tuple(np.concatenate(pair) for pair in zip(shared.coords, own, strict=True))
  return scipy.sparse.coo_array((values, places), shape=(num, (1 + num_types) * width)).tocsr()
