"""Records check themselves, say what is wrong, and come back from their rows unchanged."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from judged import ANNOTATORS, ITEMS, JUDGEMENTS

from rlhf_jax.data import DataError
from rlhf_jax.feedback.record_rows import from_row, record_of, to_row
from rlhf_jax.feedback.records import Annotator, Item, Judgement, Response, current, make_item, timestamp

ROOT = Path(__file__).parents[2]
PAIR = dict(id="j", item="i", annotator="a", order=[0, 1])


@pytest.mark.parametrize("record", [*ANNOTATORS, *ITEMS, *JUDGEMENTS], ids=lambda record: record.id)
def test_a_record_comes_back_from_json(record):
  row = json.loads(json.dumps(to_row(record)))
  assert row["schema"] == 1 and row["type"] == type(record).__name__.lower()
  assert record_of(row, "here") == record


@pytest.mark.parametrize(
  "change, message",
  [
    ({"ranks": [0]}, "'ranks' has 1 entries for 2 responses"),
    ({"ranks": [0, -2]}, "'ranks' must be integers from 0 (best), -1 for absent; found [0, -2]"),
    ({"ranks": [0, -1]}, "'ranks' must rank at least two responses"),
    ({"ranks": [0, True]}, "'ranks' must be integers"),
    ({"ranks": "01"}, "'ranks' must be a list, found '01'"),
    ({"ratings": [0, 7]}, "'ratings[0]' must be 1 to 7 or null, found 0"),
    ({"ratings": [4.0, 7]}, "'ratings[0]' must be 1 to 7 or null, found 4.0"),
    ({"ratings": [None, None]}, "a judgement must say something"),
    ({}, "a judgement must say something"),
    ({"flags": [[], []]}, "a judgement must say something"),
    ({"ranks": [0, 0], "strength": 1}, "'strength' needs two responses and a winner"),
    ({"ratings": [1, 2], "strength": 1}, "'strength' needs two responses and a winner"),
    ({"order": [0, 1, 2], "ranks": [0, 1, 2], "strength": 1}, "'strength' needs two responses and a winner"),
    ({"ranks": [0, 1], "strength": 4}, "'strength' must be 1 to 3 or null, found 4"),
    ({"ranks": [0, 1], "order": [1, 1]}, "'order' must be a permutation of 0..K-1, found [1, 1]"),
    ({"ranks": [0, 1], "skipped": "no idea"}, "'skipped' judgements have no ratings, no ranks and no yes or no"),
    ({"skipped": " "}, "'skipped' must be 1 to 200 printable characters"),
    ({"ranks": [0, 1], "annotator": "a\nb"}, "'annotator' must be 1 to 200 printable characters"),
    ({"ranks": [0, 1], "critiques": ["a"]}, "'critiques' has 1 entries"),
    ({"ranks": [0, 1], "critiques": ["a", None]}, "'critiques[1]' must be a string, found None"),
    ({"critiques": ["\ud800", ""]}, "'critiques[0]' holds the unpaired surrogate '\\ud800' (character 0)"),
    ({"flags": [["harmful"], "no"]}, "'flags[1]' must be a list"),
    ({"ranks": [0, 1], "seconds": -1}, "'seconds' must be a finite number >= 0"),
    ({"ranks": [0, 1], "seconds": float("nan")}, "'seconds' must be a finite number >= 0"),
    ({"ranks": [0, 1], "created": "yesterday"}, "'created' must be a time in ISO 8601, found 'yesterday'"),
    ({"ranks": [0, 1], "created": "2026-01-01T00:00:00+02:00"}, "'created' must be in UTC"),
    ({"ranks": [0, 1], "created": "2026-01-01T00:00:00"}, "'created' must be in UTC"),
    ({"ranks": [0, 1], "supersedes": "j"}, "'supersedes' names the judgement itself"),
    ({"rank": [0, 1]}, "a row of type 'judgement' has no 'rank'. Did you mean 'ranks'?"),
    ({"schema": 2}, "'schema' is 2, this version reads 1"),
    ({"type": "judgment"}, "'type' is 'judgment', expected 'judgement'"),
  ],
)
def test_a_wrong_judgement_is_named_with_its_place(change, message):
  with pytest.raises(DataError) as error:
    from_row(Judgement, {**PAIR, **change}, "file.jsonl:7")
  assert str(error.value).startswith("file.jsonl:7: ") and message in str(error.value)


@pytest.mark.parametrize(
  "row, message",
  [
    ({"type": "annotator", "id": "a", "kind": "humn"}, "'kind' is 'humn'. Did you mean 'human'?"),
    ({"type": "annotator", "id": "a", "expert": 1}, "'expert' must be true or false, found 1"),
    ({"type": "item", "id": "i", "prompt": "p"}, "the row of type 'item' lacks 'responses'; add it"),
    ({"type": "item", "id": "i", "prompt": "p", "responses": []}, "'responses' must be at least one response"),
    ({"type": "item", "id": "i", "prompt": "p", "responses": ["x"]}, "'responses[0]' must be an object"),
    ({"type": "item", "id": "i", "prompt": "p", "responses": [{"source": {}}]}, "'responses[0]' lacks 'text'"),
    ({"type": "item", "id": "i", "prompt": "p", "responses": [{"text": "x", "score": 1}]}, "has no 'score'"),
    (
      {"type": "item", "id": "i", "prompt": 3, "responses": [{"text": "x"}]},
      "'prompt' must be a string, found a number (3)",
    ),
    ({"type": "item", "id": "i", "prompt": "p", "responses": [{"text": "x"}], "gold_ranks": [0]}, "at least two"),
    ({"type": "itme"}, "'type' is 'itme'. Did you mean 'item'?"),
    ({"type": ["item"]}, "'type' is ['item']"),
    ({}, "'type' is None"),
  ],
)
def test_other_wrong_rows_are_named_with_their_place(row, message):
  with pytest.raises(DataError) as error:
    record_of(row, "file.jsonl:7")
  assert str(error.value).startswith("file.jsonl:7: ") and message in str(error.value)


def test_a_source_must_be_json():
  with pytest.raises(ValueError, match="'source' is not JSON"):
    Response("text", {"path": Path("x")})


def test_current_follows_corrections():
  assert [judgement.id for judgement in current(JUDGEMENTS)] == ["j1", "j2", "j3", "j6", "j7", "j8"]
  assert [judgement.id for judgement in current(JUDGEMENTS[:5])] == ["j1", "j2", "j3", "j5"]


def test_the_id_of_an_item_is_its_content():
  responses = [Response("a"), Response("b")]
  item = make_item("p", responses)
  assert item == make_item("p", iter(responses))
  assert item.id == "aae22183a1459d89"  # the same in every version: files of different days are merged by it
  others = [
    make_item("q", responses), make_item("p", responses[::-1]), make_item("p", responses, (0, 1)),
    make_item("p", [Response("a", {"file": "f"}), Response("b")]),
  ]  # fmt: skip
  assert len({item.id, *(other.id for other in others)}) == 5


def test_records_are_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    JUDGEMENTS[0].ranks = (1, 0)


def test_timestamps_are_utc_to_the_millisecond():
  assert timestamp(0.0015) == "1970-01-01T00:00:00.002Z" or timestamp(0.0015) == "1970-01-01T00:00:00.001Z"
  assert timestamp(1_700_000_000) == "2023-11-14T22:13:20.000Z"
  Judgement(**{**PAIR, "order": (0, 1)}, ranks=(0, 1), created=timestamp(1_700_000_000.5))


def test_kinds_of_annotators():
  assert Annotator("a") == Annotator("a", "human", False)
  with pytest.raises(ValueError, match="Did you mean 'model'"):
    Annotator("a", "modell")
  assert isinstance(Item("i", "p", (Response("r"),)), Item)  # one response: only to be rated


def test_records_store_and_page_need_no_accelerator():
  """Annotators should not wait for jax, and packages without jax may import `feedback`."""
  modules = {path.stem for path in (ROOT / "rlhf_jax" / "feedback").glob("*.py")} - {"__init__", "server"}
  assert len(modules) > 10
  script = "; ".join(f"import rlhf_jax.feedback.{name}" for name in sorted(modules))
  script += "; import sys; assert not {'jax', 'flax', 'datasets', 'pyarrow'} & set(sys.modules)"
  subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
