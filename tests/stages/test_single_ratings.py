"""Single ratings of texts: drawn by the seed, each a row of another person, of the texts that are asked for alone."""

import collections

import pytest
from rated_texts import write_ratings
from tiny_chain import a_stage

from rlhf_jax import data
from rlhf_jax.data.vader import read_vader
from rlhf_jax.settings import ConfigError
from rlhf_jax.stages import single_ratings

TEXTS = [{"prompt": "The film", "response": f"number {n}", "id": str(n), "rating": 1} for n in (3, 0, 14)]


def made(directory, seed=0, texts=TEXTS, **changes):
  """The rows that the stage writes of a file in which each text has five ratings."""
  data.write_rows(directory / "texts.jsonl", texts)
  path = write_ratings(directory) / "vader_ratings.tsv.gz"
  settings = dict(algorithm="", ratings=str(path), source="movies", texts="{run}/texts.jsonl", raters=2) | changes
  single_ratings.run(single_ratings.Config(**settings), a_stage(directory, seed))
  return [row for _, row in data.read_rows(directory / "stage" / "ratings.jsonl")]


def by_text(rows):
  found = collections.defaultdict(list)
  for row in rows:
    found[row["id"]].append(row["rating"])
  return dict(found)


def test_all_ratings_are_those_of_the_file(tmp_path):
  rows = made(tmp_path, raters=0)
  ratings = read_vader(tmp_path / "vader_ratings.tsv.gz")["movies"]
  wanted = {name: sorted(min(max(r + 4, 1), 7) for r in ratings[name][1]) for name in ("3", "0", "14")}
  assert {name: sorted(found) for name, found in by_text(rows).items()} == wanted
  assert rows[0] == {**TEXTS[0], "rating": rows[0]["rating"], "annotator": "person 1"}
  assert [row["annotator"] for row in rows] == [f"person {n}" for n in range(1, 6)] * 3


def test_some_ratings_are_drawn_by_the_seed(tmp_path):
  rows = made(tmp_path)
  assert [row["id"] for row in rows] == ["3", "3", "0", "0", "14", "14"]
  assert all(rating in (1, 2) for rating in by_text(rows)["0"])  # of -3 and its neighbours
  assert made(tmp_path, max_texts=2) == rows[:4]
  assert made(tmp_path) == rows and any(made(tmp_path, seed) != rows for seed in range(1, 5))


@pytest.mark.parametrize(("raters", "name", "told"), [
  (6, "3", "6 ratings of the text '3' are wanted, and .* has 5 in movies"),
  (0, "99", "some ratings of the text '99' are wanted, and .* has 0 in movies"),
])  # fmt: skip
def test_a_text_without_enough_ratings_is_named(tmp_path, raters, name, told):
  with pytest.raises(data.DataError, match=f"texts.jsonl:1: {told}"):
    made(tmp_path, raters=raters, texts=[{**TEXTS[0], "id": name}])


def test_a_file_that_is_not_there_is_named_before_the_run(tmp_path):
  with pytest.raises(ConfigError, match="config.stage.ratings: there is no file .*none.tsv"):
    config = single_ratings.Config("", "{run}/none.tsv", "movies", "{run}/texts.jsonl", 1)
    single_ratings.check(config, a_stage(tmp_path))
