"""Numbers in texts and in LaTeX: integers, decimals, thousands, fractions, powers, percent; or a refusal to read them.

A number is read together with all that it is joined to. What is joined in another way than those below, such as
"5 + x", "10-12" or "2\\pi", is refused: a part of it would be another number.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple


class UnreadableNumber(ValueError):
  """A text has a number in a form that is not read here; the message quotes it."""


class Number(NamedTuple):
  """A number of a text."""

  value: Fraction
  """Value; that of "50%" is 1/2."""
  is_percent: bool = False
  """Whether a percent sign follows it."""

  def equals(self, other: Number) -> bool:
    """Whether the values are equal, "50%" being 1/2, or 50 where only one of the two has a percent sign."""
    bare, others = (100 * number.value if number.is_percent else number.value for number in (self, other))
    return self.value == other.value or (self.is_percent != other.is_percent and bare == others)


_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_TERM = rf"({_DIGITS})(?:[eE]([-+]?[0-9]+))?(?:\^(-?[0-9]+))?"
_FORM = re.compile(rf"(-?)(?:([0-9]+) (?=[0-9]+/))?{_TERM}(?:([/×]){_TERM})?")
_ATOM = r"\.?[0-9]+(?:[eE][-+]?[0-9]+(?![0-9A-Za-z]))?"
# What joins numbers in a line: signs of arithmetic, commas and points; a space before what looks like thousands or like
# the fraction of a mixed number.
_JOIN = r"(?: ?[/×*^+=] ?| - |-|[,.:](?=[0-9])| (?=[0-9]{3}(?![0-9])|[0-9]+ ?/))"
_RUN = re.compile(rf"(?<![A-Za-z0-9_])(?<![A-Za-z0-9_][.,])(?:(?<![0-9A-Za-z)\]}}])-)?{_ATOM}(?:{_JOIN}-?{_ATOM})*")
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PERCENT = re.compile(r"\s?%|\s?per ?cent\b")
_SCALE = re.compile(rf"\s({'|'.join(_SCALES)})s?\b")
# What a number must not follow, or be followed by: it would be part of something that is not read here.
_BEFORE = re.compile(
  r"(?:[{^_.\\√π±–—]|\\[A-Za-z]+\s*|(?<![-=])[<>]\s*|[≤≥±√π]\s*|[A-Za-z)\]]\s*[-+×*/^]|[A-Za-z)\]] [+×*/^] "
  r"|[(\[{][^()\[\]{}]*,\s*|[A-Za-z0-9)-]\(|[0-9] : )$"
)
_AFTER = re.compile(
  r" ?(?:[\^_√π±\\]|[-+×*/=^] ?(?:[0-9(√π\\]|[A-Za-z](?![A-Za-z]))|\.\.|…|–[0-9])"
  r"|[A-Za-z](?![A-Za-z])|(?:bn|mn|pi|sqrt)\b|[({]| (?:dozens?|pi)\b"
)
_LONGEST = 400  # digits of a number, and of its power

_SIGNS = str.maketrans({"−": "-", "⋅": "×", "·": "×", "∙": "×", "½": " 1/2", "¼": " 1/4", "¾": " 3/4"})
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_CURRENCIES = re.compile(r"\\?\$|[€£¥₹]|\b(?:US|USD|EUR|GBP|Rs\.?)(?=\s?-?[0-9])\s?")
_REWRITTEN = [  # LaTeX and marks of a page -> plain signs
  (re.compile(r"</?[A-Za-z][\w-]*>|\\left|\\right|\\displaystyle|\\quad|\\qquad|\\[;: ()\[\]]|`"), " "),
  (re.compile(r"(?<=[0-9])(?:\\,|\\!|\{,\}|,\\!|[\u00a0\u2009\u202f])(?=[0-9]{3}(?![0-9]))"), ","),
  (re.compile(r"\\[,!]|[\u00a0\u2009\u202f]"), " "),
  (re.compile(r"\\%"), "%"),
  (re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])"), "×"),
  (re.compile(r"\s*×\s*|(?<=[0-9]) ?x ?(?=10\s*\^)|(?<=[0-9])\s*\*\s*(?=10\s*(?:\^|\*\*))"), "×"),
  (re.compile(r"\\(?:approx|to|Rightarrow|rightarrow|implies)(?![A-Za-z])|≈|→|⇒"), "="),
  (re.compile(r"\^\s*(?:\{\\circ\}|\\circ)"), ""),
  (re.compile(r"(?<=[0-9])\s?\*\*\s?(?=-?[0-9])"), "^"),
  (re.compile(r"\*\*|__"), ""),
  (re.compile(r"\s*\^\s*\{\s*(-?[0-9]+)\s*\}"), r"^\1"),
  (re.compile(r"(?<=[A-Za-z])\^-?[0-9]+(?![0-9])"), ""),  # of a unit
]
_FACTORIAL = re.compile(r"(?<=[0-9])!(?=\s?(?:\$|\}|\\[)\]]))")  # in a formula; in prose it ends a sentence
_BLANKS = re.compile(r"\s{2,}")
_NUMERIC = rf"\s*((?:{_DIGITS}))\s*"
_FRACTION = re.compile(rf"\\[dt]?frac\s*(?:\{{\s*(-?){_NUMERIC}\}}|([0-9]))\s*(?:\{{{_NUMERIC}\}}|([0-9]))")
_GROUP = re.compile(r"\\(?:text|mathrm|mathbf|textbf|boxed|fbox|mbox)\s*\{([^{}]*)\}")


def read_number(text: str, marker: str) -> Number | None:
  """The first number after the first `marker`; for marker "" the last number of the text; None for none.

  Raises:
    UnreadableNumber: that number is in a form which is not read.
  """
  before, found, after = text.partition(marker) if marker else (text, "", "")
  if marker and not found:
    return None
  plain = _plain(after if marker else before)
  runs = list(_RUN.finditer(plain))
  return _read(plain, runs[0 if marker else -1]) if runs else None


def count_numbers(text: str) -> int:
  """How many numbers the text has, those that are joined counted once."""
  return sum(1 for _ in _RUN.finditer(_plain(text)))


def _plain(text: str) -> str:
  """The text with LaTeX, typographic signs and currencies in plain signs, as far as they are known here."""
  text = _BLANKS.sub(_shorter, text)  # first, as patterns that start with white space take quadratic time on much of it
  text = "".join(str(unicodedata.decimal(sign, sign)) for sign in text) if not text.isascii() else text
  text = _FACTORIAL.sub("_", text.translate(_SIGNS))
  text = re.sub(r"(?<=[0-9])[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda power: "^" + power[0].translate(_SUPERSCRIPTS), text)
  for pattern, plain in _REWRITTEN:
    text = pattern.sub(plain, text)
  text = _BLANKS.sub(_shorter, text)
  for _ in range(8):  # the depth of groups within groups
    before = text
    text = _GROUP.sub(r" \1 ", _FRACTION.sub(_over, text))
    if text == before:
      break
  return _CURRENCIES.sub("", text)


def _shorter(blanks: re.Match[str]) -> str:
  return "\n" if "\n" in blanks[0] else " "


def _over(found: re.Match[str]) -> str:
  sign, above, digit, below, last = found.groups()
  mixed = found.start() and found.string[found.start() - 1].isdigit()  # 1\frac{1}{2}
  return f"{' ' if mixed else ''}{sign or ''}{above or digit}/{below or last}"


def _read(plain: str, run: re.Match[str]) -> Number:
  """The number of a run in its surroundings. Raises UnreadableNumber."""
  before, after = plain[: run.start()], plain[run.end() :]
  said = f"{before[-20:]}{run[0][:60]}{after[:20]}".strip()
  refused = UnreadableNumber(f"the number in {said!r} is in a form that is not read")
  *left, last = run[0].split("=")
  dash = re.search(r"-\s+$", before)
  if dash and not left:  # a minus behind "=" or "(", and otherwise a dash
    if not re.search(r"[=(]\s*$", before[: dash.start()]):
      raise refused
    last = f"-{last}"
  elif not left and _BEFORE.search(before[-200:]):
    raise refused
  number = _FORM.fullmatch(re.sub(r"\s*([/×^])\s*", r"\1", last.strip()))
  percent = _PERCENT.match(after)
  rest = after[percent.end() :] if percent else after
  scale = None if percent else _SCALE.match(rest)
  if not number or _AFTER.match(rest[scale.end() :] if scale else rest):
    raise refused
  sign, whole, *first, operator, digits, e, power = number.groups()
  try:
    value = _term(*first)
    if operator == "×" and (digits != "10" or power is None):
      raise refused  # a product that was not computed
    if operator:
      second = _term(digits, e, power)
      value = value / second if operator == "/" else value * second
  except (OverflowError, ZeroDivisionError):
    raise refused from None
  if whole is not None:
    if operator != "/" or not 0 < value < 1:
      raise refused
    value += int(whole)
  value *= _SCALES[scale[1]] if scale else 1
  return Number((-value if sign else value) / (100 if percent else 1), percent is not None)


def _term(digits: str, e: str | None, power: str | None) -> Fraction:
  """Digits times ten to the e, to a power. Raises OverflowError and ZeroDivisionError."""
  exponent, times = int((e or "0")[:6]), int((power or "1")[:6])
  if len(digits) > _LONGEST or max(abs(exponent), abs(times), len(digits) * abs(times)) > _LONGEST:
    raise OverflowError
  return (Fraction(digits.replace(",", "")) * Fraction(10) ** exponent) ** times
