"""The store only grows; the queue hands every item to enough people, mixes gold in, and forgets no answer."""

import contextlib
import os
import sqlite3
import stat
from collections import Counter

import pytest
from judged import JUDGEMENTS, RECORDS

from rlhf_jax.cli import main
from rlhf_jax.data import DataError
from rlhf_jax.feedback.corrections import last_judgement, undo
from rlhf_jax.feedback.draw import progress
from rlhf_jax.feedback.queue import Answer, Judged, NoLease, display_order, next_assignment, submit
from rlhf_jax.feedback.records import UNDONE, Annotator, Judgement, Response, current, make_item
from rlhf_jax.feedback.store import add_guidelines, add_records, create_store, find, open_store, read_store
from rlhf_jax.feedback.store_settings import Settings, read_settings
from rlhf_jax.feedback.tokens import SESSION_SECONDS, has_token, issue_token, log_in, log_out, session_name

NAMES = ("ann", "bob", "cid", "dan")


@pytest.fixture
def make(tmp_path):
  """make(num_items, num_gold, **settings) -> a store of pairs, with four annotators."""
  with contextlib.ExitStack() as stack:

    def build(num_items, num_gold=0, **settings):
      store = stack.enter_context(contextlib.closing(create_store(tmp_path / "a.db", Settings(**settings))))
      pair = (Response("first"), Response("second"))
      items = [make_item(f"item {n}", pair) for n in range(num_items)]
      gold = [make_item(f"gold {n}", pair, (0, 1)) for n in range(num_gold)]
      add_records(store, ([Annotator(name) for name in NAMES], [*items, *gold], []))
      return store

    yield build


def judge(store, name, now=0.0, **answer):
  """One judgement of the next assignment; its prompt, or None where there is none."""
  assignment = next_assignment(store, name, now)
  if assignment is None:
    return None
  submit(store, name, assignment.lease, Answer(**(answer or {"ranks": (0, 1)})), "v1", now)
  return assignment.item.prompt


def everything(store, name, **answer):
  return list(iter(lambda: judge(store, name, **answer), None))


def stored(store):
  (path,) = (row[2] for row in store.execute("PRAGMA database_list"))
  return read_store(path)


def test_the_store_is_one_private_durable_file(make, tmp_path):
  store = make(1, seed=3, judgements_per_item=2)
  assert stat.S_IMODE(os.stat(tmp_path / "a.db").st_mode) == 0o600
  assert store.execute("PRAGMA journal_mode").fetchone() == ("wal",)
  assert store.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: an acknowledged commit survives loss of power
  store.close()
  assert [path.name for path in tmp_path.iterdir()] == ["a.db"]
  with contextlib.closing(open_store(tmp_path / "a.db")) as again:
    assert read_settings(again) == Settings(seed=3, judgements_per_item=2)
  with pytest.raises(DataError, match="exists already"):
    create_store(tmp_path / "a.db", Settings())


@pytest.mark.parametrize("table", ["annotators", "items", "judgements", "guidelines"])
def test_nothing_is_overwritten_or_deleted(table, tmp_path):
  with contextlib.closing(create_store(tmp_path / "a.db", Settings())) as store:
    add_records(store, RECORDS)
    add_guidelines(store, "Be kind.")
    assert store.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] > 0
    for change in (f"DELETE FROM {table}", f"UPDATE {table} SET rowid = rowid + 1000"):
      with pytest.raises(sqlite3.IntegrityError, match=f"records of {table} are never changed or deleted"):
        store.execute(change)


@pytest.mark.parametrize("settings", [dict(judgements_per_item=0), dict(gold_every=1), dict(lease_seconds=0)])
def test_settings_that_make_no_sense_are_refused(settings):
  with pytest.raises(ValueError, match="judgements_per_item must be >= 1"):
    Settings(**settings)


def test_a_judgement_is_superseded_once(tmp_path):
  with contextlib.closing(create_store(tmp_path / "a.db", Settings())) as store:
    add_records(store, RECORDS)
    second = Judgement("x", "pair", "bob", (0, 1), ranks=(1, 0), supersedes=JUDGEMENTS[3].id)
    with pytest.raises(DataError, match="'j4' is superseded already"):
      add_records(store, ([], [], [second]))


def test_each_item_goes_to_n_different_annotators(make):
  store = make(6, judgements_per_item=3)
  for _ in range(20):
    for name in NAMES:
      judge(store, name)
  _, items, judgements = stored(store)
  assert Counter(j.item for j in judgements) == {item.id: 3 for item in items}
  assert max(Counter((j.item, j.annotator) for j in judgements).values()) == 1


def test_annotators_at_work_at_once_get_different_items_until_there_is_no_room(make):
  store = make(3)
  assignments = [next_assignment(store, name, 0.0) for name in NAMES]
  assert sorted(assignment.item.prompt for assignment in assignments[:3]) == ["item 0", "item 1", "item 2"]
  assert assignments[3] is None


def test_who_comes_back_finds_the_same_assignment(make):
  store = make(3, seed=1)
  first = next_assignment(store, "ann", 0.0)
  assert next_assignment(store, "ann", 100.0) == first
  judge(store, "ann", 101.0)
  assert next_assignment(store, "ann", 102.0).item != first.item


def test_an_expired_lease_frees_the_item_and_a_late_answer_is_still_kept(make):
  store = make(1, lease_seconds=60)
  late = next_assignment(store, "ann", 0.0)
  assert next_assignment(store, "bob", 59.0) is None
  taken = next_assignment(store, "bob", 61.0)
  assert taken.item == late.item
  assert next_assignment(store, "ann", 62.0) is None  # bob has it now
  submit(store, "ann", late.lease, Answer(ranks=(0, 1)), "", 63.0)
  submit(store, "bob", taken.lease, Answer(ranks=(0, 1)), "", 64.0)
  assert [j.annotator for j in stored(store)[2]] == ["ann", "bob"]


def test_an_expired_lease_is_renewed_where_nobody_took_the_item(make):
  store = make(1, lease_seconds=60)
  assignment = next_assignment(store, "ann", 0.0)
  assert next_assignment(store, "ann", 1000.0) == assignment
  assert next_assignment(store, "bob", 1001.0) is None


def test_a_double_submission_counts_once(make):
  store = make(2)
  assignment = next_assignment(store, "ann", 0.0)
  first = submit(store, "ann", assignment.lease, Answer(ranks=(0, 1)), "", 1.0)
  assert submit(store, "ann", assignment.lease, Answer(ranks=(0, 1), seconds=9.0), "", 2.0) == first
  for other in (Answer(ranks=(1, 0)), Answer(ranks=(0, 1), strength=2), Answer(skipped="I cannot tell")):
    with pytest.raises(Judged, match="you have answered this one already, and otherwise"):
      submit(store, "ann", assignment.lease, other, "", 2.0)
  assert stored(store)[2] == [first]


def flip(path, old, new):
  """Changes bytes of the file, as a fault of a disk does."""
  content = path.read_bytes()
  assert content.count(old) >= 1
  path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize(
  ("old", "new", "where"),
  [
    (b'"first"', b'"worst"', "items"),
    (b'"item 0"', b'"item 9"', "items"),
    (b'"ranks": [0, 1]', b'"ranks": [1, 0]', "judgements"),
    (b'"sha256"', b'"sha255"', "judgements|items|annotators"),
    (b'{"type"', b'{{type"', "judgements|items|annotators"),
  ],
)
def test_a_damaged_record_is_named_when_it_is_read(make, tmp_path, old, new, where):
  store = make(1)
  lease = next_assignment(store, "ann", 0.0).lease
  submit(store, "ann", lease, Answer(ranks=(0, 1)), "", 1.0)
  if b"ranks" in old:  # as the response called "first" was stored first
    old, new = (b'"ranks": [0, 1]', b'"ranks": [1, 0]') if find(store, Judgement, lease).ranks == (0, 1) else (new, old)
  store.close()
  flip(tmp_path / "a.db", old, new)
  with pytest.raises(DataError, match=rf"({where}) [0-9a-z]+: (the record is damaged|.* has no 'sha255')"):
    read_store(tmp_path / "a.db")


def test_records_of_version_0_2_have_no_digest(make, tmp_path):
  store = make(1)
  lease = next_assignment(store, "ann", 0.0).lease
  for event in ("UPDATE", "DELETE"):
    store.execute(f"DROP TRIGGER items_keep_{event}")
  store.execute("UPDATE items SET row = json_remove(row, '$.sha256')")
  assert next_assignment(store, "ann", 1.0).lease == lease
  assert len(stored(store)[1]) == 1


def test_a_damaged_file_is_one_line(make, tmp_path, capsys):
  store = make(40)
  store.close()
  path = tmp_path / "a.db"
  whole = path.read_bytes()
  for content in (b"x" * 5000, whole[:300], whole[:4096] + b"\xff" * (len(whole) - 4096)):
    path.write_bytes(content)
    for suffix in ("-wal", "-shm"):
      path.with_name(path.name + suffix).unlink(missing_ok=True)
    for command in (["annotate", str(path), "--annotators", "ann"], ["agreement", str(path)],
                    ["convert", str(path), str(tmp_path / "out.jsonl")]):  # fmt: skip
      assert main(command) == 2
      told = capsys.readouterr().err
      assert told.count("\n") == 1 and str(path) in told and "take it from a copy" in told, told


def test_a_locked_store_is_one_line(make, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr("rlhf_jax.feedback.store.WAIT_SECONDS", 0.1)
  make(1).execute("BEGIN EXCLUSIVE")
  assert main(["annotate", str(tmp_path / "a.db"), "--annotators", "new"]) == 2
  told = capsys.readouterr().err
  assert told.count("\n") == 1 and f"{tmp_path}/a.db" in told and "another process has kept it for 0.1 s" in told


def test_a_lease_is_its_holders_alone(make):
  store = make(2)
  assignment = next_assignment(store, "ann", 0.0)
  for name, lease in (("bob", assignment.lease), ("ann", "0123456789abcdef")):
    with pytest.raises(NoLease):
      submit(store, name, lease, Answer(ranks=(0, 1)), "", 1.0)
  submit(store, "ann", assignment.lease, Answer(ranks=(0, 1)), "", 1.0)
  with pytest.raises(NoLease):
    submit(store, "bob", assignment.lease, Answer(ranks=(0, 1)), "", 1.0)


def test_an_answer_by_place_becomes_a_judgement_by_response(make):
  """Whatever order is drawn, the response called "second" was put first; the order is kept with the judgement."""
  store = make(30, seed=5)
  orders = set()
  while (assignment := next_assignment(store, "ann", 10.0)) is not None:
    place = [assignment.item.responses[index].text for index in assignment.order].index("second")
    ranks, ratings = [(0, 1), (1, 0)][place], [(7, 2), (2, 7)][place]
    answer = Answer(ratings, ranks, 2, critiques=[("", "dull"), ("dull", "")][place], seconds=3.0)
    judgement = submit(store, "ann", assignment.lease, answer, "v1", 14.0)
    assert (judgement.order, judgement.ranks, judgement.ratings) == (assignment.order, (1, 0), (2, 7))
    assert (judgement.critiques, judgement.strength) == (("dull", ""), 2)
    assert (judgement.seconds, judgement.guidelines, judgement.created) == (3.0, "v1", "1970-01-01T00:00:14.000Z")
    orders.add(assignment.order)
  assert orders == {(0, 1), (1, 0)}


def test_display_orders_are_seeded_and_even():
  assert display_order(0, "item", "ann", 4) == display_order(0, "item", "ann", 4) == (2, 0, 3, 1)
  counts = Counter(display_order(0, f"item {n}", "ann", 3) for n in range(3000))
  assert len(counts) == 6 and all(400 < count < 600 for count in counts.values())
  assert len({display_order(seed, "item", name, 4) for seed in range(4) for name in NAMES}) > 8


def test_the_time_cannot_be_more_than_has_passed(make):
  store = make(2)
  assignment = next_assignment(store, "ann", 100.0)
  assert submit(store, "ann", assignment.lease, Answer(ranks=(0, 1), seconds=1e9), "", 107.5).seconds == 7.5
  assignment = next_assignment(store, "ann", 200.0)
  assert submit(store, "ann", assignment.lease, Answer(ranks=(0, 1), seconds=-5), "", 207.5).seconds == 0


@pytest.mark.parametrize("every", [2, 5])
def test_gold_items_come_at_the_set_rate_and_once_per_annotator(make, every):
  store = make(40, 20, gold_every=every, judgements_per_item=4)
  for name in NAMES:
    prompts = everything(store, name)
    assert len(set(prompts)) == len(prompts) and sum(prompt.startswith("item") for prompt in prompts) == 40
    is_gold = [prompt.startswith("gold") for prompt in prompts]
    blocks = [is_gold[start : start + every] for start in range(0, len(prompts) - every + 1, every)]
    supplied = blocks[:20] if every == 2 else blocks
    assert all(sum(block) == 1 for block in supplied)
    assert len({tuple(block) for block in supplied}) > 1  # not always at the same place
  store_of_golds = {j.item for j in stored(store)[2]}
  assert len(store_of_golds) == 60 if every == 2 else len(store_of_golds) >= 48


def test_progress_does_not_tell_gold_items_apart(make):
  """The number left falls by one with every assignment, so that it does not tell which are gold."""
  store = make(25, 4, gold_every=4)
  done, left = progress(store, "ann")
  assert done == 0 and 25 < left <= 29
  for step in range(1, left + 1):
    assert judge(store, "ann") is not None
    assert progress(store, "ann") == (step, left - step)
  assert judge(store, "ann") is None


def test_a_skipped_item_goes_to_somebody_else(make):
  store = make(1)
  judge(store, "ann", skipped="I cannot tell")
  assert next_assignment(store, "ann", 0.0) is None
  assert judge(store, "bob") == "item 0"
  assert next_assignment(store, "cid", 0.0) is None


def test_undo_withdraws_and_opens_the_item_again_with_what_was_said(make):
  store = make(3)
  everything(store, "ann")
  last = last_judgement(store, "ann")
  undo(store, "ann", last, 50.0)
  undo(store, "ann", last, 51.0)  # a double click
  assert progress(store, "ann") == (2, 1)
  assignment = next_assignment(store, "ann", 52.0)
  assert (
    assignment.draft.id == last and assignment.draft.ranks is not None and assignment.item.id == assignment.draft.item
  )
  kept = submit(store, "ann", assignment.lease, Answer(ranks=(0, 0)), "", 55.0)
  judgements = stored(store)[2]
  assert [(j.skipped, j.supersedes) for j in judgements[3:]] == [(UNDONE, last), (None, judgements[3].id)]
  assert kept in current(judgements) and len(current(judgements)) == 3
  assert progress(store, "ann") == (3, 0) and last_judgement(store, "ann") == kept.id


def test_several_steps_are_undone_backwards(make):
  store = make(3)
  prompts = everything(store, "ann")
  for _ in range(3):
    undo(store, "ann", last_judgement(store, "ann"), 10.0)
  assert last_judgement(store, "ann") is None
  assert everything(store, "ann") == prompts


def test_an_undone_item_has_room_again_once_its_lease_expires(make):
  store = make(1, lease_seconds=60)
  judge(store, "ann")
  undo(store, "ann", last_judgement(store, "ann"), 10.0)
  assert next_assignment(store, "bob", 20.0) is None
  assert next_assignment(store, "bob", 80.0).item.prompt == "item 0"
  assert next_assignment(store, "ann", 90.0).draft is not None  # a correction is never taken away


def test_only_ones_own_judgements_can_be_undone(make):
  store = make(2)
  judge(store, "ann")
  for name, judgement in (("bob", last_judgement(store, "ann")), ("ann", "none")):
    with pytest.raises(NoLease):
      undo(store, name, judgement, 1.0)


def test_imported_judgements_count_in_the_queue(make):
  store = make(2)
  item = make_item("item 0", (Response("first"), Response("second")))
  add_records(store, ([], [], [Judgement("x", item.id, "bob", (0, 1), ranks=(0, 1))]))
  assert everything(store, "ann") == ["item 1"]


def test_an_import_closes_the_assignments_it_answers(make):
  store = make(2)
  first = next_assignment(store, "ann", 0.0)
  add_records(store, ([], [], [Judgement("x", first.item.id, "ann", (0, 1), ranks=(0, 1))]))
  with pytest.raises(NoLease, match="judged this item already"):
    submit(store, "ann", first.lease, Answer(ranks=(0, 1)), "", 1.0)
  assert next_assignment(store, "ann", 1.0).item != first.item
  judge(store, "ann", 2.0)
  last = last_judgement(store, "ann")
  undo(store, "ann", last, 3.0)
  withdrawal = stored(store)[2][-1]
  correction = Judgement("y", withdrawal.item, "ann", (0, 1), ranks=(1, 0), supersedes=withdrawal.id)
  add_records(store, ([], [], [correction]))
  assert next_assignment(store, "ann", 4.0) is None


def test_a_refused_answer_leaves_the_assignment_open(make):
  store = make(1)
  assignment = next_assignment(store, "ann", 0.0)
  for answer in (Answer(), Answer(ranks=(0, 1, 2)), Answer(ratings=(9, 1)), Answer(ranks=(0, 1), skipped="x")):
    with pytest.raises(DataError):
      submit(store, "ann", assignment.lease, answer, "", 1.0)
  assert next_assignment(store, "ann", 2.0) == assignment and stored(store)[2] == []


def test_two_processes_may_write_to_one_store(make, tmp_path):
  store = make(2)
  with contextlib.closing(open_store(tmp_path / "a.db")) as other:
    assert {judge(store, "ann"), judge(other, "bob")} == {"item 0", "item 1"}
  assert len(stored(store)[2]) == 2


def test_tokens_open_sessions_and_neither_is_kept(make, tmp_path):
  store = make(1)
  assert not has_token(store, "ann")
  token = issue_token(store, "ann")
  assert has_token(store, "ann") and len(token) >= 43
  session = log_in(store, token, 0.0)
  assert session_name(store, session, 1.0) == "ann"
  assert log_in(store, "x" * 43, 0.0) is None and log_in(store, "\ud800", 0.0) is None
  assert session_name(store, token, 1.0) is None and session_name(store, "", 1.0) is None
  assert session_name(store, session, SESSION_SECONDS + 1) is None
  store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
  content = (tmp_path / "a.db").read_bytes()
  assert token.encode() not in content and session.encode() not in content
  log_out(store, session)
  assert session_name(store, session, 1.0) is None


def test_a_new_token_ends_the_old_one_and_its_sessions(make):
  store = make(1)
  old = issue_token(store, "ann")
  session = log_in(store, old, 0.0)
  new = issue_token(store, "ann")
  assert log_in(store, old, 0.0) is None and session_name(store, session, 0.0) is None
  assert session_name(store, log_in(store, new, 0.0), 0.0) == "ann"


def test_find_returns_none_for_the_unknown(make):
  store = make(1)
  assert find(store, Annotator, "ann") == Annotator("ann") and find(store, Annotator, "zoe") is None
