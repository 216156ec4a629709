"""What a lead changes while a store is in use: settings, questions, and who may judge. Every change is an event."""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import Any

from rlhf_jax.data import DataError
from rlhf_jax.feedback.events import append_event, latest_event
from rlhf_jax.feedback.questions import Questions, stored_questions
from rlhf_jax.feedback.records import Annotator
from rlhf_jax.feedback.store import find, recount, transaction
from rlhf_jax.feedback.store_settings import Settings, read_settings


def current_questions(store: sqlite3.Connection) -> Questions:
  """The questions in force. Raises DataError where they are damaged or of another version."""
  event = latest_event(store, "questions")
  return Questions() if event is None else stored_questions(event.value)


def set_questions(store: sqlite3.Connection, questions: Questions, now: float, by: str = "") -> bool:
  """Asks other questions from now on; False where they are asked already. Judgements keep the version they answer."""
  with transaction(store):
    if current_questions(store) == questions:
      return False
    append_event(store, "questions", dataclasses.asdict(questions), now, by)
  return True


def change_settings(store: sqlite3.Connection, changes: dict[str, Any], now: float, by: str = "") -> Settings:
  """Changes settings by name from now on and returns all settings; each item of the queue is counted anew.

  Raises:
    DataError: an unknown setting, a value that makes no sense, or another seed, on which the orders of display of
      judgements that are already given depend.
  """
  with transaction(store):
    old = read_settings(store)
    try:
      new = dataclasses.replace(old, **changes)
    except (TypeError, ValueError) as error:
      raise DataError(f"the settings cannot be changed ({error})") from error
    if new.seed != old.seed:
      raise DataError(f"the store was made with seed {old.seed}, which cannot change; use it, or another file")
    if new != old:
      append_event(store, "settings", dataclasses.asdict(new), now, by)
      _recount_all(store)
  return new


def revoke(store: sqlite3.Connection, annotator: str, now: float, *, discounted: bool = False, by: str = "") -> None:
  """Ends an annotator's link and sessions. Their judgements are kept; a second time changes nothing.

  discounted: whether their judgements no longer count in the queue, so that others judge those items. A revoked
  annotator stays discounted until they are restored.

  Raises:
    DataError: there is no such annotator.
  """
  _check_annotator(store, annotator)
  with transaction(store):
    known = revoked(store).get(annotator)
    if known is not None and known >= discounted:
      return
    for table in ("tokens", "sessions", "leases"):
      store.execute(f"DELETE FROM {table} WHERE annotator = ?", (annotator,))
    store.execute("INSERT OR REPLACE INTO revoked VALUES (?, ?)", (annotator, int(discounted)))
    append_event(store, "revoked", {"annotator": annotator, "discounted": discounted}, now, by)
    _recount_of(store, annotator)


def restore(store: sqlite3.Connection, annotator: str, now: float, by: str = "") -> None:
  """Lets a revoked annotator judge again, with a new link; nothing changes for an annotator who is not revoked.

  Raises:
    DataError: there is no such annotator.
  """
  _check_annotator(store, annotator)
  with transaction(store):
    if store.execute("DELETE FROM revoked WHERE annotator = ?", (annotator,)).rowcount:
      append_event(store, "restored", {"annotator": annotator}, now, by)
      _recount_of(store, annotator)


def revoked(store: sqlite3.Connection) -> dict[str, bool]:
  """Revoked annotator -> whether their judgements no longer count in the queue."""
  return {name: bool(discounted) for name, discounted in store.execute("SELECT annotator, discounted FROM revoked")}


def _check_annotator(store: sqlite3.Connection, annotator: str) -> None:
  if find(store, Annotator, annotator) is None:
    raise DataError(f"the store has no annotator {annotator!r}")


def _recount_all(store: sqlite3.Connection) -> None:
  for (item,) in store.execute("SELECT item FROM queue").fetchall():
    recount(store, item)


def _recount_of(store: sqlite3.Connection, annotator: str) -> None:
  for (item,) in store.execute("SELECT DISTINCT item FROM judgements WHERE annotator = ?", (annotator,)).fetchall():
    recount(store, item)
