"""What annotators are asked: a questions file, its checks, and the check of an answer against it.

A file in TOML names the kinds in `ask`, and says more of a kind in a table of its name; whatever it leaves out is as in
the default page. All fields are those of `Questions`:

  ask = ["comparison", "yes_no", "rating", "flags", "text", "spans"]
  required = ["comparison"]
  [comparison]
  both_bad = true
  [rating]
  points = 5
  labels = ["useless", "poor", "fair", "good", "perfect"]
  aspects = ["helpful", "honest", "harmless"]
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rlhf_jax.data import DataError, read_text
from rlhf_jax.feedback.checks import RATINGS, STRENGTHS, check_id
from rlhf_jax.feedback.records import content_id
from rlhf_jax.settings import ConfigError, parse

Kind = Literal["rating", "comparison", "ranking", "yes_no", "flags", "text", "spans"]
DEFAULT_ASK: tuple[Kind, ...] = ("rating", "comparison", "ranking", "flags", "text")
MAX_LABELS = 9  # labels of a list at most: the page chooses one by a key from 1 to 9


@dataclasses.dataclass(frozen=True)
class Rating:
  """Ratings of each response."""

  points: int = 7
  """Number of points of the scale, 2 to 7; 1 is the worst."""
  labels: tuple[str, ...] = ()
  """Words for each point, or () for bare numbers."""
  overall: bool = True
  """Whether a response is rated as a whole."""
  aspects: tuple[str, ...] = ()
  """Aspects that are rated too, such as "helpful", "honest" and "harmless"."""


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The choice between two responses."""

  strengths: int = 3
  """Number of strengths of a preference, 1 to 3; 1 asks for the better response alone."""
  tie: bool = True
  """Whether two responses may be called equal."""
  both_bad: bool = False
  """Whether both responses may be called bad."""


@dataclasses.dataclass(frozen=True)
class YesNo:
  """A question of each response that is answered by yes or no."""

  question: str = "Is this response good?"
  """Text of the question."""


@dataclasses.dataclass(frozen=True)
class Flags:
  """Flags that a response may carry."""

  labels: tuple[str, ...] = ("harmful", "dishonest", "off-topic", "incoherent", "private data")
  """Names of the flags."""


@dataclasses.dataclass(frozen=True)
class Text:
  """Texts on each response."""

  fields: tuple[Literal["critique", "rewrite"], ...] = ("critique", "rewrite")
  """Texts that are asked for."""


@dataclasses.dataclass(frozen=True)
class Spans:
  """Parts of a response that are marked."""

  labels: tuple[str, ...] = ("false", "unsupported", "harmful")
  """Names of the marks."""


@dataclasses.dataclass(frozen=True)
class Skip:
  """Skips."""

  reasons: tuple[str, ...] = (
    "I cannot tell", "needs knowledge I lack", "responses are the same", "prompt makes no sense", "too disturbing",
  )  # fmt: skip
  """Reasons to choose from."""
  other: bool = True
  """Whether an annotator may write another reason."""


@dataclasses.dataclass(frozen=True)
class Questions:
  """What annotators are asked of an item."""

  ask: tuple[Kind, ...] = DEFAULT_ASK
  """Kinds of question: "comparison" is of two responses, "ranking" of three or more, all others of each response."""
  required: tuple[Kind, ...] = ()
  """Kinds without which an answer is incomplete. () asks for a comparison or ranking, or for all ratings, or for all
  answers of yes or no, whichever the annotator prefers."""
  rating: Rating = Rating()
  """Settings of ratings."""
  comparison: Comparison = Comparison()
  """Settings of comparisons."""
  yes_no: YesNo = YesNo()
  """Settings of the yes-or-no question."""
  flags: Flags = Flags()
  """Settings of flags."""
  text: Text = Text()
  """Settings of texts."""
  spans: Spans = Spans()
  """Settings of spans."""
  skip: Skip = Skip()
  """Settings of skips."""

  def __post_init__(self) -> None:
    if not self.ask or len(set(self.ask)) < len(self.ask):
      raise ValueError(f"ask={list(self.ask)} must name at least one kind, each once")
    if stray := set(self.required) - set(self.ask):
      raise ValueError(f"required names {min(stray)!r}, which is not asked; add it to ask")
    if "rating" in self.ask and not (self.rating.overall or self.rating.aspects):
      raise ValueError("rating.overall is false and rating.aspects is empty: nothing is rated; take it out of ask")
    if not 2 <= self.rating.points <= max(RATINGS):
      raise ValueError(f"rating.points={self.rating.points} must be 2 to {max(RATINGS)}")
    if self.rating.labels and len(self.rating.labels) != self.rating.points:
      raise ValueError(f"rating.labels has {len(self.rating.labels)} words for {self.rating.points} points; give all")
    if self.comparison.strengths not in STRENGTHS:
      raise ValueError(f"comparison.strengths={self.comparison.strengths} must be 1 to {max(STRENGTHS)}")
    if not self.yes_no.question.strip():
      raise ValueError("yes_no.question is empty; write the question, or take yes_no out of ask")
    if "text" in self.ask and not self.text.fields:
      raise ValueError("text.fields is empty; name critique, rewrite, or both, or take text out of ask")
    for name in ("rating.labels", "rating.aspects", "flags.labels", "spans.labels", "skip.reasons"):
      section, field = name.split(".")
      _check_labels(name, getattr(getattr(self, section), field), empty=section in ("rating", "skip"))

  @property
  def version(self) -> str:
    """Hash of the questions; "" for the default ones."""
    return "" if self == Questions() else content_id(dataclasses.asdict(self))

  def check(self, said: Mapping[str, Any]) -> None:
    """Checks the fields of a judgement, whose sequences are indexed by response or by place, against what is asked.

    Raises:
      ValueError: a kind or label was not asked for, or what is required is missing.
    """
    self._check_asked(said)
    if said.get("skipped") is not None:
      if not self.skip.other and said["skipped"] not in self.skip.reasons:
        raise ValueError(f"'skipped' must be one of {', '.join(self.skip.reasons)}")
      return
    if lacking := [kind for kind in self.required if not self._answered(kind, said)]:
      raise ValueError(f"the answer lacks {lacking[0]!r}, which is required")

  def _check_asked(self, said: Mapping[str, Any]) -> None:
    size = len(said["order"])
    order = "comparison" if size == 2 else "ranking"
    fields = {"ranks": order, "ratings": "rating", "aspects": "rating", "yes_no": "yes_no", "flags": "flags",
              "critiques": "text", "rewrites": "text", "spans": "spans"}  # fmt: skip
    for field, kind in fields.items():
      if said.get(field) is not None and kind not in self.ask:
        raise ValueError(f"{field!r} is given, but {kind} is not asked; reload the page")
    if said.get("ratings") is not None and not self.rating.overall:
      raise ValueError("'ratings' is given, but only aspects are rated; reload the page")
    for name, field in (("critique", "critiques"), ("rewrite", "rewrites")):
      if said.get(field) is not None and name not in self.text.fields:
        raise ValueError(f"{field!r} is given, but {name} is not asked; reload the page")
    aspects = said.get("aspects") or {}
    flags = [flag for of_response in said.get("flags") or () for flag in of_response]
    marks = [span[2] for of_response in said.get("spans") or () for span in of_response]
    known = {
      "aspects": ([*aspects], self.rating.aspects),
      "flags": (flags, self.flags.labels),
      "spans": (marks, self.spans.labels),
    }
    for field, (found, labels) in known.items():
      for label in found:
        if label not in labels:
          raise ValueError(f"{field!r} has {label!r}, and must be of {', '.join(labels)}")
    for ratings in (said.get("ratings"), *aspects.values()):
      for rating in ratings or ():
        if rating is not None and rating > self.rating.points:
          raise ValueError(f"rating {rating} is above the scale's {self.rating.points} points")
    if (said.get("strength") or 1) > self.comparison.strengths:
      raise ValueError(f"'strength' is {said['strength']}, and at most {self.comparison.strengths} here")
    tied = len(set(said.get("ranks") or ())) == 1
    if said.get("all_bad") and not (self.comparison.both_bad and size == 2):
      raise ValueError("'all_bad' is given, but not asked; reload the page")
    if size == 2 and tied and not (self.comparison.tie or said.get("all_bad")):
      raise ValueError("the responses are tied, and a tie is not an answer here")

  def _answered(self, kind: Kind, said: Mapping[str, Any]) -> bool:
    size = len(said["order"])
    if kind in ("comparison", "ranking"):
      ranks = said.get("ranks")
      return (kind == "comparison") != (size == 2) or size == 1 or (ranks is not None and -1 not in ranks)
    if kind == "rating":
      aspects = said.get("aspects") or {}
      rated = [aspects.get(name) for name in self.rating.aspects]
      rated += [said.get("ratings")] if self.rating.overall else []
      return all(values is not None and None not in values for values in rated)
    if kind == "yes_no":
      return said.get("yes_no") is not None and None not in said["yes_no"]
    if kind == "spans":
      return said.get("spans") is not None
    fields = ("flags",) if kind == "flags" else ("critiques", "rewrites")
    return any(any(said.get(field) or ()) for field in fields)


def read_questions(path: str | Path) -> Questions:
  """The questions of a TOML file.

  Raises:
    ConfigError: naming the file, the key, what was found and what is accepted.
    DataError: the file cannot be read.
  """
  try:
    mapping = tomllib.loads(read_text(path))
  except tomllib.TOMLDecodeError as error:
    raise ConfigError(f"{path}: is no TOML ({error}); strings stand in quotes, lists in [ ]") from error
  return parse_questions(mapping, str(path))


def parse_questions(mapping: Mapping[str, Any], where: str) -> Questions:
  """The questions of a mapping. Raises ConfigError, which starts with `where` and names the key."""
  try:
    return parse(Questions, mapping, "questions")
  except ConfigError as error:
    raise ConfigError(f"{where}: {str(error).replace('config.questions', 'questions')}") from error


def stored_questions(value: Mapping[str, Any]) -> Questions:
  """The questions of an event of the store. Raises DataError where this version does not know them."""
  try:
    return parse_questions(value, "the store's questions")
  except ConfigError as error:
    raise DataError(f"{error}; they are of another version") from error


def _check_labels(name: str, labels: tuple[str, ...], empty: bool) -> None:
  if not (labels or empty) or len(labels) > MAX_LABELS or len(set(labels)) < len(labels):
    raise ValueError(f"{name}={list(labels)} must be {0 if empty else 1} to {MAX_LABELS} different texts")
  for label in labels:
    check_id(name, label)
