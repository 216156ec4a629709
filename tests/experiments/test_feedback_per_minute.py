"""Feedback per minute: the figures by hand, and the whole command with a tiny model."""

import math

import jax
import numpy as np
import pytest
from tiny_chain import ROOT

from rlhf_jax import data
from rlhf_jax.feedback.records import Response, make_item
from rlhf_jax.settings import import_module
from rlhf_jax.train.mesh import using_devices
from rlhf_jax.world import Traits, make_labellers

analyse = import_module(str(ROOT / "experiments" / "feedback_per_minute" / "analyse.py"))
sweep = analyse.sweep


def looks(first, gold, judgements=1):
  first, gold = np.array(first, float), np.array(gold, float)
  return analyse.Looks(first, first, -first, gold, judgements)


def entropy(*shares):
  return -sum(share * math.log2(share) for share in shares)


def test_ties_count_half_in_a_concordance():
  a, b = np.array([[3.0, 2.0, 2.0]]), np.array([[3.0, 1.0, 2.0]])
  assert analyse.concordance(a, b) == pytest.approx((1 + 1 + 0.5) / 3)
  assert analyse.concordance(a, -b) == pytest.approx((0 + 0 + 0.5) / 3)
  assert analyse.concordance(b, a, untied=True) == 1.0  # the pair that a ties is left out
  assert math.isnan(analyse.concordance(a, np.zeros((1, 3)), untied=True))


def test_a_choice_that_is_right_nine_times_of_ten_has_half_a_bit():
  """1 - H(0.9), with the corrections of one cell more (the order) than the marginal has."""
  num = 2_000
  right = np.arange(num) % 10 > 0
  gold = np.tile([2.0, 1.0], (num, 1))
  values = np.where(right[:, None], [1.0, 0.0], [0.0, 1.0])
  correction = 1 / (2 * num * math.log(2))
  assert analyse.order_bits(values, gold) == pytest.approx(1 - entropy(0.9, 0.1) - correction)
  # The places of the responses do not matter, and rows of equal gold reward do not count.
  flipped = analyse.order_bits(np.concatenate([values[:, ::-1], values]), np.concatenate([gold[:, ::-1], 0 * gold]))
  assert flipped == pytest.approx(1 - entropy(0.9, 0.1) - correction)


def test_bits_of_known_kinds():
  gold = np.tile([4.0, 3.0, 2.0, 1.0], (1000, 1))
  assert analyse.order_bits(gold, gold) == pytest.approx(math.log2(24))  # a ranking without noise
  assert analyse.order_bits(0 * gold, gold) == pytest.approx(0)
  best_two = np.tile([1.0, 1.0, 0.0, 0.0], (1000, 1))  # yes to the better half: one of six sets
  assert analyse.order_bits(best_two, gold) == pytest.approx(math.log2(6))
  rng = np.random.default_rng(0)
  assert analyse.order_bits(rng.integers(7, size=(20_000, 2)), np.tile([1.0, 0.0], (20_000, 1))) < 0.002
  assert math.isnan(analyse.order_bits(gold, 0 * gold))


def test_worth_is_by_judgement_and_by_minute():
  gold = np.tile([4.0, 3.0, 2.0, 1.0], (500, 1))
  page = analyse.worth(looks(gold, gold), 30.0)
  assert page["bits"] == pytest.approx(math.log2(24), abs=1e-4) and page["bits a minute"] == pytest.approx(
    2 * math.log2(24), abs=1e-3
  )
  assert (page["gold"], page["retest"], page["others"]) == (1.0, 1.0, 0.0)
  alone = analyse.worth(looks(gold, gold, judgements=4), 30.0)
  assert alone["bits"] == pytest.approx(math.log2(24) / 4, abs=1e-4)


def test_stated_differences_are_held_against_gold():
  found = analyse.right_by_confidence(looks([[2, 1], [1, 2], [5, 1], [3, 3], [1, 2]], [[2, 1]] * 4 + [[1, 1]]))
  assert found == {"1": 0.5, "3": 1.0}  # one of two by 1, one by 4; the stated tie and the gold tie do not count


def test_labellers_look_three_times_at_four_responses():
  page = Traits(np.array([2.0, 1.0, 0.0, -1.0]), np.array([2.0, 1.0, 0.0, -1.0]), np.full(4, 5.0), np.ones(4))
  item = make_item("What is 2 plus 3?", [Response(text) for text in ("5.", "It is 5.", "It is 6.", "Six")])
  found = analyse.draw_looks([item], [page], make_labellers({"expert": 3}), {"seed": 0}, 0, draws=60, criticised=5)
  assert list(found) == list(sweep.LEARN)
  for way, one in found.items():
    size = 2 if way.startswith("pair") else 4
    assert one.first.shape == one.again.shape == one.other.shape == one.gold.shape
    assert one.gold.shape[1] == size and one.judgements == (4 if way.endswith("of 1") else 1)
    if "critique" not in way:
      assert analyse.concordance(one.first, one.gold, untied=True) > 0.7
  strengths = np.abs(np.diff(found["pair with strength"].first))
  assert set(strengths.ravel()) <= {1.0, 2.0, 3.0} and set(np.abs(np.diff(found["pair"].first)).ravel()) == {1.0}
  assert set(found["ranking of 4"].first.ravel()) == {0, 1, 2, 3} and found["ratings of 4"].first.max() <= 7


def test_an_amount_is_found_between_two_points():
  assert analyse.first_reaching([1, 4, 16], [0.5, 0.7, 0.8], 0.75) == pytest.approx(8.0)  # half way in the logarithm
  assert analyse.first_reaching([1, 4], [0.8, 0.9], 0.75) == 1
  assert analyse.first_reaching([1, 4], [0.5, 0.7], 0.75) is None


def test_other_times_are_other_numbers_of_judgements():
  points = [dict(hours=hours, judgements=180 * hours, accuracy=0.5 + 0.1 * n) for n, hours in enumerate((1, 2, 4), 1)]
  way = {"seconds": dict(seconds=20.0, answering=5.0, checking=5.0), "points": points}
  assert analyse.with_other_times(way, 2, ("answering",), 1.0) == pytest.approx(0.7)
  # Twice the answering is 25 s: the judgements of 2 hours are those of 1.6 hours now.
  found = analyse.with_other_times(way, 2, ("answering",), 2.0)
  assert found == pytest.approx(0.6 + 0.1 * math.log(1.6) / math.log(2))
  found = analyse.with_other_times(way, 2, ("answering",), 0.5)
  assert found == pytest.approx(0.7 + 0.1 * math.log(20 / 17.5) / math.log(2))
  found = analyse.with_other_times(way, 2, ("answering", "checking"), 2.0)
  assert found == pytest.approx(0.6 + 0.1 * math.log(4 / 3) / math.log(2))
  assert analyse.with_other_times(way, 4, ("answering",), 0.5) == pytest.approx(0.8)  # the last point


def seed_of(shift):
  def way(level, stated):
    points = [
      dict(hours=hours, judgements=100 * hours, steps=25 * hours, accuracy=level + 0.1 * place + shift,
           clear_accuracy=0.9, calibration=0.05, temperature=None)
      for place, hours in enumerate((1, 2, 4))
    ]  # fmt: skip
    seconds = dict(seconds=20.0, answering=5.0, prompt=2.0, reading=6.0, checking=7.0, responses=2.0)
    worth = {"gold": 0.8, "retest": 0.8, "others": 0.75, "bits": 0.3, "bits a pair": 0.3, "bits a minute": 0.9}
    return {"seconds": seconds, "worth": worth, "stated": stated, "points": points}

  ways = {name: way(0.6, {"1": 0.7} if name in analyse.CONFIDENT else {}) for name in sweep.LEARN}
  ways["ratings of 4"] = way(0.65, {"1": 0.7, "2": None})
  return {"style": {"accuracy": 0.6, "clear_accuracy": 0.6}, "ways": ways}


def test_seeds_are_taken_together_and_drawn(tmp_path):
  result = analyse.summarise([seed_of(0.0), seed_of(0.02), seed_of(-0.02)])
  assert result["seeds"] == 3 and result["threshold"] == {"hours": 2, "accuracy": 0.7}
  middle = result["ways"]["ratings of 4"]["points"][1]
  assert middle["accuracy"]["mean"] == 0.75 and middle["accuracy"]["high"] == pytest.approx(0.75 + 0.0497, abs=1e-4)
  assert middle["beyond pairs"] == {"mean": 0.05, "low": 0.05, "high": 0.05}  # the pairs vary along
  assert result["ways"]["pair"]["needed"]["steps"]["mean"] == pytest.approx(50, abs=1e-3)
  needed = result["ways"]["ratings of 4"]["needed"]["judgements"]  # 0.7 lies half way between 0.65 and 0.75
  expected = [100 * 2 ** ((0.05 - shift) / 0.1) for shift in (0.0, 0.02, -0.02)]
  assert needed["mean"] == pytest.approx(expected[0], abs=1e-3) and needed["seeds"] == pytest.approx(expected, abs=1e-3)
  halved = result["other times"]["answering"]["pair"]["0.5"]
  assert halved["mean"] == pytest.approx(0.7 + 0.1 * math.log(20 / 17.5) / math.log(2), abs=1e-4)
  assert result["ways"]["ratings of 4"]["stated"] == {"1": dict(mean=0.7, low=0.7, high=0.7), "2": None}
  rows = analyse.tables(result).splitlines()
  assert rows[2].startswith("| rating of 1 | 2.0 [2.0, 2.0] | 20.0 [20.0, 20.0] | 2.0 | 6.0 | 7.0 | 5.0 | 180 |")
  assert all(row.count("|") == rows[0].count("|") for row in rows[:10])
  analyse.draw(result, tmp_path / "results.png")
  assert (tmp_path / "results.png").stat().st_size > 5000


def test_the_study_has_a_cell_for_each_seed_and_charges_all_alike():
  cells = []
  sweep.sweep(lambda config, **labels: cells.append((config, labels)))
  assert [labels for _, labels in cells] == [{"seed": seed} for seed in range(sweep.SEEDS)]
  config = cells[1][0]
  assert config.seed == 1 and len(config.accuracy.groups) == len(sweep.LEARN) * len(sweep.HOURS)
  for number, (way, (page, _)) in enumerate(sweep.LEARN.items()):
    for hours in sweep.HOURS:
      (name,) = config.accuracy.groups[sweep.label(way, hours)]
      assert name == sweep.reward_stage(number, hours) and config[name].hours == hours
      assert config[name].feedback == (f"{{run}}/{page}/feedback.db",) and config[name].eval_fraction == 0


@pytest.mark.slow
@pytest.mark.usefixtures("unoptimised")
def test_the_whole_command_with_a_tiny_model(tmp_path, capsys):
  arguments = ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--fast"]
  with using_devices(jax.devices()[:1]):
    analyse.main(arguments)
  told = capsys.readouterr().out
  result = data.read_json(tmp_path / "out" / "results.json")
  assert list(result["ways"]) == list(sweep.LEARN) and result["seeds"] == 1
  for way, one in result["ways"].items():
    assert f"| {way} |" in told
    assert [point["hours"] for point in one["points"]] == list(sweep.FAST_HOURS)
    (point,) = one["points"]
    assert point["judgements"]["mean"] * one["seconds"]["seconds"]["mean"] == pytest.approx(720, rel=0.3)
    assert 0 <= point["accuracy"]["mean"] <= 1
  assert (tmp_path / "out" / "results.png").stat().st_size > 5000
