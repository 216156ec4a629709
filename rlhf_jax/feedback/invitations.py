"""Links to log in: for annotators, for experts and for the lead, and who has none any more."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from rlhf_jax.data import DataError
from rlhf_jax.feedback import tokens
from rlhf_jax.feedback.project import revoked
from rlhf_jax.feedback.records import Annotator
from rlhf_jax.feedback.store import add_records, find, opened


def invite(
  path: Path, names: Sequence[str], origin: str, *, renew: bool = False, expert: bool = False
) -> list[tuple[str, str | None]]:
  """Adds annotators and returns (name, link to log in) for each.

  The link is None for an annotator who is revoked, and for one who has a link already, unless `renew`. It carries the
  token in its fragment, the part of a URL that a browser does not send. expert: whether they settle disputed items.

  Raises:
    DataError: an annotator is in the store already and is, or is not, an expert.
  """
  with opened(path) as store:
    for name in names:
      add_annotator(store, name, expert)
    gone = revoked(store)
    fresh = {name for name in names if name not in gone and (renew or not tokens.has_token(store, name))}
    return [(n, annotator_link(store, n, origin) if n in fresh else None) for n in names]


def invite_lead(path: Path, name: str, origin: str, *, renew: bool = False) -> str | None:
  """The link to the lead's page; None where this lead has one already, unless `renew`."""
  with opened(path) as store:
    if tokens.has_token(store, name, tokens.LEAD) and not renew:
      return None
    return f"{origin}/lead#token={tokens.issue_token(store, name, tokens.LEAD)}"


def add_annotator(store: sqlite3.Connection, name: str, expert: bool = False) -> None:
  """Adds an annotator who is not there yet.

  Raises:
    DataError: the annotator is there already and is, or is not, an expert.
  """
  known = find(store, Annotator, name)
  if known is None:
    try:
      person = Annotator(name, expert=expert)
    except ValueError as error:
      raise DataError(f"annotator {name!r}: {error}") from error
    add_records(store, ([person], [], []))
  elif expert and not known.expert:
    raise DataError(f"{name!r} is in the store as an annotator who is no expert; give the expert another name")


def annotator_link(store: sqlite3.Connection, name: str, origin: str) -> str:
  """A new link for an annotator of the store; the old one ends."""
  return f"{origin}/#token={tokens.issue_token(store, name)}"
