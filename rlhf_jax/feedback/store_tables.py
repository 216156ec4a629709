"""The tables of a store: records, which triggers forbid to change, and beside them the queue, leases and logins."""

from __future__ import annotations

import sqlite3

RECORDS = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE guidelines (version TEXT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE annotators (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, row TEXT NOT NULL);
CREATE TABLE items (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, gold INTEGER NOT NULL, row TEXT NOT NULL);
CREATE INDEX gold_items ON items (gold, id) WHERE gold = 1;
CREATE TABLE judgements (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, item TEXT NOT NULL REFERENCES items (id),
  annotator TEXT NOT NULL REFERENCES annotators (id), supersedes TEXT UNIQUE REFERENCES judgements (id),
  row TEXT NOT NULL);
CREATE INDEX judgements_by_annotator ON judgements (annotator, item);

CREATE TABLE queue (item TEXT PRIMARY KEY REFERENCES items (id), number INTEGER NOT NULL, remaining INTEGER NOT NULL);
CREATE INDEX queue_open ON queue (number, item, remaining) WHERE remaining > 0;
CREATE TABLE leases (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, item TEXT NOT NULL REFERENCES items (id),
  annotator TEXT NOT NULL REFERENCES annotators (id), supersedes TEXT, issued REAL NOT NULL, expires REAL NOT NULL);
CREATE INDEX leases_by_item ON leases (item, expires);
CREATE INDEX leases_by_annotator ON leases (annotator, number);
CREATE TABLE tokens (hash TEXT PRIMARY KEY, annotator TEXT NOT NULL UNIQUE REFERENCES annotators (id));
CREATE TABLE sessions (
  hash TEXT PRIMARY KEY, annotator TEXT NOT NULL REFERENCES annotators (id), expires REAL NOT NULL);
"""
# What a lead needs, which stores of version 0.3 and before lack: they get it when they are opened.
LEAD = """
CREATE TABLE events (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, row TEXT NOT NULL);
CREATE INDEX events_by_kind ON events (kind, number);
CREATE INDEX judgements_by_item ON judgements (item, number);
ALTER TABLE queue ADD COLUMN disputed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX queue_disputed ON queue (number, item) WHERE disputed = 1;
ALTER TABLE leases ADD COLUMN final INTEGER NOT NULL DEFAULT 0;
CREATE TABLE revoked (annotator TEXT PRIMARY KEY REFERENCES annotators (id), discounted INTEGER NOT NULL);
CREATE TABLE lead_tokens (hash TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE lead_sessions (hash TEXT PRIMARY KEY, name TEXT NOT NULL, expires REAL NOT NULL);
"""
APPEND_ONLY = ("guidelines", "annotators", "items", "judgements")


def create_tables(store: sqlite3.Connection) -> None:
  """Makes all tables of a new store, all or none."""
  store.executescript(f"BEGIN IMMEDIATE;{RECORDS}{_kept(*APPEND_ONLY)}{LEAD}{_kept('events')}COMMIT;")


def upgrade(store: sqlite3.Connection) -> None:
  """Gives an older store the tables that it lacks, all or none; nothing that it holds changes."""
  store.execute("BEGIN IMMEDIATE")  # a second process that opens the store at this moment waits here
  try:
    if not has_table(store, "events"):
      for statement in LEAD.split(";\n"):
        store.execute(statement)
      for trigger in _triggers("events"):
        store.execute(trigger)
  except BaseException:
    store.execute("ROLLBACK")
    raise
  store.execute("COMMIT")


def has_table(store: sqlite3.Connection, name: str) -> bool:
  """Whether the store has a table of this name."""
  return store.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone() is not None


def _kept(*tables: str) -> str:
  return "".join(f"{trigger};" for table in tables for trigger in _triggers(table))


def _triggers(table: str) -> list[str]:
  return [
    f"CREATE TRIGGER {table}_keep_{event} BEFORE {event} ON {table}"
    f" BEGIN SELECT RAISE(ABORT, 'records of {table} are never changed or deleted'); END"
    for event in ("UPDATE", "DELETE")
  ]
