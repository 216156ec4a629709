"""Own against held-out raters on WMT 2023: what a method learns from some raters, tested on them and on others.

Documents are dealt into folds, and raters into groups. For every fold and group a method learns from what the raters
outside the group said of the other documents, and is tested on what all raters said of the fold's. So each judgement is
tested by models that learnt from its rater ("own") and by one that did not ("held out"). All of them learnt from six
raters, and none from its document.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.wmt import Segment
from rlhf_jax.evaluation.linear_reward import choose_prior, fit_item_preferences, spreads
from rlhf_jax.evaluation.statistics import clustered_share, ratio_interval
from rlhf_jax.evaluation.word_baselines import fit_word_baseline, length_scores
from rlhf_jax.feedback.ranks import dense_ranks
from rlhf_jax.intervals import Interval

DOCUMENT_FOLDS, RATER_GROUPS = 5, 4
PRIOR_FOLDS = 3  # of the training documents, by which the prior of a head is chosen
HEAD, WORDS, SYSTEM, LONGER, LIKELIER = "reward model", "bag of words", "system's name", "longer wins", "likelier wins"
OWN, HELD_OUT, GAP = "own raters", "held-out raters", "own less held out"

Fit = Callable[[np.ndarray, int], np.ndarray]  # (training judgements i64[T], seed) -> scores f64[N, S]


class Study(NamedTuple):
  """N segments in the translations of S systems, and J judgements, each of one segment by one rater."""

  texts: list[str]
  """Translations, N * S: those of a segment side by side, in the order of the systems."""
  systems: tuple[str, ...]
  raters: tuple[str, ...]
  document: np.ndarray
  """Number of each segment's document, i64[N]."""
  penalties: np.ndarray
  """Penalty points of each judgement, f64[J, S]."""
  segment: np.ndarray
  """Number of each judgement's segment, i64[J]."""
  rater: np.ndarray
  """Number of each judgement's rater, i64[J]."""

  @property
  def orders(self) -> np.ndarray:
    """`pair_orders` of the judgements, by which fewer penalty points are better: i8[J, P]."""
    return pair_orders(-self.penalties)

  @property
  def untied(self) -> np.ndarray:
    """The number of untied pairs of each judgement, i64[J]."""
    return np.count_nonzero(self.orders, axis=1)

  def by_document(self, values: np.ndarray) -> np.ndarray:
    """Sums over the judgements of each document, f64[documents], of values f[J]."""
    return np.bincount(self.document[self.segment], values, self.document.max() + 1)


def make_study(segments: Sequence[Segment]) -> Study:
  """The study of these segments. Raises DataError where two have translations by different systems."""
  systems = tuple(sorted(segments[0].translations))
  for segment in segments:
    if tuple(sorted(segment.translations)) != systems:
      raise data.DataError(f"segment {segment.name} has other systems than {segments[0].name}")
  raters = tuple(sorted({rater for segment in segments for rater in segment.raters}))
  _, document = np.unique([segment.document for segment in segments], return_inverse=True)
  penalties = []
  for segment in segments:
    places = [list(segment.translations).index(system) for system in systems]
    penalties.append(segment.penalties[:, places])
  texts = [segment.translations[system] for segment in segments for system in systems]
  number = np.repeat(np.arange(len(segments)), [len(segment.raters) for segment in segments])
  rater = np.array([raters.index(name) for segment in segments for name in segment.raters])
  return Study(texts, systems, raters, document, np.concatenate(penalties), number, rater)


def pair_orders(values: np.ndarray) -> np.ndarray:
  """i8[..., P] of values f[..., S]: for each pair of columns 1 where the first is greater, -1 where the second is."""
  first, second = np.triu_indices(values.shape[-1], 1)
  return np.sign(values[..., first] - values[..., second]).astype(np.int8)


def agreements(given: np.ndarray, orders: np.ndarray) -> np.ndarray:
  """f64[J]: with how many of the untied pairs of orders i8[J, P] given i8[J, P] agrees; its ties count half."""
  return np.where(orders != 0, (given == orders) + 0.5 * (given == 0), 0.0).sum(axis=1)


class Tested(NamedTuple):
  """The tests of one method by the models of G groups of raters, with one seed."""

  right: np.ndarray
  """Untied pairs of each judgement that the group's model orders as the rater does, f64[G, J]."""
  held_out: np.ndarray
  """Whether the group's model did not learn from the judgement's rater, bool[G, J]."""


def cross_test(study: Study, fit: Fit, seed: int) -> Tested:
  """Fits and tests a method on all folds of documents and all groups of raters."""
  rng = np.random.default_rng([seed, 1])
  fold = (rng.permutation(study.document.max() + 1) % DOCUMENT_FOLDS)[study.document[study.segment]]  # [J]
  group = (rng.permutation(len(study.raters)) % RATER_GROUPS)[study.rater]  # [J]
  orders = study.orders
  right = np.zeros((RATER_GROUPS, len(orders)))
  for out, number in itertools.product(range(RATER_GROUPS), range(DOCUMENT_FOLDS)):
    scores = fit(np.flatnonzero((fold != number) & (group != out)), seed)
    tested = np.flatnonzero(fold == number)
    right[out, tested] = agreements(pair_orders(scores[study.segment[tested]]), orders[tested])
  return Tested(right, group == np.arange(RATER_GROUPS)[:, None])


def head_fit(study: Study, features: np.ndarray, priors: Sequence[float]) -> Fit:
  """A linear head on features f[N * S, D] by the Bradley-Terry model, in which every judgement has the weight 1.

  A feature's scale is its standard deviation between the translations of a segment. The prior is chosen anew for each
  fit, among the training judgements.
  """
  size = len(study.systems)
  x = features.reshape(-1, size, features.shape[-1])
  x = (x - x.mean(axis=1, keepdims=True)).reshape(features.shape)
  x = x / spreads(x)
  orders, (first, second) = study.orders, np.triu_indices(size, 1)

  def fit_rows(judgements: np.ndarray, prior_sd: float) -> np.ndarray:
    row, pair = np.nonzero(orders[judgements])
    weights = 1 / np.bincount(row, minlength=len(judgements))[row]
    chosen = judgements[row]
    start, is_first = study.segment[chosen] * size, orders[chosen, pair] > 0
    better, worse = np.where(is_first, first[pair], second[pair]), np.where(is_first, second[pair], first[pair])
    return fit_item_preferences(x, start + better, start + worse, weights, prior_sd)

  def losses(head: np.ndarray, judgements: np.ndarray) -> np.ndarray:
    scores = (x @ head).reshape(-1, size)[study.segment[judgements]]
    margins = (scores[:, first] - scores[:, second]) * orders[judgements]
    untied = orders[judgements] != 0
    return np.where(untied, np.logaddexp(0.0, -margins), 0.0).sum(axis=1) / np.maximum(untied.sum(axis=1), 1)

  def fit(judgements: np.ndarray, seed: int) -> np.ndarray:
    prior_sd = choose_prior(
      lambda rows, sd: fit_rows(judgements[rows], sd),
      lambda head, rows: losses(head, judgements[rows]),
      study.document[study.segment[judgements]],
      priors,
      PRIOR_FOLDS,
      seed,
    )
    return (x @ fit_rows(judgements, prior_sd)).reshape(-1, size)

  return fit


def word_fit(study: Study) -> Fit:
  """The bag of words."""
  ranks = dense_ranks(-study.penalties)
  texts = np.array(study.texts, object).reshape(-1, len(study.systems))

  def fit(judgements: np.ndarray, seed: int) -> np.ndarray:
    said = [data.Comparison("", tuple(texts[study.segment[j]]), tuple(ranks[j].tolist())) for j in judgements]
    return fit_word_baseline([one for one in said if any(one.ranks)]).score([], study.texts).reshape(texts.shape)

  return fit


def system_fit(study: Study) -> Fit:
  """How often each system wins less how often it loses, whatever its translation of this segment is."""

  def fit(judgements: np.ndarray, seed: int) -> np.ndarray:
    points = study.penalties[judgements]
    wins = np.sign(points[:, None, :] - points[:, :, None]).sum(axis=2).mean(axis=0)  # [S]
    return np.tile(wins, (len(study.document), 1))

  return fit


def fixed_fit(study: Study, scores: np.ndarray) -> Fit:
  """Scores f[N * S] that learn nothing."""
  table = scores.reshape(-1, len(study.systems))
  return lambda judgements, seed: table


def methods(study: Study, features: np.ndarray, priors: Sequence[float]) -> dict[str, Fit]:
  """All methods by name. features: f[N * S, D], the last of which is the mean log-probability of a text's tokens."""
  return {
    HEAD: head_fit(study, features, priors),
    WORDS: word_fit(study),
    SYSTEM: system_fit(study),
    LIKELIER: fixed_fit(study, features[:, -1]),
    LONGER: fixed_fit(study, length_scores([], study.texts)),
  }


def summary(study: Study, tests: Sequence[Tested]) -> dict[str, Any]:
  """Shares of the untied pairs that a method orders as own and as held-out raters do, and their difference.

  A judgement counts once: the mean over the seeds, and over the models that learnt from its rater. Intervals are over
  documents. Also the difference with each seed, and both shares for each rater.
  """
  own = np.stack([np.where(one.held_out, 0, one.right).sum(0) / (~one.held_out).sum(0) for one in tests])  # [seeds, J]
  other = np.stack([np.where(one.held_out, one.right, 0).sum(0) / one.held_out.sum(0) for one in tests])
  untied = study.untied
  raters = {
    name: {OWN: _share(study, own.mean(0), untied * mine), HELD_OUT: _share(study, other.mean(0), untied * mine)}
    for name, mine in ((name, study.rater == number) for number, name in enumerate(study.raters))
  }
  gap = ratio_interval(study.by_document((own - other).mean(0)), study.by_document(untied))
  return {
    OWN: _share(study, own.mean(0), untied),
    HELD_OUT: _share(study, other.mean(0), untied),
    GAP: rounded(gap),
    "with each seed": [round(float(values.sum() / untied.sum()), 4) for values in own - other],
    "raters": raters,
  }


def advantage(study: Study, tests: Sequence[Tested], baseline: Sequence[Tested]) -> dict[str, float]:
  """The share of a method less that of a baseline, by held-out raters on the same pairs, over documents."""
  more = [
    np.where(one.held_out, one.right - other.right, 0).sum(0) / one.held_out.sum(0)
    for one, other in zip(tests, baseline, strict=True)
  ]
  return rounded(ratio_interval(study.by_document(np.mean(more, axis=0)), study.by_document(study.untied)))


def people(study: Study) -> dict[str, dict[str, float]]:
  """How often others order a rater's untied pairs as the rater does: one other rater, and the mean of all others."""
  orders, untied = study.orders, study.untied
  agreed, compared = np.zeros(len(orders)), np.zeros(len(orders))
  for segment in range(len(study.document)):
    for a, b in itertools.combinations(np.flatnonzero(study.segment == segment), 2):
      both = orders[a] * orders[b]
      agreed[a] += (both > 0).sum()
      compared[a] += (both != 0).sum()
  sums = np.zeros((len(study.document), len(study.systems)))
  np.add.at(sums, study.segment, study.penalties)
  rest = pair_orders(np.round(study.penalties - sums[study.segment], 6))
  told = (rest != 0) & (orders != 0)
  return {
    "another rater, where neither ties": _share(study, agreed, compared),
    "mean of the others, where it does not tie": _share(study, ((rest == orders) & told).sum(1), told.sum(1)),
    "mean of the others, a tie as half": _share(study, agreements(rest, orders), untied),
  }


def run_seed(study: Study, fits: Mapping[str, Fit], seed: int) -> dict[str, Any]:
  """{method: its tests with this seed}, as JSON keeps them."""
  found = {name: cross_test(study, fit, seed) for name, fit in fits.items()}
  return {name: {"right": one.right.tolist(), "held_out": one.held_out.tolist()} for name, one in found.items()}


def results(study: Study, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """All figures. seeds: what `run_seed` returned for each seed."""
  tests = {
    name: [Tested(*(np.array(seed[name][key]) for key in Tested._fields)) for seed in seeds] for name in seeds[0]
  }
  return {
    "segments": len(study.document),
    "documents": int(study.document.max() + 1),
    "judgements": len(study.segment),
    "untied pairs": int(study.untied.sum()),
    "methods": {name: summary(study, found) for name, found in tests.items()},
    "reward model less": {
      name: advantage(study, tests[HEAD], found) for name, found in tests.items() if name != HEAD
    },
    "people": people(study),
  }  # fmt: skip


def rounded(interval: Interval) -> dict[str, float]:
  """An interval for results.json."""
  return {name: round(float(value), 4) for name, value in interval._asdict().items()}


def _share(study: Study, right: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
  """The share of pairs f[J] that are right f[J], over documents; judgements without pairs do not count."""
  counted = np.where(pairs > 0, right, 0.0)
  return rounded(clustered_share(study.by_document(counted), study.by_document(pairs)))
