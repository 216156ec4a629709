"""The file of texts that people rated for VADER: by hand, and malformed."""

import gzip

import pytest

from rlhf_jax.data import DataError
from rlhf_jax.data.vader import read_vader

HEADER = "source\tid\tratings\ttext"
SNIPPET = "tweets\t1\t[3,2,-4]\tfine"


def test_texts_stand_under_their_source_and_id(tmp_path):
  path = tmp_path / "ratings.tsv.gz"
  with gzip.open(path, "wt", encoding="utf-8") as file:
    file.write("\n".join([HEADER, SNIPPET, "movieReviewSnippets\t1\t[0,-1]\tsó so", ""]))
  found = read_vader(path)
  assert {source: list(texts) for source, texts in found.items()} == {
    "movies": ["1"],
    "tweets": ["1"],
    "Amazon": [],
    "editorials": [],
  }
  text, ratings = found["movies"]["1"]
  assert text == "só so" and ratings.tolist() == [0, -1]


@pytest.mark.parametrize(
  ("lines", "message"),
  [
    (["a\tb"], ":1: expected the columns source, id, ratings and text"),
    ([HEADER, "tweets\t1"], ":2: found 2 columns"),
    ([HEADER, SNIPPET, "blogs\t1\t[1,2]\tx"], ":3: the source 'blogs' is none of movieReviewSnippets"),
    ([HEADER, "tweets\t1\t[1,5]\tx"], ":2: the ratings must be a list of two or more whole numbers from -4"),
    ([HEADER, "tweets\t1\t[1\tx"], ":2: Expecting"),
  ],
)
def test_a_malformed_line_is_named(tmp_path, lines, message):
  path = tmp_path / "ratings.tsv"
  path.write_text("\n".join(lines) + "\n")
  with pytest.raises(DataError) as error:
    read_vader(path)
  assert str(error.value).startswith(f"{path}{message}")


def test_a_file_that_is_not_there_is_named(tmp_path):
  with pytest.raises(DataError, match="none.tsv: cannot be read"):
    read_vader(tmp_path / "none.tsv")
