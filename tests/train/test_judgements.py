"""Judgements to arrays: calibration by hand, annotators left out and why, margins, weights, several files as one."""

import dataclasses
import json

import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.feedback.exchange import read_records, write_records
from rlhf_jax.feedback.records import NOTHING_TO_ADD, SETTLED, Annotator, Item, Judgement, Response
from rlhf_jax.train.judgements import (
  calibrated_ratings,
  load_judgements,
  read_weights,
  row_weights,
  within_hours,
)

PEOPLE = [Annotator(name) for name in ("ann", "bob", "eve")]
PAIR = Item("pair", "Say a or b.", (Response("a"), Response("b")))
FOUR = Item("four", "Say it.", tuple(Response(text) for text in "cdef"))
LONG = Item("long", "Go on.", (Response("a " * 60), Response("b")))


def say(name, item, who, **fields):
  size = {"pair": 2, "four": 4, "long": 2}[item]
  return Judgement(name, item, who, tuple(range(size)), **fields)


JUDGEMENTS = [
  say("1", "pair", "ann", ranks=(1, 0), strength=3),
  say("2", "pair", "bob", ranks=(0, 1)),
  say("3", "four", "ann", ratings=(7, 5, None, 1)),
  say("4", "four", "bob", ranks=(0, 1, -1, 1), ratings=(4, 4, 4, 4)),
  say("5", "four", "eve", ranks=(3, 2, 1, 0)),
  say("6", "pair", "eve", skipped="unclear"),
  say("7", "pair", "eve", ranks=(0, 0)),
  say("8", "long", "ann", ranks=(0, 1)),
  say("9", "four", "ann", critiques=("too short", "", "", "")),
]


@pytest.fixture(scope="module")
def tokenizer():
  return data.train_tokenizer(["Say a or b. c d e f. Go on. Human Assistant"] * 3, vocab_size=300)


@pytest.fixture
def path(tmp_path):
  write_records(tmp_path / "feedback.db", (PEOPLE, [PAIR, FOUR, LONG], JUDGEMENTS))
  return tmp_path / "feedback.db"


def load(path, tokenizer, kinds=("ranks", "ratings"), weights=None, length=60, hours=0.0):
  settings = dict(kinds=kinds, weights=weights or {}, margins=(0.0, 0.5, 1.0), per_annotator=False, hours=hours)
  return load_judgements([path], tokenizer, length, **settings)


def test_one_judgement_is_one_row(path, tokenizer, capsys):
  found = load(path, tokenizer)
  assert found.prompts == ["Say a or b."] * 2 + ["Say it."] * 3
  rows = found.rows
  assert rows["ranks"].tolist() == [[1, 0, -1, -1], [0, 1, -1, -1], [-1] * 4, [0, 1, -1, 1], [3, 2, 1, 0]]
  assert rows["margin"].tolist() == [1.0, 0, 0, 0, 0]
  z = (np.array([7, 5, 1, 4, 4, 4, 4]) - 29 / 7) / np.std([7, 5, 1, 4, 4, 4, 4])
  given = rows["ratings"][~np.isnan(rows["ratings"])]
  np.testing.assert_allclose(given, z, rtol=1e-5)
  assert np.isnan(rows["ratings"][[0, 1, 4]]).all() and np.isnan(rows["ratings"][2, 2])
  present = rows["mask"].any(axis=-1)
  assert present.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1], [1] * 4, [1] * 4]
  out = capsys.readouterr().out
  assert "skipped 1 of 9 rows: skipped by the annotator" in out
  assert "skipped 2 of 9 rows: no order and no rating to learn ranks or ratings from" in out
  assert "skipped 1 of 6 rows: longer than 60 tokens" in out


def test_one_kind_alone_and_nobody_who_weighs_nothing(path, tokenizer, capsys):
  rows = load(path, tokenizer, kinds=("ratings",)).rows
  assert len(rows["ranks"]) == 2 and (rows["ranks"] == -1).all()
  rows = load(path, tokenizer, kinds=("ranks",), weights={"eve": 0.0, "bob": 0.5}).rows
  assert rows["weight"].tolist() == [1.0, 0.5, 0.5] and np.isnan(rows["ratings"]).all()
  assert "skipped 1 of 9 rows: the annotator weighs 0" in capsys.readouterr().out
  with pytest.raises(data.DataError, match="none of 9 judgements holds ratings and fits in 3"):
    load(path, tokenizer, kinds=("ratings",), length=3)


def test_answers_of_yes_and_no_are_rows_and_weigh_where_there_are_any(tmp_path, tokenizer):
  said = [
    say("1", "pair", "ann", yes_no=(True, False)),
    say("2", "four", "bob", yes_no=(None, True, None, None), ranks=(0, 1, 2, 3)),
    say("3", "pair", "bob", ranks=(0, 1)),
  ]
  write_records(tmp_path / "a.jsonl", (PEOPLE, [PAIR, FOUR], said))
  alone = load(tmp_path / "a.jsonl", tokenizer, kinds=("yes_no",), weights={"bob": 0.5}).rows
  np.testing.assert_array_equal(alone["yes_no"], [[1, 0, np.nan, np.nan], [np.nan, 1, np.nan, np.nan]])
  assert alone["mask"].any(axis=-1).tolist() == [[1, 1, 0, 0], [0, 1, 0, 0]] and (alone["ranks"] == -1).all()
  assert {kind: weights.tolist() for kind, weights in row_weights(alone).items()} == {
    "ranks": [0, 0], "ratings": [0, 0], "yes_no": [1, 0.5],
  }  # fmt: skip
  both = load(tmp_path / "a.jsonl", tokenizer, kinds=("ranks", "yes_no")).rows
  assert row_weights(both)["ranks"].tolist() == [0, 1, 1] and row_weights(both)["yes_no"].tolist() == [1, 1, 0]
  assert "yes_no" not in load(tmp_path / "a.jsonl", tokenizer, kinds=("ranks",)).rows


def test_a_critique_is_a_no_and_nothing_to_add_a_yes(tmp_path, tokenizer):
  said = [
    say("1", "pair", "ann", critiques=("too short", "")),
    say("2", "pair", "bob", critiques=("", ""), skipped=NOTHING_TO_ADD),
    say("3", "four", "ann", critiques=("", "", "", "wrong"), yes_no=(True, None, None, True)),
    say("4", "four", "eve", skipped="unclear"),
    say("5", "pair", "eve", ranks=(0, 1)),
  ]
  write_records(tmp_path / "a.jsonl", (PEOPLE, [PAIR, FOUR], said))
  rows = load(tmp_path / "a.jsonl", tokenizer, kinds=("critiques",)).rows
  nan = np.nan
  np.testing.assert_array_equal(rows["yes_no"], [[0, 1, nan, nan], [1, 1, nan, nan], [1, nan, nan, 1]])
  assert (rows["ranks"] == -1).all()
  both = load(tmp_path / "a.jsonl", tokenizer, kinds=("ranks", "critiques")).rows
  assert row_weights(both)["ranks"].tolist() == [0, 0, 0, 1] and row_weights(both)["yes_no"].tolist() == [1, 1, 1, 0]


def test_the_judgements_of_the_first_hours(tmp_path, tokenizer, capsys):
  """In the order of their time, which is not that of the file; a skip takes time too."""
  times = {"1": 3, "2": 1, "3": 2, "4": 4}
  said = [
    say("1", "pair", "ann", ranks=(0, 1), seconds=1800.0),
    say("2", "pair", "bob", ranks=(1, 0), seconds=900.0),
    say("3", "pair", "eve", skipped="unclear", seconds=900.0),
    say("4", "four", "eve", ranks=(0, 1, 2, 3), seconds=1.0),
  ]
  said = [dataclasses.replace(one, created=f"2026-01-01T00:0{times[one.id]}:00.000Z") for one in said]
  write_records(tmp_path / "a.jsonl", (PEOPLE, [PAIR, FOUR], said))
  assert [one.id for one in within_hours(said, 1.0)] == ["2", "3", "1"]
  assert [one.id for one in within_hours(said, 0.99)] == ["2", "3"]
  assert load(tmp_path / "a.jsonl", tokenizer, hours=1.0).rows["ranks"].tolist() == [[0, 1], [1, 0]]
  assert "skipped 1 of 4 rows: after the first 1 hours of judging" in capsys.readouterr().out
  with pytest.raises(data.DataError, match=r"4 judgements took 1.00 hours, and hours=2 are asked for"):
    load(tmp_path / "a.jsonl", tokenizer, hours=2.0)


def test_a_final_judgement_is_the_row_of_its_item(tmp_path, tokenizer, capsys):
  """In the place of all others of the item, and of what they rated; the rest of the file is as it was."""
  expert = Annotator("zoe", expert=True)
  said = [
    say("1", "pair", "ann", ranks=(0, 1), ratings=(7, 1)),
    say("2", "pair", "bob", ranks=(0, 1)),
    say("3", "pair", "zoe", ranks=(1, 0), final=True),
    say("4", "four", "zoe", ranks=(0, 1, 2, 3)),
  ]
  write_records(tmp_path / "a.jsonl", ([*PEOPLE, expert], [PAIR, FOUR], said))
  rows = load(tmp_path / "a.jsonl", tokenizer, weights={"zoe": 2.0}).rows
  assert rows["ranks"].tolist() == [[1, 0, -1, -1], [0, 1, 2, 3]] and rows["weight"].tolist() == [2.0, 2.0]
  assert np.isnan(rows["ratings"]).all()
  assert f"skipped 2 of 4 rows: {SETTLED}" in capsys.readouterr().out


def test_each_annotator_has_a_scale():
  ratings = np.array([[1, 2], [6, 7], [np.nan, 4]])
  together = calibrated_ratings(ratings, ["low", "high", "new"], per_annotator=False)
  np.testing.assert_allclose(together, (ratings - 4) / np.std([1, 2, 6, 7, 4]), rtol=1e-5)
  own = calibrated_ratings(np.repeat(ratings, 200, axis=0), np.repeat(["low", "high", "new"], 200), per_annotator=True)
  np.testing.assert_allclose(own[[0, 200]], [[-1, 1], [-1, 1]], atol=0.2)  # 400 ratings against a prior of 5
  few = calibrated_ratings(ratings, ["low", "high", "new"], per_annotator=True)
  assert together[0].mean() < few[0].mean() < 0 < few[1].mean() < together[1].mean()
  # by hand: 2 of 7 parts of the mean 1.5 and variance 0.25 against everybody's 4 and 5.2
  expected = (np.array([1, 2]) - (4 - 2.5 * 2 / 7)) / np.sqrt(5.2 - (5.2 - 0.25) * 2 / 7)
  np.testing.assert_allclose(few[0], expected, rtol=1e-5)
  assert np.isnan(few[2, 0]) and np.isnan(calibrated_ratings(np.full((1, 2), np.nan), ["x"], per_annotator=True)).all()


def test_rounds_are_one_and_weights_are_read(path, tmp_path):
  more = tmp_path / "more.jsonl"
  write_records(more, (PEOPLE[:1], [PAIR], [say("10", "pair", "ann", ranks=(0, 1), supersedes=None)]))
  assert [len(part) for part in read_records(path, more)] == [3, 3, 10]
  weights = tmp_path / "annotators.jsonl"
  weights.write_text(json.dumps({"annotator": "ann", "weight": 2}) + "\n")
  assert read_weights(weights) == {"ann": 2.0}
  weights.write_text(weights.read_text() + json.dumps({"annotator": "bob", "weight": -1}) + "\n")
  with pytest.raises(data.DataError, match="annotators.jsonl:2: .*a number >= 0"):
    read_weights(weights)
