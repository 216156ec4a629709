"""Logins: a random token for each annotator and lead, exchanged for a session. The store keeps hashes of both.

A token has 256 random bits, so that its plain hash can be neither guessed nor inverted. Annotators and leads have
tables of their own: the token of one never opens the page of the other.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from typing import NamedTuple

from rlhf_jax.feedback.store import transaction

SESSION_SECONDS = 30 * 24 * 3600.0


class Role(NamedTuple):
  """The tables of a kind of people, and the column with their names."""

  tokens: str
  sessions: str
  name: str


ANNOTATOR = Role("tokens", "sessions", "annotator")
LEAD = Role("lead_tokens", "lead_sessions", "name")


def issue_token(store: sqlite3.Connection, name: str, role: Role = ANNOTATOR) -> str:
  """A new token for a person, for an annotator one of the store; the previous token and all its sessions end."""
  token = secrets.token_urlsafe(32)
  with transaction(store):
    store.execute(f"DELETE FROM {role.sessions} WHERE {role.name} = ?", (name,))
    store.execute(f"INSERT OR REPLACE INTO {role.tokens} (hash, {role.name}) VALUES (?, ?)", (_hash(token), name))
  return token


def has_token(store: sqlite3.Connection, name: str, role: Role = ANNOTATOR) -> bool:
  """Whether the person has a token."""
  return store.execute(f"SELECT 1 FROM {role.tokens} WHERE {role.name} = ?", (name,)).fetchone() is not None


def log_in(store: sqlite3.Connection, token: str, now: float, role: Role = ANNOTATOR) -> str | None:
  """A new session for the person of a token; None where the token is unknown. now: seconds since 1970."""
  query = f"SELECT {role.name} FROM {role.tokens} WHERE hash = ?"
  if store.execute(query, (_hash(token),)).fetchone() is None:
    return None
  session = secrets.token_urlsafe(32)
  with transaction(store):
    found = store.execute(query, (_hash(token),)).fetchone()
    if found is None:  # revoked at this moment
      return None
    store.execute(f"DELETE FROM {role.sessions} WHERE expires <= ?", (now,))
    store.execute(f"INSERT INTO {role.sessions} VALUES (?, ?, ?)", (_hash(session), found[0], now + SESSION_SECONDS))
  return session


def session_name(store: sqlite3.Connection, session: str, now: float, role: Role = ANNOTATOR) -> str | None:
  """The person of a session; None where the session is unknown or has ended."""
  query = f"SELECT {role.name} FROM {role.sessions} WHERE hash = ? AND expires > ?"
  found = store.execute(query, (_hash(session), now)).fetchone()
  return None if found is None else found[0]


def log_out(store: sqlite3.Connection, session: str, role: Role = ANNOTATOR) -> None:
  """Ends a session."""
  with transaction(store):
    store.execute(f"DELETE FROM {role.sessions} WHERE hash = ?", (_hash(session),))


def _hash(secret: str) -> str:
  return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
