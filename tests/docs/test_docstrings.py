"""Docstrings are plain text: what the documentation makes of them."""

from pages import ROOT

from rlhf_jax.settings import import_module

convert = import_module(str(ROOT / "docs/_ext/docstrings.py")).convert


def test_backticks_are_code_and_all_else_is_text():
  assert convert(["Sum of `w * x`, and *masked*; a_ and |b|."]) == [
    r"Sum of ``w * x``, and \*masked\*; a\_ and \|b\|.",
    "",
  ]


def test_code_that_touches_a_letter_is_separated():
  assert convert(["everything is `stop_gradient`ed"]) == [r"everything is ``stop_gradient``\ ed", ""]
  assert convert(["a `long", "name` here"]) == ["a ``long name`` here", ""]


def test_a_doctest_stays_as_it_is():
  lines = [">>> print(f(*x))", "[1. 0.]", ""]
  assert convert(["Of `x`.", "", *lines]) == ["Of ``x``.", "", *lines]


def test_columns_keep_their_spaces():
  assert convert(["The variants:", "", "  clip   (low, high)", "         from 1", ""])[-4:] == [
    "",
    "  clip   (low, high)",
    "         from 1",
    "",
  ]


def test_entries_that_hang_are_lines_of_their_own():
  assert convert(["Raises:", "  DataError: a *file*", "    that is no file.", "  ValueError: a length."]) == [
    "Raises:",
    "",
    r"| DataError: a \*file\* that is no file.",
    "| ValueError: a length.",
    "",
  ]


def test_dashes_are_a_list():
  assert convert(["  - `k1` as a reward:", "    unbiased.", "  - never as a loss."]) == [
    "* ``k1`` as a reward:",
    "  unbiased.",
    "* never as a loss.",
    "",
  ]
