"""The experiment on ratings of real people: its figures by hand, and the whole command with a tiny model."""

import json

import jax
import numpy as np
import pytest
from rated_texts import write_ratings
from tiny_chain import ROOT

from rlhf_jax import data
from rlhf_jax.settings import import_module
from rlhf_jax.train.mesh import using_devices

pytest.importorskip("vaderSentiment", reason="needs the extra sentiment")
pytestmark = pytest.mark.usefixtures("unoptimised")

analyse = import_module(str(ROOT / "experiments" / "sentiment" / "analyse.py"))


def test_a_correlation_has_its_interval():
  rng = np.random.default_rng(0)
  x = rng.normal(size=400)
  y = x + rng.normal(size=400)
  found = analyse.correlation(x, y)
  assert found["mean"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-4)
  width = 2 * 1.96 * (1 - found["mean"] ** 2) / 20  # of Fisher's standard error
  assert found["high"] - found["low"] == pytest.approx(width, rel=0.15)


def test_judges_are_held_against_the_second_half_of_the_people():
  rows = [{"means": [first, second]} for first, second in ((1, 1), (2, 2), (0, 0), (1, 2), (0, 1))]
  found = analyse.human_texts(rows, {"judge": np.array([-1.0, -2.0, 0.0, -2.0, -1.0])})
  assert found["judge"]["mean"] == -1.0 and 0 < found["first half of the people"]["mean"] < 1


def test_win_rates_are_of_each_judge_against_the_reference():
  said = [("a b", "good good good"), ("c d", "good good")]
  samples = [{"responses": {"sft": before, "rloo": after}} for before, after in said]
  scores = {
    "sft": {"judge": np.array([0.0, 0.0]), "program": np.array([0.0, 0.0])},
    "rloo": {"judge": np.array([1.0, 2.0]), "program": np.array([1.0, 0.0])},
  }
  found = analyse.continuations(samples, scores, "sft")
  wins = {judge: interval["mean"] for judge, interval in found["rloo"]["win rate"].items()}
  assert wins == {"judge": 1.0, "program": 0.75} and "win rate" not in found["sft"]
  assert found["sft"]["distinct bigrams"] == 1.0
  assert found["rloo"]["distinct bigrams"] == pytest.approx(1 / 3, abs=1e-4)
  assert found["rloo"]["score"]["judge"]["mean"] == 1.5


@pytest.mark.slow
def test_the_command_on_a_file_by_hand(tmp_path, capsys):
  arguments = ["--data", str(write_ratings(tmp_path)), "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
  with using_devices(jax.devices()[:1]):
    analyse.main([*arguments, "--fast"])
  told = capsys.readouterr().out
  result = data.read_json(tmp_path / "out" / "results.json")
  assert list(result["models"]) == ["base", "sft", "rloo", "rloo_free"] and result["prompts"] == 8
  for name in ("rloo", "rloo_free"):
    model = result["models"][name]
    assert set(model["win rate"]) == {"reward model", "judge", "vaderSentiment"}
    assert model["perplexity"]["mean"] > 1 and len(result["training"][name]["reward/gold"]) == 2
    assert f"| {name} |" in told
  assert result["counts"]["parts"] == {"policy": 14, "judge": 18, "held out": 8}
  assert (tmp_path / "out" / "results.png").stat().st_size > 0
  texts = tmp_path / "run" / "texts"
  of_policy, of_judge, held_out = (
    {json.dumps([row["prompt"], row["response"]]) for _, row in data.read_rows(texts / name)}
    for name in ("ratings.jsonl", "judge_ratings.jsonl", "held_out.jsonl")
  )
  assert not of_policy & of_judge and not (of_policy | of_judge) & held_out
  with using_devices(jax.devices()[:1]):  # without --data nothing is made anew
    analyse.main(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "again")])
  assert data.read_json(tmp_path / "again" / "results.json") == result
