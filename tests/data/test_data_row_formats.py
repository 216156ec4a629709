"""The forms in which rows are published: what each is read as, and the words for every row that is refused."""

import datetime
import json
import re
from pathlib import Path

import pytest

from rlhf_jax.data import (
  Comparison,
  DataError,
  Demonstration,
  Message,
  Source,
  Unpaired,
  UnusableDialogue,
  messages_of,
  read_comparisons,
  read_demonstrations,
  read_prompts,
)
from rlhf_jax.data.files import RowError
from rlhf_jax.data.row_formats import COMPARISONS, DEMONSTRATIONS, PROMPTS, UNPAIRED

USER, OTHER, GOOD, BAD = (
  {"role": "user", "content": "q"},
  {"role": "user", "content": "r"},
  {"role": "assistant", "content": "a"},
  {"role": "assistant", "content": "b"},
)
SYSTEM = {"role": "system", "content": "s"}
ASKED = (Message("system", "s"), Message("user", "q"))
DIALOGUE = (Message("user", "q"), Message("assistant", "a"), Message("user", "r"))
HH = "\n\nHuman: q\n\nAssistant:"
QA = {"prompt": "q", "response": "a"}
TOOL = {"type": "function", "function": {"name": "add"}}
WITH_TOOL = (Message("user", "q", json.dumps({"tools": [TOOL]})),)
POST = {"post": "I was late.", "title": "Late", "subreddit": "tifu", "id": "x", "site": None, "article": None}
TLDR = "SUBREDDIT: r/tifu\n\nTITLE: Late\n\nPOST: I was late.\n\nTL;DR:"


def turns(*said, speaker="from", text="value"):
  return [{speaker: role, text: content} for role, content in said]


SHAREGPT = turns(("human", "q"), ("gpt", "a"), ("human", "r"), ("gpt", "b"))

DEMONSTRATED = {  # name -> (row, demonstration)
  "prompt and completion": ({"prompt": "q", "completion": "a", "id": 7}, Demonstration("q", "a")),
  "messages of both": ({"prompt": [SYSTEM, USER], "completion": [GOOD]}, Demonstration(ASKED, "a")),
  "system beside a prompt": ({"system": "s", "prompt": "q", "response": "a"}, Demonstration(ASKED, "a")),
  "system_prompt": ({"system_prompt": "s", "prompt": "q", "response": "a"}, Demonstration(ASKED, "a")),
  "system beside HH": ({"system": "s", "chosen": HH + " a", "rejected": HH + " b"}, Demonstration(ASKED, "a")),
  "system beside messages": ({"system": "s", "messages": [USER, GOOD]}, Demonstration(ASKED, "a")),
  "tools": ({"tools": [TOOL], "messages": [USER, GOOD]}, Demonstration(WITH_TOOL, "a")),
  "tools as JSON": ({"tools": json.dumps([TOOL]), "conversations": SHAREGPT[:2]}, Demonstration(WITH_TOOL, "a")),
  "null context": (
    {"system": None, "history": None, "tools": None, "label": None, "prompt": "q", "response": "a"},
    Demonstration("q", "a"),
  ),
  "empty context": ({"system": "", "history": [], "tools": "", **QA}, Demonstration("q", "a")),
  "columns of other rows": ({"prompt": None, "response": None, "messages": [USER, GOOD]}, Demonstration("q", "a")),
  "Alpaca without input": ({"instruction": "q", "output": "a"}, Demonstration("q", "a")),
  "Alpaca with null": ({"instruction": "q", "input": None, "output": "a"}, Demonstration("q", "a")),
  "Alpaca's history": (
    {"instruction": "r", "input": "x", "output": "b", "history": [["q", "a"]], "system": "s"},
    Demonstration((ASKED[0], *DIALOGUE[:2], Message("user", "r\nx")), "b"),
  ),
  "history beside a prompt": (
    {"prompt": "r", "response": "b", "history": [["q", "a"]]}, Demonstration(DIALOGUE, "b"),
  ),
  "ShareGPT": ({"id": "x", "conversations": SHAREGPT}, Demonstration(DIALOGUE, "b")),
  "ShareGPT with system": (
    {"conversations": turns(("system", "s"), ("human", "q"), ("gpt", "a"))}, Demonstration(ASKED, "a"),
  ),
  "ShareGPT with tools": (
    {"conversations": turns(("human", "q"), ("observation", "1"), ("gpt", "a"))},
    Demonstration((Message("user", "q"), Message("tool", "1")), "a"),
  ),
  "conversations with roles": (
    {"conversations": turns(("user", "q"), ("assistant", "a"), speaker="role", text="content")},
    Demonstration("q", "a"),
  ),
  "messages in ShareGPT's form": ({"messages": SHAREGPT[:2]}, Demonstration("q", "a")),
  "ShareGPT's chosen side": (
    {"conversations": SHAREGPT[:3], "chosen": SHAREGPT[3], "rejected": SHAREGPT[1]}, Demonstration(DIALOGUE, "b"),
  ),
  "gsm8k": ({"question": "q", "answer": "a"}, Demonstration("q", "a")),
  "UltraFeedback's chosen side": ({"prompt": "q", "chosen": [USER, GOOD]}, Demonstration("q", "a")),
  "weights of 1, and of 0 on others": (
    {"messages": [{**SYSTEM, "weight": 0}, {**USER, "weight": None}, {**GOOD, "weight": 1}]}, Demonstration(ASKED, "a"),
  ),
  "a last answer with the weight 0": (
    {"messages": [USER, GOOD, OTHER, {**BAD, "weight": 0}, OTHER, {**BAD, "weight": 0.0}]}, Demonstration("q", "a"),
  ),
  "an earlier answer with the weight 0": (
    {"messages": [USER, {**GOOD, "weight": 0}, OTHER, {**BAD, "weight": 1}]},
    Demonstration((DIALOGUE[0], Message("assistant", "a", '{"weight": 0}'), DIALOGUE[2]), "b"),
  ),
  "a good label": ({"prompt": "q", "response": "a", "label": True}, Demonstration("q", "a")),
}  # fmt: skip
COMPARED = {  # name -> (row, comparison)
  "UltraFeedback": (
    {"prompt": "q", "prompt_id": "x", "chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 8.5},
    Comparison("q", ("a", "b"), (0, 1)),
  ),
  "UltraFeedback of several turns": (
    {"prompt": "q", "chosen": [USER, GOOD, OTHER, GOOD], "rejected": [USER, GOOD, OTHER, BAD]},
    Comparison(DIALOGUE, ("a", "b"), (0, 1)),
  ),
  "UltraFeedback with a system's turn": (
    {"prompt": "q ", "chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]},
    Comparison(ASKED, ("a", "b"), (0, 1)),
  ),
  "messages of the answers alone": (
    {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, Comparison("q", ("a", "b"), (0, 1)),
  ),
  "system beside a pair": (
    {"system": "s", "prompt": "q", "chosen": "a", "rejected": "b"}, Comparison(ASKED, ("a", "b"), (0, 1)),
  ),
  "system beside dialogues": (
    {"system": "s", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, Comparison(ASKED, ("a", "b"), (0, 1)),
  ),
  "system beside ranks": (
    {"system": "s", "prompt": "q", "responses": ["a", "b"], "ranks": [0, 1]}, Comparison(ASKED, ("a", "b"), (0, 1)),
  ),
  "ShareGPT": (
    {"conversations": SHAREGPT[:3], "chosen": SHAREGPT[3], "rejected": SHAREGPT[1]},
    Comparison(DIALOGUE, ("b", "a"), (0, 1)),
  ),
  "TL;DR": (
    {"info": POST, "summaries": [{"text": " b", "policy": "x"}, {"text": " a"}], "choice": 1, "worker": "w"},
    Comparison(TLDR, (" b", " a"), (1, 0), "w"),
  ),
  "CNN/DM": (
    {"info": {"article": "News.", "post": None}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0},
    Comparison("Article:\nNews.\n\nTL;DR:", ("a", "b"), (0, 1)),
  ),
  "RM-Bench": (
    {"id": 1, "prompt": "q", "chosen": ["a", "b"], "rejected": ["c", "d"], "domain": "chat", "system": "s"},
    Comparison(ASKED, ("a", "b", "c", "d"), (0, 0, 1, 1)),
  ),
  "LLMBar": ({"input": "q", "output_1": "a", "output_2": "b", "label": 2}, Comparison("q", ("a", "b"), (1, 0))),
  "a null annotator": (
    {"prompt": "q", "chosen": "a", "rejected": "b", "annotator": None}, Comparison("q", ("a", "b"), (0, 1)),
  ),
  "columns of other rows": (
    {"prompt": None, "chosen": HH + " a", "rejected": HH + " b", "responses": None, "ranks": None},
    Comparison("q", ("a", "b"), (0, 1)),
  ),
}  # fmt: skip
PROMPTED = {  # name -> (row, prompt)
  "LLMBar": ({"input": "q", "output_1": "a", "output_2": "b", "label": 1}, "q"),
  "gsm8k": ({"question": "q", "answer": "#### 3"}, "q"),
  "question alone": ({"question": "q", "answer": None}, "q"),
  "instruction alone": ({"instruction": "q", "input": "x", "system": "s"}, (ASKED[0], Message("user", "q\nx"))),
  "ShareGPT": ({"conversations": SHAREGPT}, DIALOGUE),
  "ShareGPT's pairs": ({"conversations": SHAREGPT[:3], "chosen": SHAREGPT[3], "rejected": SHAREGPT[1]}, DIALOGUE),
  "TL;DR": ({"info": POST, "summaries": [{"text": "b"}, {"text": "a"}], "choice": 1}, TLDR),
  "a labelled row": ({"prompt": "q", "response": "a", "label": False}, "q"),
  "system": ({"system": "s", "prompt": "q"}, ASKED),
  "tools": ({"tools": [TOOL], "prompt": "q"}, WITH_TOOL),
}
LABELLED = {  # name -> (row, record)
  "TRL's form": ({"prompt": "q", "completion": "a", "label": False}, Unpaired("q", "a", False)),
  "messages of both": ({"prompt": [USER], "completion": [GOOD], "label": True}, Unpaired("q", "a", True)),
  "an annotator": ({"prompt": "q", "response": "a", "label": True, "annotator": "w"}, Unpaired("q", "a", True, "w")),
  "a dialogue": ({"messages": [SYSTEM, USER, GOOD], "label": False}, Unpaired(ASKED, "a", False)),
}
TAKEN_APART = [  # (row, records)
  ({"prompt": "q", "chosen": "a", "rejected": "b"}, [Unpaired("q", "a", True), Unpaired("q", "b", False)]),
  (
    {"prompt": "q", "responses": ["a", "b", "c", "d"], "ranks": [1, 0, 2, -1], "annotator": "w"},
    [Unpaired("q", "b", True, "w"), Unpaired("q", "c", False, "w")],
  ),
]


@pytest.mark.parametrize(
  ("formats", "row", "record"),
  [
    pytest.param(formats, row, record, id=f"{kind}: {name}")
    for kind, formats, table in (
      ("demonstration", DEMONSTRATIONS, DEMONSTRATED),
      ("comparison", COMPARISONS, COMPARED),
      ("prompt", PROMPTS, PROMPTED),
      ("unpaired", UNPAIRED, LABELLED),
    )
    for name, (row, record) in table.items()
  ],
)
def test_a_row_is_read_as(formats, row, record):
  (found,) = formats.parse(row, "file:1")
  assert found == record and formats.problem(found) is None


@pytest.mark.parametrize(("row", "records"), TAKEN_APART)
def test_a_comparison_is_taken_apart_into_its_best_and_its_worst(row, records):
  assert list(UNPAIRED.parse(row, "file:1")) == records
  with pytest.raises(UnusableDialogue, match="all responses tied"):
    list(UNPAIRED.parse({"prompt": "q", "responses": ["a", "b"], "ranks": [0, 0]}, "file:1"))


IMAGE = [USER, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, GOOD]
REFUSED = [  # (formats, row, message behind "file:1: ")
  (DEMONSTRATIONS, {**QA, "images": ["x.png"]}, "'images' changes what is meant and cannot be"),
  (DEMONSTRATIONS, {"messages": IMAGE}, "messages[1]: content[0] is of the type 'image_url'; only parts"),
  (DEMONSTRATIONS, {"messages": [{**USER, "images": ["x"]}, GOOD]}, "messages[0]: 'images' changes what is meant"),
  (DEMONSTRATIONS, {"messages": [USER, {**GOOD, "function_call": {}, "train": False}]}, "messages[1]: 'train' changes"),
  (DEMONSTRATIONS, {"messages": [USER, {**GOOD, "when": datetime.date(2024, 1, 1)}]}, "a value that JSON has not"),
  (DEMONSTRATIONS, {**QA, "chat_template_kwargs": {"x": 1}}, "the same values for every row"),
  (DEMONSTRATIONS, {**QA, "weight": 0}, "found 0: every row counts alike"),
  (DEMONSTRATIONS, {"messages": [USER, {**GOOD, "weight": 0.5}]}, "'weight' of a turn of the assistant must be 0 or"),
  (DEMONSTRATIONS, {"messages": [{**USER, "weight": 1}, GOOD]}, "messages[0]: 'weight' of a turn of the user must be"),
  (DEMONSTRATIONS, {**QA, "label": 1}, "'label' beside an answer is true for a good one and"),
  (DEMONSTRATIONS, {**QA, "history": ["q"]}, "'history[0]' must be a list, found a string (q)"),
  (DEMONSTRATIONS, {**QA, "history": [["q"]]}, "history[0] must be [the user's turn, the ass"),
  (DEMONSTRATIONS, {**QA, "history": "q"}, "'history' must be a list, found a string (q)"),
  (DEMONSTRATIONS, {**QA, "system": ["s"]}, "'system' must be a string, found a list"),
  (DEMONSTRATIONS, {**QA, "tools": "add"}, "'tools' is no JSON ("),
  (DEMONSTRATIONS, {**QA, "tools": ["add"]}, "'tools[0]' must be an object, found a string"),
  (DEMONSTRATIONS, {"system": "s", "messages": [SYSTEM, USER, GOOD]}, "the system speaks twice, found system and a"),
  (DEMONSTRATIONS, {"conversations": turns(("bot", "q"))}, "'from' must be human, user, gpt, chatgpt, assistant"),
  (DEMONSTRATIONS, {"conversations": [{"text": "q"}]}, "conversations[0]: no 'role' among {text}; add it"),
  (DEMONSTRATIONS, {"question": "q", "answer": "a", "choices": ["a"]}, "'choices' changes what is meant and cannot be"),
  (DEMONSTRATIONS, {"question": "q", "answer": 3}, "'answer' must be a string, found a number (3)"),
  (PROMPTS, {"question": "q", "answer": "a", "context": "c"}, "write the prompt by 'templates' of the source"),
  (COMPARISONS, {"prompt": "q", "chosen": [OTHER, GOOD], "rejected": [OTHER, BAD]}, "'chosen' is a dialogue that does"),
  (COMPARISONS, {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 0.5}, "'margin' changes what is meant"),
  (COMPARISONS, {"info": POST, "summaries": [], "choice": 1}, "'choice' counts the 0 summaries from 0, found 1"),
  (COMPARISONS, {"info": {}, "summaries": [{"text": "a"}], "choice": 0}, "no 'article' among {}; add it"),
  (COMPARISONS, {**QA, "label": True}, "found columns {prompt, response, label}; rename"),
  (UNPAIRED, QA, "to have {prompt, response, label} or {prompt, completion, label} or"),
  (UNPAIRED, {**QA, "label": "bad"}, "found bad; if it means something else, leave it out"),
]  # fmt: skip


@pytest.mark.parametrize(("formats", "row", "message"), REFUSED)
def test_a_row_is_refused_with_its_place_its_key_and_what_was_found(formats, row, message):
  with pytest.raises(RowError, match=re.escape("file:1: ") + ".*" + re.escape(message)) as error:
    list(formats.parse(row, "file:1"))
  assert error.value.kind == "schema"


def write(path: Path, *rows) -> Path:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def test_rows_of_several_forms_are_counted_where_they_are_without_use(tmp_path):
  path = write(
    tmp_path / "rows.jsonl",
    {"prompt": "q", "response": "a", "label": False},
    {"prompt": " ", "response": "a", "system": "s"},
    {"messages": [USER, {"role": "assistant", "content": " ", "id": 3}]},
    {"question": "q", "answer": "a", "choices": []},
    {"messages": [USER, {**GOOD, "weight": 0}]},
  )
  demonstrations, skips = read_demonstrations(path)
  assert demonstrations == [Demonstration("q", "a")]
  assert skips == {
    "labelled as a bad answer": 1,
    "empty prompt": 1,
    "empty response": 1,
    "every answer has the weight 0": 1,
  }


def test_a_column_is_left_out_by_the_source(tmp_path):
  path = write(tmp_path / "rows.jsonl", {"prompt": "q", "response": "a", "label": 3, "images": ["x"]})
  with pytest.raises(DataError, match="'images' changes"):
    read_demonstrations(path)
  found, _ = read_demonstrations(Source(str(path), columns={"label": "", "images": ""}))
  assert found == [Demonstration("q", "a")]


def test_a_source_may_count_rows_that_are_refused(tmp_path):
  path = write(
    tmp_path / "rows.jsonl", {"prompt": "q", "response": "a", "images": ["x"]}, {"prompt": "q", "response": "a"}
  )
  assert read_demonstrations(Source(str(path), skip=("schema",)))[1] == {"wrong columns or types": 1}


def test_rows_of_gsm8k_are_prompts_and_demonstrations():
  path = Path(__file__).parents[3] / "shared/data/verifiable/gsm8k_test.jsonl.gz"
  if not path.exists():
    pytest.skip("gsm8k is not in ../shared/data")
  prompts, skips = read_prompts(path)
  demonstrations, _ = read_demonstrations(path)
  assert (len(prompts), skips) == (1319, {}) and [d.prompt for d in demonstrations] == prompts
  assert messages_of(prompts[0])[0].content.startswith("Janet") and demonstrations[0].response.endswith("#### 18")


def test_comparisons_of_several_forms_stand_in_one_file(tmp_path):
  rows = [row for row, _ in COMPARED.values()]
  assert read_comparisons(write(tmp_path / "rows.jsonl", *rows)) == ([record for _, record in COMPARED.values()], {})
