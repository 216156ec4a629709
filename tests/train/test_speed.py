"""Seconds of a step by part, tokens per second and model FLOPs utilisation, against numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.train import speed
from rlhf_jax.train.speed import Clock, count_tokens, device_peak, model_sizes, split_seconds


def test_the_parts_of_a_step_add_up(monkeypatch):
  times = iter([0.0, 3.0, 4.0, 9.0, 9.5])
  monkeypatch.setattr("time.perf_counter", lambda: next(times))
  clock = Clock()
  clock.lap("host", without=2.5)
  clock.add({"sampling": 2.0, "reward": 0.5})
  clock.lap("update")
  clock.lap("checkpoint")
  clock.lap("host")
  taken = clock.take()
  assert taken == {
    "seconds": 4.5,  # without the checkpoint
    "seconds/host": 1.0,
    "seconds/sampling": 2.0,
    "seconds/reward": 0.5,
    "seconds/update": 1.0,
    "seconds/checkpoint": 5.0,
  }
  assert clock.take() == {"seconds": 0}


def test_seconds_are_not_metrics():
  metrics, seconds = split_seconds({"loss": 1.0, "seconds/sampling": 2.0})
  assert metrics == {"loss": 1.0} and seconds == {"sampling": 2.0}


def test_utilisation_is_its_formula():
  seconds = {"seconds": 2.0, "seconds/sampling": 0.5}
  metrics = {"tokens/trained": 100.0, "tokens/sampled": 40.0, "tokens/scored": 60.0}
  row = speed.speed(seconds, metrics, (10, 7), peak=1000.0)
  assert row["tokens_per_second"] == 50.0 and row["sampled_per_second"] == 80.0
  assert row["mfu"] == pytest.approx((6 * 10 * 100 + 2 * 7 * (40 + 60)) / (2.0 * 1000))
  assert "mfu" not in speed.speed(seconds, metrics, (10, 7), peak=0.0)
  assert row["memory/process_gib"] > 0


def test_the_peak_is_the_configs_or_the_tables(monkeypatch):
  class Device:
    device_kind = "NVIDIA A100-SXM4-80GB"

  monkeypatch.setattr("jax.devices", lambda: [Device()] * 2)
  monkeypatch.setattr("jax.device_count", lambda: 2)
  assert device_peak(0.0) == 2 * 312e12 and device_peak(1e12) == 2e12
  Device.device_kind = "cpu"
  assert device_peak(0.0) == 0.0


def test_sizes_are_of_all_parameters_and_of_the_policy():
  policy, value = {"decoder": jnp.zeros((2, 3))}, {"decoder": jnp.zeros((2, 3)), "head": jnp.zeros(4)}
  assert model_sizes({"policy": policy, "value": value}) == (16, 6)
  assert model_sizes(policy) == (6, 6)


def test_tokens_are_counted_to_the_end_of_the_response():
  mask = np.array([[0, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]], bool)
  assert count_tokens(mask) == 4 + 2 + 0 + 5
  assert count_tokens(mask.reshape(2, 2, 5)) == 11.0
