"""Disputed items go to further annotators and then to an expert; settings change in use; people are revoked."""

import contextlib
import random
import sqlite3

import pytest

from rlhf_jax.data import DataError
from rlhf_jax.feedback.corrections import correct, give_up, own_judgements, undo
from rlhf_jax.feedback.disputes import num_agreeing, still_wanted, vote
from rlhf_jax.feedback.draw import count_disputed, count_open, progress
from rlhf_jax.feedback.events import read_events
from rlhf_jax.feedback.project import (
  change_settings,
  current_questions,
  restore,
  revoke,
  revoked,
  set_questions,
)
from rlhf_jax.feedback.questions import Flags, Questions
from rlhf_jax.feedback.queue import Answer, NoLease, next_assignment, submit
from rlhf_jax.feedback.records import Annotator, Judgement, Response, current, make_item
from rlhf_jax.feedback.store import add_records, create_store, find, open_store, read_store, recount
from rlhf_jax.feedback.store_rows import StoreError
from rlhf_jax.feedback.store_settings import Settings, read_settings
from rlhf_jax.feedback.tokens import LEAD, issue_token, log_in, session_name

A, B, TIE = (0, 1), (1, 0), (0, 0)
RULE = Settings(judgements_per_item=2, gold_every=0, agreeing=2, at_most=3)


def said(number, name="ann", size=2, **fields):
  return Judgement(f"j{number}", "i", name, tuple(range(size)), **fields)


@pytest.mark.parametrize(
  "fields, expected",
  [
    (dict(ranks=A), ("best", ((0,), False))),
    (dict(ranks=TIE), ("best", ((0, 1), False))),
    (dict(ranks=TIE, all_bad=True), ("best", ((0, 1), True))),
    (dict(ratings=(2, 5)), ("best", ((1,), False))),
    (dict(ratings=(5, 5), ranks=B), ("best", ((1,), False))),
    (dict(ratings=(5, None)), ("rated", 5)),
    (dict(yes_no=(True, None)), ("yes", (True, None))),
    (dict(flags=(("x",), ())), None),
  ],
)
def test_the_vote_of_a_judgement(fields, expected):
  assert vote(said(1, **fields)) == expected


def test_the_best_response_is_the_vote_of_a_longer_ranking():
  one, other = said(1, size=3, ranks=(2, 0, 1)), said(2, size=3, ranks=(1, 0, 2))
  assert vote(one) == vote(other) and num_agreeing([one, other]) == 2


def test_ratings_of_one_response_agree_where_they_differ_by_one_point():
  ratings = [said(n, size=1, ratings=(value,)) for n, value in enumerate((3, 4, 6, 7, 7))]
  assert num_agreeing(ratings) == 3 and num_agreeing(ratings[:3]) == 2 and num_agreeing([]) == 0


@pytest.mark.parametrize(
  "votes, expected",
  [
    ([], (2, False)), ([A], (1, False)), ([A, A], (0, False)), ([A, B], (1, False)), ([A, TIE], (1, False)),
    ([A, B, A], (0, False)), ([A, B, TIE], (0, True)),
  ],
)  # fmt: skip
def test_how_many_judgements_are_still_wanted(votes, expected):
  judgements = [said(n, ranks=ranks) for n, ranks in enumerate(votes)]
  assert still_wanted(RULE, judgements) == expected
  assert still_wanted(RULE, [*judgements, said(9, ranks=A, final=True)]) == (0, False)
  assert still_wanted(Settings(judgements_per_item=2), judgements) == (max(2 - len(votes), 0), False)


@pytest.fixture
def make(tmp_path):
  with contextlib.ExitStack() as stack:

    def build(num_items=1, settings=RULE):
      store = stack.enter_context(contextlib.closing(create_store(tmp_path / "a.db", settings)))
      items = [make_item(f"item {n}", (Response("first"), Response("second"))) for n in range(num_items)]
      people = [*map(Annotator, ("ann", "bob", "cid", "dan")), Annotator("eve", expert=True)]
      add_records(store, (people, items, []))
      return store

    yield build


def judge(store, name, first_wins=True, now=0.0, **fields):
  """A judgement for the first or second response, wherever it is shown; None where nothing is assigned."""
  assignment = next_assignment(store, name, now)
  if assignment is None:
    return None
  best = 0 if first_wins else 1
  answer = Answer(**(fields or {"ranks": [int(index != best) for index in assignment.order]}))
  return submit(store, name, assignment.lease, answer, "", now)


def test_a_disputed_item_goes_to_one_more_and_then_to_an_expert_whose_judgement_is_final(make, tmp_path):
  store = make()
  judge(store, "ann")
  judge(store, "bob", first_wins=False)
  assert next_assignment(store, "eve", 0.0).final is False  # the expert may be the third annotator too
  store.execute("DELETE FROM leases")
  assert count_open(store) == (1, 1)
  judge(store, "cid", ranks=TIE)
  assert count_open(store) == (0, 1) and judge(store, "dan") is None and progress(store, "dan") == (0, 0)
  assignment = next_assignment(store, "eve", 0.0)
  assert assignment.final and progress(store, "eve") == (0, 1)
  final = judge(store, "eve")
  assert final.final and final.ranks == A
  assert next_assignment(store, "eve", 0.0) is None and progress(store, "eve") == (1, 0)
  assert [judgement.final for judgement in read_store(tmp_path / "a.db")[2]] == [False, False, False, True]
  undo(store, "eve", final.id, 1.0)
  again = next_assignment(store, "eve", 1.0)
  assert again.final and again.draft == final
  assert judge(store, "eve", first_wins=False, now=1.0).final


def test_two_experts_do_not_settle_the_same_item_at_once_and_a_skip_leaves_it_to_the_other(make):
  store = make()
  add_records(store, ([Annotator("fay", expert=True)], [], []))
  for name, fields in (("ann", A), ("bob", B), ("cid", TIE)):
    judge(store, name, ranks=fields)
  assert next_assignment(store, "eve", 0.0).final and next_assignment(store, "fay", 0.0) is None
  judge(store, "eve", skipped="I cannot tell")
  assert judge(store, "fay").final


@pytest.mark.parametrize("again", [undo, correct], ids=["undo", "correct"])
def test_who_skipped_a_disputed_item_settles_it_after_all(make, again):
  """Else the item would wait for another expert for ever. What follows on the skip of somebody else settles nothing."""
  store = make()
  other = judge(store, "dan", skipped="I cannot tell")
  for name, ranks in (("ann", A), ("bob", B), ("cid", TIE)):
    judge(store, name, ranks=ranks)
  again(store, "dan", other.id, 1.0)
  assert not next_assignment(store, "dan", 1.0).final
  skip = judge(store, "eve", skipped="I cannot tell")
  assert not skip.final and count_disputed(store) == 1
  again(store, "eve", skip.id, 1.0)
  assert judge(store, "eve", now=1.0).final and count_disputed(store) == 0


def test_an_undo_ends_a_correction_that_was_begun(make):
  store = make(2)
  first = judge(store, "ann")
  correct(store, "ann", first.id, 1.0)
  undo(store, "ann", first.id, 2.0)
  assert progress(store, "ann") == (0, 2)
  assert judge(store, "ann", now=2.0).item == first.item and progress(store, "ann") == (1, 1)
  judge(store, "ann", now=2.0)
  assert progress(store, "ann") == (2, 0)


def test_agreement_after_a_correction_closes_the_item_and_disagreement_opens_it(make):
  store = make()
  first = judge(store, "ann")
  judge(store, "bob", first_wins=False)
  correct(store, "ann", first.id, 1.0)
  assignment = next_assignment(store, "ann", 1.0)
  assert assignment.correction and assignment.draft == first and count_open(store) == (1, 1)
  new = judge(store, "ann", first_wins=False, now=1.0)
  assert new.supersedes == first.id and count_open(store) == (0, 1)
  correct(store, "ann", new.id, 2.0)
  judge(store, "ann", now=2.0)
  assert count_open(store) == (1, 1)


def test_a_correction_can_be_given_up_and_touches_no_other_annotator(make, tmp_path):
  store = make(2)
  mine = judge(store, "ann")
  for name, judgement in (("bob", mine.id), ("ann", "none")):
    with pytest.raises(NoLease, match="no such judgement of yours to correct"):
      correct(store, name, judgement, 1.0)
  correct(store, "ann", mine.id, 1.0)
  correct(store, "ann", mine.id, 1.0)  # twice is once
  lease = next_assignment(store, "ann", 1.0).lease
  with pytest.raises(NoLease, match="this is no correction"):
    give_up(store, "bob", lease)
  give_up(store, "ann", lease)
  assignment = next_assignment(store, "ann", 1.0)
  assert not assignment.correction and assignment.item.id != mine.item
  with pytest.raises(NoLease, match="this is no correction"):
    give_up(store, "ann", assignment.lease)
  assert current(read_store(tmp_path / "a.db")[2]) == [mine]
  undo(store, "ann", mine.id, 2.0)
  withdrawn = next_assignment(store, "ann", 2.0)
  with pytest.raises(NoLease, match="this is no correction"):
    give_up(store, "ann", withdrawn.lease)


def test_own_judgements_are_found_by_a_word_and_no_one_elses(make):
  store = make(3)
  for name in ("ann", "bob"):
    while judge(store, name):
      pass
  found = own_judgements(store, "ann")
  assert [row["prompt"] for row in found] == ["item 2", "item 1", "item 0"]
  assert all(set(row) == {"id", "prompt", "created", "skipped"} for row in found)
  assert [row["prompt"] for row in own_judgements(store, "ann", "ITEM 1")] == ["item 1"]
  assert own_judgements(store, "ann", skip=2) == found[2:] and own_judgements(store, "dan") == []
  undo(store, "ann", found[0]["id"], 1.0)
  assert len(own_judgements(store, "ann")) == 2
  assert len(own_judgements(store, "ann", "first", count=1)) == 1


def test_settings_change_in_use_and_every_item_is_counted_anew(make, tmp_path):
  store = make(2, Settings(gold_every=0))
  judge(store, "ann")
  judge(store, "bob", first_wins=False)
  assert count_open(store) == (0, 2)
  change_settings(store, {"judgements_per_item": 2}, 5.0, "lea")
  assert count_open(store) == (2, 2)
  change_settings(store, {"judgements_per_item": 2}, 6.0)  # no change, no event
  change_settings(store, {"judgements_per_item": 1}, 7.0)
  assert count_open(store) == (0, 2)
  events = list(read_events(store))
  assert [(event.kind, event.by, event.value["judgements_per_item"]) for event in events] == [
    ("settings", "lea", 2), ("settings", "", 1),
  ]  # fmt: skip
  assert events[0].created == "1970-01-01T00:00:05.000Z"
  for changes, message in (
    ({"seed": 9}, "made with seed 0, which cannot change"),
    ({"judgement": 3}, "unexpected keyword argument 'judgement'"),
    ({"agreeing": 3, "at_most": 2}, "agreeing must be 0, or 2 to at_most"),
    ({"agreeing": 1, "at_most": 2}, "agreeing must be 0, or 2 to at_most"),
    ({"at_most": 2}, "at_most goes with agreeing"),
  ):
    with pytest.raises(DataError, match=message):
      change_settings(store, changes, 8.0)
  store.close()
  with contextlib.closing(open_store(tmp_path / "a.db")) as again:
    assert read_settings(again) == Settings(gold_every=0) and len(list(read_events(again))) == 2


def test_a_change_that_fails_half_way_changes_nothing(make, monkeypatch):
  """As if the process had been killed there: neither the event nor any item of the queue is changed."""
  store = make(3, Settings(gold_every=0))
  left = [3]

  def fails_at_the_third(*arguments):
    left[0] -= 1
    if not left[0]:
      raise KeyboardInterrupt
    recount(*arguments)

  monkeypatch.setattr("rlhf_jax.feedback.project.recount", fails_at_the_third)
  with pytest.raises(KeyboardInterrupt):
    change_settings(store, {"judgements_per_item": 2}, 1.0)
  assert list(read_events(store)) == [] and read_settings(store) == Settings(gold_every=0)
  assert {remaining for (remaining,) in store.execute("SELECT remaining FROM queue")} == {1}


def test_judgements_keep_the_questions_they_were_given_under(make):
  store = make(2, Settings(gold_every=0))
  other = Questions(flags=Flags(("odd",)))
  assert set_questions(store, other, 1.0, "lea") and not set_questions(store, other, 2.0)
  assert current_questions(store) == other

  def answer(flag, questions):
    assignment = next_assignment(store, "ann", 3.0)
    given = Answer(ranks=A, flags=[[flag], []])
    return submit(store, "ann", assignment.lease, given, "", 3.0, questions)

  with pytest.raises(DataError, match="'flags' has 'harmful', and must be of odd"):
    answer("harmful", other)
  assert answer("odd", other).questions == other.version
  set_questions(store, Questions(), 4.0)
  assert answer("harmful", Questions()).questions == ""
  assert [event.kind for event in read_events(store)] == ["questions", "questions"]


def test_a_revoked_annotator_loses_link_session_and_lease_and_no_judgement(make, tmp_path):
  store = make(2, Settings(gold_every=0))
  token = issue_token(store, "ann")
  session = log_in(store, token, 0.0)
  kept = judge(store, "ann")
  assignment = next_assignment(store, "ann", 0.0)
  revoke(store, "ann", 1.0, by="lea")
  assert session_name(store, session, 1.0) is None and log_in(store, token, 1.0) is None
  with pytest.raises(NoLease):
    submit(store, "ann", assignment.lease, Answer(ranks=A), "", 1.0)
  assert read_store(tmp_path / "a.db")[2] == [kept] and count_open(store) == (1, 2)
  revoke(store, "ann", 2.0, discounted=True)
  revoke(store, "ann", 2.5)  # nothing new: neither an event nor a discount that is taken back
  assert revoked(store) == {"ann": True} and count_open(store) == (2, 2)
  restore(store, "ann", 3.0)
  restore(store, "bob", 3.0)  # who was not revoked: nothing happens
  assert revoked(store) == {} and count_open(store) == (1, 2)
  assert [event.kind for event in read_events(store)] == ["revoked", "revoked", "restored"]
  with pytest.raises(DataError, match="no annotator 'zoe'"):
    revoke(store, "zoe", 4.0)


def test_the_queue_follows_from_records_and_settings_alone(make):
  """After a random history of judgements, corrections, undos, skips, revocations and changes, nothing is to recount."""
  store = make(6)
  rng = random.Random(0)
  table = "SELECT item, remaining, disputed FROM queue"
  seen = set()
  for step in range(100):
    name = rng.choice(("ann", "bob", "cid", "dan", "eve"))
    mine = own_judgements(store, name)
    match rng.randrange(8):
      case 0 if mine:
        undo(store, name, rng.choice(mine)["id"], step)
      case 1 if mine:
        correct(store, name, rng.choice(mine)["id"], step)
      case 2 if step % 5 == 0:
        (restore if name in revoked(store) else revoke)(store, name, step)
      case 3 if step % 7 == 0:
        change_settings(store, {"judgements_per_item": rng.randint(1, 3)}, step)
      case 4 if step % 3 == 0:
        judge(store, name, now=step, skipped="I cannot tell")
      case _:
        judge(store, name, now=step, ranks=rng.choice((A, B, TIE)))
    before = store.execute(table).fetchall()
    seen |= {(min(remaining, 1), disputed) for _, remaining, disputed in before}
    store.execute("UPDATE queue SET remaining = 99, disputed = 0")
    for item, _, _ in before:
      recount(store, item)
    assert store.execute(table).fetchall() == before
  assert seen == {(0, 0), (1, 0), (0, 1)}


def test_events_are_never_changed_and_a_damaged_one_is_named(make):
  store = make()
  change_settings(store, {"judgements_per_item": 1}, 1.0)
  for change in ("DELETE FROM events", "UPDATE events SET kind = 'x'"):
    with pytest.raises(sqlite3.IntegrityError, match="records of events are never changed or deleted"):
      store.execute(change)
  store.execute("DROP TRIGGER events_keep_UPDATE")
  store.execute("UPDATE events SET row = replace(row, 'settings', 'sittings')")
  with pytest.raises(StoreError, match="events 1: the record is damaged"):
    read_settings(store)


def test_a_record_that_is_damaged_after_it_was_read_is_named(make):
  """Parsed records are kept by their stored text, so that another text is another record."""
  store = make()
  kept = judge(store, "ann")
  assert find(store, Judgement, kept.id) == find(store, Judgement, kept.id) == kept
  store.execute("DROP TRIGGER judgements_keep_UPDATE")
  store.execute("UPDATE judgements SET row = replace(row, '\"ranks\": [0, 1]', '\"ranks\": [1, 0]')")
  for read in (lambda: find(store, Judgement, kept.id), lambda: recount(store, kept.item)):
    with pytest.raises(StoreError, match="the record is damaged"):
      read()


def test_a_store_of_an_older_version_is_given_what_it_lacks_and_keeps_what_it_has(tmp_path):
  path = tmp_path / "old.db"
  with contextlib.closing(create_store(path, Settings(judgements_per_item=2))) as store:
    items = [make_item("p", (Response("a"), Response("b")))]
    add_records(store, ([Annotator("ann")], items, [Judgement("j", items[0].id, "ann", (0, 1), ranks=A)]))
    for statement in (
      "DROP TABLE events", "DROP TABLE revoked", "DROP TABLE lead_tokens", "DROP TABLE lead_sessions",
      "DROP INDEX queue_disputed", "DROP INDEX judgements_by_item", "ALTER TABLE queue DROP COLUMN disputed",
      "ALTER TABLE leases DROP COLUMN final", "DELETE FROM meta WHERE name IN ('agreeing', 'at_most')",
    ):  # fmt: skip
      store.execute(statement)
    rows = store.execute("SELECT row FROM judgements").fetchall()
  for _ in range(2):
    with contextlib.closing(open_store(path)) as store:
      assert store.execute("SELECT row FROM judgements").fetchall() == rows
      assert read_settings(store) == Settings(judgements_per_item=2) and count_open(store) == (1, 1)
      assert list(read_events(store)) == [] and issue_token(store, "lea", LEAD)
