"""Accuracies of reward models: on answers, on labels, and on contrasts by kind, against hand-worked values."""

import numpy as np
import pytest
from tiny_chain import a_stage

from rlhf_jax.data import DataError, train_tokenizer, write_rows
from rlhf_jax.evaluation.reward_models import (
  Contrast,
  Sides,
  accuracy_by_kind,
  answer_traits,
  expected_label_accuracy,
  judge_reward_model,
  label_probabilities,
  read_contrasts,
  spread_by_kind,
)
from rlhf_jax.world import Traits, ceiling, choice_probability, make_labellers


def groups_of(gold, proxy, **more):
  num, size = gold.shape
  return [
    {"responses": [f"{i} {k}" for i in range(num)], "gold": gold[:, k], "proxy": proxy[:, k]}
    | {name: values[:, k] for name, values in more.items()}
    for k in range(size)
  ]


def test_reward_model_against_gold_and_labels():
  gold = np.random.default_rng(0).normal(size=(400, 4))
  labellers = make_labellers({"ordinary": 3})
  result = judge_reward_model(groups_of(gold, gold), 0.5, labellers, seed=0)
  assert result["clear_accuracy"]["mean"] == 1.0
  # The gold reward itself reaches the ceiling, up to the draw of the labels.
  assert result["label_accuracy"]["low"] < result["label_ceiling"]["mean"] < result["label_accuracy"]["high"]
  assert result["label_ceiling"]["low"] == result["label_ceiling"]["mean"]
  assert 0.6 < result["label_ceiling"]["mean"] < 0.95
  assert judge_reward_model(groups_of(gold, -gold), 0.5, labellers, seed=0)["clear_accuracy"]["mean"] == 0.0
  assert "style" not in result


def test_pairs_of_equal_gold_reward_count_nowhere():
  gold = np.array([[1.0, 1.0], [0.0, 2.0], [0.5, 0.5]])
  result = judge_reward_model(groups_of(gold, gold), 0.5, make_labellers({"expert": 1}), seed=0)
  for measure in ("accuracy", "clear_accuracy", "label_accuracy", "label_ceiling"):
    assert result[measure]["num"] == 1, measure


def test_without_labellers_there_are_no_labels():
  gold = np.array([[0.0, 1.0], [0.0, 0.2]])
  result = judge_reward_model(groups_of(gold, gold), 0.5, [], seed=0)
  assert set(result) == {"clear_accuracy", "accuracy", "min_gap"}
  assert (result["accuracy"]["num"], result["clear_accuracy"]["num"]) == (2, 1)


def test_a_repeated_answer_is_judged_once():
  gold = np.array([[0.0, 0.0, 2.0]])
  groups = groups_of(gold, gold)
  groups[0]["responses"] = groups[1]["responses"] = ["same"]
  result = judge_reward_model(groups, 0.5, make_labellers({"expert": 1}), seed=0)
  assert result["label_accuracy"]["num"] == 1


def test_the_style_baseline_is_judged_on_the_same_pairs():
  gold = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
  style = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
  result = judge_reward_model(groups_of(gold, gold, style=style), 0.5, make_labellers({"expert": 1}), seed=0)
  assert result["accuracy"]["mean"] == 1.0 and result["style"]["accuracy"]["mean"] == 0.5
  assert result["style"]["clear_accuracy"]["num"] == result["clear_accuracy"]["num"] == 2


def test_calibration_needs_the_scale_of_training():
  gold = np.array([[0.0, 1.0], [0.0, 0.0], [2.0, 0.0]])
  labellers = make_labellers({"expert": 1})
  assert "calibration" not in judge_reward_model(groups_of(gold, gold), 0.5, labellers, seed=0)
  found = judge_reward_model(groups_of(gold, 2 * gold), 0.5, labellers, seed=0, scale=0.5)["calibration"]
  assert found["scale"] == 0.5 and (found["gold"]["num"], found["labels"]["num"]) == (2, 3)
  predicted = 1 / (1 + np.exp(-np.array([1.0, 2.0])))
  assert found["gold"]["error"] == pytest.approx((1 - predicted).mean())
  assert "labels" not in judge_reward_model(groups_of(gold, gold), 0.5, [], seed=0, scale=1.0)["calibration"]


def test_expected_labels_are_those_of_choice_probabilities():
  page = answer_traits({"total": np.array([[2.0, 0.0]])}, [["Right.", "Wrong."]])
  labellers = make_labellers({"expert": 1, "adversarial": 1})
  first, second = (Traits(*(trait[0, side] for trait in page)) for side in (0, 1))
  expected = np.mean([choice_probability(labeller, first, second) for labeller in labellers])
  labels = label_probabilities(labellers, page)
  assert labels.shape == (1, 2, 2) and labels[0, 0, 1] == pytest.approx(expected)
  assert labels[0, 1, 0] == pytest.approx(1 - expected)
  scores = np.array([[1.0, 0.0]])
  assert expected_label_accuracy(scores, page.total, labels).mean == pytest.approx(expected)
  assert expected_label_accuracy(np.zeros((1, 2)), page.total, labels).mean == pytest.approx(0.5)


def test_expected_labels_of_the_gold_order_are_the_ceiling():
  rng = np.random.default_rng(0)
  gold = np.round(rng.normal(size=(50, 4)), 1)  # some are equal
  page = Traits(gold, gold + rng.random(gold.shape), rng.integers(1, 9, gold.shape), rng.integers(0, 2, gold.shape))
  crowd = make_labellers({"expert": 2, "length_biased": 1, "position_biased": 1})
  labels = label_probabilities(crowd, page)
  np.testing.assert_allclose(labels + labels.transpose(0, 2, 1), 1.0)
  highest = ceiling(crowd, [Traits(*(trait[row] for trait in page)) for row in range(len(gold))])
  found = expected_label_accuracy(gold, gold, labels)
  assert found.mean == pytest.approx(highest) and found.low < highest < found.high
  assert found.num == sum(row[i] != row[j] for row in gold for i in range(4) for j in range(i))
  assert expected_label_accuracy(-gold, gold, labels).mean == pytest.approx(1 - highest)
  assert expected_label_accuracy(0 * gold, gold, labels).mean == pytest.approx(0.5)


CONTRASTS = [
  Contrast("p", "a", "b", "wrong", "facts", "new"),
  Contrast("p", "a", "c", "wrong", "facts", "new"),
  Contrast("q", "a", "b", "wrong", "listing", "rephrased"),
  Contrast("q", "a", "no", "refusal", "listing", "rephrased"),
]


def test_accuracy_by_kind_counts_ties_as_half():
  model = Sides(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0.0, 1.0, 2.0, 1.0]))
  style = Sides(np.array([1.0, 0.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0, 0.0]))
  kinds = accuracy_by_kind(CONTRASTS, model, style, np.array([0.9, 0.7, 0.5, 1.0]))
  assert list(kinds) == ["wrong", "refusal"]
  wrong = kinds["wrong"]
  assert wrong["accuracy"]["mean"] == pytest.approx(0.5) and wrong["accuracy"]["num"] == 3
  assert wrong["style"]["mean"] == pytest.approx(1 / 6)
  assert wrong["gap"]["mean"] == pytest.approx(1 / 3)
  assert wrong["ceiling"]["mean"] == pytest.approx(0.7)
  assert {name: entry["accuracy"]["mean"] for name, entry in wrong["clusters"].items()} == {"facts": 0.75, "listing": 0}
  assert wrong["cells"]["new"]["accuracy"]["num"] == 2
  assert kinds["refusal"]["accuracy"]["mean"] == 0.0 and kinds["refusal"]["style"]["mean"] == 1.0
  assert kinds["refusal"]["gap"]["mean"] == -1.0


def test_contrasts_are_taken_evenly_over_the_file():
  many = [Contrast(f"p{i}", "a", "b", "wrong", "", "") for i in range(10)]
  one = Contrast("q", "a", "no", "refusal", "", "")
  found = spread_by_kind([*many[:3], one, *many[3:]], 5)
  assert [contrast.prompt for contrast in found] == ["p0", "p2", "q", "p4", "p6", "p8"]
  assert spread_by_kind(many, 10) == spread_by_kind(many, 99) == many


def test_the_two_pairs_of_a_prompt_are_one_observation():
  """Doubling every pair under its own prompt leaves the interval; doubling the prompts narrows it."""
  scores = np.arange(8) % 2 * 1.0
  model = Sides(scores, np.full(8, 0.5))
  twice = Sides(np.repeat(scores, 2), np.full(16, 0.5))
  once, same, more = (
    accuracy_by_kind([Contrast(prompt, "a", "b", "wrong", "", "") for prompt in prompts], sides, None, None)["wrong"]
    for prompts, sides in (
      ("abcdefgh", model), ("aabbccddeeffgghh", twice), ("abcdefghijklmnop", twice),
    )
  )  # fmt: skip
  assert once["accuracy"]["low"] == pytest.approx(same["accuracy"]["low"])
  assert more["accuracy"]["low"] > once["accuracy"]["low"]
  assert "style" not in once and "gap" not in once and "ceiling" not in once
  assert once["clusters"] == once["cells"] == {}


def test_contrasts_are_read_with_their_line(tmp_path):
  row = {"prompt": "p", "chosen": "a", "rejected": "b", "kind": "wrong", "cluster": "facts", "cell": "new"}
  write_rows(tmp_path / "good.jsonl", [row, {**row, "cluster": None}])
  tokenizer = train_tokenizer(["a b p"], 300)
  assert read_contrasts("{run}/good.jsonl", a_stage(tmp_path), tokenizer, 32) == [
    Contrast(**row), Contrast(**row)._replace(cluster="")
  ]  # fmt: skip
  write_rows(tmp_path / "bad.jsonl", [row, {"prompt": "p", "chosen": "a", "rejected": "b"}])
  with pytest.raises(DataError, match=r"bad\.jsonl:2: need texts .* found prompt, chosen, rejected"):
    read_contrasts("{run}/bad.jsonl", a_stage(tmp_path), tokenizer, 32)
  write_rows(tmp_path / "long.jsonl", [row, {**row, "rejected": "b" * 99}])
  assert len(read_contrasts("{run}/long.jsonl", a_stage(tmp_path), tokenizer, 32)) == 1
  with pytest.raises(DataError, match="holds no contrast of at most 3 tokens"):
    read_contrasts("{run}/long.jsonl", a_stage(tmp_path), tokenizer, 3)
