"""The arithmetic of the evaluation stage, on hand-made answers."""

import numpy as np
import pytest

from rlhf_jax.stages.evaluate import judge_reward_model, summarize
from rlhf_jax.world import make_labellers


def answers(gold, **more):
  num = len(gold)
  columns = {"responses": ["a b"] * num, "finished": np.ones(num), "gold": np.asarray(gold, float)}
  return {**columns, **{name: np.asarray(values, float) for name, values in more.items()}}


def test_held_out_clusters_are_reported_apart():
  sft = answers([0.0, 0.0, 0.0, 4.0])
  ppo = answers([2.0, 2.0, 2.0, -4.0])
  result = summarize({"sft": sft, "ppo": ppo}, "sft", ["x", "x", "y", "z"], {"z"})
  assert result["models"]["ppo"]["gold"]["mean"] == 2.0
  assert result["models"]["ppo"]["gold"]["num"] == 3
  assert result["models"]["ppo"]["win_rate"]["mean"] == 1.0
  assert result["models"]["sft"]["win_rate"]["mean"] == 0.5
  assert result["clusters"]["z"] == {"held_out": True, "models": result["clusters"]["z"]["models"]}
  assert result["clusters"]["z"]["models"]["ppo"]["mean"] == -4.0


def test_no_gold_no_win_rate():
  columns = {"responses": ["a"] * 3, "finished": np.ones(3), "proxy": np.arange(3.0)}
  result = summarize({"sft": columns}, "sft", [""] * 3, set())
  assert set(result["models"]["sft"]) == {"finished", "proxy"}
  assert result["clusters"] == {}


def test_reward_model_against_gold_and_labels():
  rng = np.random.default_rng(0)
  gold = rng.normal(size=(400, 4))
  groups = [{"responses": [f"{i} {k}" for i in range(400)], "gold": gold[:, k], "proxy": gold[:, k]} for k in range(4)]
  result = judge_reward_model(groups, 0.5, make_labellers({"ordinary": 3}), seed=0)
  assert result["clear_accuracy"]["mean"] == 1.0
  assert result["label_accuracy"]["mean"] == result["label_ceiling"]["mean"]
  assert 0.7 < result["label_ceiling"]["mean"] < 0.9
  backwards = [{**group, "proxy": -group["proxy"]} for group in groups]
  assert judge_reward_model(backwards, 0.5, make_labellers({"ordinary": 3}), seed=0)["clear_accuracy"]["mean"] == 0.0


def test_a_repeated_answer_is_judged_once():
  gold = np.array([[1.0, 1.0], [0.0, 2.0]])
  texts = [["same", "this"], ["same", "that"]]
  groups = [{"responses": texts[k], "gold": gold[:, k], "proxy": gold[:, k]} for k in range(2)]
  result = judge_reward_model(groups, 0.5, make_labellers({"expert": 1}), seed=0)
  assert result["label_accuracy"]["num"] == 1
  assert result["accuracy"]["mean"] == pytest.approx(1.0)
