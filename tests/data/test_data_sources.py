"""Readers of records: each accepted row format, each counted skip, and the error of every other row."""

import gzip
import json
import re
from pathlib import Path

import pytest

from rlhf_jax.data import (
  Comparison,
  Critique,
  DataError,
  Demonstration,
  Message,
  Ratings,
  messages_of,
  parse_prompt_text,
  parse_text,
  read_comparisons,
  read_critiques,
  read_demonstrations,
  read_prompts,
  read_ratings,
  read_rows,
  read_text,
  render_prompt,
  render_response,
  split_pair,
  split_prompts,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"
DIALOGUE = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:"
PROMPT = parse_prompt_text(DIALOGUE)


def shared(name: str) -> Path:
  path = SHARED / name
  if not path.exists():
    pytest.skip(f"the public data set {name} is not in ../shared/data")
  return path


@pytest.fixture
def write(tmp_path):
  """Writes rows as JSONL and gives the path."""

  def write_file(*rows, name="rows.jsonl"):
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / name

  return write_file


def test_demonstrations_of_every_format(write):
  path = write(
    {"prompt": "p1", "response": "r1", "source": "ignored"},
    {"instruction": "i2", "input": "", "output": "o2"},
    {"instruction": "i3", "input": "x3", "output": "o3"},
    {"instruction": "i4", "instances": [{"input": "", "output": "o4"}, {"input": "x5", "output": "o5"}]},
    {"prompt": "p6", "chosen": "c6", "rejected": "r6"},
    {"chosen": DIALOGUE + " c7", "rejected": DIALOGUE + " r7"},
  )
  assert read_demonstrations(path) == (
    [
      Demonstration("p1", "r1"),
      Demonstration("i2", "o2"),
      Demonstration("i3\nx3", "o3"),
      Demonstration("i4", "o4"),
      Demonstration("i4\nx5", "o5"),
      Demonstration("p6", "c6"),
      Demonstration(PROMPT, "c7"),
    ],
    {},
  )


def test_demonstrations_without_use_are_counted(write):
  path = write(
    {"prompt": "p", "response": " \n"},
    {"prompt": " ", "response": "r"},
    {"chosen": DIALOGUE},
    {"chosen": DIALOGUE[: -len("\n\nAssistant:")]},
    {"instruction": "i", "instances": [{"input": "", "output": ""}, {"input": "", "output": "kept"}]},
  )
  demonstrations, skips = read_demonstrations(path)
  assert demonstrations == [Demonstration("i", "kept")]
  assert skips == {"empty response": 3, "empty prompt": 1, "the last turn is not the assistant's": 1}


def test_array_file_and_gzip(tmp_path):
  rows = [{"prompt": "p\u200b\u05e9", "response": "r"}]
  (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(rows, ensure_ascii=False).encode()))
  assert read_demonstrations(tmp_path / "a.json.gz")[0] == [Demonstration("p\u200b\u05e9", "r")]


def test_comparisons_of_every_format(write):
  def reply(text, rank, *replies):
    return {"text": text, "role": "assistant", "rank": rank, "replies": list(replies)}

  answers = [reply("two", 1), reply("TWO", 0), reply("2?", None)]
  follow_up = {"text": "And 2?", "role": "prompter", "replies": answers}
  tree = {
    "message_tree_id": "t",
    "prompt": {"text": " One? ", "role": "prompter", "replies": [reply("one", 0, follow_up), reply("1", 1)]},
  }
  path = write(
    {"prompt": "p1", "responses": ["a", "b", "", "d"], "ranks": [1, 0, -1, 1], "annotator": "w7", "s": 3},
    {"prompt": "p2", "chosen": "c2", "rejected": "r2"},
    {"chosen": DIALOGUE + " c3", "rejected": DIALOGUE + " r3", "annotator": "w8"},
    tree,
  )
  turns = Message("user", "One?"), Message("assistant", "one"), Message("user", "And 2?")
  assert read_comparisons(path) == (
    [
      Comparison("p1", ("a", "b", "", "d"), (1, 0, -1, 1), "w7"),
      Comparison("p2", ("c2", "r2"), (0, 1), ""),
      Comparison(PROMPT, ("c3", "r3"), (0, 1), "w8"),
      Comparison("One?", ("one", "1"), (0, 1), ""),
      Comparison(turns, ("two", "TWO", "2?"), (1, 0, -1), ""),
    ],
    {},
  )


def test_ranked_turns_of_the_prompter_are_no_comparison(write):
  def turn(role, text, rank, replies):
    return {"text": text, "role": role, "rank": rank, "replies": replies}

  questions = [turn("prompter", "x", 0, []), turn("prompter", "y", 1, [])]
  answers = [turn("assistant", "a", 0, questions), turn("assistant", "b", 1, questions)]
  path = write({"message_tree_id": "t", "prompt": turn("prompter", "q", None, answers)})
  assert [comparison.responses for comparison in read_comparisons(path)[0]] == [("a", "b")]


def test_comparisons_without_use_are_counted(write):
  path = write(
    {"prompt": "p", "chosen": "same", "rejected": " same"},
    {"prompt": "p", "chosen": "c", "rejected": ""},
    {"prompt": "", "chosen": "c", "rejected": "r"},
    {"chosen": DIALOGUE + " c", "rejected": DIALOGUE.replace("Hello", "Hey") + " r"},
    {"prompt": "p", "responses": ["a", "a", "a"], "ranks": [0, 1, 2]},
    {"prompt": "p", "responses": ["a", "b"], "ranks": [0, -1]},
    {"prompt": "p", "responses": [], "ranks": []},
    {"prompt": "p", "responses": ["a", "b"], "ranks": [0, 0]},
    {"prompt": "p", "chosen": "kept", "rejected": "r"},
  )
  comparisons, skips = read_comparisons(path)
  assert comparisons == [Comparison("p", ("kept", "r"), (0, 1))]
  assert skips == {
    "identical responses": 2,
    "empty response": 1,
    "empty prompt": 1,
    "no shared prompt: chosen and rejected differ before the last turn": 1,
    "fewer than two ranked responses": 2,
    "all responses tied": 1,
  }


def test_ratings_of_a_group_and_one_by_one(write):
  path = write(
    {"prompt": "p", "responses": ["a", "b", "c"], "ratings": [7, 2.5, None], "annotator": "w"},
    {"prompt": "p", "response": "d", "rating": 1, "annotator": "v", "item": "ignored"},
    {"prompt": "p", "responses": ["a"], "ratings": [None]},
    {"prompt": "p", "response": " ", "rating": 3},
  )
  assert read_ratings(path) == (
    [Ratings("p", ("a", "b", "c"), (7.0, 2.5, None), "w"), Ratings("p", ("d",), (1.0,), "v")],
    {"no rated response": 1, "empty response": 1},
  )


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"prompt": "p", "responses": ["a"], "ratings": [1, 2]}, "1 responses but 2 ratings"),
    ({"prompt": "p", "responses": ["a"], "ratings": ["7"]}, "'ratings[0]' must be a number, found a string (7)"),
    ({"prompt": "p", "response": "a", "rating": True}, "'ratings[0]' must be a number, found a boolean"),
    ({"prompt": "p", "response": "a"}, "columns to have {prompt, responses, ratings} or {prompt, response, rating}"),
  ],
)
def test_bad_ratings_are_located_and_explained(write, row, message):
  expect_explained(write({"prompt": "p", "response": "a", "rating": 1}, row), read_ratings, message)


def test_a_rating_that_is_no_number_is_refused(tmp_path):
  (tmp_path / "a.jsonl").write_text('{"prompt": "p", "response": "a", "rating": NaN}\n')
  with pytest.raises(DataError, match="must be a finite number"):
    read_ratings(tmp_path / "a.jsonl")


def test_critiques_and_rewrites(write):
  path = write(
    {"prompt": "p", "response": "a", "critique": "Too long.", "rewrite": "b", "annotator": "w"},
    {"prompt": "p", "response": "", "critique": "Say something."},
    {"prompt": "p", "response": "a", "rewrite": "c"},
    {"prompt": "p", "response": "a", "critique": " ", "rewrite": "", "flags": ["harmful"]},
  )
  assert read_critiques(path) == (
    [
      Critique("p", "a", "Too long.", "b", "w"),
      Critique("p", "", "Say something.", ""),
      Critique("p", "a", "", "c"),
    ],
    {"empty critique": 1},
  )


def test_every_ranking_of_a_prompt_is_whole_and_on_one_side(write):
  """InstructGPT, section 3.5: all pairs of a prompt are one element of a batch, so that none is seen in evaluation."""
  rows = [
    {"prompt": f"p{i % 40}" if i % 3 else f"\n\nHuman: p{i % 40}\n\nAssistant:", "responses": ["a", "b", "c"],
     "ranks": [i % 3, (i + 1) % 3, (i + 2) % 3], "annotator": f"w{i}"} for i in range(160)
  ]  # fmt: skip
  comparisons, _ = read_comparisons(write(*rows))
  assert [len(comparison.responses) for comparison in comparisons] == [3] * 160
  sides = [{render_prompt(comparisons[i].prompt) for i in side} for side in split_prompts(
    [comparison.prompt for comparison in comparisons], 0.3, 0)]  # fmt: skip
  assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 40 and len(sides[1]) > 4


def test_prompts_of_every_format_are_kept_in_order_with_their_repetitions(write):
  node = {"role": "assistant", "replies": []}
  replies = [{"text": "a", "rank": 0, **node}, {"text": "b", "rank": 1, **node}]
  path = write(
    {"prompt": "p2"},
    {"prompt": "p1", "responses": ["a", "b"], "ranks": [0, 0]},
    {"prompt": "p2", "chosen": "c", "rejected": "c"},
    {"prompt": "\n\nHuman: p1\n\nAssistant:"},
    {"instruction": "i", "input": "x", "output": ""},
    {"instruction": "i", "instances": [{"input": "y", "output": ""}]},
    {"chosen": DIALOGUE + " c", "rejected": DIALOGUE + " r"},
    {"message_tree_id": "t", "prompt": {"text": "q", "role": "prompter", "replies": replies}},
    {"prompt": " "},
  )
  prompts, skips = read_prompts(path)
  assert prompts == ["p2", "p1", "p2", "p1", "i\nx", "i\ny", PROMPT, "q"]
  assert skips == {"empty prompt": 1}


def expect_explained(path: Path, read, message: str):
  """The file's second row is refused with its place and the message."""
  with pytest.raises(DataError, match=re.escape(f"{path}:2: ") + ".*" + re.escape(message)):
    read(path)


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"query": "q", "answer": "a"}, "found columns {query, answer}; rename or add columns"),
    ({"prompt": "p"}, "found columns {prompt}; rename or add columns to have {prompt, response} or"),
    ({"instruction": "i", "input": ""}, "{instruction, output}"),
    ({"prompt": 3, "response": "r"}, "'prompt' must be a string, found a number (3)"),
    ({"prompt": "p", "response": None}, "'response' must be a string, found null"),
    ({"prompt": "p", "response": ["r"]}, "'response' must be a string, found a list"),
    ({"instruction": "i", "instances": {}}, "'instances' must be a list, found an object"),
    ({"instruction": "i", "instances": ["x"]}, "'instances[0]' must be an object, found a string"),
    ({"instruction": "i", "instances": [{"input": ""}]}, "no 'output' among {input}"),
    ({"chosen": "bare answer"}, "not a dialogue: it must start with '\\n\\nHuman:'"),
    ({"prompt": "p", "response": "\ud800"}, "unpaired surrogate '\\ud800'"),
    ({"prompt": DIALOGUE + " ", "response": "r"}, "end it in '\\n\\nAssistant:'"),
    ({"prompt": "p", "chosen": DIALOGUE + " c"}, "'chosen' repeats the dialogue"),
  ],
)
def test_bad_demonstration_is_located_and_explained(write, row, message):
  expect_explained(write({"prompt": "p", "response": "r"}, row), read_demonstrations, message)


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"prompt": "p", "response": "r"}, "{prompt, responses, ranks} or {message_tree_id, prompt} or"),
    ({"chosen": DIALOGUE + " c"}, "found columns {chosen}"),
    ({"prompt": "p", "responses": ["a", "b"], "ranks": [0]}, "2 responses but 1 ranks"),
    ({"prompt": "p", "responses": ["a", "b"], "ranks": [0, 0.5]}, "'ranks[1]' must be an integer"),
    ({"prompt": "p", "responses": ["a", "b"], "ranks": [0, True]}, "found a boolean (True)"),
    ({"prompt": "p", "responses": ["a", "b"], "ranks": [0, -2]}, "-1 means absent"),
    ({"prompt": "p", "responses": "ab", "ranks": [0, 1]}, "'responses' must be a list, found a string"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "annotator": 7}, "'annotator' must be a string"),
    ({"chosen": [{"role": "user"}], "rejected": "b"}, "chosen[0]: no 'content' among {role}"),
    ({"message_tree_id": "t", "prompt": "p"}, "'prompt' must be an object, found a string"),
    ({"message_tree_id": "t", "prompt": {"text": "q"}}, "no 'role' among {text}"),
    ({"message_tree_id": "t", "prompt": {"text": "q", "role": "x"}}, "must be prompter or assistant"),
  ],
)
def test_bad_comparison_is_located_and_explained(write, row, message):
  good = {"prompt": "p", "responses": ["a", "b"], "ranks": [0, 1]}
  expect_explained(write(good, row), read_comparisons, message)


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"text": "p"}, "found columns {text}"),
    ({"prompt": {}}, "'prompt' must be a string, found an object"),
    ({"prompt": ["p"]}, "'prompt[0]' must be an object, found a string (p)"),
  ],
)
def test_bad_prompt_is_located_and_explained(write, row, message):
  expect_explained(write({"prompt": "p"}, row), read_prompts, message)


def test_no_usable_row_is_an_error_with_the_reasons(write):
  empty = {"prompt": "p", "response": ""}
  path = write(empty, {"prompt": "", "response": "r"}, empty)
  with pytest.raises(DataError, match=r"none of its rows is usable \(empty response: 2, empty prompt: 1\)"):
    read_demonstrations(path)


def test_tree_without_ranked_replies_is_an_error(write):
  path = write({"message_tree_id": "t", "prompt": {"text": "q", "role": "prompter", "replies": []}})
  with pytest.raises(DataError, match="they hold no such record"):
    read_comparisons(path)


@pytest.mark.parametrize("read", [read_demonstrations, read_comparisons, read_prompts])
def test_damaged_files_reach_the_user_as_data_errors(tmp_path, read):
  (tmp_path / "half.jsonl").write_text('{"prompt": "p", "resp')
  (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "p"}' * 100)[:-9])
  (tmp_path / "empty.jsonl").write_bytes(b"")
  (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9"}')
  for name in ("half.jsonl:1", "cut.jsonl.gz", "empty.jsonl", "latin.jsonl:1"):
    with pytest.raises(DataError, match=re.escape(name)):
      read(tmp_path / name.removesuffix(":1"))


@pytest.mark.parametrize(
  ("name", "pairs", "differ", "identical", "empty"),
  [("hh_helpful_base_test", 2354, 9, 2, 4), ("hh_harmless_base_test", 2312, 5, 0, 4)],
)
def test_hh(name, pairs, differ, identical, empty):
  path = shared(f"preferences/{name}.jsonl.gz")
  comparisons, skips = read_comparisons(path)
  assert len(comparisons) == pairs - differ - identical - empty
  expected = {
    "no shared prompt: chosen and rejected differ before the last turn": differ,
    "identical responses": identical,
    "empty response": empty,
  }
  assert skips == {reason: count for reason, count in expected.items() if count}
  demonstrations, skips = read_demonstrations(path)
  assert len(demonstrations) + skips["empty response"] == pairs
  prompts, skips = read_prompts(path)
  assert (len(prompts), skips) == (pairs, {})


def test_hh_is_split_once_and_exactly():
  squeeze = re.compile(r"\s+").sub
  for _, row in read_rows(shared("preferences/hh_helpful_base_test.jsonl.gz")):
    try:
      prompt, chosen, rejected = split_pair(parse_text(row["chosen"]), parse_text(row["rejected"]))
    except ValueError:
      continue
    assert "\n\nAssistant:" not in chosen + rejected
    for response, dialogue in ((chosen, row["chosen"]), (rejected, row["rejected"])):
      assert squeeze(" ", render_prompt(prompt) + render_response(response)).rstrip() == squeeze(" ", dialogue).rstrip()


def test_oasst():
  comparisons, skips = read_comparisons(shared("preferences/oasst_en_100_trees_ranked.jsonl.gz"))
  # 211 lists are ranked throughout; one more has an unranked fourth reply.
  assert (len(comparisons), skips) == (212, {})
  assert sum(min(comparison.ranks) >= 0 for comparison in comparisons) == 211
  assert {len(comparison.responses) for comparison in comparisons} == {2, 3, 4, 5, 6, 8, 9}
  roles = {tuple(message.role for message in messages_of(comparison.prompt)) for comparison in comparisons}
  assert roles >= {("user",), ("user", "assistant", "user")} and all(found[-1] == "user" for found in roles)


def test_alpaca():
  path = shared("demonstrations/alpaca_en_demo.json.gz")
  demonstrations, skips = read_demonstrations(path)
  assert (len(demonstrations), skips) == (999, {})
  assert demonstrations[0].prompt == "Describe a process of making crepes."
  prompts, skips = read_prompts(path)
  assert (len(prompts), skips) == (999, {})


def test_self_instruct():
  demonstrations, skips = read_demonstrations(shared("demonstrations/self_instruct_seed_tasks.jsonl.gz"))
  assert (len(demonstrations), skips) == (175, {})
  instruction, task_input = demonstrations[1].prompt.split("\n")
  assert instruction == "What is the relation between the given pairs?"
  assert task_input == "Night : Day :: Right : Left"


def test_a_latin_1_file_is_located():
  with pytest.raises(DataError, match=r"rt_polarity\.txt\.gz:32: byte 0xe9"):
    read_text(shared("sentiment/rt_polarity.txt.gz"))
