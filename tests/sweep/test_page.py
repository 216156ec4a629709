"""The page of a table: drawings by the number of values, and nothing from elsewhere."""

import re

import numpy as np
import pytest

from rlhf_jax.report.read_run import Series
from rlhf_jax.sweep.measures import Measured
from rlhf_jax.sweep.page import write_page
from rlhf_jax.sweep.plots import _heights
from rlhf_jax.sweep.tables import Row, groups_of

METRIC = "ppo/<b>score</b>"


def rows_of(*settings):
  return [
    Row(str(number), f"run{number}", "done", {**values, "seed": seed}, measured(number + seed))
    for number, values in enumerate(settings)
    for seed in range(3)
  ]


def measured(score):
  return Measured({METRIC: float(score)}, {METRIC: Series(np.arange(4.0), np.arange(4.0) * score)})


@pytest.mark.parametrize(
  ("settings", "figures"),
  [
    ([{"a": 1}, {"a": "x"}], 1),
    ([{"a": 1, "b": True}, {"a": 2, "b": True}, {"a": 1, "b": False}], 2),
    ([{"a": 1, "b": "x", "c": None}, {"a": 2, "b": "y", "c": [1]}], 2),
    ([{}], 1),
  ],
)
def test_drawings_follow_the_number_of_values(tmp_path, settings, figures):
  rows = rows_of(*settings)
  write_page(tmp_path, rows, [METRIC], groups_of(rows, [METRIC]))
  page = (tmp_path / "table.html").read_text()
  assert page.count("<figure") == figures and page.count("<svg") == figures
  assert "<b>score" not in page and not re.search(r"https?://", page.replace("http://www.w3.org", ""))


def test_runs_without_numbers_and_no_runs_make_a_page(tmp_path):
  rows = [Row("0", "run", "failed", {"a": 1}, Measured({}, {}), "it <i>broke</i>")]
  write_page(tmp_path, rows, [], groups_of(rows, []))
  assert "it &lt;i&gt;broke" in (tmp_path / "table.html").read_text()
  write_page(tmp_path, [], [], [])


def test_heights_are_by_size_for_numbers_and_by_order_for_texts():
  assert _heights([1, 3, 5]) == [0.0, 0.5, 1.0]
  assert _heights(["b", "a", "b"]) == [1.0, 0.0, 1.0]
  assert _heights([2, 2]) == [0.5, 0.5]
