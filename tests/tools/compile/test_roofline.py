"""Predicted times: by hand, and against the published steps that they are calibrated on."""

import importlib.util
import itertools

import pytest
from tiny_chain import ROOT

from rlhf_jax.tools.compile import roofline
from rlhf_jax.tools.compile.chips import Chip
from rlhf_jax.tools.compile.counts import Counts

CHIP = Chip(hbm=1e9, flops=100.0, bandwidth=10.0, links=5.0)


def pods():
  spec = importlib.util.spec_from_file_location("pods", ROOT / "benchmarks/pods.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_times_by_hand():
  many = Counts(((100.0, 1.0, 2.0), (10.0, 40.0, 1.0)), outputs=3.0, collectives={"all-gather": 10.0})
  found = roofline.times(many, CHIP, compute=0.5, output=2.0)
  assert found.compute == pytest.approx(2 * 2 + 0.2)  # at half of the peak
  assert found.memory == pytest.approx(4 - 0.2 + 0.6)  # the second product waits for its operands
  assert found.interconnect == 2.0
  assert found.total == pytest.approx(4.2 + 4.4) and found.bound == "memory"


def test_collectives_overlap_until_they_are_longer():
  found = roofline.times(Counts(((100.0, 0.0, 1.0),), 0.0, {"all-gather": 500.0}), CHIP)
  assert found.total == 100.0 and found.bound == "interconnect"


def test_the_constants_are_those_of_the_fit_and_predict_the_third_step_within_20_percent():
  module = pods()
  for pair in itertools.combinations(module.STEPS, 2):
    (third,) = (step for step in module.STEPS if step not in pair)
    assert module.predicted(third, *module.fit(pair)) == pytest.approx(third.speed, rel=0.2)
  compute, output = module.fit((module.STEPS[0], module.STEPS[2]))
  assert (roofline.COMPUTE, roofline.OUTPUT) == pytest.approx((compute, output), rel=2e-3)


def test_the_parameters_and_the_utilisation_of_the_published_steps_are_those_published():
  """MaxText's MFU counts attention without the mask, and no table of embeddings."""
  module = pods()
  utilisations = (0.4546, 0.5033, 0.654)
  for step, published in zip(module.STEPS, utilisations, strict=True):
    layer = step.width * (2 * step.width + 2 * step.kv + 3 * step.hidden)
    parameters = step.layers * layer + step.vocabulary * step.width
    flops = 6 * parameters + 12 * step.layers * step.width * step.length
    assert flops * step.speed / module.CHIPS[step.chip].flops == pytest.approx(published, rel=0.03)
