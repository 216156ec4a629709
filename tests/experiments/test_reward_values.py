"""The study of accuracy and calibration by reward value: its figures by hand, and the whole command at tiny sizes."""

import jax
import numpy as np
import pytest
from tiny_chain import ROOT

from rlhf_jax import data
from rlhf_jax.settings import import_module
from rlhf_jax.sweep.cells import read_cells
from rlhf_jax.train.mesh import using_devices

pytestmark = pytest.mark.usefixtures("unoptimised")

FOLDER = ROOT / "experiments" / "reward_values"
analyse = import_module(str(FOLDER / "analyse.py"))


def pairs_of(first, second, gold, labels=None, style=None):
  arrays = [np.asarray(x, np.float64) for x in (first, second, gold)]
  num = len(arrays[0])
  labels = np.full(num, 0.5) if labels is None else np.asarray(labels)
  style = np.zeros(num) if style is None else np.asarray(style, np.float64)
  return analyse.Pairs(*arrays, labels, style, np.arange(num))


@pytest.fixture(autouse=True)
def few(monkeypatch):
  monkeypatch.setattr(analyse, "FEWEST", 1)


def test_accuracies_count_equal_scores_as_halves_and_leave_out_equal_gold_rewards():
  pairs = pairs_of([1, 2, 0, 1], [0, 3, 0, 0], [1, 1, 1, 0], [0.9, 0.8, 0.7, 0.6], [1, 1, -1, 1])
  found = analyse.accuracies(pairs, np.ones(4, bool))
  assert found["share"] == 1.0 and found["pairs"] == 3
  assert found["reward model"] == pytest.approx((1 + 0 + 0.5) / 3) and found["style"] == pytest.approx(2 / 3)
  assert found["labels"] == pytest.approx((0.9 + 0.2 + 0.5 + 0.6) / 4)
  assert analyse.accuracies(pairs, np.arange(4) == 3) == {"share": 0.25, "pairs": 0.0, "labels": 0.6}


def test_thirds_thresholds_and_gaps_choose_their_pairs():
  pairs = pairs_of([0.0, 0.0, 1.5, 3.0, 2.5], [0.5, 3.0, 1.6, 2.0, 2.4], [-1, -1, 1, 1, 1])
  thirds = analyse.by_third(pairs, np.array([1.0, 2.0]))
  assert {name: entry["pairs"] for name, entry in thirds.items()} == {"low": 1, "middle": 1, "high": 1}
  assert [thirds[name]["reward model"] for name in ("low", "middle", "high")] == [1.0, 0.0, 1.0]
  thresholds = analyse.by_threshold(pairs, np.array([0.0, 2.0, 2.4]))
  assert [entry["pairs"] for entry in thresholds] == [5, 2, 1]
  assert [entry["reward model"] for entry in thresholds] == [0.8, 1.0, 1.0]
  gaps = analyse.by_gap(pairs, (0.0, 0.3, 1.0, np.inf))
  assert list(gaps) == ["0 to 0.3", "0.3 to 1", "1 or more"]
  assert [entry["pairs"] for entry in gaps.values()] == [2, 1, 2]
  assert [entry["reward model"] for entry in gaps.values()] == [0.5, 1.0, 1.0]


def test_pairs_are_of_different_texts_of_one_prompt():
  row = {"policy": "sft", "responses": ["a b.", "a b.", "c."], "gold": [0, 0, 2], "apparent": [1, 1, 2]}
  row |= {"scores/reward_model": [0.5, 0.5, 1.0], "scores/style": [3.0, 3.0, 1.0]}
  pairs = analyse.make_pairs([row, row])
  assert pairs.prompt.tolist() == [0, 1]  # of three pairs one is of the same text, one stands before
  assert pairs.gold.tolist() == [-2.0, -2.0] and pairs.style.tolist() == [2.0, 2.0]
  assert pairs.first.tolist() == [0.5, 0.5] and pairs.second.tolist() == [1.0, 1.0] and (pairs.labels < 0.3).all()


def test_a_temperature_mends_a_model_that_is_too_sure():
  """Labels prefer the higher score by 3 to 1 where the model says sigmoid(4): T = 4 / log 3 is right."""
  pairs = pairs_of([2, 0], [0, 2], [1, -1], [0.75, 0.25])
  seed = analyse.Seed({"sft": pairs}, {"sft": np.zeros(2)}, scale=2.0, temperature=4 / np.log(3))
  found = analyse.calibrations(seed, "sft")["labels"]
  assert found["as trained"]["error"] == pytest.approx(1 / (1 + np.exp(-4)) - 0.75)
  assert found["as trained"]["temperature"] == pytest.approx(4 / np.log(3))
  assert found["refitted"]["error"] == pytest.approx(0.0, abs=1e-9) == found["best"]["error"]
  assert analyse.calibrations(seed, "sft")["gold"]["as trained"]["error"] == pytest.approx(1 / (1 + np.exp(4)))


def test_bins_of_seeds_are_pooled_by_their_pairs():
  def bins(frequency, num):
    return {"bins": [{"confidence": 0.52, "frequency": {"mean": frequency, "num": num}}]}

  assert analyse.pooled_bins([bins(0.5, 30), bins(0.9, 10), {"num": 0}]) == [
    {"confidence": 0.52, "frequency": 0.6, "pairs": 40}
  ]


def test_the_study_has_four_seeds_and_shares_its_cells_with_that_of_policy_improvement():
  cells = read_cells(FOLDER / "sweep.py")
  assert [cell.config["seed"] for cell in cells] == [0, 1, 2, 3]
  others = read_cells(ROOT / "experiments" / "policy_improvement" / "sweep.py")
  assert {cell.name for cell in cells} < {cell.name for cell in others}


@pytest.mark.slow
def test_the_command_at_tiny_sizes(tmp_path, capsys):
  with using_devices(jax.devices()[:1]):
    analyse.main(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--fast"])
  told = capsys.readouterr().out
  result = data.read_json(tmp_path / "out" / "results.json")
  assert result["seeds"] == 2 and list(result["policies"]) == ["sft", "ppo"]
  for found in result["policies"].values():
    assert found["all"]["share"]["mean"] == 1.0 and len(found["thresholds"]) == 10
    assert found["calibration"]["labels"]["refitted"]["error"]["seeds"] == 2
  assert "| PPO | labels | refitted |" in told
  assert (tmp_path / "out" / "results.png").stat().st_size > 0
