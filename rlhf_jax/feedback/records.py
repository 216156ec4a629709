"""What a piece of feedback is: annotators, items, judgements, as frozen values that check themselves (schema 1).

An *item* is a prompt with K responses. A *judgement* is what one annotator said of one item: a rating of 1 to 7 per
response, a ranking with ties (for K = 2 with a strength), flags, critiques, rewrites, or a skip with its reason. All
tuples of a judgement are indexed by response, not by the place where it was shown; `order` says what stood where.

Nothing is ever overwritten: a correction is a new judgement that `supersedes` the old one, and an undo is a skip
with the reason "undone" that does. A *gold* item is one whose ranking an expert has given; annotators cannot tell.

As a JSON row each record is {"type": "annotator" | "item" | "judgement", "schema": 1, ...its fields}.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rlhf_jax.data import DataError
from rlhf_jax.feedback.checks import check_id, check_length, check_ranks, check_text, check_type
from rlhf_jax.settings import nearest

SCHEMA = 1
KINDS = ("human", "simulated", "model")
RATINGS = range(1, 8)  # 1 worst, 7 best
STRENGTHS = range(1, 4)  # 1 slightly better, 2 better, 3 much better
OPINIONS = ("ranks", "ratings")  # fields of a judgement that order responses
UNDONE = "undone"


@dataclasses.dataclass(frozen=True)
class Annotator:
  """Who judges. kind: "human", "simulated" or "model". expert: the judgements may serve as a reference."""

  id: str
  kind: str = "human"
  expert: bool = False

  def __post_init__(self):
    check_id("id", self.id)
    if self.kind not in KINDS:
      raise ValueError(f"'kind' is {self.kind!r}.{nearest(str(self.kind), KINDS)}")
    check_type("expert", self.expert, bool)

  def to_row(self) -> dict[str, Any]:
    """The JSON row."""
    return _row("annotator", self)

  @classmethod
  def from_row(cls, row: Mapping[str, Any], where: str = "annotator") -> Annotator:
    """The record of a row. Raises DataError, which starts with `where`."""
    return _from_row(cls, "annotator", row, where)


@dataclasses.dataclass(frozen=True)
class Response:
  """A text and where it is from.

  source: {"checkpoint": path, "sampling": {...}} of a sampled one, {"file": name} of an existing one.
  """

  text: str
  source: dict[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check_text("text", self.text)
    check_type("source", self.source, dict)
    try:
      json.dumps(self.source, allow_nan=False)
    except (TypeError, ValueError) as error:
      raise ValueError(f"'source' is not JSON ({error})") from error


@dataclasses.dataclass(frozen=True)
class Item:
  """A prompt with K >= 1 responses. gold_ranks: an expert's ranking, as `Judgement.ranks`, of a gold item."""

  id: str
  prompt: str
  responses: tuple[Response, ...]
  gold_ranks: tuple[int, ...] | None = None

  def __post_init__(self):
    check_id("id", self.id)
    check_text("prompt", self.prompt)
    if not self.responses or not all(isinstance(response, Response) for response in self.responses):
      raise ValueError(f"'responses' must be at least one response, found {self.responses!r}")
    if self.gold_ranks is not None:
      check_ranks("gold_ranks", self.gold_ranks, len(self.responses))

  def to_row(self) -> dict[str, Any]:
    """The JSON row; responses are {"text", "source"}."""
    return _row("item", self)

  @classmethod
  def from_row(cls, row: Mapping[str, Any], where: str = "item") -> Item:
    """The record of a row. Raises DataError, which starts with `where`."""
    return _from_row(cls, "item", row, where)


@dataclasses.dataclass(frozen=True)
class Judgement:
  """What one annotator said of one item of K responses; see the head of this file.

  item, annotator: ids. order: order[i] is the index of the response shown at place i, a permutation of range(K).
  ratings: 1 to 7, None where not rated. ranks: 0 best, equal ones tie, -1 absent. strength: for K = 2, how much better
  the winner is (1 slightly, 2, 3 much), None where unstated or tied. flags, critiques, rewrites: per response; "" is
  none. skipped: the reason; then there are no ratings and ranks. seconds: spent on it, 0 where unknown. guidelines:
  their version. created: ISO 8601 in UTC. supersedes: the id of the judgement this one replaces.
  """

  id: str
  item: str
  annotator: str
  order: tuple[int, ...]
  ratings: tuple[int | None, ...] | None = None
  ranks: tuple[int, ...] | None = None
  strength: int | None = None
  flags: tuple[tuple[str, ...], ...] | None = None
  critiques: tuple[str, ...] | None = None
  rewrites: tuple[str, ...] | None = None
  skipped: str | None = None
  seconds: float = 0.0
  guidelines: str = ""
  created: str = "1970-01-01T00:00:00.000Z"
  supersedes: str | None = None

  def __post_init__(self):
    for name in ("id", "item", "annotator"):
      check_id(name, getattr(self, name))
    size = len(check_type("order", self.order, tuple))
    if not size or any(type(i) is not int for i in self.order) or sorted(self.order) != list(range(size)):
      raise ValueError(f"'order' must be a permutation of 0..K-1, found {list(self.order)}")
    self._check_opinion(size)
    self._check_texts(size)
    self._check_circumstances()

  def _check_opinion(self, size: int) -> None:
    if self.ratings is not None:
      check_length("ratings", self.ratings, size)
      for i, rating in enumerate(self.ratings):
        if rating is not None and (type(rating) is not int or rating not in RATINGS):
          raise ValueError(f"'ratings[{i}]' must be 1 to 7 or null, found {rating!r}")
    if self.ranks is not None:
      check_ranks("ranks", self.ranks, size)
    if self.strength is not None:
      if type(self.strength) is not int or self.strength not in STRENGTHS:
        raise ValueError(f"'strength' must be 1 to 3 or null, found {self.strength!r}")
      if size != 2 or self.ranks is None or self.ranks[0] == self.ranks[1]:
        raise ValueError("'strength' needs two responses and a winner: set it to null for a tie or a longer ranking")
    rated = self.ratings is not None and any(rating is not None for rating in self.ratings)
    if self.skipped is not None and (rated or self.ranks is not None):
      raise ValueError("'skipped' judgements have no ratings and no ranks")
    if self.skipped is None and not (rated or self.ranks is not None or self._has_words()):
      raise ValueError("a judgement must say something: ratings, ranks, flags, critiques, rewrites, or 'skipped'")

  def _has_words(self) -> bool:
    return any(any(column) for column in (self.flags, self.critiques, self.rewrites) if column is not None)

  def _check_texts(self, size: int) -> None:
    for name in ("critiques", "rewrites"):
      texts = getattr(self, name)
      if texts is not None:
        check_length(name, texts, size)
        for i, text in enumerate(texts):
          check_text(f"{name}[{i}]", text)
    if self.flags is not None:
      check_length("flags", self.flags, size)
      for i, flags in enumerate(self.flags):
        for j, flag in enumerate(check_type(f"flags[{i}]", flags, tuple)):
          check_id(f"flags[{i}][{j}]", flag)
    if self.skipped is not None:
      check_id("skipped", self.skipped)

  def _check_circumstances(self) -> None:
    if type(self.seconds) not in (int, float) or not math.isfinite(self.seconds) or self.seconds < 0:
      raise ValueError(f"'seconds' must be a finite number >= 0, found {self.seconds!r}")
    check_text("guidelines", self.guidelines)
    check_type("created", self.created, str)
    try:
      offset = datetime.datetime.fromisoformat(self.created).utcoffset()
    except ValueError as error:
      raise ValueError(f"'created' must be a time in ISO 8601, found {self.created!r}") from error
    if offset != datetime.timedelta():
      raise ValueError(f"'created' must be in UTC (end in Z), found {self.created!r}")
    if self.supersedes is not None:
      check_id("supersedes", self.supersedes)
      if self.supersedes == self.id:
        raise ValueError(f"'supersedes' names the judgement itself, {self.id!r}")

  def to_row(self) -> dict[str, Any]:
    """The JSON row."""
    return _row("judgement", self)

  @classmethod
  def from_row(cls, row: Mapping[str, Any], where: str = "judgement") -> Judgement:
    """The record of a row. Raises DataError, which starts with `where`."""
    return _from_row(cls, "judgement", row, where)


Record = Annotator | Item | Judgement
Records = tuple[list[Annotator], list[Item], list[Judgement]]


def make_item(prompt: str, responses: Iterable[Response], gold_ranks: Sequence[int] | None = None) -> Item:
  """An item whose id is a hash of its content, so that collecting the same twice queues it once."""
  responses = tuple(responses)
  ranks = None if gold_ranks is None else tuple(gold_ranks)
  content = [prompt, [[response.text, response.source] for response in responses], ranks]
  return Item(content_id(content), prompt, responses, ranks)


def content_id(content: Any) -> str:
  """16 hexadecimal digits of the SHA-256 of a JSON value."""
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def timestamp(seconds: float) -> str:
  """Seconds since 1970 -> ISO 8601 in UTC, to the millisecond."""
  moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
  return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def current(judgements: Iterable[Judgement]) -> list[Judgement]:
  """The judgements that no other supersedes, in their order; those withdrawn are skips with the reason "undone"."""
  judgements = list(judgements)
  superseded = {judgement.supersedes for judgement in judgements}
  return [judgement for judgement in judgements if judgement.id not in superseded]


def record_of(row: Mapping[str, Any], where: str) -> Record:
  """The record of a row of any type. Raises DataError, which starts with `where`."""
  classes = {"annotator": Annotator, "item": Item, "judgement": Judgement}
  kind = row.get("type")
  if not isinstance(kind, str) or kind not in classes:
    raise DataError(f"{where}: 'type' is {kind!r}.{nearest(str(kind), classes)}")
  return classes[kind].from_row(row, where)


def _row(kind: str, record: Record) -> dict[str, Any]:
  return {"type": kind, "schema": SCHEMA, **_plain(dataclasses.asdict(record))}


def _plain(value: Any) -> Any:
  """Tuples as lists, which is what JSON gives back."""
  if isinstance(value, dict):
    return {key: _plain(item) for key, item in value.items()}
  return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _from_row(cls: Callable, kind: str, row: Mapping[str, Any], where: str) -> Any:
  if row.get("type", kind) != kind:
    raise DataError(f"{where}: 'type' is {row['type']!r}, expected {kind!r}")
  if row.get("schema", SCHEMA) != SCHEMA:
    raise DataError(f"{where}: 'schema' is {row['schema']!r}, this version reads {SCHEMA}; convert the file")
  fields = {field.name: field for field in dataclasses.fields(cls)}
  values = {key: value for key, value in row.items() if key not in ("type", "schema")}
  for key in values:
    if key not in fields:
      raise DataError(f"{where}: a row of type {kind!r} has no {key!r}.{nearest(str(key), fields)}")
  for name, field in fields.items():
    if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      raise DataError(f"{where}: the row of type {kind!r} lacks {name!r}; add it")
  try:
    if kind == "item":
      values["responses"] = _responses(values["responses"])
    return cls(**{key: _tuples(value) for key, value in values.items()})
  except ValueError as error:
    raise DataError(f"{where}: {error}") from error


def _responses(rows: Any) -> tuple[Response, ...]:
  check_type("responses", rows, list)
  for i, row in enumerate(rows):
    check_type(f"responses[{i}]", row, dict)
    if unknown := row.keys() - {"text", "source"}:
      raise ValueError(f"'responses[{i}]' has no {min(unknown)!r}. Known: source, text.")
    if "text" not in row:
      raise ValueError(f"'responses[{i}]' lacks 'text'; add it")
  return tuple(Response(**row) for row in rows)


def _tuples(value: Any) -> Any:
  return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def collect_records(located: Iterable[tuple[str, Record]]) -> Records:
  """Sorts records by type and checks that they fit together; a record that occurs twice counts once.

  Raises:
    DataError: starting with the place ("file:line") of the record that does not fit.
  """
  found: dict[type, dict[str, Record]] = {Annotator: {}, Item: {}, Judgement: {}}
  for where, record in located:
    known = found[type(record)]
    if known.setdefault(record.id, record) != record:
      raise DataError(f"{where}: the id {record.id!r} occurs before with other content; give it an id of its own")
    if isinstance(record, Judgement):
      check_fits(record, found[Annotator], found[Item], found[Judgement], where)
  return tuple(list(records.values()) for records in found.values())


def check_fits(
  judgement: Judgement,
  annotators: Mapping[str, Annotator],
  items: Mapping[str, Item],
  judgements: Mapping[str, Judgement],
  where: str,
) -> None:
  """Raises DataError, which starts with `where`, unless what the judgement refers to is there before it and fits."""
  if judgement.annotator not in annotators:
    raise DataError(f"{where}: unknown annotator {judgement.annotator!r}; its row must come before")
  if judgement.item not in items:
    raise DataError(f"{where}: unknown item {judgement.item!r}; its row must come before")
  size = len(items[judgement.item].responses)
  if len(judgement.order) != size:
    raise DataError(f"{where}: judges {len(judgement.order)} responses, but item {judgement.item!r} has {size}")
  if judgement.supersedes is not None:
    old = judgements.get(judgement.supersedes)
    if old is None:
      raise DataError(f"{where}: supersedes the unknown judgement {judgement.supersedes!r}; its row must come before")
    if (old.item, old.annotator) != (judgement.item, judgement.annotator):
      raise DataError(f"{where}: supersedes {old.id!r}, which is of another item or annotator")
