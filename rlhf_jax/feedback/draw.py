"""Which item an annotator gets: the first of the queue, a gold item in between, or for an expert a disputed item."""

from __future__ import annotations

import hashlib
import sqlite3

from rlhf_jax.feedback.records import Annotator
from rlhf_jax.feedback.store import find
from rlhf_jax.feedback.store_settings import Settings, read_settings


def draw(store: sqlite3.Connection, settings: Settings, annotator: str, now: float) -> str | None:
  """The annotator's next item of the queue or the next gold item; None where no item is left."""
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
      return min(gold, key=lambda item: digest(settings.seed, "gold", annotator, item))
  return None if found is None else found[0]


def draw_disputed(store: sqlite3.Connection, annotator: str, now: float) -> str | None:
  """The first disputed item that no other expert has open."""
  taken = "SELECT item FROM leases WHERE final = 1 AND expires > ? AND annotator != ?"
  busy = {item for (item,) in store.execute(taken, (now, annotator))}
  return next((item for item in disputed_items(store, annotator) if item not in busy), None)


def disputed_items(store: sqlite3.Connection, annotator: str) -> list[str]:
  """The items that this expert is to settle, in the order of the queue; none for somebody who is no expert."""
  rows = store.execute(
    "SELECT item FROM queue WHERE disputed = 1 AND NOT EXISTS"
    " (SELECT 1 FROM judgements AS j WHERE j.annotator = ? AND j.item = queue.item) ORDER BY number",
    (annotator,),
  ).fetchall()
  return [item for (item,) in rows] if rows and _is_expert(store, annotator) else []


def may_settle(store: sqlite3.Connection, annotator: str, item: str) -> bool:
  """Whether the item is disputed and the annotator an expert."""
  query = "SELECT 1 FROM queue WHERE disputed = 1 AND item = ?"
  return store.execute(query, (item,)).fetchone() is not None and _is_expert(store, annotator)


def _is_expert(store: sqlite3.Connection, annotator: str) -> bool:
  person = find(store, Annotator, annotator)
  return person is not None and person.expert


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
  ordinary = open_items - open_mine + len(disputed_items(store, annotator))
  gold = len(_gold_items(store, annotator)) if settings.gold_every else 0
  left = ordinary
  while left != (more := ordinary + min(gold, _num_gold(settings, annotator, judged, judged + left))):
    left = more
  return judged - again, left + again


def count_open(store: sqlite3.Connection) -> tuple[int, int]:
  """(items that need further judgements, all items), both without the gold items."""
  return store.execute("SELECT COUNT(CASE WHEN remaining > 0 THEN 1 END), COUNT(*) FROM queue").fetchone()


def count_disputed(store: sqlite3.Connection) -> int:
  """Number of items that wait for an expert."""
  return store.execute("SELECT COUNT(*) FROM queue WHERE disputed = 1").fetchone()[0]


def _num_gold(settings: Settings, annotator: str, start: int, stop: int) -> int:
  """Number of gold items among the annotator's assignments start..stop-1.

  There is one in each block of `gold_every` assignments, at a random place.
  """

  def before(position: int) -> int:
    block, offset = divmod(position, settings.gold_every)
    place = int.from_bytes(digest(settings.seed, "place", annotator, block)[:8]) % settings.gold_every
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


def superseded(store: sqlite3.Connection, judgement: str) -> bool:
  """Whether another judgement supersedes this one."""
  return store.execute("SELECT 1 FROM judgements WHERE supersedes = ?", (judgement,)).fetchone() is not None


def has_judged(store: sqlite3.Connection, annotator: str, item: str) -> bool:
  """Whether the annotator has ever judged the item, a withdrawn judgement included."""
  query = "SELECT 1 FROM judgements WHERE annotator = ? AND item = ?"
  return store.execute(query, (annotator, item)).fetchone() is not None


def digest(*parts: object) -> bytes:
  """SHA-256 of the parts, from which random choices follow that can be computed again."""
  return hashlib.sha256("/".join(map(str, parts)).encode()).digest()
