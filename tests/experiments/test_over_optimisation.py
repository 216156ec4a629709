"""The study of over-optimisation: its fits on curves with known coefficients, and the whole command."""

import json

import jax
import numpy as np
import pytest
from rated_texts import write_ratings
from tiny_chain import ROOT

from rlhf_jax import data
from rlhf_jax.settings import import_module
from rlhf_jax.train.mesh import using_devices

pytestmark = pytest.mark.usefixtures("unoptimised")

analyse = import_module(str(ROOT / "experiments" / "over_optimisation" / "analyse.py"))
fits = analyse.fits
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


def test_the_highest_place_has_an_interval_over_seeds():
  d = np.tile([0.0, 1.0, 2.0], (3, 1))
  assert fits.highest(d, np.array([[0.0, 3.0, 1.0]] * 3)) == (1.0, (1.0, 1.0))
  found, (low, high) = fits.highest(d, np.array([[0.0, 3.0, 1.0], [0.0, 3.0, 1.0], [0.0, 1.0, 4.0]]))
  assert (found, low, high) == (1.0, 1.0, 2.0)  # the third seed is drawn three times in 1 of 27 resamples, twice in 6


SAMPLES = [
  {"counts": [2, 1, 1], "gold": [1.0, 0.0, 1.0], "scores": {"judge": [0.5, 1.5, 0.5]}},
  {"counts": [1, 3], "gold": [2.0, 0.0], "scores": {"judge": [2.0, 0.0]}},
]


def test_the_start_of_a_curve_by_hand():
  """Two prompts of four samples: of three pairs each, none of the first and all of the second are in the gold order."""
  start = analyse.start_of(SAMPLES, "judge")
  assert (start.proxy, start.gold, start.accuracy) == pytest.approx((5 / 8, 5 / 8, 0.5))
  proxy, gold = np.array([0.5, 0.5, 1.5, 0.5, 2, 0, 0, 0]), np.array([1, 1, 0, 1, 2, 0, 0, 0])
  assert start.scale == pytest.approx(gold.std() / proxy.std())


def test_courses_are_gains_over_the_start():
  start = analyse.Start(proxy=1.0, gold=0.5, scale=2.0, accuracy=0.7)
  course = analyse.course_of([(0.0, 1.0, 0.5), (4.0, 2.0, 1.5), (-0.01, 1.0, 0.0)], start)
  assert course.d.tolist() == [[0.0, 2.0, 0.0]]
  assert course.proxy.tolist() == [[0.0, 2.0, 0.0]] and course.gold.tolist() == [[0.0, 1.0, -0.5]]


def courses(gains):
  return analyse.Course(np.tile(D, (len(gains), 1)), np.tile(D, (len(gains), 1)), np.array(gains))


def test_a_course_is_described_with_its_peak_and_what_is_lost_after_it():
  found = analyse.describe(courses([D * (a - 0.4 * D) for a in (1.1, 1.2, 1.3)]))
  form = found["forms"][BEST_OF_N]
  assert form["peak"]["mean"] == pytest.approx(1.5) and 0.7 < form["r2"] < 1
  assert found["highest"]["d"]["mean"] == pytest.approx(1.5)
  assert found["loss after the highest"]["mean"] == pytest.approx(0.9, abs=0.05)
  rising = analyse.describe(courses([D + D * D] * 2))
  assert rising["forms"][BEST_OF_N]["peak"] == {"mean": "inf", "low": "inf", "high": "inf"}
  assert json.loads(json.dumps(rising, allow_nan=False)) == rising


def test_gold_above_the_curve_without_a_penalty():
  free = courses([_rl(1.2, 0.6)] * 2)
  above = analyse.above_curve(courses([_rl(1.2, 0.6) + 0.25, _rl(1.2, 0.6) - 0.05]), RL, free)
  assert above.tolist() == pytest.approx([0.25, -0.05])


def test_the_sweeps_have_a_cell_for_each_seed():
  found = {}
  for name, arg in (("world", ""), ("people", "somewhere")):
    cells = []
    getattr(analyse, name).sweep(lambda config, cells=cells: cells.append(config), *([arg] if arg else []))
    found[name] = cells
  assert [config.seed for config in found["world"]] == list(range(8)) and len(found["people"]) == 8
  config = found["world"][0]
  assert config.ppo_reward_1x32_1280.environment.reward.checkpoint == "reward_1x32_1280"
  assert config.models.reward_1x32_1280.d_model == 32 and "reward_3x128_80" not in config.models
  assert config.ppo_penalty_0_2.kl_coef == 0.2 and config.ppo_reward_3x128_80.kl_coef == 0
  steps = {stage.num_epochs * num for num, stage in ((n, config[f"reward_3x128_{n}"]) for n in (80, 320, 1280))}
  assert steps == {640, 1280, 2560}
  shared = {name for name in found["people"][0].stages if name not in found["people"][3].seeds}
  assert {"texts", "sft", "gold"} < shared and "proxy_1" not in shared
  rows = {num * found["people"][0][f"proxy_{num}"].num_epochs for num in (1, 2, 4, 8)}
  assert rows == {8}


@pytest.mark.slow
def test_the_command_on_a_file_by_hand(tmp_path, capsys):
  arguments = ["--data", str(write_ratings(tmp_path)), "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
  with using_devices(jax.devices()[:1]):
    analyse.main([*arguments, "--fast"])
  told = capsys.readouterr().out
  result = data.read_json(tmp_path / "out" / "results.json")
  assert list(result) == ["world", "people"] and all(part["seeds"] == 2 for part in result.values())
  world, people = result["world"], result["people"]
  assert list(world["best of n"]) == ["reward_1x32_80"] == list(world["accuracy"])
  assert list(world["PPO"]) == ["ppo_reward_1x32_80"] and list(world["REINFORCE"]) == ["reinforce_reward_1x32_80"]
  assert world["PPO with penalties"]["ppo_penalty_0_2"]["coefficient"] == 0.2
  assert list(people["REINFORCE"]) == ["reinforce_proxy_1", "reinforce_proxy_2"]
  assert list(people["correlation with people"]) == ["gold", "proxy_1", "proxy_2"]
  assert "| reinforce_proxy_2 |" in told and (tmp_path / "out" / "results.png").stat().st_size > 0
  with using_devices(jax.devices()[:1]):  # nothing is made anew
    analyse.main([*arguments[:4], "--out", str(tmp_path / "again"), "--fast"])
  assert data.read_json(tmp_path / "again" / "results.json") == result
