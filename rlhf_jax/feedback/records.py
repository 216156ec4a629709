"""The records of human feedback: annotators, items and judgements, frozen values that check themselves (schema 1).

An *item* is a prompt with K responses. A *judgement* is what one annotator said of one item: ratings of 1 to 7 (of the
whole, or of single aspects), a ranking with ties (for K = 2 with a strength), yes or no, flags, critiques, rewrites,
marked spans, or a skip with its reason. Every tuple of a judgement is indexed by response, not by the place on the
page; `order` says which response stood at which place.

Records are never overwritten: a correction is a new judgement that `supersedes` the old one, and an undo is a skip with
the reason "undone" that supersedes what is undone. A judgement of an expert may be `final`: it is then the answer to an
item that others disagree on (`answers`). A *gold* item carries an expert's ranking; the page does not show which items
are gold. `record_rows` writes records as JSON rows.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from rlhf_jax.data import DataError, Prompt, messages_of, prompt_value
from rlhf_jax.feedback.checks import (
  check_flags,
  check_id,
  check_order,
  check_ranks,
  check_ratings,
  check_seconds,
  check_spans,
  check_strength,
  check_text,
  check_texts,
  check_time,
  check_type,
  check_yes_no,
)
from rlhf_jax.settings import nearest

KINDS = ("human", "simulated", "model")
OPINIONS = ("ranks", "ratings", "yes_no")  # fields of a judgement that say how good responses are
UNDONE = "undone"
NOTHING_TO_ADD = "nothing to add"  # reason for a skip by an annotator who was asked for critiques and had none
SETTLED = "of an item that an expert has settled"  # reason to leave a judgement out, beside the final one
Span = tuple[int, int, str]  # start and end in characters of the response, label
UNKNOWN_TIME = "1970-01-01T00:00:00.000Z"  # `Judgement.created` of imported judgements


@dataclasses.dataclass(frozen=True)
class Annotator:
  """A person or program that judges."""

  id: str
  """Name, 1 to 200 printable characters."""
  kind: str = "human"
  """Kind of annotator: "human", "simulated" or "model"."""
  expert: bool = False
  """Whether the judgements may serve as a reference for other annotators."""

  def __post_init__(self) -> None:
    check_id("id", self.id)
    if self.kind not in KINDS:
      raise ValueError(f"'kind' is {self.kind!r}.{nearest(str(self.kind), KINDS)}")
    check_type("expert", self.expert, bool)


@dataclasses.dataclass(frozen=True)
class Response:
  """A text and its source."""

  text: str
  """Text of the response."""
  source: dict[str, Any] = dataclasses.field(default_factory=dict)
  """Origin as a JSON object: {"checkpoint": path, "step": number, "sampling": {...}} of a sampled text, {"model": name}
  of another model, {"file": name} of a text that was read; {} where it is unknown. "also" lists the origins of
  equal texts, of which an item shows one."""

  def __post_init__(self) -> None:
    check_text("text", self.text)
    check_type("source", self.source, dict)
    try:
      json.dumps(self.source, allow_nan=False)
    except (TypeError, ValueError) as error:
      raise ValueError(f"'source' is not JSON ({error})") from error


@dataclasses.dataclass(frozen=True)
class Item:
  """A prompt with K >= 1 responses, to be judged."""

  id: str
  """Name, 1 to 200 printable characters; `make_item` takes a hash of the content."""
  prompt: Prompt
  """Prompt: a text, or the messages of a dialogue."""
  responses: tuple[Response, ...]
  """The K responses."""
  gold_ranks: tuple[int, ...] | None = None
  """Ranking by an expert, as `Judgement.ranks`; None where the item is not gold."""
  cluster: str = ""
  """Cluster of tasks that the prompt is of; "" where it is unknown."""

  def __post_init__(self) -> None:
    check_id("id", self.id)
    for number, message in enumerate(messages_of(self.prompt)):
      check_text("prompt" if isinstance(self.prompt, str) else f"prompt[{number}]", message.content)
    if not self.responses or not all(isinstance(response, Response) for response in self.responses):
      raise ValueError(f"'responses' must be at least one response, found {self.responses!r}")
    if self.gold_ranks is not None:
      check_ranks("gold_ranks", self.gold_ranks, len(self.responses))
    check_text("cluster", self.cluster)


@dataclasses.dataclass(frozen=True)
class Judgement:
  """What one annotator said of one item of K responses."""

  id: str
  """Name, 1 to 200 printable characters."""
  item: str
  """Id of the item."""
  annotator: str
  """Id of the annotator."""
  order: tuple[int, ...]
  """Permutation of 0..K-1: order[i] is the index of the response shown at place i."""
  ratings: tuple[int | None, ...] | None = None
  """Rating of each response, 1 the worst to 7 the best; None where it is not rated."""
  ranks: tuple[int, ...] | None = None
  """Rank of each response: 0 is the best, equal ranks tie, -1 is not ranked; at least two are ranked."""
  strength: int | None = None
  """Strength of a preference between two responses: 1 slightly better, 2 better, 3 much better; None where it was not
  stated, for a tie and for longer rankings."""
  all_bad: bool = False
  """Whether all responses were called bad; such a ranking ties all of them."""
  yes_no: tuple[bool | None, ...] | None = None
  """Answer to the yes-or-no question for each response; None where it was not answered."""
  aspects: dict[str, tuple[int | None, ...]] | None = None
  """Ratings of single aspects, such as "helpful", each as `ratings`."""
  flags: tuple[tuple[str, ...], ...] | None = None
  """Flags of each response, such as "harmful"."""
  critiques: tuple[str, ...] | None = None
  """Critique of each response in words; "" for none."""
  rewrites: tuple[str, ...] | None = None
  """Better text for each response; "" for none."""
  spans: tuple[tuple[Span, ...], ...] | None = None
  """Marked parts (start, end, label) of each response, in characters (Unicode code points); () where nothing was found
  to mark, None where spans were not asked for."""
  skipped: str | None = None
  """Reason for a skip, which has no ratings and no ranks; None for a judgement that says something."""
  seconds: float = 0.0
  """Seconds spent on the judgement; 0 where they are unknown."""
  guidelines: str = ""
  """Version of the guidelines that were shown; "" for none."""
  questions: str = ""
  """Version of the questions that were asked; "" for the default ones."""
  final: bool = False
  """Whether this is an expert's adjudication, which settles the item."""
  created: str = UNKNOWN_TIME
  """Time of the judgement, ISO 8601 in UTC; 1970 where it is unknown."""
  supersedes: str | None = None
  """Id of the judgement that this one replaces; None for a first judgement."""

  def __post_init__(self) -> None:
    for name in ("id", "item", "annotator"):
      check_id(name, getattr(self, name))
    size = check_order("order", self.order)
    if self.ratings is not None:
      check_ratings("ratings", self.ratings, size)
    if self.ranks is not None:
      check_ranks("ranks", self.ranks, size)
    if self.strength is not None:
      check_strength("strength", self.strength, self.ranks)
    check_type("all_bad", self.all_bad, bool)
    if self.all_bad and len(set(self.ranks or ())) != 1:
      raise ValueError("'all_bad' needs ranks that tie all responses: one is no worse than another")
    if self.yes_no is not None:
      check_yes_no("yes_no", self.yes_no, size)
    for name, ratings in check_type("aspects", {} if self.aspects is None else self.aspects, dict).items():
      check_id("aspects", name)
      check_ratings(f"aspects[{name}]", ratings, size)
    if self.flags is not None:
      check_flags("flags", self.flags, size)
    for name in ("critiques", "rewrites"):
      if getattr(self, name) is not None:
        check_texts(name, getattr(self, name), size)
    if self.spans is not None:
      check_spans("spans", self.spans, size)
    if self.skipped is not None:
      check_id("skipped", self.skipped)
    self._check_content()
    check_seconds("seconds", self.seconds)
    check_text("guidelines", self.guidelines)
    check_text("questions", self.questions)
    check_type("final", self.final, bool)
    check_time("created", self.created)
    if self.supersedes is not None:
      check_id("supersedes", self.supersedes)
      if self.supersedes == self.id:
        raise ValueError(f"'supersedes' names the judgement itself, {self.id!r}")

  def _check_content(self) -> None:
    columns = (self.ratings, self.yes_no, *(self.aspects or {}).values())
    opinion = self.ranks is not None or any(value is not None for column in columns for value in column or ())
    if self.skipped is not None and opinion:
      raise ValueError("'skipped' judgements have no ratings, no ranks and no yes or no")
    worded = any(any(column) for column in (self.flags, self.critiques, self.rewrites) if column is not None)
    if self.skipped is None and not (opinion or worded or self.spans is not None):
      raise ValueError(
        "a judgement must say something: ratings, ranks, yes or no, flags, critiques, rewrites, spans, or 'skipped'"
      )


Record = Annotator | Item | Judgement
Records = tuple[list[Annotator], list[Item], list[Judgement]]
AnyRecord = TypeVar("AnyRecord", bound=Record)


def models_of(source: dict[str, Any]) -> tuple[str, ...]:
  """The different names of the models that gave a response, by its origin: "runs/a/sft@330", or of a model or file.

  () where the origin names none. An equal text of another model adds that one's name.
  """
  given = source.get("model") or source.get("checkpoint") or source.get("file")
  step = source.get("step")
  named = "@" in str(given).rpartition("/")[2]
  names = [f"{given}@{step}" if step is not None and not named else str(given)] if given else []
  also = source.get("also")
  for other in also if isinstance(also, list) else ():
    names += models_of(other) if isinstance(other, dict) else ()
  return tuple(dict.fromkeys(names))


def make_item(
  prompt: Prompt, responses: Iterable[Response], gold_ranks: Sequence[int] | None = None, cluster: str = ""
) -> Item:
  """An item whose id is a hash of its content, so that collecting the same item twice queues it once."""
  responses = tuple(responses)
  ranks = None if gold_ranks is None else tuple(gold_ranks)
  content = [prompt_value(prompt), [[response.text, response.source] for response in responses], ranks]
  return Item(content_id(content), prompt, responses, ranks, cluster)


def content_id(content: Any) -> str:
  """16 hexadecimal digits of the SHA-256 of a JSON value."""
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def timestamp(seconds: float) -> str:
  """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
  moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
  return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def current(judgements: Iterable[Judgement]) -> list[Judgement]:
  """The judgements that no other judgement supersedes, in their order; a withdrawn judgement is the skip "undone"."""
  judgements = list(judgements)
  superseded = {judgement.supersedes for judgement in judgements}
  return [judgement for judgement in judgements if judgement.id not in superseded]


def settled(judgements: Iterable[Judgement]) -> dict[str, Judgement]:
  """{item: the final judgement that settles it}, of the items that have one; of several the one given last counts."""
  found: dict[str, Judgement] = {}
  for judgement in current(judgements):
    if judgement.final and judgement.skipped is None:
      before = found.get(judgement.item)
      found[judgement.item] = judgement if before is None or judgement.created >= before.created else before
  return found


def answers(judgements: Iterable[Judgement]) -> list[Judgement]:
  """The current judgements that answer their items, in their order: a final judgement alone where there is one."""
  judgements = list(judgements)
  final = settled(judgements)
  return [judgement for judgement in current(judgements) if final.get(judgement.item, judgement).id == judgement.id]


def collect_records(located: Iterable[tuple[str, Record]]) -> Records:
  """Sorts (place, record) pairs by type and checks that they fit together; a record that occurs twice counts once.

  Raises:
    DataError: starting with the place ("file:line") of the record that does not fit.
  """
  annotators: dict[str, Annotator] = {}
  items: dict[str, Item] = {}
  judgements: dict[str, Judgement] = {}
  for where, record in located:
    if isinstance(record, Annotator):
      _add(annotators, record, where)
    elif isinstance(record, Item):
      _add(items, record, where)
    else:
      _add(judgements, record, where)
      old = None if record.supersedes is None else judgements.get(record.supersedes)
      check_fits(record, annotators.get(record.annotator), items.get(record.item), old, where)
  return list(annotators.values()), list(items.values()), list(judgements.values())


def _add(known: dict[str, AnyRecord], record: AnyRecord, where: str) -> None:
  if known.setdefault(record.id, record) != record:
    raise DataError(
      f"{where}: the id {record.id!r} occurs before with other content; give each record an id of its own"
    )


def check_fits(
  judgement: Judgement, annotator: Annotator | None, item: Item | None, superseded: Judgement | None, where: str
) -> None:
  """Checks a judgement against the records that it names; None stands for a record that is not there.

  Raises:
    DataError: starting with `where`.
  """
  if annotator is None:
    raise DataError(f"{where}: unknown annotator {judgement.annotator!r}; its row must come before")
  if item is None:
    raise DataError(f"{where}: unknown item {judgement.item!r}; its row must come before")
  size = len(item.responses)
  if len(judgement.order) != size:
    raise DataError(f"{where}: judges {len(judgement.order)} responses, but item {judgement.item!r} has {size}")
  for response, spans in zip(item.responses, judgement.spans or (), strict=False):
    if any(end > len(response.text) for _, end, _ in spans):
      raise DataError(f"{where}: a span ends behind the {len(response.text)} characters of its response")
  if judgement.final and not annotator.expert:
    raise DataError(f"{where}: is final, but {annotator.id!r} is no expert; only an expert's judgement settles an item")
  if judgement.supersedes is not None:
    if superseded is None:
      raise DataError(f"{where}: supersedes the unknown judgement {judgement.supersedes!r}; its row must come before")
    if (superseded.item, superseded.annotator) != (judgement.item, judgement.annotator):
      raise DataError(f"{where}: supersedes {superseded.id!r}, which is of another item or annotator")
