"""Yes or no, aspects, spans, "all are bad" and final judgements: checked, lossless in files, and rows of them."""

import dataclasses

import pytest

from rlhf_jax.data import DataError, read_rows, write_rows
from rlhf_jax.feedback import learner_rows
from rlhf_jax.feedback.exchange import from_dataset, read_records, to_dataset, write_records
from rlhf_jax.feedback.record_rows import LATER, from_row, to_row
from rlhf_jax.feedback.records import Annotator, Item, Judgement, Response, collect_records

ITEM = Item("i", "Who is Max?", (Response("A cat 😺."), Response("A dog.")))
PEOPLE = [Annotator("ann"), Annotator("eve", expert=True)]
SAID = [
  Judgement("j1", "i", "ann", (1, 0), yes_no=(True, None), aspects={"helpful": (7, None), "harmless": (None, 2)},
            spans=(((0, 5, "false"), (2, 7, "rude")), ()), flags=((), ("harmful",)), questions="abc"),
  Judgement("j2", "i", "eve", (0, 1), ranks=(0, 0), all_bad=True, yes_no=(False, False), final=True),
  Judgement("j3", "i", "ann", (0, 1), spans=((), ())),
]  # fmt: skip
RECORDS = (PEOPLE, [ITEM], SAID)
PAIR = dict(id="j", item="i", annotator="ann", order=[0, 1])


@pytest.mark.parametrize(
  "change, message",
  [
    ({"yes_no": [True]}, "'yes_no' has 1 entries for 2 responses"),
    ({"yes_no": [1, 0]}, "'yes_no[0]' must be true, false or null, found 1"),
    ({"yes_no": [None, None]}, "a judgement must say something"),
    ({"yes_no": [True, None], "skipped": "why"}, "'skipped' judgements have no ratings, no ranks and no yes or no"),
    ({"aspects": {"kind": [8, 1]}}, "'aspects[kind][0]' must be 1 to 7 or null, found 8"),
    ({"aspects": {"a\nb": [7, 1]}}, "'aspects' must be 1 to 200 printable characters"),
    ({"aspects": {}}, "a judgement must say something"),
    ({"aspects": [[1, 2]]}, "'aspects' must be an object"),
    ({"spans": [[[0, 0, "x"]], []]}, "'spans[0][0]' must be [start, end, label] with 0 <= start < end"),
    ({"spans": [[[0, True, "x"]], []]}, "'spans[0][0]' must be [start, end, label]"),
    ({"spans": [[[0, 1, ""]], []]}, "'spans[0][0]' must be 1 to 200 printable characters"),
    ({"spans": [[[0, 1]], []]}, "'spans[0][0]' must be [start, end, label]"),
    ({"ranks": [0, 1], "all_bad": True}, "'all_bad' needs ranks that tie all responses"),
    ({"ratings": [1, 1], "all_bad": True}, "'all_bad' needs ranks that tie all responses"),
    ({"ranks": [0, 0], "all_bad": 1}, "'all_bad' must be true or false, found 1"),
    ({"ranks": [0, 0], "final": "yes"}, "'final' must be true or false"),
  ],
)
def test_what_is_no_judgement_is_refused(change, message):
  with pytest.raises(DataError) as error:
    from_row(Judgement, {**PAIR, **change}, "a.jsonl:3")
  assert str(error.value).startswith("a.jsonl:3: ") and message in str(error.value)


def test_a_span_lies_in_its_response_and_only_an_expert_settles_an_item():
  for judgement, message in (
    (Judgement("j", "i", "ann", (0, 1), spans=((), ((0, 7, "x"),))), "ends behind the 6 characters of its response"),
    (Judgement("j", "i", "ann", (0, 1), ranks=(0, 1), final=True), "'ann' is no expert"),
  ):
    with pytest.raises(DataError, match=message):
      collect_records([("here", record) for record in (*PEOPLE, ITEM, judgement)])


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.db"])
def test_every_kind_of_file_keeps_everything(tmp_path, name):
  write_records(tmp_path / name, RECORDS)
  assert read_records(tmp_path / name) == RECORDS


def test_a_dataset_keeps_everything():
  pytest.importorskip("datasets")
  assert from_dataset(to_dataset(RECORDS)) == RECORDS


def test_a_judgement_without_the_later_fields_has_the_row_of_the_first_stores():
  row = to_row(Judgement("j", "i", "ann", (0, 1), ranks=(0, 1)))
  assert not row.keys() & set(LATER) and list(row)[:5] == ["type", "schema", "id", "item", "annotator"]
  assert set(LATER) <= to_row(SAID[0]).keys() | to_row(SAID[1]).keys()


def test_rows_of_yes_and_no_and_of_spans_come_back(tmp_path):
  said = [SAID[0], dataclasses.replace(SAID[1], final=False), SAID[2]]  # which would stand for the item alone
  rows = learner_rows.yes_no((PEOPLE, [ITEM], said))
  assert [(row["response"], row["label"], row["group"]) for row in rows] == [
    ("A cat 😺.", True, "j1"), ("A cat 😺.", False, "j2"), ("A dog.", False, "j2"),
  ]  # fmt: skip
  words = learner_rows.critiques((PEOPLE, [ITEM], said))
  assert [row.get("spans") for row in words] == [[[0, 5, "false"], [2, 7, "rude"]], None]
  write_rows(tmp_path / "rows.jsonl", rows)
  write_rows(tmp_path / "words.jsonl", words)
  assert [row["label"] for _, row in read_rows(tmp_path / "rows.jsonl")] == [True, False, False]
  _, _, judgements = read_records(tmp_path / "rows.jsonl", tmp_path / "words.jsonl")
  found = {judgement.id: judgement for judgement in judgements}
  assert found["j1"].yes_no == SAID[0].yes_no and found["j1"].spans == SAID[0].spans
  assert found["j2"].yes_no == SAID[1].yes_no
