"""The study of over-optimisation: its fits on curves with known coefficients, and the whole command."""

import numpy as np
import pytest
from tiny_chain import ROOT

from rlhf_jax.settings import import_module

fits = import_module(str(ROOT / "experiments" / "over_optimisation" / "fits.py"))
BEST_OF_N, RL = fits.FORMS
D = np.linspace(0.0, 3.0, 31)


def test_a_curve_of_either_form_is_found_again_with_its_peak():
  for form, gain, peak in ((BEST_OF_N, D * (1.2 - 0.4 * D), 1.5), (RL, _rl(1.2, 0.6), np.exp(1.0))):
    found = fits.fit(form, [(D[:16], gain[:16]), (D[16:], gain[16:])])
    assert (found.a, found.peak) == pytest.approx((1.2, peak)) and found.r2 == pytest.approx(1.0)
    assert D[gain.argmax()] == pytest.approx(found.peak, abs=0.06)  # the points are 0.1 apart


def _rl(a, b):
  return np.array([d * (a - b * np.log(d)) if d else 0.0 for d in D])


def test_a_curve_that_never_falls_has_no_peak_and_one_that_only_falls_has_it_at_0():
  assert fits.fit(BEST_OF_N, [(D, D + D * D)]).peak == np.inf
  assert fits.fit(BEST_OF_N, [(D, -D - D * D)]).peak == 0.0
  assert fits.fit(RL, [(D, _rl(1.0, -1.0))]).peak == np.inf
  assert fits.peak_of(RL, np.array([1.0, 900.0]), np.array([1.0, 1.0])).tolist() == [1.0, np.inf]


def test_r2_is_the_share_of_the_variance():
  """Gains 1, -1, 1, -1 at one d: the best curve goes through their mean and explains nothing."""
  assert fits.fit(RL, [(np.array([1.0, 1.0, 2.0, 2.0]), np.array([1.0, -1.0, 1.0, -1.0]))]).r2 == pytest.approx(0.0)
  assert fits.fit(RL, [(D, np.zeros_like(D))]).r2 == 0.0


def test_intervals_are_over_seeds():
  rng = np.random.default_rng(0)
  slopes = 1.2 + 0.1 * rng.normal(size=8)
  curves = [(D, D * (a - 0.4 * D)) for a in slopes]
  found = fits.fit_intervals(BEST_OF_N, curves)
  half = 1.96 * slopes.std() / np.sqrt(8)
  assert found["a"] == pytest.approx((slopes.mean() - half, slopes.mean() + half), abs=0.02)
  assert found["b"] == pytest.approx((0.4, 0.4)) and found["peak"][0] < slopes.mean() / 0.8 < found["peak"][1]
  never = fits.fit_intervals(BEST_OF_N, [(D, D + D * D)] * 3)
  assert never["peak"] == (np.inf, np.inf)


def test_the_loss_after_the_peak_is_measured_where_the_remaining_seeds_are_highest():
  gold = np.array([[0.0, 3.0, 1.0], [0.0, 2.0, 0.0], [5.0, 2.0, 2.0]])
  assert fits.highest_place(gold) == 1
  assert fits.losses_after_peak(gold).tolist() == [-1.0, 0.0, 0.0]
