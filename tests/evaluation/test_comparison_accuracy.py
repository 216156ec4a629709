"""Accuracy on comparisons: rows of every form, known scores, shares counted by hand."""

import math

import numpy as np
import pytest

from rlhf_jax.data import Source, train_tokenizer
from rlhf_jax.data.files import RowError, write_rows
from rlhf_jax.data.sources import read_records
from rlhf_jax.evaluation import comparison_accuracy
from rlhf_jax.evaluation.comparison_accuracy import ITEMS, REWARD_BENCH, fitting, measure
from rlhf_jax.evaluation.statistics import clustered_share, weighted_share
from rlhf_jax.intervals import Interval, wilson_interval

HH = "\n\nHuman: {}\n\nAssistant: {}"


def read(tmp_path, rows):
  write_rows(tmp_path / "rows.jsonl", rows)
  return read_records(tmp_path / "rows.jsonl", ITEMS)


def measured(items, score):
  return measure(items, [[score[response] for response in item.comparison.responses] for item in items])


def pair(prompt, chosen="good", rejected="bad", subset=""):
  return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **({"subset": subset} if subset else {})}


def test_rows_of_every_form_are_scored(tmp_path):
  rows = [
    {"chosen": HH.format("q", "good"), "rejected": HH.format("q", "bad")},
    {"chosen": [{"role": "user", "content": "q2"}, {"role": "assistant", "content": "good"}],
     "rejected": [{"role": "user", "content": "q2"}, {"role": "assistant", "content": "bad"}]},
    pair("q3"),
    {"input": "q4", "output_1": "bad", "output_2": "good", "label": 2},
    {"prompt": "q5", "chosen": ["good"], "rejected": ["bad", "worst"]},
    {"prompt": "q6", "responses": ["bad", "absent", "good"], "ranks": [1, -1, 0]},
    pair("q7", "good", "good"),
    pair("q8", "good", ""),
  ]  # fmt: skip
  items, skips = read(tmp_path, rows)
  assert skips == {"identical responses": 1, "empty response": 1}
  found = measured(items, {"good": 2.0, "bad": 1.0, "worst": 0.0})
  assert found["accuracy"]["mean"] == 1.0 and found["accuracy"]["num"] == 7
  assert found.keys() == {"accuracy", "ties"} and found["ties"]["mean"] == 0.0
  assert measured(items, {"good": 1.0, "bad": 2.0, "worst": 0.0})["accuracy"]["mean"] == pytest.approx(1 / 7)


def test_a_label_that_is_no_number_of_an_output_is_named(tmp_path):
  with pytest.raises(RowError, match="rows.jsonl:1: 'label' is the number of the better output, 1 or 2, found 3"):
    read(tmp_path, [{"input": "q", "output_1": "a", "output_2": "b", "label": 3}])


def test_equal_scores_are_halves_and_pairs_of_equal_rank_are_none(tmp_path):
  items, _ = read(tmp_path, [{"prompt": "q", "responses": ["a", "b", "c"], "ranks": [0, 0, 1]}, pair("r", "a", "c")])
  found = measured(items, {"a": 1.0, "b": 0.0, "c": 1.0})
  # Pairs a > c (equal), b > c (wrong) of one prompt, a > c (equal) of another; a and b have one rank.
  assert found["accuracy"]["mean"] == pytest.approx(1 / 3) and found["accuracy"]["num"] == 3
  assert found["ties"]["mean"] == pytest.approx(2 / 3)
  assert found["accuracy"] == clustered_share([0.5, 0.5], [2, 1])._asdict()


def test_pairs_of_one_prompt_are_one_observation(tmp_path):
  """Ten prompts with one pair each: Wilson's interval, but for Student's t; the same pairs of a prompt add nothing."""
  rows = [pair(f"q{n}", *(("good", "bad") if n < 7 else ("bad", "good"))) for n in range(10)]
  once, _ = read(tmp_path, rows)
  thrice, _ = read(tmp_path, rows * 3)
  score = {"good": 1.0, "bad": 0.0}
  one, three = measured(once, score)["accuracy"], measured(thrice, score)["accuracy"]
  assert (one["num"], three["num"]) == (10, 30)
  assert [three[key] for key in ("mean", "low", "high")] == pytest.approx([one[k] for k in ("mean", "low", "high")])
  wilson = wilson_interval(7, 10)
  assert one["low"] == pytest.approx(wilson.low, abs=0.06) and one["high"] == pytest.approx(wilson.high, abs=0.06)
  assert one["low"] < wilson.low and one["high"] > wilson.high


def test_sections_of_rewardbench(tmp_path):
  """math-prm weighs as much as all code, other subsets as much as they have pairs; the mean is that of the sections."""
  right = {"alpacaeval-easy": (3, 4), "mt-bench-easy": (0, 1), "math-prm": (1, 2), "hep-go": (2, 2), "hep-cpp": (1, 2)}
  rows = [
    pair(f"{subset} {n}", *(("good", "bad") if n < hits else ("bad", "good")), subset)
    for subset, (hits, total) in right.items()
    for n in range(total)
  ]
  items, _ = read(tmp_path, rows)
  found = measured(items, {"good": 1.0, "bad": 0.0})
  assert {name: measures["accuracy"]["mean"] for name, measures in found["subsets"].items()} == {
    name: hits / total for name, (hits, total) in right.items()
  }
  chat, reasoning = 3 / 5, (4 * 1 / 2 + 2 * 1 + 2 * 1 / 2) / 8
  assert {name: x["mean"] for name, x in found["sections"].items()} == pytest.approx(
    {"Chat": chat, "Reasoning": reasoning}
  )
  assert found["mean"]["mean"] == pytest.approx((chat + reasoning) / 2)
  assert found["accuracy"]["mean"] == pytest.approx(7 / 11)
  assert sum(map(len, REWARD_BENCH.values())) == 23  # subsets that the paper lists


def test_subsets_of_ones_own_have_a_mean_and_no_sections(tmp_path):
  rows = [pair("a", subset="one"), pair("b", subset="one"), pair("c", "bad", "good", "chat-own"), pair("d")]
  items, _ = read(tmp_path, rows)
  found = measured(items, {"good": 1.0, "bad": 0.0})
  assert found["mean"]["mean"] == 0.5 and found["accuracy"]["mean"] == 0.75 and "sections" not in found
  assert set(found["subsets"]) == {"one", "chat-own"}


def test_levels_of_style_of_rm_bench(tmp_path):
  """A model that likes style: of scores 0, 1, 2 for the styles, a quarter more for a chosen answer."""
  sides = {side: [f"{side} {style}" for style in range(3)] for side in ("chosen", "rejected")}
  rows = [{"prompt": f"q{domain}", **sides, "domain": domain} for domain in ("chat", "safety-refuse")]
  score = {text: int(text[-1]) + 0.25 * text.startswith("chosen") for texts in sides.values() for text in texts}
  items, _ = read(tmp_path, rows)
  found = measured(items, score)
  assert [found[level]["mean"] for level in ("easy", "normal", "hard")] == [1.0, 1.0, 0.0]
  assert [found[level]["num"] for level in ("easy", "normal", "hard")] == [6, 6, 6]
  assert found["accuracy"]["mean"] == pytest.approx(6 / 9)
  assert set(found["sections"]) == {"chat", "safety"} and found["mean"]["mean"] == pytest.approx(6 / 9)
  assert found["subsets"]["chat"]["hard"]["num"] == 3
  # As the benchmark's own arithmetic has it: chosen in rows, rejected in columns, the upper triangle is hard.
  matrix = np.array([[score[a] > score[b] for b in sides["rejected"]] for a in sides["chosen"]])
  assert np.triu(matrix, 1).sum() / 3 == found["hard"]["mean"]
  assert np.tril(matrix, -1).sum() / 3 == found["easy"]["mean"]
  mixed, _ = read(tmp_path, [*rows, pair("r", "chosen 0", "rejected 0", "chat")])
  assert "hard" not in measured(mixed, score)


def test_what_does_not_fit_is_counted(tmp_path, monkeypatch):
  monkeypatch.setattr(comparison_accuracy, "CHUNK", 2)
  items, _ = read(tmp_path, [pair("q"), pair("q", rejected="bad " * 100), pair("r"), pair("s " * 100)])
  kept, left_out = fitting(train_tokenizer(["good and bad"], 300), items, 64)
  assert [item.comparison.prompt for item in kept] == ["q", "r"] and left_out == {"longer than 64 tokens": 2}


def test_the_calibration_is_of_the_labels(tmp_path):
  items, _ = read(tmp_path, [{"prompt": "q", "responses": ["a", "b", "c"], "ranks": [0, 1, 1]}, pair("r", "b", "a")])
  scores = [[2.0, 1.0, 1.0], [1.0, 2.0]]  # two pairs as labelled, one not, each with a lead of 1
  found = measure(items, scores, scale=2.0)["calibration"]
  probability = 1 / (1 + np.exp(-2.0))
  assert found["scale"] == 2.0 and found["labels"]["num"] == 3
  assert found["labels"]["error"] == pytest.approx(abs(probability - 2 / 3))
  assert found["labels"]["temperature"] == pytest.approx(2 / np.log(2))
  assert "calibration" not in measure(items, scores)


def test_a_score_that_is_no_number_is_an_error(tmp_path):
  items, _ = read(tmp_path, [pair("q")])
  with pytest.raises(ValueError, match="scores must be finite; 1 of 2"):
    measured(items, {"good": math.nan, "bad": 0.0})


def test_columns_of_ones_own_name_the_subset(tmp_path):
  write_rows(tmp_path / "rows.jsonl", [{**pair("q"), "kind": "style"}])
  items, _ = read_records(Source(str(tmp_path / "rows.jsonl"), columns={"subset": "kind"}), ITEMS)
  assert [item.subset for item in items] == ["style"]


def test_the_interval_of_a_weighted_share():
  shares = [Interval(0.5, 0.4, 0.7, 10), Interval(1.0, 0.7, 1.0, 20)]
  found = weighted_share(shares, [1, 3])
  assert found.mean == pytest.approx(0.875) and found.num == 30
  assert found.low == pytest.approx(0.875 - math.hypot(0.25 * 0.1, 0.75 * 0.3))
  assert found.high == pytest.approx(0.875 + 0.25 * 0.2)
  assert weighted_share([Interval(1.0, 0.6, 1.0, 3)] * 2, [1, 1]).high == 1.0
