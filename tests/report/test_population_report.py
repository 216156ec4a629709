"""The interquartile mean over members, its bounds, and the section of the report that shows them."""

import json

import numpy as np
import pytest

from rlhf_jax.evaluation.statistics import interquartile_interval, interquartile_mean
from rlhf_jax.report.population import bands, found_metrics, population_section
from rlhf_jax.report.read_run import read_run
from rlhf_jax.report.report import write_report


def test_the_middle_half_by_hand():
  scores = np.array([0.0, 1, 2, 3, 4, 5, 6, 100])  # 0, 1, 6 and 100 are cut
  assert interquartile_interval(scores[:, None])[0] == 3.5 == interquartile_mean(scores)
  assert interquartile_interval(np.array([1.0, 2, 3, 4, 100])[:, None])[0] == 3.0  # floor(5 / 4) = 1 at each end
  tasks = np.array([[0.0, 10.0], [2.0, 12.0]])  # two tasks together: 2 and 10 are the middle
  assert interquartile_interval(tasks)[0] == 6.0


def test_the_bootstrap_draws_the_runs_of_each_task():
  constant = np.array([[0.0, 10.0], [0.0, 10.0]])  # every draw has each task twice; over all four scores it would vary
  assert [float(x) for x in interquartile_interval(constant)] == [5.0, 5.0, 5.0]
  mean, low, high = interquartile_interval(np.array([0.0, 1.0])[:, None], resamples=4000)
  assert (mean, low, high) == (0.5, 0.0, 1.0)  # (0, 0), (0, 1), (1, 0), (1, 1) are equally likely
  curves = np.random.default_rng(0).normal(size=(8, 1, 5))
  mean, low, high = interquartile_interval(curves)
  assert mean.shape == (5,) and (low < mean).all() and (mean < high).all()
  np.testing.assert_allclose(mean, [interquartile_mean(curves[:, 0, i]) for i in range(5)])


def test_one_run_has_no_bounds_and_nonsense_is_refused():
  mean, low, high = interquartile_interval(np.array([[3.0]]))
  assert mean == 3.0 and np.isnan(low) and np.isnan(high)
  for scores in (np.zeros(3), np.zeros((0, 1)), np.array([[np.nan]])):
    with pytest.raises(ValueError):
      interquartile_interval(scores)


@pytest.fixture
def run(tmp_path):
  """Two groups of four members, which log rewards that differ by a constant; one of them stopped early."""
  config = {"stages": ["sft", "ppo"], "ppo": {"algorithm": "rlhf_jax.algorithms.ppo"}}
  names = [f"ppo.clip={clip},seed={seed}" for clip in (0.1, 0.2) for seed in range(4)]
  (tmp_path / "config.json").write_text(json.dumps(config))
  (tmp_path / "population.json").write_text(json.dumps({"stages": ["ppo"], "vary": {}, "members": [*names, "seed=9"]}))
  for index, name in enumerate(names):
    directory = tmp_path / "members" / name / "ppo"
    directory.mkdir(parents=True)
    (directory.parent / "config.json").write_text(json.dumps(config))
    steps = range(1, 11 if index == 3 else 21)
    lines = [json.dumps({"step": step, "reward/proxy": step + index, "loss": 1.0}) for step in steps]
    (directory / "metrics.jsonl").write_text("\n".join(lines))
  return tmp_path


def test_bands_of_a_population(run):
  (metric,) = found_metrics(read_run(run))
  first, second = bands(metric)
  assert metric.title == "Proxy reward, ppo" and len(first.x) == 10 and len(second.x) == 20
  np.testing.assert_allclose(first.aggregate, first.x + 1.5)  # of 0, 1, 2 and 3 the middle is 1 and 2
  np.testing.assert_allclose(second.aggregate, second.x + 5.5)
  assert (first.low <= first.aggregate).all() and not len(first.members)


def test_the_section_and_the_picture(run):
  section = population_section(read_run(run))
  assert section["size"] == 8 and [label for label, _ in section["groups"]] == ["ppo.clip=0.1", "ppo.clip=0.2"]
  assert section["aggregates"][1][1][0][0] == "25.00"  # the last tenth of 20 steps, 19.5, + 5.5
  assert section["rows"][0] == ("ppo.clip=0.1,seed=0", ["19.50"])
  page = write_report(run).read_text()
  assert 'id="population"' in page and "members/seed=9 holds no run" in page
  assert "No stage of this run optimised" not in page and "#samples" not in page  # the members have those
  assert (run / "population.png").read_bytes()[:4] == b"\x89PNG"
  assert write_report(run).read_text() == page


def test_a_run_alone_has_no_such_section(run):
  (run / "population.json").unlink()
  assert population_section(read_run(run)) is None
  assert 'id="population"' not in write_report(run).read_text()
  assert not (run / "population.png").exists()
