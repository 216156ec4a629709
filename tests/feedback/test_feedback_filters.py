"""Filters at export: each takes what it names, counts what it leaves out, and keeps corrections with their history."""

import dataclasses

import pytest

from rlhf_jax.cli import main
from rlhf_jax.data import DataError, read_rows
from rlhf_jax.feedback.exchange import convert, read_records, write_records
from rlhf_jax.feedback.filters import Filter, select
from rlhf_jax.feedback.learner_rows import SHAPES
from rlhf_jax.feedback.project import change_settings, revoke, set_questions
from rlhf_jax.feedback.questions import Questions, YesNo
from rlhf_jax.feedback.records import SETTLED, Annotator, Item, Judgement, Response
from rlhf_jax.feedback.store import add_guidelines, opened

ITEMS = [Item(name, "?", (Response("a"), Response("b"))) for name in ("i", "j")]
PEOPLE = [Annotator("ann"), Annotator("bob"), Annotator("eve", expert=True)]


def said(name, item, annotator, day, **fields):
  return Judgement(name, item, annotator, (0, 1), created=f"2026-01-{day:02}T12:00:00.000Z", **fields)


SAID = [
  said("1", "i", "ann", 1, ranks=(0, 1), flags=(("rude",), ())),
  said("2", "i", "bob", 2, ranks=(1, 0), aspects={"kind": (1, None)}),
  said("3", "i", "eve", 3, ranks=(0, 1), final=True),
  said("4", "j", "ann", 4, ranks=(1, 0), ratings=(2, 6), aspects={"kind": (7, 5)}),
  said("5", "j", "bob", 5, ranks=(0, 1)),
  said("6", "j", "bob", 8, ranks=(1, 0), supersedes="5"),
]
RECORDS = (PEOPLE, ITEMS, SAID)


@pytest.mark.parametrize(
  "wanted, kept",
  [
    ({}, "123456"),
    ({"annotators": ("ann", "eve")}, "134"),
    ({"without_annotators": ("bob",)}, "134"),
    ({"since": "2026-01-04"}, "456"),  # the correction of day 8 with what it corrects
    ({"since": "2026-01-04T12:00:00Z"}, "456"),
    ({"since": "2026-01-04T12:00:00.001Z"}, "56"),
    ({"until": "2026-01-04"}, "123"),
    ({"until": "2026-01-06"}, "1234"),
    ({"flags": ("rude",)}, "1"),
    ({"without_flags": ("rude", "odd")}, "23456"),
    ({"final": True}, "3456"),
    ({"final": True, "annotators": ("ann",)}, "14"),  # without the expert nothing is settled
    ({"final": True, "until": "2026-01-03"}, "12"),
    ({"final": True, "without_flags": ("rude",)}, "3456"),
  ],
)
def test_what_a_filter_keeps(wanted, kept):
  (people, items, judgements), left_out = select(RECORDS, Filter(**wanted), "a.jsonl")
  assert (people, items) == (PEOPLE, ITEMS) and "".join(judgement.id for judgement in judgements) == kept
  standing = {"1", "2", "3", "4", "6"}
  assert left_out.total() == len(standing - set(kept))


def test_what_an_answer_says_brings_no_overruled_judgement_back():
  """The expert's answer has the flag that is left out: the item has none, and not one of those who were overruled."""
  flagged = [*SAID[:2], dataclasses.replace(SAID[2], flags=(("odd",), ())), *SAID[3:]]
  (_, _, kept), left_out = select((PEOPLE, ITEMS, flagged), Filter(final=True, without_flags=("odd",)), "a.jsonl")
  assert [judgement.id for judgement in kept] == ["4", "5", "6"]
  assert left_out == {"with a flag that is left out": 1, SETTLED: 2}


@pytest.mark.parametrize("shape", ["rankings", "pairs"])
def test_rows_for_learners_are_those_of_the_answers(shape, tmp_path):
  write_records(tmp_path / "a.db", RECORDS)
  told = convert(tmp_path / "a.db", tmp_path / "a.jsonl", shape)
  assert told == f"3 {shape}; left out 2 judgements {SETTLED}"
  rows = [row for _, row in read_rows(tmp_path / "a.jsonl")]
  assert [(row["group"], row.get("final", False)) for row in rows] == [("3", True), ("4", False), ("6", False)]
  assert SHAPES[shape](RECORDS) == rows


def test_an_aspect_takes_the_place_of_the_ratings():
  (_, _, judgements), left_out = select(RECORDS, Filter(aspect="kind"), "a.jsonl")
  assert [(j.id, j.ratings, j.aspects) for j in judgements] == [("2", (1, None), None), ("4", (7, 5), None)]
  assert left_out == {"without a rating of the aspect": 3}


@pytest.mark.parametrize(
  "wanted, message",
  [
    ({"annotators": ("anna",)}, "--annotators: the records have no 'anna'. Did you mean 'ann'?"),
    ({"without_annotators": ("zoe",)}, "the records have no 'zoe'"),
    ({"aspect": "kin"}, "--aspect: the records have no 'kin'. Did you mean 'kind'?"),
    ({"without_revoked": True}, "a.jsonl: --without-revoked needs the store"),
  ],
)
def test_a_filter_that_fits_nothing_is_named(wanted, message):
  with pytest.raises(DataError) as error:
    select(RECORDS, Filter(**wanted), "a.jsonl")
  assert message in str(error.value)


@pytest.mark.parametrize("time", ["yesterday", "2026-01-04T12:00:00+02:00", "2026-01-04T12:00:00", "2026-13-01"])
def test_a_time_is_a_day_or_in_utc(time):
  with pytest.raises(DataError, match=f"--since {time[:6]}.*must be a day as in 2026-01-31"):
    Filter(since=time)


def test_the_command_says_what_it_leaves_out(tmp_path, capsys):
  path, out = tmp_path / "a.db", tmp_path / "out.jsonl"
  write_records(path, RECORDS)
  assert main(["convert", str(path), str(out), "--as", "pairs", "--final", "--since", "2026-01-02"]) == 0
  told = capsys.readouterr().out
  reasons = "before --since", "of an item that an expert has settled"
  assert told == f"{out}: 3 pairs{''.join(f'; left out 1 judgements {reason}' for reason in reasons)}\n"
  with opened(path) as store:
    revoke(store, "bob", 0.0)
  assert main(["convert", str(path), str(out), "--without-revoked"]) == 0
  assert [judgement.id for judgement in read_records(out)[2]] == ["1", "3", "4"]
  assert main(["convert", str(path), str(out), "--as", "ratings", "--aspect", "kind"]) == 0
  assert [row["rating"] for _, row in read_rows(out)] == [7, 5]  # the other item is settled, by other words


def test_events_are_exported_with_the_questions_and_their_version(tmp_path, capsys):
  path, out = tmp_path / "a.db", tmp_path / "events.jsonl"
  write_records(path, RECORDS)
  asked = Questions(ask=("yes_no",), yes_no=YesNo("Good?"))
  with opened(path) as store:
    version = add_guidelines(store, "Be kind.")
    change_settings(store, {"judgements_per_item": 2}, 0.0, "lea")
    set_questions(store, asked, 1.0)
  assert main(["convert", str(path), str(out), "--as", "events"]) == 0
  rows = [row for _, row in read_rows(out)]
  assert [row["kind"] for row in rows] == ["guidelines", "settings", "questions"]
  assert rows[0]["version"] == version and rows[2]["version"] == asked.version
  assert rows[2]["value"]["yes_no"] == {"question": "Good?"} and rows[1]["by"] == "lea"
  assert main(["convert", str(out), str(tmp_path / "b.jsonl"), "--as", "events"]) == 2
  assert "events are those of a store, a .db" in capsys.readouterr().err
