"""Means of answers by model, baseline, cluster and cell, on hand-made answers."""

import numpy as np

from rlhf_jax.evaluation.summary import Origins, summarize


def answers(gold, **more):
  num = len(gold)
  columns = {"responses": ["a b"] * num, "finished": np.ones(num), "gold": np.asarray(gold, float)}
  return {**columns, **{name: np.asarray(values, float) for name, values in more.items()}}


def test_held_out_clusters_are_reported_apart():
  sft = answers([0.0, 0.0, 0.0, 4.0])
  ppo = answers([2.0, 2.0, 2.0, -4.0])
  result = summarize({"sft": sft, "ppo": ppo}, {}, "sft", Origins(["x", "x", "y", "z"], [""] * 4, {"z"}))
  assert result["models"]["ppo"]["gold"]["mean"] == 2.0
  assert result["models"]["ppo"]["gold"]["num"] == 3
  assert result["models"]["ppo"]["win_rate"]["mean"] == 1.0
  assert result["models"]["sft"]["win_rate"]["mean"] == 0.5
  assert result["clusters"]["z"] == {"held_out": True, "models": result["clusters"]["z"]["models"]}
  assert result["clusters"]["z"]["models"]["ppo"]["mean"] == -4.0
  assert result["cells"] == {}


def test_no_gold_no_win_rate():
  columns = {"responses": ["a"] * 3, "finished": np.ones(3), "proxy": np.arange(3.0)}
  result = summarize({"sft": columns}, {}, "sft", Origins([""] * 3, ["new"] * 3, set()))
  assert set(result["models"]["sft"]) == {"finished", "proxy"}
  assert result["clusters"] == {}
  assert result["cells"] == {"new": {"prompts": 3, "models": {}, "baselines": {}, "clusters": {}}}


def test_baselines_stand_beside_the_models_in_every_measure():
  refusal = {"responses": ["no"] * 4, "gold": np.array([-1.0, -1.0, 2.0, -1.0]), "proxy": np.array([1.0, 2, 3, 4])}
  origins = Origins(["x", "x", "y", "z"], [""] * 4, {"z"})
  result = summarize({"sft": answers([0.0, -1.0, 2.0, 0.0])}, {"refusal": refusal}, "sft", origins)
  assert set(result["baselines"]["refusal"]) == {"gold", "proxy", "win_rate", "text"}
  assert result["baselines"]["refusal"]["text"] == "no"
  assert result["baselines"]["refusal"]["proxy"]["mean"] == 2.0  # the held-out prompt does not count
  np.testing.assert_allclose(result["baselines"]["refusal"]["win_rate"]["mean"], (0 + 0.5 + 0.5) / 3)
  assert set(result["models"]) == {"sft"}


def test_cells_count_prompts_and_full_rewards():
  origins = Origins(["x", "x", "y", "y", "z"], ["new", "rephrased", "new", "new", "held_out"], {"z"})
  sft = answers([2.0, 0.0, 1.99996, 1.9, 1.0])
  copy = {"responses": ["c"] * 5, "gold": np.array([0.0, 2.0, 0.0, 2.0, 0.0])}
  copied = np.array([False, True, False, True, False])
  cells = summarize({"sft": sft}, {"look-up": copy}, "sft", origins, copied=copied, full_gold=2.0)["cells"]
  assert list(cells) == ["new", "rephrased", "held_out"]
  new = cells["new"]
  assert new["prompts"] == 3 and new["models"]["sft"]["gold"]["num"] == 3
  np.testing.assert_allclose(new["models"]["sft"]["full"]["mean"], 2 / 3)  # 1.99996 is 2 but for rounding
  np.testing.assert_allclose(new["baselines"]["look-up"]["full"]["mean"], 1 / 3)
  np.testing.assert_allclose(new["copied"]["mean"], 1 / 3)
  assert cells["rephrased"]["copied"]["mean"] == 1.0
  assert {name: entry["copied"]["mean"] for name, entry in new["clusters"].items()} == {"x": 0.0, "y": 0.5}
  assert {name: entry["prompts"] for name, entry in new["clusters"].items()} == {"x": 1, "y": 2}
  np.testing.assert_allclose(new["clusters"]["y"]["models"]["look-up"]["mean"], 1.0)


def test_perplexity_by_the_reference_is_of_all_tokens():
  columns = {"responses": ["a"] * 2, "length": np.array([1.0, 3.0]), "reference_logp": np.log([0.5, 0.125])}
  found = summarize({"sft": columns}, {}, "sft", Origins([""] * 2, [""] * 2, set()))["models"]["sft"]
  np.testing.assert_allclose(found["perplexity"]["mean"], 2.0)  # 4 bits over 4 tokens
  assert found["perplexity"]["low"] <= 2.0 <= found["perplexity"]["high"] and found["perplexity"]["num"] == 2
  assert set(found) == {"length", "perplexity"}
