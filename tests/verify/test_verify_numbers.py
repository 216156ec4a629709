"""Numbers in texts: what is read, what is refused, and what the library math-verify reads beyond."""

import json
import time
import warnings
from fractions import Fraction

import pytest

from rlhf_jax.data import DataError
from rlhf_jax.settings import ConfigError
from rlhf_jax.verify import UnreadableNumber, math_answer, mathematics, number, number_in

READ = {  # text -> the value of its last number
  # integers, signs, thousands, decimals
  "5": 5, "-4": -4, "it is -4.": -4, "\u22124": -4, "x = - 4": -4, "(-3)": -3, "+5": 5, "007": 7, "-0": 0,
  "1,000": 1000, "1,000,000.5": Fraction(2000001, 2), ".5": Fraction(1, 2), "0.75": Fraction(3, 4), "Answer: 5.": 5,
  "10\\,000": 10000, "10{,}000": 10000, "10\u202f000": 10000, "\uff11\uff18": 18, "18.0": 18,
  # currencies, units, marks of a page
  "-$5": -5, "$-5": -5, "$1,234.50 a day": Fraction(2469, 2), "18\u20ac": 18, "USD 18": 18, "$5/hour": 5, "60 km/h": 60,
  "5cm": 5, "3rd": 3, "5 m^2": 5, "90^\\circ": 90, "90\u00b0": 90, "**18**": 18, "`18`": 18, "<answer>5</answer>": 5,
  "5 million": 5 * 10**6, "1.5 thousand people": 1500, "So it is 5!": 5, "18 g of CO2": 18, "Question 3: 18": 18,
  # fractions and mixed numbers
  "3/4": Fraction(3, 4), "-3/4": Fraction(-3, 4), "7 / 8": Fraction(7, 8), "1 1/2 cups": Fraction(3, 2),
  "\u00bd": Fraction(1, 2), "1\u00bd": Fraction(3, 2), "0.5/2": Fraction(1, 4),
  # powers and powers of ten
  "2^{10}": 1024, "2^10": 1024, "2**10": 1024, "10\u00b3": 1000, "-2^2": -4, "2^{-1}": Fraction(1, 2), "1e3": 1000,
  "1.5E-3": Fraction(3, 2000), "3 \\times 10^{5}": 300000, "3 x 10^5": 300000, "3 \u00b7 10^5": 300000,
  "3*10^5": 300000,
  # percent
  "50%": Fraction(1, 2), "12.5\\%": Fraction(1, 8), "5 percent": Fraction(1, 20), "1/2 %": Fraction(1, 200),
  # LaTeX
  "$5$": 5, "\\(5\\)": 5, "\\[x = 5\\]": 5, "\\frac{3}{4}": Fraction(3, 4), "-\\dfrac{3}{4}": Fraction(-3, 4),
  "\\frac{-3}{4}": Fraction(-3, 4), "\\frac12": Fraction(1, 2), "1\\frac{1}{2}": Fraction(3, 2), "\\boxed{42}": 42,
  "\\boxed{\\frac{3}{4}}": Fraction(3, 4), "\\boxed{\\text{42 dollars}}": 42, "x = 5\\text{ cm}": 5,
  "\\left(5\\right)": 5, "\\$5": 5, "\\approx 3.14": Fraction(157, 50),
  # equations: the last side
  "9 + 9 = 18": 18, "x^2 = 5": 5, "3 * 4 = 12": 12, "=> 1/4.": Fraction(1, 4),
  # of several numbers the last
  "5 to 7": 7, "7 and 8.": 8, "1, 2": 2, "18\n000": 0,
}  # fmt: skip
REFUSED = [  # a part of them would be another number
  "10-12", "5\u20137", "5 - 3", "5\u22123", "9 + 9", "3*4", "3 \\times 4", "x+5", "5 - x", "2x", "2\\pi", "3\u03c0",
  "5k",
  "2\\sqrt{3}", "\\sqrt{16}", "\\sqrt 16", "\\frac{\\pi}{2}", "\\frac{x}{2}", "\\frac{3}{x}", "5/x", "2^x", "2^{n}",
  "2^0.5", "(-2)^2", "9^{9^9}", "9^999999", "1e999999999", "1/0", "3/4/5", "1/2/2020", "2020-01-02", "3:45", "3 : 4",
  "1,2", "12,34", "1.000.000", "1.2.3", "10 000", "0.333...", "0.\\overline{3}", "5 \u00b1 2", "> 5", "\\leq 5",
  "\\{5\\}",
  "(1, 2)", "[1, 2)", "101_2", "0x1F", "1e", "3(4)", "-(3)", "f(3)", "$5!$", "\\boxed{5!}", "COVID-19", "- 4",
  "2 dozen", "2 5/3", "3 \\times 10", "1" * 1000,
]  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_a_number_that_is_read(text):
  assert number_in(text, "") == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_a_number_that_is_refused(text):
  with pytest.raises(UnreadableNumber, match="is in a form that is not read"):
    number_in(text, "")


@pytest.mark.parametrize("text", ["", "none", "one dozen", "H2O", "x2", "\u03c0"])
def test_a_text_without_a_number(text):
  assert number_in(text, "") is None


def test_there_are_many_cases():
  assert len(READ) >= 80 and len(REFUSED) >= 60


SLOW = [" ", "\n", "1", "1,", "0.", "\\boxed{", "\\frac{1}{", "1+", "2^", "$", "-", "(", "1 1/", " \u00d7 ", "a,"]


@pytest.mark.parametrize("unit", SLOW)
def test_a_text_made_to_be_slow_is_not(unit):
  start = time.process_time()
  try:
    number_in(unit * 20_000 + "5", "")
  except UnreadableNumber:
    pass
  assert time.process_time() - start < 2


def answers(tmp_path, *texts):
  path = tmp_path / "answers.jsonl"
  path.write_text("".join(json.dumps({"prompt": f"{i}", "answer": text}) + "\n" for i, text in enumerate(texts)))
  return str(path)


def scored(function, tmp_path, reference, *responses, **settings):
  path = answers(tmp_path, reference)
  return function(["0"] * len(responses), responses, answers=path, **settings).tolist()


def test_number_compares_exact_values(tmp_path):
  responses = "0.75", "\\boxed{\\frac{6}{8}}", "75%", "4", "3", "0.7500001"
  assert scored(number, tmp_path, "3/4", *responses, marker="") == [1, 1, 1, 0, 0, 0]
  assert scored(number, tmp_path, "50", "50%", "50", "0.5", "5000%", "500%", marker="") == [1, 1, 0, 1, 0]
  assert scored(number, tmp_path, "50%", "50%", "50", "0.5", "5%", marker="") == [1, 1, 1, 0]
  assert scored(number, tmp_path, "so #### 1,000", "#### 1e3", "#### 10^3", "#### 1", "1000") == [1, 1, 0, 0]


def test_what_number_cannot_read_is_told(tmp_path):
  with pytest.warns(UserWarning, match="cannot read, such as .* counts as wrong"):
    assert scored(number, tmp_path, "12", "12", "10-12", marker="") == [1, 0]
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert scored(number, tmp_path, "12", "12", "none", marker="") == [1, 0]
  with pytest.raises(DataError, match=r"answers.jsonl: the answer to '0': .*'2\\\\pi' .*math_answer reads more"):
    scored(number, tmp_path, "2\\pi", "1", marker="")


def test_math_answer_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "math_verify", None)
  with pytest.raises(ConfigError, match=r"pip install 'rlhf_jax\[math\]'"):
    scored(math_answer, tmp_path, "1", "1")


MATHEMATICS = {  # reference -> right and wrong responses
  "2\\pi": (["so $\\boxed{2\\pi}$", "$\\pi \\cdot 2$"], ["2", "$\\pi$"]),
  "x^2 + 3x": (["$x(x+3)$", "\\boxed{3x + x^2}"], ["3", "$x^2$"]),
  "\\sqrt{16}": (["4", "$\\boxed{4}$"], ["16"]),
  "(1, 2)": (["$(1, 2)$", "(1,2)"], ["$(2, 1)$", "2"]),
  "\\{1, 2\\}": (["$\\{2, 1\\}$"], ["$\\{1\\}$", "2"]),
  "\\frac{\\sqrt{3}}{2}": (["$\\frac{3}{2\\sqrt{3}}$"], ["2", "3/2"]),
  "1000": (["1e3", "$10^3$", "1,000"], ["1", "$10^{2}$"]),
  "1": (["1", "$\\frac{2}{2}$"], ["1e3"]),
  "3/4": (["0.75", "75%"], ["4"]),
}


@pytest.mark.parametrize("reference", MATHEMATICS)
def test_mathematics_by_math_verify(tmp_path, reference):
  pytest.importorskip("math_verify", reason="needs the extra math")
  right, wrong = MATHEMATICS[reference]
  assert scored(math_answer, tmp_path, reference, *right, *wrong) == [1] * len(right) + [0] * len(wrong)
  marked = [f"I think\n#### {text}" for text in (*right, *wrong)]
  found = scored(math_answer, tmp_path, f"why\n#### {reference}", *marked, *right, marker="####")
  assert found == [1] * len(right) + [0] * len(wrong) + [0] * len(right)  # without the marker an answer is wrong


def test_a_reference_that_is_no_mathematics_is_named(tmp_path):
  pytest.importorskip("math_verify", reason="needs the extra math")
  mathematics._parse.cache_clear()
  with pytest.raises(DataError, match="the answer to '0' is not understood as mathematics: 'nothing at all'"):
    scored(math_answer, tmp_path, "nothing at all", "1")
