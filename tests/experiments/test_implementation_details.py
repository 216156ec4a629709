"""The experiment on PPO's implementation details: its figures by hand, and the whole command at tiny sizes."""

import jax
import numpy as np
import pytest
from tiny_chain import ROOT

from rlhf_jax import data
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.pipeline.recipe import plain
from rlhf_jax.settings import import_module
from rlhf_jax.sweep.cells import make_cells
from rlhf_jax.train.mesh import using_devices

pytestmark = pytest.mark.usefixtures("unoptimised")

analyse = import_module(str(ROOT / "experiments" / "implementation_details" / "analyse.py"))
CHANGES = {"none": {}, "a": {"ppo.x": 1}, "b": {"ppo.y": 1}, "c": {"ppo.y": 2}}
# Gold rewards of two seeds: a adds 0.1 and 0.3, b takes 0.5 from both, c adds 0.3 and 0.3, a and b together 0 and 0.2.
GOLD = {"none": (1.0, 1.2), "a": (1.1, 1.5), "b": (0.5, 0.7), "c": (1.3, 1.5), "b+a": (1.0, 1.4)}


def values(gold):
  return {
    change: {seed: dict.fromkeys(analyse.METRICS, value) for seed, value in enumerate(of_seeds)}
    for change, of_seeds in gold.items()
  }


def cells(arg):
  found = []
  analyse.sweep.sweep(lambda config, **labels: found.append((config, labels)), arg)
  return found


def test_the_largest_fall_is_of_the_running_mean():
  assert analyse.largest_fall(np.array([0.0, 2.0, 2.0, 0.0, 4.0]), window=2) == 1.0  # means 1, 2, 1, 2
  assert analyse.largest_fall(np.arange(10.0)) == 0.0
  assert analyse.largest_fall(np.array([3.0, 1.0]), window=8) == 0.0  # of both: a single mean


def test_effects_are_paired_by_seed():
  found = analyse.effects(values(GOLD))
  assert "none" not in found
  assert found["a"]["gold"]["mean"] == 0.2
  half = 12.706 * np.std([0.1, 0.3], ddof=1) / np.sqrt(2)
  assert found["a"]["gold"]["high"] == pytest.approx(0.2 + half, abs=1e-3)
  assert found["b"]["KL"] == {"mean": -0.5, "low": -0.5, "high": -0.5, "seeds": 2}
  assert analyse.levels(values(GOLD))["none"]["spread"] == pytest.approx(0.1414, abs=1e-4)


def test_the_pair_has_the_largest_effects_of_different_settings():
  found = analyse.effects(values(GOLD))
  assert analyse.largest(found, CHANGES) == ("b", "a")  # c, which is second, changes the setting of b
  with pytest.raises(ValueError, match="different settings"):
    analyse.largest({name: found[name] for name in ("b", "c")}, CHANGES)


def test_an_interaction_is_what_both_give_beyond_the_sum():
  found = analyse.interaction(values(GOLD), "b", "a")["gold"]
  assert found["both"]["mean"] == 0.1
  assert found["interaction"] == {"mean": 0.4, "low": 0.4, "high": 0.4, "seeds": 2}  # 0 - 0.1 + 0.5 and 0.2 - 0.3 + 0.5


def test_a_single_seed_has_no_interval():
  one = {change: {0: found[0]} for change, found in values(GOLD).items()}
  assert analyse.effects(one)["b"]["gold"] == {"mean": -0.5, "low": None, "high": None, "seeds": 1}
  assert analyse.levels(one)["none"]["spread"] is None


def test_the_scale_of_scores_as_trained():
  normal = {"kernel": np.array([1.0, -2.0]), "bias": np.array(0.5)}
  trained = {"kernel": np.array([3.0, -6.0]), "bias": np.array(4.0)}
  assert analyse.score_scale(trained, normal) == (2.5, 3.0)
  with pytest.raises(ValueError, match="more than a shift and a scale"):
    analyse.score_scale({"kernel": np.array([3.0, -5.0]), "bias": np.array(4.0)}, normal)


def test_tables_and_picture_are_made_of_the_figures(tmp_path, monkeypatch):
  monkeypatch.setattr(analyse.sweep, "CHANGES", CHANGES)
  result = analyse.summarise(values(GOLD), {}, ("b", "a"))
  assert list(result["effects"]) == ["a", "b", "c"] and result["seeds"] == 2
  rows = analyse.tables(result).splitlines()
  assert [row.split(" | ")[0] for row in rows[2:6]] == ["| none", "| b", "| c", "| a"]
  assert (
    rows[3].startswith("| b | -0.50 [-0.50, -0.50] |") and "| gold reward | -0.50 [-0.50, -0.50] | +0.20 [" in rows[9]
  )
  analyse.draw(result, tmp_path / "results.png")
  assert (tmp_path / "results.png").stat().st_size > 0


def test_every_cell_can_be_run_and_differs_in_its_change_alone(tmp_path):
  found = cells("")
  assert len(found) == analyse.sweep.SEEDS * len(analyse.sweep.CHANGES)
  assert len(make_cells([plain(config) for config, _ in found], [{}] * len(found), [label for _, label in found]))
  for config, _ in found[: len(analyse.sweep.CHANGES)]:
    assert plan(plain(config), tmp_path)  # every key and value is known
  names = [labels["change"] for _, labels in cells("fast,shared trunk+no EOS trick")]
  assert names == [*analyse.sweep.FEW, "shared trunk+no EOS trick"]
  both = cells("fast,shared trunk+no EOS trick")[-1][0]
  assert both.ppo.shared_trunk and both.ppo.environment.missing_eos_score is None


@pytest.mark.slow
def test_the_command_at_tiny_sizes(tmp_path, capsys):
  arguments = ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--fast"]
  with using_devices(jax.devices()[:1]):
    analyse.main(arguments)
  told = capsys.readouterr().out
  result = data.read_json(tmp_path / "out" / "results.json")
  assert set(result["effects"]) == set(analyse.sweep.FEW) - {"none"} > set(result["largest"])
  assert result["scores as trained"]["std"]["mean"] > 0
  assert set(result["two by two"]) == set(analyse.METRICS)
  assert "| fresh value head |" in told and (tmp_path / "out" / "results.png").stat().st_size > 0
  with using_devices(jax.devices()[:1]):  # nothing is made anew
    analyse.main(arguments)
  assert data.read_json(tmp_path / "out" / "results.json") == result
