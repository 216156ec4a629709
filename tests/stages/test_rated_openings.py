"""Rated texts as openings and continuations: parts that share no text, halves of the ratings, what is left out."""

from collections import Counter

import numpy as np
import pytest
from rated_texts import write_ratings
from tiny_chain import a_stage

from rlhf_jax import data
from rlhf_jax.settings import ConfigError
from rlhf_jax.stages import rated_openings

CONFIG = dict(
  algorithm="rlhf_jax.stages.rated_openings", source="movies", opening_words=4, min_words=3, judge_share=0.4,
  held_out_share=0.2,
)  # fmt: skip


def rows(directory, name):
  return [row for _, row in data.read_rows(directory / "stage" / f"{name}.jsonl")]


def made(directory, **changes):
  settings = {**CONFIG, "ratings": str(write_ratings(directory) / "vader_ratings.tsv.gz"), **changes}
  rated_openings.run(rated_openings.Config(**settings), a_stage(directory))
  return directory


def test_the_parts_share_no_text_and_the_judges_no_ratings(tmp_path):
  made(tmp_path)
  policy, judge, held_out = (
    {row["prompt"] + " " + row["response"] for row in rows(tmp_path, name)}
    for name in ("ratings", "judge_ratings", "held_out")
  )
  assert (len(policy), len(judge), len(held_out)) == (16, 16, 8) and len(policy | judge | held_out) == 40
  assert [row["prompt"] for row in rows(tmp_path, "openings")] == [row["prompt"] for row in rows(tmp_path, "ratings")]
  demonstrations = rows(tmp_path, "demonstrations")
  assert {row["prompt"] + " " + row["response"] for row in demonstrations} == policy
  assert all(len(row["prompt"].split()) == 4 for row in demonstrations)
  assert {row["id"] for row in rows(tmp_path, "held_out_openings")} == {row["id"] for row in rows(tmp_path, "held_out")}
  assert {row["annotator"] for row in rows(tmp_path, "ratings")} == {"first half"}
  assert {row["annotator"] for row in rows(tmp_path, "judge_ratings")} == {"second half"}


def test_ratings_of_a_record_follow_the_means(tmp_path):
  made(tmp_path)
  for row in rows(tmp_path, "ratings") + rows(tmp_path, "judge_ratings"):
    wanted = {"dull": {1, 2}, "weak": {2, 3, 4}, "plain": {3, 4, 5}, "warm": {4, 5, 6}, "lovely": {6, 7}}
    assert row["rating"] in wanted[row["response"].split()[2]]
  counts = data.read_json(tmp_path / "stage" / "counts.json")
  assert counts["texts"] == 40 and counts["parts"] == {"policy": 16, "judge": 16, "held out": 8}
  assert counts["ratings"] == {"policy": 80, "judge": 80, "held out": 40}
  assert 0.8 < counts["correlation of the halves"] < 1 and 0.95 < counts["correlation with rounded means"] <= 1


def test_the_same_seed_makes_the_same_files_and_another_seed_others(tmp_path):
  for name, seed in (("a", 0), ("b", 0), ("c", 1)):
    (tmp_path / name).mkdir()
    settings = {**CONFIG, "ratings": str(write_ratings(tmp_path) / "vader_ratings.tsv.gz")}
    rated_openings.run(rated_openings.Config(**settings), a_stage(tmp_path / name, seed))
  first, again, other = ((tmp_path / name / "stage" / "ratings.jsonl").read_text() for name in "abc")
  assert first == again != other


def test_what_is_left_out_is_counted(tmp_path):
  made(tmp_path, max_texts=20)
  counts = data.read_json(tmp_path / "stage" / "counts.json")
  assert counts["left out"] == {"not drawn": 20} and sum(counts["parts"].values()) == 20
  ratings = np.array([1.0, 3.0, 1.0])
  snippets = {"1": ("too short", ratings), "2": ("a  b c d e f g", ratings), "3": ("a b c d e f g", ratings)}
  texts, skips = rated_openings.rated_texts(snippets, 4, 3, np.random.default_rng(0))
  assert [(text.id, text.prompt, text.response) for text in texts] == [("2", "a b c d", "e f g")]
  assert skips == Counter({"fewer than 7 words": 1, "the text of an earlier one": 1})
  (first, second), num = texts[0].halves, texts[0].num_ratings
  assert num == 3 and first + 2 * second == 5  # one rating, and the mean of the two others


@pytest.mark.parametrize(("changes", "error", "message"), [
  (dict(judge_share=0.5, held_out_share=0.5), ValueError, "leave the policy no text"),
  (dict(max_texts=2), data.DataError, "2 usable texts of movies are too few for three parts"),
  (dict(source="tweets"), data.DataError, "0 usable texts of tweets"),
])  # fmt: skip
def test_parts_without_a_text_are_refused(tmp_path, changes, error, message):
  with pytest.raises(error, match=message):
    made(tmp_path, **changes)


def test_a_file_that_is_not_there_is_refused_before_the_run(tmp_path):
  config = rated_openings.Config(**CONFIG, ratings=str(tmp_path / "none.tsv.gz"))
  with pytest.raises(ConfigError, match=r"config\.stage\.ratings: there is no file .*none\.tsv\.gz"):
    rated_openings.check(config, a_stage(tmp_path))
