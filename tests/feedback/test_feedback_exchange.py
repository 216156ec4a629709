"""Files of feedback: lossless, byte for byte the same a second time, errors with file and line; learners' rows."""

import csv
import json

import pytest
from judged import ANNOTATORS, ITEMS, JUDGEMENTS, RECORDS, SAMPLED

from rlhf_jax.data import DataError, read_comparisons
from rlhf_jax.feedback import learner_rows
from rlhf_jax.feedback.exchange import convert, from_dataset, read_records, to_dataset, write_csv, write_records
from rlhf_jax.feedback.record_rows import to_row
from rlhf_jax.feedback.records import Annotator

ROWS = [json.dumps(to_row(record)) for kind in RECORDS for record in kind]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.db"])
def test_files_are_lossless_and_a_second_export_is_the_same_bytes(name, tmp_path):
  path = tmp_path / name
  write_records(path, RECORDS)
  assert read_records(path) == RECORDS
  for suffix in (".jsonl", ".parquet"):  # by way of this file, or straight
    write_records(tmp_path / f"straight{suffix}", RECORDS)
    convert(path, tmp_path / f"first{suffix}")
    convert(path, tmp_path / f"second{suffix}")
    exports = [(tmp_path / f"{way}{suffix}").read_bytes() for way in ("straight", "first", "second")]
    assert exports[0] == exports[1] == exports[2]


def test_a_dataset_is_lossless():
  dataset = to_dataset(RECORDS)
  assert from_dataset(dataset) == RECORDS
  assert [row["ranks"] for row in dataset if row["type"] == "judgement"][1] == [0, 2, 1]
  bad = [{**row, "kind": "robot"} if row["id"] == "ann" else row for row in dataset]
  with pytest.raises(DataError, match="^dataset, row 1: 'kind' is 'robot'"):
    from_dataset(bad)


def test_a_dataset_on_disk_is_lossless_and_a_second_export_is_the_same_bytes(tmp_path):
  store = tmp_path / "a.db"
  write_records(store, RECORDS)
  for name in ("first", "second"):
    assert convert(store, tmp_path / name, "dataset") == "3 annotators, 3 items, 8 judgements"
  assert read_records(tmp_path / "first") == RECORDS
  files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("first", "second")]
  assert files[0] == files[1] and any(name.endswith(".arrow") for name in files[0])
  for name in files[0]:
    assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
  with pytest.raises(DataError, match="first: exists already"):
    convert(store, tmp_path / "first", "dataset")
  with pytest.raises(DataError, match="is a directory, and no dataset"):
    read_records(tmp_path)


def test_adding_a_file_twice_or_in_parts_to_a_store_adds_each_record_once(tmp_path):
  whole, store = tmp_path / "whole.jsonl", tmp_path / "a.db"
  write_records(whole, RECORDS)
  write_records(store, (ANNOTATORS, ITEMS, JUDGEMENTS[:3]))
  assert convert(whole, store) == "3 annotators, 3 items, 8 judgements"
  convert(whole, store)
  assert read_records(store) == RECORDS


@pytest.mark.parametrize(
  "line, row, message",
  [
    (2, "{", "not one JSON object"),
    (2, '{"type": "annotator", "id": "x", "knd": "human"}', "has no 'knd'. Did you mean 'kind'?"),
    (2, '{"type": "annotator", "id": "ann", "kind": "model"}', "the id 'ann' occurs before with other content"),
    (7, '{"type": "judgement", "id": "x", "item": "pair", "annotator": "zoe", "order": [0, 1], "ranks": [0, 1]}',
     "unknown annotator 'zoe'; its row must come before"),
    (7, '{"type": "judgement", "id": "x", "item": "nil", "annotator": "ann", "order": [0, 1], "ranks": [0, 1]}',
     "unknown item 'nil'; its row must come before"),
    (7, '{"type": "judgement", "id": "x", "item": "triple", "annotator": "ann", "order": [0, 1], "ranks": [0, 1]}',
     "judges 2 responses, but item 'triple' has 3"),
    (9, '{"type": "judgement", "id": "x", "item": "pair", "annotator": "ann", "order": [0, 1], "ranks": [0, 1], '
     '"supersedes": "j9"}', "supersedes the unknown judgement 'j9'"),
    (9, '{"type": "judgement", "id": "x", "item": "pair", "annotator": "bob", "order": [0, 1], "ranks": [0, 1], '
     '"supersedes": "j1"}', "supersedes 'j1', which is of another item or annotator"),
  ],
)  # fmt: skip
def test_a_malformed_row_is_named_with_file_and_line(line, row, message, tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text("\n".join([*ROWS[: line - 1], row, *ROWS[line - 1 :]]) + "\n")
  with pytest.raises(DataError) as error:
    read_records(path)
  assert str(error.value).startswith(f"{path}:{line}: ") and message in str(error.value)
  with pytest.raises(DataError):
    convert(path, tmp_path / "a.db")
  assert not (tmp_path / "a.db").exists()


def test_other_files_that_cannot_be_read(tmp_path):
  (tmp_path / "a.parquet").write_text("no")
  (tmp_path / "a.db").write_text("no store of anything" * 100)
  for name, message in (("a.parquet", "cannot be read as Parquet"), ("a.db", "it is damaged or no store"),
                        ("b.db", "there is no such file"), ("b.jsonl", "cannot be read")):  # fmt: skip
    with pytest.raises(DataError, match=message):
      read_records(tmp_path / name)
  with pytest.raises(DataError, match="ends in .db, .jsonl"):
    write_records(tmp_path / "a.txt", RECORDS)


def test_a_contradiction_leaves_the_store_as_it_was(tmp_path):
  path = tmp_path / "a.db"
  write_records(path, (ANNOTATORS, ITEMS, JUDGEMENTS[:2]))
  with pytest.raises(DataError, match="'ann' is among the annotators already, with other content"):
    write_records(path, ([Annotator("zoe"), Annotator("ann", "model")], [], []))
  assert read_records(path) == (ANNOTATORS, ITEMS, JUDGEMENTS[:2])


def test_rankings_and_pairs_keep_their_group():
  """By hand: j1 (pair), j2 (three ranked), j3 (two of three, tied), j6 (a tie, after an undo)."""
  rankings = learner_rows.rankings(RECORDS)
  assert [(row["group"], row["ranks"], row["annotator"]) for row in rankings] == [
    ("j1", [0, 1], "ann"), ("j2", [0, 2, 1], "ann"), ("j3", [0, 0, -1], "bob"), ("j6", [1, 1], "bob")]  # fmt: skip
  assert rankings[0]["strength"] == 3 and "strength" not in rankings[1]
  assert [(row["group"], row["responses"], row["ranks"]) for row in learner_rows.pairs(RECORDS)] == [
    ("j1", ["Oakford.", "Nowhere."], [0, 1]),
    ("j2", ["hi", "=1+1"], [0, 1]),
    ("j2", ["hi", "hé"], [0, 1]),
    ("j2", ["=1+1", "hé"], [1, 0]),
    ("j3", ["hi", "=1+1"], [0, 0]),
    ("j6", ["Oakford.", "Nowhere."], [0, 0]),
  ]


@pytest.mark.parametrize("shape, kept, tied", [("rankings", 2, 2), ("pairs", 4, 2)])
def test_comparisons_are_read_by_the_reader_of_learners(shape, kept, tied, tmp_path):
  source, target = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
  write_records(source, RECORDS)
  assert convert(source, target, shape) == f"{kept + tied} {shape}"
  comparisons, skips = read_comparisons(target)
  assert len(comparisons) == kept and skips == {"all responses tied": tied}
  assert comparisons[0] == ("Where does Max live?", ("Oakford.", "Nowhere."), (0, 1), "ann")


def test_ratings_and_critiques():
  assert [(row["response"], row["rating"], row["group"]) for row in learner_rows.ratings(RECORDS)] == [
    ("hi", 7, "j2"), ("hé", 3, "j2"), ("Yes.", 6, "j8"), ("No.", 1, "j8")]  # fmt: skip
  (row,) = learner_rows.critiques(RECORDS)
  assert row == {"prompt": ITEMS[1].prompt, "annotator": "ann", "response": "=1+1", "critique": "wrong",
                 "rewrite": "1 + 1 is 2", "flags": ["harmful"], "item": "triple", "group": "j2",
                 "source": SAMPLED}  # fmt: skip


def test_nothing_of_a_shape_is_an_error(tmp_path):
  write_records(tmp_path / "a.jsonl", (ANNOTATORS, ITEMS, JUDGEMENTS[:1]))
  with pytest.raises(DataError, match="none of its judgements holds ratings"):
    convert(tmp_path / "a.jsonl", tmp_path / "b.jsonl", "ratings")


def test_no_cell_of_a_csv_is_a_formula(tmp_path):
  """OWASP, CSV injection: a model's answer must not run in the spreadsheet of whoever reads it."""
  attacks = ['=HYPERLINK("http://x","y")', "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "  =1", "＝1", "\n=1"]
  path = tmp_path / "a.csv"
  write_csv(path, [{"text": text, "number": -1} for text in [*attacks, "plain", "a = b", ""]])
  with open(path, newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert [row["text"] for row in rows] == [*(f"'{attack}" for attack in attacks), "plain", "a = b", ""]
  assert {row["number"] for row in rows} == {"-1"}
  write_records(tmp_path / "a.jsonl", RECORDS)
  convert(tmp_path / "a.jsonl", path, "ratings")
  assert path.read_text().splitlines()[0] == "prompt,annotator,response,rating,item,group,source"


def test_comparisons_of_a_run_are_read_as_records(tmp_path):
  """By hand: two labellers of one group; the gold scores rank the second response first and the rest equal."""
  rows = [
    {"prompt": "p", "responses": ["a", "b", "c"], "ranks": [0, 1, 2], "annotator": "expert 0", "gold": [1, 2.5, 1]},
    {"prompt": "p", "responses": ["a", "b", "c"], "ranks": [1, 0, -1], "annotator": "biased 1", "gold": [1, 2.5, 1]},
    {"prompt": "q", "responses": ["d", "e"], "ranks": [0, 0]},
  ]
  path = tmp_path / "comparisons.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  annotators, items, judgements = read_records(path)
  assert [(a.id, a.kind) for a in annotators] == [
    ("expert 0", "simulated"), ("biased 1", "simulated"), ("unknown", "human")]  # fmt: skip
  assert [(item.prompt, item.gold_ranks) for item in items] == [("p", (1, 0, 1)), ("q", None)]
  assert [(j.item, j.ranks, j.order) for j in judgements] == [
    (items[0].id, (0, 1, 2), (0, 1, 2)),
    (items[0].id, (1, 0, -1), (0, 1, 2)),
    (items[1].id, (0, 0), (0, 1)),
  ]
  path.write_text(json.dumps(rows[0]) + "\n" + '{"prompt": "p", "responses": ["a", "b"]}\n')
  with pytest.raises(DataError, match="comparisons.jsonl:2: found the columns prompt, responses; a row is a record"):
    read_records(path)
