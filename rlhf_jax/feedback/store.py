"""The store of an annotation project: one SQLite file that only grows.

Records are rows that triggers forbid to change or delete. Every transaction is on the disk before its function returns
(WAL with synchronous=FULL), so that an acknowledged judgement survives `kill -9` and loss of power. Beside the records
stand the queue of items still to be judged with the leases on them (`queue.py`), and the hashes of the annotators'
tokens (`tokens.py`), which no export contains.

A store is a plain `sqlite3.Connection`. It belongs to the thread that opened it; several processes may open one file.
Every record lies beside its SHA-256, which is checked whenever the record is read: a flipped bit on the disk is named,
and no damaged page is shown to annotators or taken for a judgement. Records of version 0.2 have none and are believed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_jax.data import DataError
from rlhf_jax.feedback.disputes import still_wanted
from rlhf_jax.feedback.record_rows import SCHEMA, from_row, record_of, to_row
from rlhf_jax.feedback.records import (
  Annotator,
  AnyRecord,
  Item,
  Judgement,
  Record,
  Records,
  check_fits,
  collect_records,
)
from rlhf_jax.feedback.store_rows import StoreError, stored, verified
from rlhf_jax.feedback.store_settings import Settings, read_meta, read_settings
from rlhf_jax.feedback.store_tables import create_tables, has_table, upgrade

WAIT_SECONDS = 30.0  # longest wait for another process's transaction

KEPT: dict[type, str] = {Annotator: "annotators", Item: "items", Judgement: "judgements"}  # -> its table


def create_store(path: str | Path, settings: Settings) -> sqlite3.Connection:
  """Makes the file, readable by its owner alone, and opens it. Raises DataError where it exists already."""
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
  except FileExistsError as error:
    raise DataError(f"{path}: exists already; choose another name, or delete it") from error
  store = _connect(path)
  create_tables(store)
  values = {"schema": SCHEMA, **dataclasses.asdict(settings)}
  with transaction(store):
    store.executemany("INSERT INTO meta VALUES (?, ?)", [(name, json.dumps(value)) for name, value in values.items()])
  return store


@contextlib.contextmanager
def opened(path: str | Path, *, create: bool = False, settings: Settings | None = None) -> Iterator[sqlite3.Connection]:
  """A store that is open in the block of a `with`.

  settings: those of a store that is made; with `create` one is made where there is no file.

  Raises:
    DataError: as `open_store`.
    StoreError: the store is damaged or locked, here or in the block.
  """
  with named_errors(path):
    create = create and not Path(path).exists()
    with contextlib.closing(create_store(path, settings or Settings()) if create else open_store(path)) as store:
      yield store


@contextlib.contextmanager
def named_errors(path: str | Path) -> Iterator[None]:
  """A block in which SQLite's errors are raised as StoreError with the file's path and what to do."""
  try:
    yield
  except sqlite3.Error as error:
    if "locked" in str(error) or "busy" in str(error):
      advice = f"another process has kept it for {WAIT_SECONDS:g} s; end that process, then try again"
    elif "full" in str(error) or "readonly" in str(error):
      advice = "make room on its disk and let its directory be written to, then try again"
    else:
      advice = "it is damaged or no store; take it from a copy"
    raise StoreError(f"{path}: the store cannot be used ({error}): {advice}") from error


def open_store(path: str | Path) -> sqlite3.Connection:
  """Opens a store.

  Raises:
    DataError: there is no such file, it is no store, or it has another schema.
    StoreError: another process keeps it locked.
  """
  path = Path(path)
  if not path.is_file():
    raise DataError(f"{path}: there is no such file; `rlhf-jax collect` makes one")
  store = _connect(path)
  try:
    with named_errors(path):
      schema = read_meta(store).get("schema")
  except StoreError:
    store.close()
    raise
  if schema != SCHEMA:
    store.close()
    raise DataError(f"{path}: has schema {schema}, not {SCHEMA}; export it with the version that made it")
  if not has_table(store, "events"):
    with named_errors(path):
      upgrade(store)
  return store


@contextlib.contextmanager
def transaction(store: sqlite3.Connection) -> Iterator[None]:
  """A block whose changes are kept all or not at all, and are on the disk when it ends.

  The write lock is taken at once, so that a transaction never fails half way because another one was faster.
  """
  store.execute("BEGIN IMMEDIATE")
  try:
    yield
  except BaseException:
    if store.in_transaction:  # SQLite ends it by itself after some errors
      store.execute("ROLLBACK")
    raise
  store.execute("COMMIT")


def add_guidelines(store: sqlite3.Connection, text: str) -> str:
  """Keeps a text of guidelines and returns its version, a hash of it."""
  version = hashlib.sha256(text.encode()).hexdigest()[:12]
  with transaction(store):
    store.execute("INSERT OR IGNORE INTO guidelines VALUES (?, ?)", (version, text))
  return version


def read_guidelines(store: sqlite3.Connection) -> list[tuple[str, str]]:
  """(version, text) of all guidelines that were shown."""
  return store.execute("SELECT version, text FROM guidelines").fetchall()


def add_records(store: sqlite3.Connection, records: Records, where: str = "store") -> int:
  """Adds the records that are not there yet, all or none of them, and returns their number.

  Raises:
    DataError: an id is there with other content, or a judgement does not fit its item, its annotator or the judgement
      that it supersedes.
  """
  annotators, items, judgements = records
  ordered: list[Record] = [*annotators, *items, *judgements]
  with transaction(store):
    return sum(append(store, record, where) for record in ordered)


def append(store: sqlite3.Connection, record: Record, where: str = "store") -> bool:
  """Adds one record inside a transaction of the caller; False where it is there already. Raises as `add_records`."""
  table = KEPT[type(record)]
  row = stored(to_row(record))
  known = store.execute(f"SELECT row FROM {table} WHERE id = ?", (record.id,)).fetchone()
  if known is not None:
    if verified(known[0], f"{table} {record.id}") != verified(row, where):
      raise DataError(f"{where}: the id {record.id!r} is among the {table} already, with other content")
    return False
  if isinstance(record, Annotator):
    store.execute("INSERT INTO annotators (id, row) VALUES (?, ?)", (record.id, row))
  elif isinstance(record, Item):
    _append_item(store, record, row)
  else:
    _append_judgement(store, record, row, where)
  return True


def find(store: sqlite3.Connection, kind: type[AnyRecord], identity: str | None) -> AnyRecord | None:
  """The record of a kind (`Annotator`, `Item` or `Judgement`) with an id; None where there is none, or no id.

  Raises:
    StoreError: the record is damaged.
  """
  found = store.execute(f"SELECT row FROM {KEPT[kind]} WHERE id = ?", (identity,)).fetchone()
  return None if found is None else _parsed(KEPT[kind], found[0], f"{KEPT[kind]} {identity}")


def find_item(store: sqlite3.Connection, identity: str) -> Item:
  """The item of an id. Raises DataError where there is none."""
  item = find(store, Item, identity)
  if item is None:
    raise DataError(f"the store has no item {identity!r}")
  return item


def located_records(path: str | Path) -> list[tuple[str, Record]]:
  """(place, record) of all records of a store, each kind in the order in which it was added.

  Raises:
    DataError: as `open_store`.
    StoreError: a record is damaged.
  """
  with opened(path) as store:
    rows = [
      (f"{path}: {table} {number}", row)
      for table in KEPT.values()
      for number, row in store.execute(f"SELECT number, row FROM {table} ORDER BY number")
    ]
  return [(where, record_of(verified(row, where), where)) for where, row in rows]


def read_store(path: str | Path) -> Records:
  """The records of a store, each kind in the order in which it was added. Raises DataError as `open_store`."""
  return collect_records(located_records(path))


def _append_item(store: sqlite3.Connection, item: Item, row: str) -> None:
  gold = item.gold_ranks is not None
  number = store.execute("INSERT INTO items (id, gold, row) VALUES (?, ?, ?)", (item.id, gold, row)).lastrowid
  if not gold:
    wanted, _ = still_wanted(read_settings(store), [])
    store.execute("INSERT INTO queue (item, number, remaining) VALUES (?, ?, ?)", (item.id, number, wanted))


def _append_judgement(store: sqlite3.Connection, judgement: Judgement, row: str, where: str) -> None:
  before = find(store, Judgement, judgement.supersedes)
  annotator, item = find(store, Annotator, judgement.annotator), find(store, Item, judgement.item)
  check_fits(judgement, annotator, item, before, where)
  values = (judgement.id, judgement.item, judgement.annotator, judgement.supersedes, row)
  try:
    store.execute("INSERT INTO judgements (id, item, annotator, supersedes, row) VALUES (?, ?, ?, ?, ?)", values)
  except sqlite3.IntegrityError as error:
    raise DataError(f"{where}: judgement {judgement.supersedes!r} is superseded already") from error
  recount(store, judgement.item)


def recount(store: sqlite3.Connection, item: str) -> None:
  """Writes into the queue how many judgements an item still needs, inside a transaction of the caller.

  Every judgement, correction and change of the settings comes through here, and the answer follows from the records and
  the settings alone. A skip leaves the item open for another annotator.
  """
  if store.execute("SELECT 1 FROM queue WHERE item = ?", (item,)).fetchone() is None:
    return  # a gold item
  remaining, disputed = still_wanted(read_settings(store), counted_judgements(store, item))
  store.execute("UPDATE queue SET remaining = ?, disputed = ? WHERE item = ?", (remaining, disputed, item))


def counted_judgements(store: sqlite3.Connection, item: str) -> list[Judgement]:
  """The judgements of an item that count: current, no skips, the last of each annotator whom a lead has not discounted.

  Raises:
    StoreError: a judgement is damaged.
  """
  rows = store.execute(
    "SELECT id, row FROM judgements AS j WHERE item = ? AND NOT EXISTS"
    " (SELECT 1 FROM judgements WHERE supersedes = j.id) AND annotator NOT IN"
    " (SELECT annotator FROM revoked WHERE discounted = 1) ORDER BY number",
    (item,),
  )
  found: list[Judgement] = [_parsed("judgements", row, f"judgements {name}") for name, row in rows]
  return list({judgement.annotator: judgement for judgement in found if judgement.skipped is None}.values())


@functools.lru_cache(maxsize=1024)
def _parsed(table: str, text: str, where: str) -> Any:
  """The record of a stored text. A request reads the same item several times, and equal texts give equal records."""
  kind = next(kind for kind, name in KEPT.items() if name == table)
  return from_row(kind, verified(text, where), where)


def _connect(path: Path) -> sqlite3.Connection:
  store = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)
  for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF"):
    try:
      with named_errors(path):
        store.execute(f"PRAGMA {pragma}")
    except StoreError:
      store.close()
      raise
  return store
