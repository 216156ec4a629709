"""The queue of a store: which item an annotator judges next, under a lease, and what a submission or an undo changes.

A lease keeps an item for one annotator. When it expires the item is free for others again, but a late submission of its
holder is still kept. The order in which an annotator sees the responses of an item, and which of their assignments are
gold items, are hashes of the store's seed and of names, so that they can be computed again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import sqlite3
from collections.abc import Sequence
from typing import Any

from rlhf_jax.data import DataError
from rlhf_jax.feedback.record_rows import from_row, to_row
from rlhf_jax.feedback.records import UNDONE, Item, Judgement, content_id, timestamp
from rlhf_jax.feedback.store import Settings, append, find, find_item, read_settings, transaction


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
  """Judgement of the item that the annotator has withdrawn; None where there is none."""


@dataclasses.dataclass(frozen=True)
class Answer:
  """What an annotator says: fields of a `Judgement`, but every sequence is indexed by the *place* on the page."""

  ratings: Sequence[int | None] | None = None
  """Rating at each place, 1 to 7, None where it is not rated."""
  ranks: Sequence[int] | None = None
  """Rank at each place, 0 the best, -1 not ranked."""
  strength: int | None = None
  """Strength of a preference between two responses, 1 to 3."""
  flags: Sequence[Sequence[str]] | None = None
  """Flags at each place."""
  critiques: Sequence[str] | None = None
  """Critique at each place, "" for none."""
  rewrites: Sequence[str] | None = None
  """Better text at each place, "" for none."""
  skipped: str | None = None
  """Reason for a skip; None for an answer that says something."""
  seconds: float = 0.0
  """Seconds for which the page was in view."""


_Lease = tuple[str, str, str | None]  # id, id of the item, id of the withdrawal that a correction supersedes


def display_order(seed: int, item: str, annotator: str, size: int) -> tuple[int, ...]:
  """A pseudo-random permutation of range(size), a function of its arguments alone and the same on every platform."""
  return tuple(sorted(range(size), key=lambda index: _hash(seed, "order", item, annotator, index)))


def next_assignment(store: sqlite3.Connection, annotator: str, now: float) -> Assignment | None:
  """The annotator's open assignment, or else a new one; None where no item is left. now: seconds since 1970."""
  settings = read_settings(store)
  with transaction(store):
    lease = _open_lease(store, annotator, now)
    if lease is None:
      item = _draw(store, settings, annotator, now)
      if item is None:
        return None
      lease = secrets.token_hex(8), item, None
      _insert_lease(store, lease, annotator, now, settings)
    else:
      store.execute("UPDATE leases SET expires = ? WHERE id = ?", (now + settings.lease_seconds, lease[0]))
  return _assignment(store, settings, annotator, lease)


def submit(
  store: sqlite3.Connection, annotator: str, lease: str, answer: Answer, guidelines: str, now: float
) -> Judgement:
  """Keeps an answer as a judgement, whose id is that of the lease.

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
          "you have answered this one already, and otherwise: your first answer counts until you undo it; reload the page"
          " to leave it as it is"
        )
      return known
    columns = "item, supersedes, issued"
    found = store.execute(f"SELECT {columns} FROM leases WHERE id = ? AND annotator = ?", (lease, annotator)).fetchone()
    if found is None:
      raise NoLease("this item is not assigned to you; reload the page")
    item, supersedes, issued = found
    if supersedes is None and _has_judged(store, annotator, item):
      raise NoLease("you have judged this item already; reload the page")
    size = len(find_item(store, item).responses)
    order = display_order(read_settings(store).seed, item, annotator, size)
    judgement = from_row(
      Judgement,
      {
        "id": lease,
        "item": item,
        "annotator": annotator,
        "order": order,
        **_by_response(answer, order),
        # The page counts the time for which it was in view, which cannot exceed the time since the lease began.
        "seconds": round(min(max(answer.seconds, 0.0), max(now - issued, 0.0)), 3),
        "guidelines": guidelines,
        "created": timestamp(now),
        "supersedes": supersedes,
      },
      "answer",
    )
    append(store, judgement)
    store.execute("DELETE FROM leases WHERE id = ?", (lease,))
  return judgement


def undo(store: sqlite3.Connection, annotator: str, judgement: str, now: float) -> None:
  """Withdraws a judgement of the annotator and assigns its item to them again; a second undo of it changes nothing.

  Raises:
    NoLease: the judgement is not the annotator's, or is itself an undo.
  """
  settings = read_settings(store)
  with transaction(store):
    old = find(store, Judgement, judgement)
    if old is None or old.annotator != annotator or old.skipped == UNDONE:
      raise NoLease("there is no such judgement of yours to undo; reload the page")
    if store.execute("SELECT 1 FROM judgements WHERE supersedes = ?", (judgement,)).fetchone():
      return
    withdrawal = Judgement(
      content_id(["undo", old.id]),
      old.item,
      annotator,
      old.order,
      skipped=UNDONE,
      guidelines=old.guidelines,
      created=timestamp(now),
      supersedes=old.id,
    )
    append(store, withdrawal)
    _insert_lease(store, (secrets.token_hex(8), old.item, withdrawal.id), annotator, now, settings)


def last_judgement(store: sqlite3.Connection, annotator: str) -> str | None:
  """The id of the annotator's latest judgement that is current and no undo, which undo would withdraw; or None."""
  rows = store.execute(
    "SELECT id FROM judgements AS j WHERE annotator = ? AND json_extract(row, '$.skipped') IS NOT ?"
    " AND NOT EXISTS (SELECT 1 FROM judgements WHERE supersedes = j.id) ORDER BY number DESC LIMIT 1",
    (annotator, UNDONE),
  )
  return next((row[0] for row in rows), None)


def progress(store: sqlite3.Connection, annotator: str) -> tuple[int, int]:
  """(assignments done, assignments left) of an annotator.

  The second number includes the gold items still to come. Without them it would not fall after a gold item, which would
  tell the annotator which items are gold.
  """
  settings = read_settings(store)
  judged = _num_judged(store, annotator)
  (open_items,) = store.execute("SELECT COUNT(*) FROM queue WHERE remaining > 0").fetchone()
  mine = "SELECT DISTINCT item FROM judgements WHERE annotator = ?"
  (open_mine,) = store.execute(
    f"SELECT COUNT(*) FROM ({mine}) JOIN queue USING (item) WHERE remaining > 0", (annotator,)
  ).fetchone()
  corrections = "SELECT COUNT(*) FROM leases WHERE annotator = ? AND supersedes IS NOT NULL"
  (again,) = store.execute(corrections, (annotator,)).fetchone()
  ordinary = open_items - open_mine
  gold = len(_gold_items(store, annotator)) if settings.gold_every else 0
  left = ordinary
  while left != (more := ordinary + min(gold, _num_gold(settings, annotator, judged, judged + left))):
    left = more
  return judged - again, left + again


def count_open(store: sqlite3.Connection) -> tuple[int, int]:
  """(items that need further judgements, all items), both without the gold items."""
  return store.execute("SELECT COUNT(CASE WHEN remaining > 0 THEN 1 END), COUNT(*) FROM queue").fetchone()


def _open_lease(store: sqlite3.Connection, annotator: str, now: float) -> _Lease | None:
  """The annotator's newest lease that can still be answered.

  That is a lease for a correction, one that has not expired, or one whose item needs more judgements than others have
  leases on it.
  """
  rows = store.execute(
    "SELECT id, item, supersedes, expires FROM leases WHERE annotator = ? ORDER BY number DESC", (annotator,)
  ).fetchall()
  for lease, item, supersedes, expires in rows:
    if supersedes is not None:
      open_still = store.execute("SELECT 1 FROM judgements WHERE supersedes = ?", (supersedes,)).fetchone() is None
    else:  # an import may have added the annotator's own judgement of the item meanwhile
      open_still = not _has_judged(store, annotator, item) and (expires > now or _has_room(store, annotator, item, now))
    if open_still:
      return lease, item, supersedes
  return None


def _has_room(store: sqlite3.Connection, annotator: str, item: str, now: float) -> bool:
  found = store.execute("SELECT remaining FROM queue WHERE item = ?", (item,)).fetchone()
  taken = "SELECT COUNT(*) FROM leases WHERE item = ? AND expires > ? AND annotator != ?"
  return found is None or found[0] > store.execute(taken, (item, now, annotator)).fetchone()[0]


def _draw(store: sqlite3.Connection, settings: Settings, annotator: str, now: float) -> str | None:
  found = store.execute(
    "SELECT item FROM queue WHERE remaining > 0"
    " AND NOT EXISTS (SELECT 1 FROM judgements AS j WHERE j.annotator = :annotator AND j.item = queue.item)"
    " AND remaining > (SELECT COUNT(*) FROM leases AS l"
    "   WHERE l.item = queue.item AND l.expires > :now AND l.annotator != :annotator)"
    " ORDER BY number LIMIT 1",
    {"annotator": annotator, "now": now},
  ).fetchone()
  position = _num_judged(store, annotator)
  if found is not None and _num_gold(settings, annotator, position, position + 1):
    gold = _gold_items(store, annotator)
    if gold:
      return min(gold, key=lambda item: _hash(settings.seed, "gold", annotator, item))
  return None if found is None else found[0]


def _num_gold(settings: Settings, annotator: str, start: int, stop: int) -> int:
  """Number of gold items among the annotator's assignments start..stop-1.

  There is one in each block of `gold_every` assignments, at a random place.
  """

  def before(position: int) -> int:
    block, offset = divmod(position, settings.gold_every)
    place = int.from_bytes(_hash(settings.seed, "place", annotator, block)[:8]) % settings.gold_every
    return block + (place < offset)

  return before(stop) - before(start) if settings.gold_every else 0


def _gold_items(store: sqlite3.Connection, annotator: str) -> list[str]:
  rows = store.execute(
    "SELECT id FROM items WHERE gold = 1 AND NOT EXISTS"
    " (SELECT 1 FROM judgements AS j WHERE j.annotator = ? AND j.item = items.id)",
    (annotator,),
  )
  return [item for (item,) in rows]


def _num_judged(store: sqlite3.Connection, annotator: str) -> int:
  query = "SELECT COUNT(DISTINCT item) FROM judgements WHERE annotator = ?"
  return store.execute(query, (annotator,)).fetchone()[0]


def _has_judged(store: sqlite3.Connection, annotator: str, item: str) -> bool:
  query = "SELECT 1 FROM judgements WHERE annotator = ? AND item = ?"
  return store.execute(query, (annotator, item)).fetchone() is not None


def _insert_lease(store: sqlite3.Connection, lease: _Lease, annotator: str, now: float, settings: Settings) -> None:
  identity, item, supersedes = lease
  store.execute(
    "INSERT INTO leases (id, item, annotator, supersedes, issued, expires) VALUES (?, ?, ?, ?, ?, ?)",
    (identity, item, annotator, supersedes, now, now + settings.lease_seconds),
  )


def _assignment(store: sqlite3.Connection, settings: Settings, annotator: str, lease: _Lease) -> Assignment:
  identity, item_id, supersedes = lease
  item = find_item(store, item_id)
  withdrawal = find(store, Judgement, supersedes)
  draft = None if withdrawal is None else find(store, Judgement, withdrawal.supersedes)
  return Assignment(identity, item, display_order(settings.seed, item.id, annotator, len(item.responses)), draft)


def _by_response(answer: Answer, order: tuple[int, ...]) -> dict[str, Any]:
  """The fields of an answer, with the value of place i moved to response order[i]."""
  fields: dict[str, Any] = {"strength": answer.strength, "skipped": answer.skipped}
  for name in ("ratings", "ranks", "flags", "critiques", "rewrites"):
    values = getattr(answer, name)
    if values is not None and len(values) != len(order):
      raise DataError(f"answer: {name!r} has {len(values)} entries for {len(order)} responses")
    fields[name] = None if values is None else [values[order.index(i)] for i in range(len(order))]
  return fields


def _hash(*parts: object) -> bytes:
  return hashlib.sha256("/".join(map(str, parts)).encode()).digest()
