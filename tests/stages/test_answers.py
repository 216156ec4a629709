"""Answers of several policies and their judges: by hand, and on checkpoints of the tiny chain."""

import numpy as np
import pytest
from tiny_chain import SAMPLING, recipe, run_stages

from rlhf_jax import data
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stages.answers import Config, preferences, summarize
from rlhf_jax.world import make_labellers

pytestmark = pytest.mark.usefixtures("unoptimised")

SFT = {
  "responses": [["Bread.", "Cake."], ["Rye.", "Oat."]],
  "gold": np.array([[0.0, 1.0], [1.0, 1.0]]),
  "kl": np.zeros((2, 2)),
  "scores/rm": np.array([[0.0, 1.0], [2.0, 0.0]]),
}
PPO = {
  "responses": [["Bread.", "Honey."], ["Wine.", "Milk."]],
  "gold": np.array([[0.0, 2.0], [0.0, 1.0]]),
  "kl": np.ones((2, 2)),
  "scores/rm": np.array([[0.1, 3.0], [3.0, 0.0]]),  # of the same text by rounding another score
}


def test_an_answer_is_preferred_to_the_reference_with_equal_ones_as_halves():
  found = preferences(PPO, SFT, [])
  assert found["gold"].tolist() == [[0.5, 1.0], [0.0, 0.5]]
  assert found["rm"].tolist() == [[0.5, 1.0], [1.0, 0.5]]
  people = preferences(PPO, SFT, make_labellers({"expert": 2}))["labels"]
  assert (
    people[0, 0] == 0.5 and people[0, 1] > 0.8 and people[1, 0] < 0.2 and people[1, 1] == pytest.approx(0.5, abs=0.1)
  )


def test_shares_and_accuracies_of_each_policy():
  found = summarize({"sft": SFT, "ppo": PPO}, "sft", {"rm": 2.0}, make_labellers({"expert": 1}), 1.5)["policies"]
  assert {judge: share["mean"] for judge, share in found["sft"]["preferred"].items()} == dict(
    gold=0.5, rm=0.5, labels=0.5
  )
  assert found["ppo"]["preferred"]["gold"]["mean"] == pytest.approx(0.5)
  assert found["ppo"]["preferred"]["rm"]["mean"] == pytest.approx(0.75)
  assert found["ppo"]["kl"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "num": 2}
  pairs = found["ppo"]["pairs"]
  assert pairs["rm"]["accuracy"]["mean"] == 0.5 and pairs["rm"]["accuracy"]["num"] == 2
  assert pairs["rm"]["clear_accuracy"]["mean"] == 1.0 and pairs["rm"]["calibration"]["gold"]["num"] == 2
  assert 0 < pairs["rm"]["label_accuracy"]["mean"] < pairs["labels"]["ceiling"]["mean"] < 1
  bare = summarize({"sft": SFT}, "sft", {"rm": None}, [], 1.5)["policies"]["sft"]["pairs"]
  assert bare.keys() == {"rm"} and bare["rm"].keys() == {"accuracy", "clear_accuracy"}


def settings(chain, **changes):
  config = recipe("reward_values")["reward_values"]
  named = {name: f"{chain}/{name}" for name in ("sft", "ppo", "reward_model")}
  own = dict(
    policies=(named["sft"], f"{named['ppo']}@2", f"{named['ppo']}@4", named["ppo"]), reference=named["sft"],
    reward_models=(named["reward_model"],), num_prompts=10, responses=2, batch_size=8, sampling=SAMPLING,
  )  # fmt: skip
  return {**config, **own, **changes}


def test_checkpoints_along_training_are_judged(chain, tmp_path):
  run_stages(recipe("reward_values"), chain, tmp_path, {"reward_values": settings(chain)})
  found = data.read_json(tmp_path / "reward_values" / "results.json")["policies"]
  sft, early, four, last = found.values()
  assert sft["kl"]["mean"] == 0.0 and sft["preferred"]["labels"]["mean"] == 0.5
  assert early["kl"]["mean"] != four["kl"]["mean"] == last["kl"]["mean"]
  assert four["preferred"] == last["preferred"]  # one policy, with the same keys
  judge = f"{chain}/reward_model"
  assert {"gold", "labels", judge, "style"} == set(last["preferred"])
  assert last["pairs"][judge]["calibration"]["scale"] > 0 and "calibration" not in last["pairs"]["style"]
  rows = [row for _, row in data.read_rows(tmp_path / "reward_values" / "answers.jsonl")]
  assert len(rows) == 4 * 10 and all(len(row["responses"]) == len(row["gold"]) == 2 for row in rows)
  scores = [row[f"scores/{judge}"] for row in rows[:10]]
  np.testing.assert_allclose(np.mean(scores), sft[f"scores/{judge}"]["mean"], atol=1e-4)


@pytest.mark.parametrize(
  ("changes", "told"),
  [
    (dict(reference="pretrain"), "reference='pretrain' is none of the policies"),
    (dict(responses=1), "responses=1: a policy needs two answers to a prompt for a pair"),
    (dict(reward_models=("style",)), "reward_models has 'style', which is the name of another judge"),
  ],
)
def test_settings_without_a_pair_or_a_reference_are_refused(changes, told):
  with pytest.raises(ConfigError, match=told):
    parse(Config, {**recipe("reward_values")["reward_values"], **changes}, "answers")
