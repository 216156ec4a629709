"""How a store hands out its items. Settings can change while it is in use; each change is an event of the store."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from typing import Any

from rlhf_jax.feedback.events import latest_event
from rlhf_jax.feedback.store_rows import StoreError


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a store hands out its items; all but the seed can be changed while it is in use."""

  seed: int = 0
  """Seed of the display orders and of the places of gold items."""
  judgements_per_item: int = 1
  """Number of annotators who judge each item that is not gold."""
  gold_every: int = 10
  """Number of consecutive assignments of an annotator, at least 2, of which one at a random place is a gold item; 0 for
  no gold items."""
  lease_seconds: float = 1800.0
  """Seconds for which an item is kept for the annotator who has it open."""
  agreeing: int = 0
  """Number of annotators, at least 2, whose answers to an item must agree; while fewer do, the item goes to one
  annotator more. 0 asks for no agreement."""
  at_most: int = 0
  """Number of annotators of an item at most, where `agreeing` asks for more of them; an item that is still disputed
  then waits for an expert. 0 where `agreeing` is 0."""

  def __post_init__(self) -> None:
    if self.judgements_per_item < 1 or self.gold_every < 0 or self.gold_every == 1 or self.lease_seconds <= 0:
      raise ValueError(f"{self}: judgements_per_item must be >= 1, gold_every 0 or >= 2, lease_seconds above 0")
    if self.agreeing and not 2 <= self.agreeing <= self.at_most or self.at_most < 0 or self.agreeing < 0:
      raise ValueError(f"{self}: agreeing must be 0, or 2 to at_most, the number of annotators of an item at most")
    if self.at_most and (not self.agreeing or self.at_most < self.judgements_per_item):
      raise ValueError(f"{self}: at_most goes with agreeing, and is no less than judgements_per_item")


def read_meta(store: sqlite3.Connection) -> dict[str, Any]:
  """What the store was made with. Raises StoreError where it is damaged."""
  rows = store.execute("SELECT name, value FROM meta").fetchall()
  try:
    return {name: json.loads(value) for name, value in rows}
  except (TypeError, ValueError) as error:
    raise StoreError(f"the store's settings are damaged ({error}); take the store from a copy") from error


def read_settings(store: sqlite3.Connection) -> Settings:
  """The settings in force: those of the last change, or those the store was made with.

  Raises:
    StoreError: the settings are damaged.
  """
  changed = latest_event(store, "settings")
  values = read_meta(store) if changed is None else changed.value
  later = {"agreeing": 0, "at_most": 0}  # stores of version 0.3 and before were made without them
  try:
    return Settings(**{field.name: {**later, **values}[field.name] for field in dataclasses.fields(Settings)})
  except (KeyError, TypeError, ValueError) as error:
    raise StoreError(f"the store's settings are damaged ({error}); take the store from a copy") from error
