"""The queue of a store: the item that an annotator judges next, under a lease, and what a submission changes.

`draw.py` chooses the item; `corrections.py` takes a judgement back. A lease keeps an item for one annotator. When it
expires the item is free for others again, but a late submission of its holder is still kept. The order in which an
annotator sees the responses of an item, and which of their assignments are gold items, are hashes of the store's seed
and of names, so that they can be computed again.

An expert gets the items first that annotators cannot agree on (`disputes.py`) and that the expert has not judged; the
judgement of such an assignment is final.
"""

from __future__ import annotations

import dataclasses
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlhf_jax.data import DataError
from rlhf_jax.feedback.draw import digest, disputed_items, draw, draw_disputed, has_judged, superseded
from rlhf_jax.feedback.questions import Questions
from rlhf_jax.feedback.record_rows import from_row, to_row
from rlhf_jax.feedback.records import UNDONE, Item, Judgement, timestamp
from rlhf_jax.feedback.store import append, find, find_item, transaction
from rlhf_jax.feedback.store_settings import Settings, read_settings


class NoLease(DataError):
  """The annotator has no lease on the item, or has judged it already."""


class Judged(NoLease):
  """The annotator has answered this assignment already, and otherwise; the judgement's id is that of the lease."""


@dataclasses.dataclass(frozen=True)
class Assignment:
  """An item that an annotator is to judge, under a lease."""

  lease: str
  """Id of the lease, which becomes the id of the judgement."""
  item: Item
  """Item to judge."""
  order: tuple[int, ...]
  """Order of display: order[i] is the index of the response at place i."""
  draft: Judgement | None
  """Judgement of the item that the annotator has withdrawn, or corrects; None where there is none."""
  final: bool = False
  """Whether an expert is to settle what others disagree on."""
  correction: bool = False
  """Whether the draft stands until it is corrected, so that the correction can be given up."""


@dataclasses.dataclass(frozen=True)
class Answer:
  """What an annotator says: fields of a `Judgement`, but every sequence is indexed by the *place* on the page."""

  ratings: Sequence[int | None] | None = None
  """Rating at each place, 1 to 7, None where it is not rated."""
  ranks: Sequence[int] | None = None
  """Rank at each place, 0 the best, -1 not ranked."""
  strength: int | None = None
  """Strength of a preference between two responses, 1 to 3."""
  all_bad: bool = False
  """Whether all responses were called bad."""
  yes_no: Sequence[bool | None] | None = None
  """Answer at each place to the yes-or-no question."""
  aspects: Mapping[str, Sequence[int | None]] | None = None
  """Ratings of single aspects, each as `ratings`."""
  flags: Sequence[Sequence[str]] | None = None
  """Flags at each place."""
  critiques: Sequence[str] | None = None
  """Critique at each place, "" for none."""
  rewrites: Sequence[str] | None = None
  """Better text at each place, "" for none."""
  spans: Sequence[Sequence[Sequence]] | None = None
  """Spans [start, end, label] at each place, in characters."""
  skipped: str | None = None
  """Reason for a skip; None for an answer that says something."""
  seconds: float = 0.0
  """Seconds for which the page was in view."""


class Lease(NamedTuple):
  """An item that is kept for an annotator."""

  id: str
  item: str
  supersedes: str | None = None  # the withdrawal after an undo, or the judgement that is corrected
  final: bool = False


def display_order(seed: int, item: str, annotator: str, size: int) -> tuple[int, ...]:
  """A pseudo-random permutation of range(size), a function of its arguments alone and the same on every platform."""
  return tuple(sorted(range(size), key=lambda index: digest(seed, "order", item, annotator, index)))


def next_assignment(store: sqlite3.Connection, annotator: str, now: float) -> Assignment | None:
  """The annotator's open assignment, or else a new one; None where no item is left. now: seconds since 1970."""
  settings = read_settings(store)
  with transaction(store):
    lease = _open_lease(store, annotator, now)
    if lease is None:
      disputed = draw_disputed(store, annotator, now)
      item = disputed or draw(store, settings, annotator, now)
      if item is None:
        return None
      lease = Lease(secrets.token_hex(8), item, final=disputed is not None)
      insert_lease(store, lease, annotator, now, settings)
    else:
      store.execute("UPDATE leases SET expires = ? WHERE id = ?", (now + settings.lease_seconds, lease.id))
  return _assignment(store, settings, annotator, lease)


def submit(
  store: sqlite3.Connection,
  annotator: str,
  lease: str,
  answer: Answer,
  guidelines: str,
  now: float,
  questions: Questions | None = None,
) -> Judgement:
  """Keeps an answer as a judgement, whose id is that of the lease.

  questions: those that the answer must fit, and whose version the judgement keeps; None checks nothing.

  The same answer again under the same lease, as after a lost reply, changes nothing and returns the judgement of the
  first. Seconds do not count in this comparison.

  Raises:
    Judged: there is a judgement under this lease with another answer, which is kept.
    NoLease: the lease is not the annotator's, or the annotator has judged the item already.
    DataError: the answer is no valid judgement of this item.
  """
  with transaction(store):
    known = find(store, Judgement, lease)
    if known is not None and known.annotator == annotator:
      if from_row(Judgement, {**to_row(known), **_by_response(answer, known.order)}, "answer") != known:
        raise Judged(
          "you have answered this one already, and otherwise: your first answer counts until you undo it; reload the "
          "page to leave it as it is"
        )
      return known
    columns = "item, supersedes, issued, final"
    found = store.execute(f"SELECT {columns} FROM leases WHERE id = ? AND annotator = ?", (lease, annotator)).fetchone()
    if found is None:
      raise NoLease("this item is not assigned to you; reload the page")
    item, supersedes, issued, final = found
    if supersedes is None and has_judged(store, annotator, item):
      raise NoLease("you have judged this item already; reload the page")
    size = len(find_item(store, item).responses)
    order = display_order(read_settings(store).seed, item, annotator, size)
    said = {"order": order, **_by_response(answer, order)}
    judgement = from_row(
      Judgement,
      {
        "id": lease,
        "item": item,
        "annotator": annotator,
        **said,
        # The page counts the time for which it was in view, which cannot exceed the time since the lease began.
        "seconds": round(min(max(answer.seconds, 0.0), max(now - issued, 0.0)), 3),
        "guidelines": guidelines,
        "questions": "" if questions is None else questions.version,
        "final": bool(final) and answer.skipped is None,
        "created": timestamp(now),
        "supersedes": supersedes,
      },
      "answer",
    )
    if questions is not None:
      try:
        questions.check(said)
      except ValueError as error:
        raise DataError(f"answer: {error}") from error
    append(store, judgement)
    store.execute("DELETE FROM leases WHERE id = ?", (lease,))
  return judgement


def _open_lease(store: sqlite3.Connection, annotator: str, now: float) -> Lease | None:
  """The annotator's newest lease that can still be answered.

  That is a lease for a correction, one that has not expired, or one whose item needs more judgements than others have
  leases on it.
  """
  rows = store.execute(
    "SELECT id, item, supersedes, final, expires FROM leases WHERE annotator = ? ORDER BY number DESC", (annotator,)
  ).fetchall()
  for lease, item, supersedes, final, expires in rows:
    if supersedes is not None:
      open_still = not superseded(store, supersedes)
    elif final:
      open_still = item in disputed_items(store, annotator)
    else:  # an import may have added the annotator's own judgement of the item meanwhile
      open_still = not has_judged(store, annotator, item) and (expires > now or _has_room(store, annotator, item, now))
    if open_still:
      return Lease(lease, item, supersedes, bool(final))
  return None


def _has_room(store: sqlite3.Connection, annotator: str, item: str, now: float) -> bool:
  found = store.execute("SELECT remaining FROM queue WHERE item = ?", (item,)).fetchone()
  taken = "SELECT COUNT(*) FROM leases WHERE item = ? AND expires > ? AND annotator != ?"
  return found is None or found[0] > store.execute(taken, (item, now, annotator)).fetchone()[0]


def insert_lease(store: sqlite3.Connection, lease: Lease, annotator: str, now: float, settings: Settings) -> None:
  """Keeps a lease inside a transaction of the caller."""
  store.execute(
    "INSERT INTO leases (id, item, annotator, supersedes, final, issued, expires) VALUES (?, ?, ?, ?, ?, ?, ?)",
    (lease.id, lease.item, annotator, lease.supersedes, int(lease.final), now, now + settings.lease_seconds),
  )


def _assignment(store: sqlite3.Connection, settings: Settings, annotator: str, lease: Lease) -> Assignment:
  item = find_item(store, lease.item)
  before = find(store, Judgement, lease.supersedes)
  correction = before is not None and before.skipped != UNDONE
  draft = before if before is None or correction else find(store, Judgement, before.supersedes)
  order = display_order(settings.seed, item.id, annotator, len(item.responses))
  return Assignment(lease.id, item, order, draft, lease.final, correction)


def _by_response(answer: Answer, order: tuple[int, ...]) -> dict[str, Any]:
  """The fields of an answer, with the value of place i moved to response order[i]."""
  fields: dict[str, Any] = {"strength": answer.strength, "all_bad": answer.all_bad, "skipped": answer.skipped}

  def moved(name: str, values: Any) -> list | None:
    if values is not None and (not isinstance(values, Sequence) or len(values) != len(order)):
      raise DataError(f"answer: {name!r} must have an entry for each of the {len(order)} responses")
    return None if values is None else [values[order.index(i)] for i in range(len(order))]

  for name in ("ratings", "ranks", "yes_no", "flags", "critiques", "rewrites", "spans"):
    fields[name] = moved(name, getattr(answer, name))
  aspects = answer.aspects
  fields["aspects"] = None if aspects is None else {name: moved(name, values) for name, values in aspects.items()}
  return fields
