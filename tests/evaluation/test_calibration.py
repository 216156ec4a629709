"""Calibration of predicted preferences, by hand and on outcomes drawn from the predictions."""

import numpy as np
import pytest

from rlhf_jax.evaluation.calibration import (
  TEMPERATURES,
  answer_calibration,
  distinct_texts,
  fit_temperature,
  log_loss,
  pair_calibration,
)


def logit(p):
  return np.log(p / (1 - p))


def test_a_pair_counts_once_with_the_higher_score_first():
  leads = np.array([logit(0.9), -logit(0.9), logit(0.6), 0.0])
  found = pair_calibration(leads, np.array([1.0, 0.0, 0.0, 1.0]), [0, 1, 2, 3])
  assert [entry["confidence"] for entry in found["bins"]] == pytest.approx([0.5, 0.6, 0.9])
  assert [entry["frequency"]["mean"] for entry in found["bins"]] == [0.5, 0.0, 1.0]  # equal scores are right by half
  assert found["error"] == pytest.approx((0.0 + 0.6 + 2 * 0.1) / 4)
  losses = [-np.log(0.9), -np.log(0.9), -np.log(0.4), np.log(2)]
  assert found["log_loss"] == pytest.approx(np.mean(losses))
  assert found["num"] == 4 and pair_calibration(np.zeros(0), np.zeros(0), [])["num"] == 0


def test_outcomes_drawn_from_the_predictions_are_calibrated():
  rng = np.random.default_rng(0)
  leads = rng.normal(size=40_000) * 1.5
  drawn = (rng.random(leads.size) < 1 / (1 + np.exp(-leads))).astype(float)
  prompts = np.arange(leads.size) // 4
  assert pair_calibration(leads, drawn, prompts)["error"] < 0.01
  assert pair_calibration(leads, drawn, prompts)["temperature"] == pytest.approx(1.0, abs=0.05)
  sure = pair_calibration(3 * leads, drawn, prompts)
  assert sure["error"] > 0.1 and sure["temperature"] == pytest.approx(3.0, abs=0.15)
  mended = pair_calibration(3 * leads, drawn, prompts, temperature=sure["temperature"])
  assert mended["error"] < 0.01 and mended["log_loss"] < sure["log_loss"]


def test_the_temperature_by_hand():
  """A lead of 2 that wins three times of four asks for sigmoid(2 / T) = 3 / 4."""
  assert fit_temperature(np.full(4, 2.0), np.array([1.0, 1.0, 1.0, 0.0])) == pytest.approx(2 / np.log(3))
  assert fit_temperature(np.full(1, 2.0), np.array([0.75])) == pytest.approx(2 / np.log(3))
  assert fit_temperature(np.array([1.0, 2.0]), np.array([1.0, 1.0])) == pytest.approx(TEMPERATURES[0])
  assert fit_temperature(np.array([1.0, 2.0]), np.array([0.0, 0.0])) == pytest.approx(TEMPERATURES[1])
  assert log_loss(np.array([1e4, -1e4]), np.array([1.0, 0.0])) == 0.0


def test_pairs_of_answers_by_outcome():
  scores = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
  gold = np.array([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
  labels = np.full((2, 3, 3), 0.5)
  labels[0, 0, 1] = 0.8
  distinct = distinct_texts([["a", "b", "b"], ["a", "b", "c"]])
  assert distinct.tolist() == [[True, True, False], [True, True, True]]
  found = answer_calibration(scores, gold, {"labels": labels}, distinct, 2.0)
  assert found["scale"] == 2.0 and found["gold"]["num"] == 3 and found["labels"]["num"] == 4
  right, wrong, clear = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-4))
  assert found["gold"]["error"] == pytest.approx((2 * abs((right + wrong) / 2 - 0.5) + clear) / 3)
  assert found["labels"]["error"] == pytest.approx((abs(3 * right - 0.8 - 0.5 - 0.5) + clear - 0.5) / 4)
  assert answer_calibration(scores, gold, {}, distinct, 2.0) == {"scale": 2.0, "gold": found["gold"]}
