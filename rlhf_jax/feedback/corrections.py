"""An annotator's own earlier judgements: found again, withdrawn, or corrected. What was said before is kept."""

from __future__ import annotations

import secrets
import sqlite3
from typing import Any

from rlhf_jax.data import prompt_text
from rlhf_jax.feedback.draw import may_settle, superseded
from rlhf_jax.feedback.queue import Lease, NoLease, insert_lease
from rlhf_jax.feedback.records import UNDONE, Judgement, content_id, timestamp
from rlhf_jax.feedback.store import append, find, find_item, transaction
from rlhf_jax.feedback.store_settings import read_settings


def undo(store: sqlite3.Connection, annotator: str, judgement: str, now: float) -> None:
  """Withdraws a judgement of the annotator and assigns its item to them again; a second undo of it changes nothing.

  Raises:
    NoLease: the judgement is not the annotator's, or is itself an undo.
  """
  with transaction(store):
    old = find(store, Judgement, judgement)
    if old is None or old.annotator != annotator or old.skipped == UNDONE:
      raise NoLease("there is no such judgement of yours to undo; reload the page")
    if superseded(store, judgement):
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
    _assign_again(store, old, withdrawal, now)


def correct(store: sqlite3.Connection, annotator: str, judgement: str, now: float) -> None:
  """Assigns the item of an earlier judgement to its annotator again. The judgement counts until it is corrected.

  Raises:
    NoLease: the judgement is not the annotator's, is an undo, or has been corrected already.
  """
  with transaction(store):
    old = find(store, Judgement, judgement)
    if old is None or old.annotator != annotator or old.skipped == UNDONE or superseded(store, judgement):
      raise NoLease("there is no such judgement of yours to correct; reload the page")
    _assign_again(store, old, old, now)


def _assign_again(store: sqlite3.Connection, old: Judgement, standing: Judgement, now: float) -> None:
  """Assigns the item of a judgement to its annotator again, under a lease of the one that stands now.

  A correction of it that was begun has ended. What follows on a skip of a disputed item settles the item, as the first
  answer would have.
  """
  store.execute("DELETE FROM leases WHERE annotator = ? AND supersedes = ?", (old.annotator, old.id))
  final = old.final or (old.skipped is not None and may_settle(store, old.annotator, old.item))
  lease = Lease(secrets.token_hex(8), old.item, standing.id, final)
  insert_lease(store, lease, old.annotator, now, read_settings(store))


def give_up(store: sqlite3.Connection, annotator: str, lease: str) -> None:
  """Ends a correction: the earlier judgement stands. Raises NoLease where the lease is no correction."""
  with transaction(store):
    query = "SELECT supersedes FROM leases WHERE id = ? AND annotator = ?"
    found = store.execute(query, (lease, annotator)).fetchone()
    old = None if found is None else find(store, Judgement, found[0])
    if old is None or old.skipped == UNDONE:
      raise NoLease("this is no correction; reload the page")
    store.execute("DELETE FROM leases WHERE id = ?", (lease,))


def last_judgement(store: sqlite3.Connection, annotator: str) -> str | None:
  """The id of the annotator's latest judgement that is current and no undo, which undo would withdraw; or None."""
  rows = store.execute(
    "SELECT id FROM judgements AS j WHERE annotator = ? AND json_extract(row, '$.skipped') IS NOT ?"
    " AND NOT EXISTS (SELECT 1 FROM judgements WHERE supersedes = j.id) ORDER BY number DESC LIMIT 1",
    (annotator, UNDONE),
  )
  return next((row[0] for row in rows), None)


def own_judgements(
  store: sqlite3.Connection, annotator: str, search: str = "", skip: int = 0, count: int = 20
) -> list[dict[str, Any]]:
  """The annotator's current judgements, the latest first: {"id", "prompt", "created", "skipped"} of each.

  search: text that the prompt or a response must hold, in upper or lower case. skip: number of judgements found that
  are left out, of pages before. Nothing tells gold items from others.
  """
  rows = store.execute(
    "SELECT id, item FROM judgements AS j WHERE annotator = ?"
    " AND NOT EXISTS (SELECT 1 FROM judgements WHERE supersedes = j.id) ORDER BY number DESC",
    (annotator,),
  )
  found: list[dict[str, Any]] = []
  for name, item_id in rows.fetchall():
    item, judgement = find_item(store, item_id), find(store, Judgement, name)
    texts = [prompt_text(item.prompt), *(response.text for response in item.responses)]
    if judgement is None or judgement.skipped == UNDONE or not any(search.lower() in text.lower() for text in texts):
      continue
    found.append({"id": name, "prompt": texts[0][:200], "created": judgement.created, "skipped": judgement.skipped})
    if len(found) == max(skip, 0) + count:
      break
  return found[max(skip, 0) :]
