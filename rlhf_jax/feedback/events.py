"""What a lead changed while a store was in use: settings, questions, people. Events are kept like records, for ever."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from typing import Any

from rlhf_jax.feedback.records import timestamp
from rlhf_jax.feedback.store_rows import stored, verified


@dataclasses.dataclass(frozen=True)
class Event:
  """One change."""

  kind: str
  """Kind of change: "settings", "questions", "revoked" or "restored"."""
  by: str
  """Name of the lead who made it; "" for the command line."""
  created: str
  """Time of the change, ISO 8601 in UTC."""
  value: dict[str, Any]
  """New value, a JSON object: all settings, all questions, or {"annotator", ...}."""


def append_event(store: sqlite3.Connection, kind: str, value: dict[str, Any], now: float, by: str = "") -> None:
  """Keeps an event inside a transaction of the caller. now: seconds since 1970."""
  row = stored(dataclasses.asdict(Event(kind, by, timestamp(now), value)))
  store.execute("INSERT INTO events (kind, row) VALUES (?, ?)", (kind, row))


def read_events(store: sqlite3.Connection) -> Iterator[Event]:
  """All events in their order. Raises StoreError where one is damaged."""
  rows = store.execute("SELECT number, row FROM events ORDER BY number").fetchall()
  return (Event(**verified(row, f"events {number}")) for number, row in rows)


def latest_event(store: sqlite3.Connection, kind: str) -> Event | None:
  """The last event of a kind, or None. Raises StoreError where it is damaged."""
  query = "SELECT number, row FROM events WHERE kind = ? ORDER BY number DESC LIMIT 1"
  found = store.execute(query, (kind,)).fetchone()
  return None if found is None else Event(**verified(found[1], f"events {found[0]}"))
