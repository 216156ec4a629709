"""Logins: a random token for each annotator, exchanged for a session. The store keeps hashes of both.

A token has 256 random bits, so that its plain hash can be neither guessed nor inverted.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3

from rlhf_jax.feedback.store import transaction

SESSION_SECONDS = 30 * 24 * 3600.0


def issue_token(store: sqlite3.Connection, annotator: str) -> str:
  """A new token for an annotator of the store; the previous token and all the annotator's sessions end."""
  token = secrets.token_urlsafe(32)
  with transaction(store):
    store.execute("DELETE FROM sessions WHERE annotator = ?", (annotator,))
    store.execute("INSERT OR REPLACE INTO tokens (hash, annotator) VALUES (?, ?)", (_hash(token), annotator))
  return token


def has_token(store: sqlite3.Connection, annotator: str) -> bool:
  """Whether the annotator has a token."""
  return store.execute("SELECT 1 FROM tokens WHERE annotator = ?", (annotator,)).fetchone() is not None


def log_in(store: sqlite3.Connection, token: str, now: float) -> str | None:
  """A new session for the annotator of a token; None where the token is unknown. now: seconds since 1970."""
  found = store.execute("SELECT annotator FROM tokens WHERE hash = ?", (_hash(token),)).fetchone()
  if found is None:
    return None
  session = secrets.token_urlsafe(32)
  with transaction(store):
    store.execute("DELETE FROM sessions WHERE expires <= ?", (now,))
    store.execute("INSERT INTO sessions VALUES (?, ?, ?)", (_hash(session), found[0], now + SESSION_SECONDS))
  return session


def session_annotator(store: sqlite3.Connection, session: str, now: float) -> str | None:
  """The annotator of a session; None where the session is unknown or has ended."""
  query = "SELECT annotator FROM sessions WHERE hash = ? AND expires > ?"
  found = store.execute(query, (_hash(session), now)).fetchone()
  return None if found is None else found[0]


def log_out(store: sqlite3.Connection, session: str) -> None:
  """Ends a session."""
  with transaction(store):
    store.execute("DELETE FROM sessions WHERE hash = ?", (_hash(session),))


def _hash(secret: str) -> str:
  return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
