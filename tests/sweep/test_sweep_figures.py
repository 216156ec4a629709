"""Figures over seeds: what is averaged, what is left out, and how they are printed."""

import numpy as np
import pytest

from rlhf_jax.sweep.figures import figure_text, over_seeds

HALF = 4.3027 / np.sqrt(3)  # Student's t of two degrees of freedom times the standard error of 1, 2, 3


def test_a_figure_is_a_mean_with_students_interval():
  found = over_seeds([1.0, 2.0, 3.0])
  assert found["mean"] == 2.0 and found["seeds"] == 3
  assert found["low"] == pytest.approx(2 - HALF, abs=1e-4) and found["high"] == pytest.approx(2 + HALF, abs=1e-4)


def test_nested_values_are_taken_place_by_place():
  found = over_seeds([{"a": 1.0, "b": [{"c": 2.0}, {"c": 4.0}]}, {"a": 3.0, "b": [{"c": 4.0}, {"c": 8.0}], "d": 5.0}])
  assert found["a"]["mean"] == 2.0 and [each["c"]["mean"] for each in found["b"]] == [3.0, 6.0]
  assert found["d"] == {"mean": 5.0, "low": None, "high": None, "seeds": 1}


def test_what_a_seed_lacks_is_left_out_and_counted():
  assert over_seeds([1.0, None, 3.0, float("nan")])["seeds"] == 2
  assert over_seeds([float("nan"), None]) == {"mean": None, "low": None, "high": None, "seeds": 0}
  with pytest.raises(ValueError, match="longer|shorter"):
    over_seeds([[1.0, 2.0], [1.0]])


def test_a_figure_is_printed_with_its_limits_where_it_has_some():
  figure = {"mean": 0.12345, "low": -0.02, "high": 0.3, "seeds": 3}
  assert figure_text(figure) == "0.12 [-0.02, 0.30]"
  assert figure_text(figure, 1, factor=100) == "12.3 [-2.0, 30.0]"
  assert figure_text(figure, sign="+") == "+0.12 [-0.02, +0.30]"
  assert figure_text({"mean": 0.5, "low": None, "high": None, "seeds": 1}, 3) == "0.500"
  assert figure_text(over_seeds([])) == "–"


def test_a_figure_over_fewer_seeds_than_the_study_has_says_so():
  found = over_seeds([1.0, 1.0, None])
  assert figure_text(found, seeds=3) == "1.00 [1.00, 1.00] (2 of 3 seeds)"
  assert figure_text(found, seeds=2) == figure_text(found) == "1.00 [1.00, 1.00]"
