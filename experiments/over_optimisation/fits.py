"""Fits of gold reward over d = sqrt(KL) by the two forms of Gao et al. 2022 (arXiv 2210.10760); NumPy only.

With R the gold reward less its value at d = 0, and d > 0:

  best of n   R(d) = d (a - b d), highest at d = a / (2 b)
  RL          R(d) = d (a - b log d), highest at d = exp(a / b - 1)

Both are linear in a and b, and are fitted by least squares. Where b is not above 0 a curve never falls, and its peak is
inf; where a fit falls from the start, its peak is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FORMS = ("d(a - b d)", "d(a - b log d)")
RESAMPLES = 2000
Curve = tuple[np.ndarray, np.ndarray]  # d[E], and the gain of the gold reward there [E]


class Fit(NamedTuple):
  """Coefficients of one form, with what follows from them."""

  a: float
  """Slope, in gold reward per square root of a nat."""
  b: float
  """Coefficient of over-optimisation."""
  r2: float
  """Share of the variance of the gains that the curve explains."""
  peak: float
  """d at which the curve is highest, in square roots of nats."""


def design(form: str, d: np.ndarray) -> np.ndarray:
  """The columns by which a and b are multiplied: f64[E, 2] for d[E]; d log d is 0 at 0."""
  if form == FORMS[0]:
    return np.stack([d, -d * d], axis=1)
  return np.stack([d, -d * np.log(np.where(d > 0, d, 1.0))], axis=1)


def peak_of(form: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """d at which curves with the coefficients a[...] and b[...] are highest: f64[...]."""
  falls = b > 0
  safe = np.where(falls, b, 1.0)
  with np.errstate(over="ignore"):
    highest = np.maximum(a / (2 * safe), 0.0) if form == FORMS[0] else np.exp(a / safe - 1)
  return np.where(falls, highest, np.inf)


def fit(form: str, curves: Sequence[Curve]) -> Fit:
  """The fit to the points of all curves together."""
  d, gain = (np.concatenate(column) for column in zip(*curves, strict=True))
  x = design(form, d)
  (a, b), *_ = np.linalg.lstsq(x, gain, rcond=None)
  spread = ((gain - gain.mean()) ** 2).sum()
  r2 = 1 - ((gain - x @ (a, b)) ** 2).sum() / spread if spread > 0 else 0.0
  return Fit(float(a), float(b), float(r2), float(peak_of(form, np.array(a), np.array(b))))


def fit_intervals(form: str, curves: Sequence[Curve], seed: int = 0) -> dict[str, tuple[float, float]]:
  """{"a", "b", "peak": 95 % interval}: percentiles of fits to the curves of seeds that are drawn with replacement.

  curves: one for each seed.
  """
  designs = [design(form, d) for d, _ in curves]
  squares = np.array([x.T @ x for x in designs])  # [S, 2, 2]
  products = np.array([x.T @ gain for x, (_, gain) in zip(designs, curves, strict=True)])  # [S, 2]
  drawn = np.random.default_rng(seed).integers(len(curves), size=(RESAMPLES, len(curves)))
  inverses = np.linalg.pinv(squares[drawn].sum(axis=1), hermitian=True)  # [R, 2, 2]; seeds may all stay at d = 0
  a, b = np.einsum("rij,rj->ir", inverses, products[drawn].sum(axis=1))
  columns = {"a": a, "b": b, "peak": peak_of(form, a, b)}
  bounds = {name: np.quantile(x, [0.025, 0.975], method="nearest") for name, x in columns.items()}  # inf stays inf
  return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def highest_place(gold: np.ndarray) -> int:
  """The place on a course of E evaluations at which the mean over seeds gold[S, E] is highest."""
  return int(gold.mean(axis=0).argmax())


def highest(d: np.ndarray, gold: np.ndarray, seed: int = 0) -> tuple[float, tuple[float, float]]:
  """(the mean d at which the mean over seeds is highest, its 95 % interval), for d[S, E] and gold[S, E].

  The interval has the percentiles of courses of seeds that are drawn with replacement.
  """
  drawn = np.random.default_rng(seed).integers(len(gold), size=(RESAMPLES, len(gold)))
  places = gold[drawn].mean(axis=1).argmax(axis=1)  # [R]
  means = d[drawn].mean(axis=1)[np.arange(RESAMPLES), places]
  low, high = np.quantile(means, [0.025, 0.975])
  return float(d[:, highest_place(gold)].mean()), (float(low), float(high))


def losses_after_peak(gold: np.ndarray) -> np.ndarray:
  """What each seed loses from the peak to the end of its course: f64[S] for gold[S, E], S > 1.

  The peak of a seed is that of the mean of the remaining seeds: at its own highest place a seed would be above its last
  one by chance alone.
  """
  own = np.arange(len(gold))
  places = [highest_place(gold[own != seed]) for seed in own]
  return gold[own, places] - gold[:, -1]
