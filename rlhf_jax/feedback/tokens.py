"""Who may judge: one random token per annotator, exchanged for a session; of both only the hash is kept.

A token has 256 random bits, so that a plain hash of it can be neither guessed nor inverted.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3

from rlhf_jax.feedback.store import transaction

SESSION_SECONDS = 30 * 24 * 3600.0


def issue_token(store: sqlite3.Connection, annotator: str) -> str:
  """A new token of an annotator of the store; the one before, and the sessions it opened, end."""
  token = secrets.token_urlsafe(32)
  with transaction(store):
    store.execute("DELETE FROM sessions WHERE annotator = ?", (annotator,))
    store.execute("INSERT OR REPLACE INTO tokens (hash, annotator) VALUES (?, ?)", (_hash(token), annotator))
  return token


def has_token(store: sqlite3.Connection, annotator: str) -> bool:
  """Whether the annotator can log in already."""
  return store.execute("SELECT 1 FROM tokens WHERE annotator = ?", (annotator,)).fetchone() is not None


def log_in(store: sqlite3.Connection, token: str, now: float) -> str | None:
  """A new session for the bearer of a token; None where there is no such token."""
  found = store.execute("SELECT annotator FROM tokens WHERE hash = ?", (_hash(token),)).fetchone()
  if found is None:
    return None
  session = secrets.token_urlsafe(32)
  with transaction(store):
    store.execute("DELETE FROM sessions WHERE expires <= ?", (now,))
    store.execute("INSERT INTO sessions VALUES (?, ?, ?)", (_hash(session), found[0], now + SESSION_SECONDS))
  return session


def session_annotator(store: sqlite3.Connection, session: str, now: float) -> str | None:
  """Whose session it is; None where it is unknown or has ended."""
  query = "SELECT annotator FROM sessions WHERE hash = ? AND expires > ?"
  found = store.execute(query, (_hash(session), now)).fetchone()
  return None if found is None else found[0]


def log_out(store: sqlite3.Connection, session: str) -> None:
  """Ends a session."""
  with transaction(store):
    store.execute("DELETE FROM sessions WHERE hash = ?", (_hash(session),))


def _hash(secret: str) -> str:
  return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
