"""The study of preference along training: its figures by hand, and the whole command at tiny sizes."""

import jax
import pytest
from tiny_chain import ROOT

from rlhf_jax import data
from rlhf_jax.configs import policy_improvement
from rlhf_jax.settings import import_module
from rlhf_jax.train.mesh import using_devices

pytestmark = pytest.mark.usefixtures("unoptimised")

analyse = import_module(str(ROOT / "experiments" / "policy_improvement" / "analyse.py"))
COURSE = policy_improvement.course(each=1, sampled=(1, 2, 3))
MODELS = ("reward_model", "reward_retrained_2", "reward_more_2", "reward_retrained_3", "reward_more_3", "style")


def mean(value):
  return {"mean": value, "low": value, "high": value, "num": 9}


def results_of(preferred, accuracy=lambda policy, model: 0.7):
  """A seed's results.json: the share that gold prefers by policy, and the accuracy of each reward model."""
  policies = {}
  for policy in ("sft", *dict.fromkeys(policy for points in COURSE.values() for _, policy in points)):
    share = preferred.get(policy, 0.5)
    pairs = {
      model: {key: mean(accuracy(policy, model)) for key in ("accuracy", "clear_accuracy", "label_accuracy")}
      for model in MODELS
    }
    pairs["reward_model"]["calibration"] = {"labels": {"error": 0.1}}
    pairs["labels"] = {"ceiling": mean(0.9)}
    judges = {"gold": mean(share), "labels": mean(share), "reward_model": mean(share + 0.1)}
    policies[policy] = {"kl": mean(2.0), "gold": mean(share), "preferred": judges, "pairs": pairs}
  return {"reference": "sft", "policies": policies}


def test_the_arms_share_their_first_round():
  assert COURSE["ppo_retrained"] == [(1, "ppo_free@1"), (2, "ppo_retrained_2@1"), (3, "ppo_retrained_3@1")]
  full = policy_improvement.course()
  assert [step for step, _ in full["ppo_retrained"]] == [8, 16, 32, 48, 64, 96]
  assert full["ppo_retrained"][2:] == [
    (32, "ppo_free@32"), (48, "ppo_retrained_2@16"), (64, "ppo_retrained_2@32"), (96, "ppo_retrained_3@32"),
  ]  # fmt: skip


def test_the_reward_model_of_a_step_is_the_latest_before_it():
  rounds = [analyse.model_of_round(step, 32, "retrained") for step in (8, 32, 33, 64, 96)]
  assert rounds == ["reward_model"] * 2 + ["reward_retrained_2"] * 2 + ["reward_retrained_3"]


def test_preference_rises_and_falls():
  gold = {"ppo_free@1": 0.7, "ppo_free@2": 0.8, "ppo_free@3": 0.6, "ppo_retrained_3@1": 0.9}
  seeds = [results_of(gold), results_of({name: share + 0.02 for name, share in gold.items()})]
  result = analyse.analyse(seeds, COURSE, each=1)
  free = result["arms"]["ppo_free"]
  assert [point["preferred by gold"]["mean"] for point in free["points"]] == [0.5, 0.71, 0.81, 0.61]
  assert free["falls"]["gold"]["step"] == 2 and free["falls"]["gold"]["fall"]["mean"] == pytest.approx(0.2)
  assert result["arms"]["ppo_kl"]["falls"]["gold"] == {
    "step": 0, "fall": {"mean": 0.0, "low": 0.0, "high": 0.0, "seeds": 2}
  }  # fmt: skip
  assert result["retrained less fixed, gold at the end"]["mean"] == pytest.approx(0.3)


def test_gains_are_on_the_answers_of_one_policy():
  better = {"reward_retrained_2": 0.8, "reward_retrained_3": 0.9, "reward_more_2": 0.72, "reward_more_3": 0.7}
  seeds = [results_of({}, lambda policy, model: better.get(model, 0.7))] * 2
  result = analyse.analyse(seeds, COURSE, each=1)
  gains = [point.get("gain") for point in result["arms"]["ppo_retrained"]["points"]]
  assert gains[0] is None  # SFT
  means = [{kind: figure["mean"] for kind, figure in gain.items()} for gain in gains[1:]]
  assert means == [dict(retrained=0.0, more=0.0), dict(retrained=0.1, more=0.02), dict(retrained=0.2, more=0.0)]
  assert all("gain" not in point for point in result["arms"]["ppo_kl"]["points"])
  text = analyse.tables(result)
  assert "| no penalty, retrained | 2 | 70.0 [70.0, 70.0] | 70.0 [70.0, 70.0] | 10.0 [10.0, 10.0] |" in text


@pytest.mark.slow
def test_the_command_at_tiny_sizes(tmp_path, capsys):
  with using_devices(jax.devices()[:1]):
    analyse.main(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--fast"])
  told = capsys.readouterr().out
  result = data.read_json(tmp_path / "out" / "results.json")
  assert result["seeds"] == 1 and list(result["arms"]) == ["ppo_kl", "ppo_free", "ppo_retrained"]
  for arm in result["arms"].values():
    assert [point["step"] for point in arm["points"]] == [0, 1, 2, 3]
    assert arm["points"][0]["preferred by gold"]["mean"] == 0.5 and arm["points"][0]["kl"]["mean"] == 0.0
  assert result["arms"]["ppo_free"]["points"][1] == {
    **result["arms"]["ppo_retrained"]["points"][1], "policy": "ppo_free@1"
  }  # fmt: skip
  assert "| no penalty, retrained | 3 |" in told
  assert (tmp_path / "out" / "results.png").stat().st_size > 0
