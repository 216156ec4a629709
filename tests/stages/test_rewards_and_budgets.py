"""Reward models side by side by hand, and gold reward against labels from an evaluation's file."""

import json

import numpy as np
import pytest

from rlhf_jax.data import DataError
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.stages import label_budget, reward_accuracy

GOLD = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0]])  # three pairs, two pairs
RIGHT = np.array([[3.0, 2.0, 1.0], [1.0, 5.0, 0.0]])
ONE_WRONG = np.array([[2.0, 3.0, 1.0], [1.0, 5.0, 0.0]])
TIES = np.zeros((2, 3))


def test_accuracies_and_their_differences_by_hand():
  result = reward_accuracy.compare({"a": [RIGHT], "b": [ONE_WRONG, TIES]}, GOLD, 1.5, "a")
  groups = result["groups"]
  assert (result["prompts"], result["responses"], result["reference"]) == (2, 3, "a")
  assert [one["mean"] for one in groups["a"]["accuracy"]] == [1.0]
  assert [one["mean"] for one in groups["b"]["accuracy"]] == [0.8, 0.5]
  assert [one["num"] for one in groups["b"]["clear_accuracy"]] == [1, 1]
  assert [one["mean"] for one in groups["b"]["clear_accuracy"]] == [1.0, 0.5]
  # By prompt the mean of b is (2 + 1.5) / 2 of 3 pairs and (2 + 1) / 2 of 2; 2.5 pairs a prompt.
  assert groups["b"]["difference"]["mean"] == pytest.approx(((1.75 - 3) + (1.5 - 2)) / 2 / 2.5)
  assert groups["b"]["difference"]["mean"] == pytest.approx((0.8 + 0.5) / 2 - 1.0)
  assert groups["b"]["difference"]["low"] < groups["b"]["difference"]["mean"] < groups["b"]["difference"]["high"]
  with pytest.raises(ValueError, match="the gold reward is the same for all answers"):
    reward_accuracy.compare({"a": [RIGHT]}, np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), 1.5, "a")


def test_labels_are_foretold_with_their_probabilities():
  labels = np.full((2, 3, 3), 0.5)
  labels[0, 0, 1], labels[0, 0, 2], labels[0, 1, 2], labels[1, 0, 2], labels[1, 1, 2] = 0.9, 1.0, 0.6, 0.8, 0.7
  groups = reward_accuracy.compare({"a": [RIGHT], "b": [ONE_WRONG, TIES]}, GOLD, 1.5, "a", {"all": labels})["groups"]
  assert [one["mean"] for one in groups["a"]["label_accuracy"]["all"]] == [0.8]
  assert [one["mean"] for one in groups["b"]["label_accuracy"]["all"]] == [pytest.approx((4 - 0.8) / 5), 0.5]


def test_the_reference_must_be_a_group():
  with pytest.raises(ConfigError, match="reference='c' is none of the groups a"):
    given = dict(
      algorithm="", policy="sft", prompts="", num_prompts=1, responses=2, batch_size=1,
      sampling=dict(max_prompt_tokens=8, max_new_tokens=8, temperature=1.0), gold=dict(function="x:y"), min_gap=0.5,
      groups={"a": ("one",)}, reference="c",
    )  # fmt: skip
    parse(reward_accuracy.Config, given, "accuracy")


def interval(mean):
  return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "num": 9}


def test_gold_reward_against_labels(tmp_path):
  means = {"sft": 0.5, "a": 0.9, "b": 0.7}
  models = {name: {"gold": interval(mean), "kl": interval(1.0)} for name, mean in means.items()}
  (tmp_path / "evaluation.json").write_text(json.dumps({"models": {**models, "c": {"kl": interval(2.0)}}}))
  stage = Stage("budget", tmp_path, 0, "", Model(1, 8, 1, 1, 8, 8), Transport("jit", 1, 1))
  ways = {"one way": {"a": 200, "sft": 0}, "another": {"sft": 0, "b": 100}}
  label_budget.run(label_budget.Config("", "{run}/evaluation.json", ways), stage)
  result = json.loads((tmp_path / "budget" / "results.json").read_text())
  assert [(point["model"], point["labels"]) for point in result["one way"]] == [("sft", 0), ("a", 200)]
  assert result["another"][1]["gold"] == {"mean": 0.7, "low": 0.6, "high": 0.8}
  assert "kl" in result["another"][1] and "win_rate" not in result["another"][1]
  assert (tmp_path / "budget" / "results.png").stat().st_size > 5000
  with pytest.raises(DataError, match="no gold reward of 'c', which budget.ways.x names"):
    label_budget.run(label_budget.Config("", "{run}/evaluation.json", {"x": {"c": 1}}), stage)
