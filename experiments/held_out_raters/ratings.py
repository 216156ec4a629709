"""Heads on the ratings of VADER's texts: by the number of texts, by that of ratings a text, and by their product.

The raters of one text are not linked to those of another, so that nothing is known of held-out raters. What is held out
here is ratings: those of texts that no model saw, and the other ratings of texts that it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.linalg import lsqr

from rlhf_jax.evaluation.linear_reward import choose_prior, fit_ratings, spreads
from rlhf_jax.evaluation.word_baselines import vocabulary, word_counts
from rlhf_jax.intervals import mean_interval

TEST_SHARE = 0.2  # of the texts
ALL = 10**6  # more ratings than a text has
KEPT = 2000  # training texts on which own and other ratings are compared
PRIOR_FOLDS = 3  # of the training texts, by which the prior of a model is chosen
WORD_PRIORS = (0.1, 0.3, 1.0)  # standard deviations of the weight of a word, in ratings for one more of it
HEAD, WORDS, PROGRAM, LONGER = "reward model", "bag of words", "vaderSentiment", "longer wins"
ORDER, CORRELATION, SINGLE = "order by the mean", "correlation with the mean", "order by held-out ratings"
OWN, OTHER = "ratings learnt from", "other ratings of the same texts"

Fit = Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # (texts i64[M], ratings f64[M], seed) -> scores f64[N]


class Study(NamedTuple):
  """N texts with their ratings."""

  texts: list[str]
  ratings: np.ndarray
  """Ratings from -4 to 4, NaN behind the last one of a text: f64[N, most]."""


class Sizes(NamedTuple):
  """The extent of the study."""

  largest: int
  """Largest number of training texts."""
  doublings: int
  """Number of times that it is halved."""
  ratings: tuple[int, ...]
  """Numbers of ratings of a training text."""
  seeds: int
  priors: tuple[float, ...]
  """Standard deviations that a prior of a head's weights may have, in ratings per standard deviation of a feature."""

  @property
  def items(self) -> list[int]:
    """The numbers of training texts, each twice the one before."""
    return [self.largest // 2**step for step in reversed(range(self.doublings + 1))]


def make_study(snippets: Mapping[str, tuple[str, np.ndarray]], num: int) -> Study:
  """The study of `num` different texts of one source, as `read_vader` gives them, drawn at random; all if fewer."""
  different = list({text: (text, ratings) for text, ratings in snippets.values()}.values())
  chosen = [different[n] for n in np.random.default_rng(0).permutation(len(different))[:num]]
  table = np.full((len(chosen), max(len(ratings) for _, ratings in chosen)), np.nan)
  for row, (_, ratings) in zip(table, chosen, strict=True):
    row[: len(ratings)] = ratings
  return Study([text for text, _ in chosen], table)


def shuffled(ratings: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """The ratings f64[N, most] of each text in a random order, NaN last."""
  keys = np.where(np.isnan(ratings), np.inf, rng.random(ratings.shape))
  return np.take_along_axis(ratings, np.argsort(keys, axis=1), axis=1)


def counts(ratings: np.ndarray) -> np.ndarray:
  """The number of ratings of each text, i64[N], of ratings f64[N, most]."""
  return np.count_nonzero(~np.isnan(ratings), axis=1)


def last_ratings(drawn: np.ndarray) -> np.ndarray:
  """The last rating of each text, f64[N], of drawn f64[N, most]."""
  return drawn[np.arange(len(drawn)), counts(drawn) - 1]


def order_accuracy(scores: np.ndarray, values: np.ndarray) -> float:
  """The share of the pairs with different values f[N] that scores f[N] order alike; equal scores count half."""
  given, wanted = ((x[:, None] > x).astype(np.int8) - (x[:, None] < x) for x in (scores, values))
  return float(0.5 + 0.5 * np.sum(given * wanted, dtype=np.int64) / np.count_nonzero(wanted))


def measure(scores: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
  """How scores f[N] agree with the mean of all ratings drawn f64[N, most] and with the first one of each text."""
  mean = np.nanmean(drawn, axis=1)
  return {
    ORDER: order_accuracy(scores, mean),
    CORRELATION: float(np.corrcoef(scores, mean)[0, 1]),
    SINGLE: order_accuracy(scores, drawn[:, 0]),
  }


def people(drawn: np.ndarray, ratings: Sequence[int]) -> dict[str, dict[str, float]]:
  """How the mean of the first k ratings agrees with the mean of the text's others; and that with single ratings."""
  found = {}
  for k in (k for k in ratings if k < ALL):
    kept = drawn[counts(drawn) > k]
    some, rest = np.nanmean(kept[:, :k], axis=1), np.nanmean(kept[:, k:], axis=1)
    found[str(k)] = {ORDER: order_accuracy(some, rest), CORRELATION: float(np.corrcoef(some, rest)[0, 1])}
  found["mean of the others"] = {SINGLE: order_accuracy(np.nanmean(drawn[:, 1:], axis=1), drawn[:, 0])}
  return found


def head_fit(features: np.ndarray, priors: Sequence[float]) -> Fit:
  """Ridge regression on features f[N, D]; the prior is chosen anew for each fit, among the training texts."""
  x = features / spreads(features)

  def fit(texts: np.ndarray, values: np.ndarray, seed: int) -> np.ndarray:
    prior_sd = choose_prior(
      lambda rows, sd: fit_ratings(x[texts[rows]], values[rows], 1.0, sd),
      lambda head, rows: (head.predict(x[texts[rows]]) - values[rows]) ** 2,
      texts,
      priors,
      PRIOR_FOLDS,
      seed,
    )
    return fit_ratings(x[texts], values, 1.0, prior_sd).predict(x)

  return fit


def word_fit(texts: Sequence[str]) -> Fit:
  """Ridge regression on the number of times that each word stands in a text, its prior chosen likewise."""
  table = word_counts(texts, vocabulary(texts))

  def fit_rows(rows: np.ndarray, values: np.ndarray, prior_sd: float) -> tuple[np.ndarray, float]:
    mean = float(values.mean())
    return lsqr(table[rows], values - mean, damp=1 / prior_sd, atol=1e-4, btol=1e-4)[0], mean

  def fit(chosen: np.ndarray, values: np.ndarray, seed: int) -> np.ndarray:
    prior_sd = choose_prior(
      lambda rows, sd: fit_rows(chosen[rows], values[rows], sd),
      lambda found, rows: (table[chosen[rows]] @ found[0] + found[1] - values[rows]) ** 2,
      chosen,
      WORD_PRIORS,
      PRIOR_FOLDS,
      seed,
    )
    return table @ fit_rows(chosen, values, prior_sd)[0]

  return fit


def run_seed(
  study: Study, fits: Mapping[str, Fit], fixed: Mapping[str, np.ndarray], sizes: Sizes, seed: int
) -> dict[str, Any]:
  """All measures with one division of the texts and one order of each text's ratings.

  fixed: scores f[N] by name of methods that learn nothing here.
  """
  rng = np.random.default_rng([seed, 2])
  order, drawn = rng.permutation(len(study.texts)), shuffled(study.ratings, rng)
  held_out, pool = np.split(order, [round(TEST_SHARE * len(order))])
  if len(pool) < sizes.largest:
    raise ValueError(f"{len(pool)} texts are left to learn from, fewer than {sizes.largest}")
  cells, seen = [], []
  for name, fit in fits.items():
    for items in sizes.items:
      for k in sizes.ratings:
        texts = pool[:items]
        scores = fit(texts, np.nanmean(drawn[texts, :k], axis=1), seed)
        cells.append({"method": name, "items": items, "ratings": k, **measure(scores[held_out], drawn[held_out])})
        if items == sizes.largest and k < counts(drawn).min():  # so that every text has other ratings
          rows = texts[:KEPT]
          own, other = (order_accuracy(scores[rows], x[rows]) for x in (drawn[:, 0], last_ratings(drawn)))
          seen.append({"method": name, "ratings": k, OWN: own, OTHER: other})
  return {
    "cells": cells,
    "seen": seen,
    "people": people(drawn[held_out], sizes.ratings),
    "fixed": {name: measure(scores[held_out], drawn[held_out]) for name, scores in fixed.items()},
  }


def results(study: Study, seeds: Sequence[Mapping[str, Any]], sizes: Sizes) -> dict[str, Any]:
  """All figures, with intervals over seeds. seeds: what `run_seed` returned for each seed."""
  names = list(dict.fromkeys(cell["method"] for cell in seeds[0]["cells"]))
  values = {
    (cell["method"], cell["items"], cell["ratings"], key): np.array([seed["cells"][place][key] for seed in seeds])
    for place, cell in enumerate(seeds[0]["cells"])
    for key in (ORDER, CORRELATION, SINGLE)
  }
  grid = {
    name: {
      str(items): {
        shown(k): {key: rounded(values[name, items, k, key]) for key in (ORDER, CORRELATION, SINGLE)}
        for k in sizes.ratings
      }
      for items in sizes.items
    }
    for name in names
  }
  return {
    "texts": len(study.texts),
    "ratings": int(counts(study.ratings).sum()),
    "grid": grid,
    "doublings": {name: {shown(k): doublings(values, name, k, sizes) for k in sizes.ratings} for name in names},
    "budgets": {name: budgets(values, name, sizes) for name in names},
    "seen": pooled_rows([seed["seen"] for seed in seeds], (OWN, OTHER)),
    "people": {k: _over(seeds, "people", k) for k in seeds[0]["people"]},
    "fixed": {name: _over(seeds, "fixed", name) for name in seeds[0]["fixed"]},
  }


def doublings(
  values: Mapping[tuple[str, int, int, str], np.ndarray], name: str, k: int, sizes: Sizes
) -> dict[str, Any]:
  """The gain of each doubling of the texts in the order by the mean; its mean over all and over the last three."""
  curve = np.stack([values[name, items, k, ORDER] for items in sizes.items])  # [sizes, seeds]
  gains = np.diff(curve, axis=0)
  steps = {f"to {items}": rounded(gain) for items, gain in zip(sizes.items[1:], gains, strict=True)}
  return {**steps, "mean": rounded(gains.mean(axis=0)), "mean of the last three": rounded(gains[-3:].mean(axis=0))}


def budgets(values: Mapping[tuple[str, int, int, str], np.ndarray], name: str, sizes: Sizes) -> dict[str, Any]:
  """{number of ratings: {ratings a text: accuracy, and less that of one rating a text}} where all divisions exist."""
  ks = [k for k in sizes.ratings if k < ALL]
  found: dict[str, Any] = {}
  for budget in sizes.items:
    if all(budget // k in sizes.items for k in ks):
      of = {k: values[name, budget // k, k, ORDER] for k in ks}
      found[str(budget)] = {
        str(k): {ORDER: rounded(of[k]), "less one a text": rounded(of[k] - of[ks[0]])} for k in ks
      }  # fmt: skip
  return found


def pooled_rows(seeds: Sequence[Sequence[Mapping[str, Any]]], keys: tuple[str, str]) -> list[dict[str, Any]]:
  """The rows of all seeds with the interval of each key, and of the first key less the second."""
  found = []
  for rows in zip(*seeds, strict=True):
    first, second = (np.array([row[key] for row in rows]) for key in keys)
    named = {"method": rows[0]["method"], "ratings": rows[0]["ratings"]}
    found.append({**named, keys[0]: rounded(first), keys[1]: rounded(second), "difference": rounded(first - second)})
  return found


def shown(k: int) -> str:
  """The number of ratings in words."""
  return "all" if k == ALL else str(k)


def rounded(values: np.ndarray) -> dict[str, float]:
  """The mean over seeds with its interval, for results.json."""
  return {name: round(float(value), 4) for name, value in mean_interval(values)._asdict().items()}


def _over(seeds: Sequence[Mapping[str, Any]], part: str, name: str) -> dict[str, Any]:
  return {key: rounded(np.array([seed[part][name][key] for seed in seeds])) for key in seeds[0][part][name]}
