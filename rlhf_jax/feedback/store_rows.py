"""Stored rows: a JSON object beside its SHA-256, which is checked whenever the row is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rlhf_jax.data import DataError

DIGEST = "sha256"  # key of a stored row that is no field of its content


class StoreError(DataError):
  """A store that cannot be used: it is damaged, or another process keeps it locked. The message names the file."""


def stored(content: Mapping[str, Any]) -> str:
  """The text of a row, with the digest of its content."""
  row = json.loads(json.dumps(content))
  return json.dumps({**row, DIGEST: _digest(row)})


def verified(text: str, where: str) -> dict[str, Any]:
  """The content of a row from its stored text. Raises StoreError where it is not what was stored."""
  try:
    row = json.loads(text)
  except (TypeError, ValueError, RecursionError) as error:
    raise StoreError(f"{where}: the record is damaged ({error}); take the store from a copy") from error
  if not isinstance(row, dict) or row.pop(DIGEST, None) not in (None, _digest(row)):
    raise StoreError(f"{where}: the record is damaged (its SHA-256 differs); take the store from a copy")
  return row


def _digest(row: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()
