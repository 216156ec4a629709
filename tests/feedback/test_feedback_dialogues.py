"""Items about a dialogue: its messages in every file, on the page and for learners, and text of older files."""

import json

import pytest

from rlhf_jax.data import DataError, Message, read_comparisons
from rlhf_jax.feedback.collect import make_items, read_responses
from rlhf_jax.feedback.exchange import convert, from_dataset, read_records, to_dataset, write_records
from rlhf_jax.feedback.record_rows import from_row, to_row
from rlhf_jax.feedback.records import Annotator, Item, Judgement, Response, make_item

PROMPT = (
  Message("system", "Be brief."),
  Message("user", "Hi\n\nAssistant: Ho", '{"name": "Tom"}'),
  Message("assistant", "Hello"),
  Message("user", "Bye"),
)
TEXT = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:"


def records():
  items = [make_item(prompt, (Response("a"), Response("b"))) for prompt in (PROMPT, "Hi", (Message("user", TEXT),))]
  judgements = [Judgement(f"j{i}", item.id, "ann", (0, 1), ranks=(1, 0)) for i, item in enumerate(items)]
  return [Annotator("ann")], items, judgements


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.db"])
def test_dialogues_survive_every_file_of_records(tmp_path, name):
  write_records(tmp_path / name, records())
  assert read_records(tmp_path / name) == records()
  convert(tmp_path / name, tmp_path / "r.jsonl", "rankings")
  found, _ = read_comparisons(tmp_path / "r.jsonl")
  assert [row.prompt for row in found] == [item.prompt for item in records()[1]]
  again = read_records(tmp_path / "r.jsonl")[1]
  assert [item.prompt for item in again] == [item.prompt for item in records()[1]]


def test_dialogues_survive_a_dataset():
  assert from_dataset(to_dataset(records())) == records()
  row = {"type": "item", "id": "i", "messages": "[", "responses": []}
  with pytest.raises(DataError, match="row 1: 'messages' must be a list of messages as JSON"):
    from_dataset([row])


def test_items_of_older_files_hold_the_text_of_a_dialogue():
  row = {"type": "item", "id": "i", "prompt": TEXT, "responses": [{"text": "a"}]}
  item = from_row(Item, row, "a.jsonl:1")
  assert item.prompt == (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye"))
  assert from_row(Item, to_row(item), "b.jsonl:1") == item


def test_responses_to_a_dialogue_are_collected(tmp_path):
  rows = [{"prompt": [message.row() for message in PROMPT], "responses": ["a", "b"]}, {"prompt": TEXT, "response": "c"}]
  (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  items, skips = make_items([], [], 0, 0, read_responses(tmp_path / "a.jsonl"))
  assert [item.prompt for item in items][0] == PROMPT and len(items) == 2 and not skips
