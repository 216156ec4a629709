"""The file of translations with the penalties of their raters: by hand, and malformed."""

import gzip
import json

import pytest

from rlhf_jax.data import DataError
from rlhf_jax.data.wmt import read_wmt

ROW = {
  "document": "d", "segment": 1, "source": "x", "translations": {"A": "a", "B": "b"},
  "penalties": {"r1": {"A": 0, "B": 5.1}, "r2": {"B": 0, "A": 1}},
}  # fmt: skip


def test_penalties_stand_in_the_order_of_the_systems(tmp_path):
  path = tmp_path / "a.jsonl.gz"
  with gzip.open(path, "wt") as file:
    file.write(f"{json.dumps(ROW)}\n")
  (found,) = read_wmt(path)
  assert found[:5] == ("d", "d/1", "x", {"A": "a", "B": "b"}, ("r1", "r2"))
  assert found.penalties.tolist() == [[0, 5.1], [1, 0]]


@pytest.mark.parametrize(
  ("rows", "message"),
  [
    ([ROW, {**ROW, "penalties": {"r": {"A": 1}}}], ":2: r has penalties of 1 systems, but there are 2 translations"),
    ([{**ROW, "penalties": {"r": {"A": 1, "B": -1}}}], ":1: a penalty of r is not a number of at least 0"),
    ([{**ROW, "penalties": {"r": {"A": 1, "B": "x"}}}], ":1: could not convert"),
    ([{"document": "d"}], ":1: lacks 'translations'"),
  ],
)
def test_a_malformed_row_is_named(tmp_path, rows, message):
  path = tmp_path / "a.jsonl"
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  with pytest.raises(DataError) as error:
    read_wmt(path)
  assert str(error.value).startswith(f"{path}{message}")
