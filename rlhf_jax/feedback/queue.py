"""Who judges what next: leases that expire, gold items mixed in, submissions that count once, undo.

Everything random is a hash of the store's seed and names, so that it can be computed again: the order in which an
annotator sees the responses of an item, and which of their tasks are gold items. A lease keeps an item for one
annotator; when it expires the item is free for others again, but what its holder then still submits is kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import sqlite3
from collections.abc import Sequence
from typing import Any

from rlhf_jax.data import DataError
from rlhf_jax.feedback.records import UNDONE, Item, Judgement, content_id, timestamp
from rlhf_jax.feedback.store import Settings, append, find, read_settings, transaction


class NoLease(DataError):
  """The task was never this annotator's, or they have judged its item already."""


@dataclasses.dataclass(frozen=True)
class Task:
  """An item to be judged under a lease; order[i] is the response at place i. draft: the withdrawn judgement, if any."""

  lease: str
  item: Item
  order: tuple[int, ...]
  draft: Judgement | None


@dataclasses.dataclass(frozen=True)
class Answer:
  """What an annotator says; as `Judgement`, but every tuple is indexed by the *place* on the page."""

  ratings: Sequence[int | None] | None = None
  ranks: Sequence[int] | None = None
  strength: int | None = None
  flags: Sequence[Sequence[str]] | None = None
  critiques: Sequence[str] | None = None
  rewrites: Sequence[str] | None = None
  skipped: str | None = None
  seconds: float = 0.0


def display_order(seed: int, item: str, annotator: str, size: int) -> tuple[int, ...]:
  """A random permutation of range(size) that depends on its arguments alone, on every platform."""
  return tuple(sorted(range(size), key=lambda index: _hash(seed, "order", item, annotator, index)))


def next_task(store: sqlite3.Connection, annotator: str, now: float) -> Task | None:
  """The task the annotator has open, or else a new one under a lease; None where there is nothing left for them."""
  settings = read_settings(store)
  with transaction(store):
    lease = _open_lease(store, annotator, now)
    if lease is None:
      item = _draw(store, settings, annotator, now)
      if item is None:
        return None
      lease = secrets.token_hex(8), item, None
      _insert_lease(store, *lease, annotator, now, settings)
    else:
      store.execute("UPDATE leases SET expires = ? WHERE id = ?", (now + settings.lease_seconds, lease[0]))
  return _task(store, settings, annotator, *lease)


def submit(
  store: sqlite3.Connection, annotator: str, lease: str, answer: Answer, guidelines: str, now: float
) -> Judgement:
  """Keeps the judgement, whose id is that of the lease; a second submission of a lease returns the first's judgement.

  Raises:
    NoLease: see there. DataError: the answer is no valid judgement of this item.
  """
  with transaction(store):
    known = find(store, Judgement, lease)
    if known is not None and known.annotator == annotator:
      return known
    columns = "item, supersedes, issued"
    found = store.execute(f"SELECT {columns} FROM leases WHERE id = ? AND annotator = ?", (lease, annotator)).fetchone()
    if found is None:
      raise NoLease("this task is not open for you; reload the page")
    item, supersedes, issued = found
    if supersedes is None and _has_judged(store, annotator, item):
      raise NoLease("you have judged this item already; reload the page")
    size = len(find(store, Item, item).responses)
    order = display_order(read_settings(store).seed, item, annotator, size)
    judgement = Judgement.from_row(
      {
        "id": lease,
        "item": item,
        "annotator": annotator,
        "order": order,
        **_by_response(answer, order),
        # The page counts the time it was looked at; that cannot be more than has passed.
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
  """Withdraws a judgement of the annotator and opens its item again; once withdrawn, another undo changes nothing.

  Raises:
    NoLease: it is not theirs.
  """
  settings = read_settings(store)
  with transaction(store):
    old = find(store, Judgement, judgement)
    if old is None or old.annotator != annotator or old.skipped == UNDONE:
      raise NoLease("there is no such judgement of yours to undo; reload the page")
    if store.execute("SELECT 1 FROM judgements WHERE supersedes = ?", (judgement,)).fetchone():
      return
    values = {"order": old.order, "skipped": UNDONE, "created": timestamp(now), "supersedes": old.id}
    withdrawal = Judgement(content_id(["undo", old.id]), old.item, annotator, guidelines=old.guidelines, **values)
    append(store, withdrawal)
    _insert_lease(store, secrets.token_hex(8), old.item, withdrawal.id, annotator, now, settings)


def last_judgement(store: sqlite3.Connection, annotator: str) -> str | None:
  """The id of the annotator's latest judgement that stands, which is what undo withdraws."""
  rows = store.execute(
    "SELECT id FROM judgements AS j WHERE annotator = ? AND json_extract(row, '$.skipped') IS NOT ?"
    " AND NOT EXISTS (SELECT 1 FROM judgements WHERE supersedes = j.id) ORDER BY number DESC LIMIT 1",
    (annotator, UNDONE),
  )
  return next((row[0] for row in rows), None)


def progress(store: sqlite3.Connection, annotator: str) -> tuple[int, int]:
  """(tasks done, tasks left) of an annotator.

  What is left counts the gold items that are still to come: else it would stand still exactly on gold items.
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
  """(items that still want a judgement, all items), gold items in neither."""
  return store.execute("SELECT COUNT(CASE WHEN remaining > 0 THEN 1 END), COUNT(*) FROM queue").fetchone()


def _open_lease(store: sqlite3.Connection, annotator: str, now: float) -> tuple[str, str, str | None] | None:
  """The newest lease of the annotator that is still of use: of a correction, unexpired, or of an item with room."""
  rows = store.execute(
    "SELECT id, item, supersedes, expires FROM leases WHERE annotator = ? ORDER BY number DESC", (annotator,)
  ).fetchall()
  for lease, item, supersedes, expires in rows:
    if supersedes is not None:
      open_still = store.execute("SELECT 1 FROM judgements WHERE supersedes = ?", (supersedes,)).fetchone() is None
    else:  # an import may have brought the annotator's own judgement of it meanwhile
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
  """How many of the annotator's tasks start..stop-1 are gold: one in each block of `gold_every`, at a random place."""

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


def _insert_lease(store, lease, item, supersedes, annotator, now, settings) -> None:
  store.execute(
    "INSERT INTO leases (id, item, annotator, supersedes, issued, expires) VALUES (?, ?, ?, ?, ?, ?)",
    (lease, item, annotator, supersedes, now, now + settings.lease_seconds),
  )


def _task(store, settings, annotator, lease, item, supersedes) -> Task:
  item = find(store, Item, item)
  withdrawal = find(store, Judgement, supersedes)
  draft = None if withdrawal is None else find(store, Judgement, withdrawal.supersedes)
  return Task(lease, item, display_order(settings.seed, item.id, annotator, len(item.responses)), draft)


def _by_response(answer: Answer, order: tuple[int, ...]) -> dict[str, Any]:
  """The fields of an answer with place i's value moved to response order[i]."""
  fields = {"strength": answer.strength, "skipped": answer.skipped}
  for name in ("ratings", "ranks", "flags", "critiques", "rewrites"):
    values = getattr(answer, name)
    if values is not None and len(values) != len(order):
      raise DataError(f"answer: {name!r} has {len(values)} entries for {len(order)} responses")
    fields[name] = None if values is None else [values[order.index(i)] for i in range(len(order))]
  return fields


def _hash(*parts: object) -> bytes:
  return hashlib.sha256("/".join(map(str, parts)).encode()).digest()
