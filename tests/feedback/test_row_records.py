"""Rows for learners become the records again that they were made of, whatever shape and file they stand in."""

import json
import random

import numpy as np
import pytest
from judged import RECORDS

from rlhf_jax import data
from rlhf_jax.agreement.tables import judgement_table, pairs_of
from rlhf_jax.agreement.winners import winners
from rlhf_jax.data import DataError
from rlhf_jax.feedback import learner_rows
from rlhf_jax.feedback.exchange import convert, read_records, write_records
from rlhf_jax.feedback.ranks import dense_ranks, pair_outcomes, ranked_pairs
from rlhf_jax.feedback.records import Annotator, Item, Judgement, Response
from rlhf_jax.train.judgements import load_judgements


@pytest.fixture
def source(tmp_path):
  write_records(tmp_path / "a.db", RECORDS)
  return tmp_path / "a.db"


def write(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def by_text(records):
  """{(judgement, annotator, text): (rank, rating, critique, rewrite, flags)} of all judgements."""
  said = {}
  items = {item.id: item for item in records[1]}
  for judgement in records[2]:
    for k, response in enumerate(items[judgement.item].responses):
      columns = (judgement.ranks, judgement.ratings, judgement.critiques, judgement.rewrites, judgement.flags)
      values = tuple(None if column is None else column[k] for column in columns)
      said[judgement.id, judgement.annotator, response.text] = values
  return said


@pytest.mark.parametrize("shape", learner_rows.SHAPES)
def test_every_shape_that_is_written_is_read_without_a_loss(shape, source, tmp_path):
  """The records of the rows have the same rows."""
  convert(source, tmp_path / "rows.jsonl", shape)
  rows = learner_rows.SHAPES[shape](RECORDS)
  again = learner_rows.SHAPES[shape](read_records(tmp_path / "rows.jsonl"))
  assert again == rows and len(rows) > 0
  shuffled = random.Random(0).sample(rows, len(rows))
  said = by_text(read_records(tmp_path / "rows.jsonl"))
  assert by_text(read_records(write(tmp_path / "shuffled.jsonl", shuffled))) == said
  assert by_text(read_records(tmp_path / "rows.jsonl", tmp_path / "shuffled.jsonl")) == said  # a copy adds nothing


MODELS = (
  {"checkpoint": "runs/q/sft", "stage": "sft", "step": 330},
  {"checkpoint": "runs/q/ppo", "step": 32, "also": [{"checkpoint": "runs/q/dpo", "step": 9}]},
  {"file": "people.jsonl"},
)


@pytest.mark.parametrize("shape", ["rankings", "pairs"])
def test_boards_can_be_made_of_converted_files(shape, tmp_path):
  """Who gave a response, the cluster of its prompt and who settled an item go through the rows; the order of display
  does not."""
  items = [
    Item(f"i{n}", f"q{n}", tuple(map(Response, ("a", "b b", "c c c"), MODELS)), cluster=("sums", "facts")[n % 2])
    for n in range(6)
  ]
  said = [Judgement(f"j{n}", item.id, "ann", (0, 1, 2), ranks=(n % 3, 1, n % 2)) for n, item in enumerate(items)]
  final = Judgement("f", "i0", "eve", (0, 1, 2), ranks=(2, 1, 0), final=True)
  records = ([Annotator("ann"), Annotator("eve", expert=True)], items, [*said, final])
  write_records(tmp_path / "a.db", records)
  convert(tmp_path / "a.db", tmp_path / "rows.jsonl", shape)
  rows = [row for _, row in data.read_rows(tmp_path / "rows.jsonl")]
  assert rows[0]["sources"] == list(MODELS[: len(rows[0]["responses"])]) and rows[0]["cluster"] == "facts"
  read = read_records(tmp_path / "rows.jsonl")
  assert {item.id: item for item in read[1]} == {item.id: item for item in items}
  boards = []
  for given in (records, read):
    table = judgement_table(*given, answered=True)
    boards.append(winners(table, pairs_of(table)))
  told = [
    {(name, one.model, one.wins, one.ties, one.losses, round(one.controlled.value, 6))
     for name, board in {"": found.overall, **found.clusters}.items() for one in board.standings}
    for found in boards
  ]  # fmt: skip
  assert told[0] == told[1] and {name for name, *_ in told[0]} == {"", "sums", "facts"}
  assert {row[1] for row in told[1]} == {"runs/q/sft@330", "runs/q/ppo@32", "runs/q/dpo@9", "people.jsonl"}
  assert [(j.id, j.final) for j in read[2] if j.item == "i0"] == [("f", True)]


def test_single_responses_name_their_model_in_whichever_file_they_stand(tmp_path):
  item = Item("i", "p", (Response("a", MODELS[0]), Response("b")), cluster="sums")
  said = Judgement("j", "i", "ann", (0, 1), ratings=(7, 1), yes_no=(None, True), flags=((), ("odd",)))
  write_records(tmp_path / "a.jsonl", ([Annotator("ann")], [item], [said]))
  paths = [tmp_path / f"{shape}.jsonl" for shape in ("yes_no", "critiques", "ratings")]
  for path in paths:
    convert(tmp_path / "a.jsonl", path, path.stem)
  assert {row.get("cluster") for path in paths for _, row in data.read_rows(path)} == {"sums"}
  (read,) = read_records(*paths)[1]
  assert {response.text: response.source for response in read.responses} == {"a": MODELS[0], "b": {}}
  assert read.cluster == "sums"


def test_columns_of_other_data_sets_are_no_sources(tmp_path):
  """Published rows use "source" and "cluster" for other things."""
  rows = [
    {"prompt": "p", "responses": ["a", "b"], "ranks": [0, 1], "sources": ["web", "web"], "cluster": 7},
    {"prompt": "p", "response": "a", "rating": 7, "source": "web", "final": "yes"},
    {"prompt": "q", "responses": ["a", "b"], "ranks": [0, 1], "sources": [{"model": "x"}, None]},
  ]
  _, items, said = read_records(write(tmp_path / "a.jsonl", rows))
  file = {"file": "a.jsonl"}
  assert [[r.source for r in item.responses] for item in items] == [[file, file], [file], [{"model": "x"}, file]]
  assert not any(item.cluster for item in items) and not any(judgement.final for judgement in said)


def test_a_judgement_is_put_together_from_all_files(source, tmp_path):
  paths = [tmp_path / f"{shape}.jsonl" for shape in ("critiques", "ratings", "rankings")]
  for path in paths:
    convert(source, path, path.stem)
  annotators, items, judgements = read_records(*paths)
  assert [annotator.id for annotator in annotators] == ["ann", "eve", "bob"]
  assert {item.id: {response.text for response in item.responses} for item in items} == {
    "pair": {"Oakford.", "Nowhere."}, "triple": {"hi", "=1+1", "hé"}, "gold": {"Yes.", "No."}}  # fmt: skip
  said = by_text((annotators, items, judgements))
  assert said["j2", "ann", "hi"] == (0, 7, "", "", ()) and said["j2", "ann", "hé"] == (1, 3, "", "", ())
  assert said["j2", "ann", "=1+1"] == (2, None, "wrong", "1 + 1 is 2", ("harmful",))
  assert {judgement.id: judgement.strength for judgement in judgements} == {
    "j1": 3, "j2": None, "j3": None, "j6": None, "j8": None}  # fmt: skip


def test_ratings_reach_the_reward_model_with_their_annotators(tmp_path):
  """By hand: (7, -, 3) by ann and (6, 1) by eve, in one row of arrays each, as from the records themselves."""
  items = [Item("i", "Say a.", tuple(map(Response, "abc"))), Item("j", "Say b.", tuple(map(Response, "de")))]
  judgements = [
    Judgement("1", "i", "ann", (0, 1, 2), ratings=(7, None, 3)),
    Judgement("2", "j", "eve", (0, 1), ratings=(6, 1)),
  ]
  write_records(tmp_path / "a.db", ([Annotator("ann"), Annotator("eve")], items, judgements))
  convert(tmp_path / "a.db", tmp_path / "ratings.jsonl", "ratings")
  tokenizer = data.train_tokenizer(["Say a b c d e. Human Assistant"] * 3, vocab_size=300)
  settings = dict(kinds=("ratings",), weights={"eve": 0.5}, margins=(0.0, 0.5, 1.0), per_annotator=False)
  read = [load_judgements([tmp_path / name], tokenizer, 60, **settings) for name in ("a.db", "ratings.jsonl")]
  assert read[0].prompts == read[1].prompts == ["Say a.", "Say b."]
  z = (np.array([7, 3, 6, 1]) - 4.25) / np.std([7, 3, 6, 1])
  for found in read:
    ratings = found.rows["ratings"]
    np.testing.assert_allclose(ratings[~np.isnan(ratings)], z, rtol=1e-5)
    assert found.rows["weight"].tolist() == [1.0, 0.5]
    assert np.unique(np.nonzero(~np.isnan(ratings))[0], return_counts=True)[1].tolist() == [2, 2]


def test_pairs_reach_the_reward_model_as_the_ranking_they_are(source, tmp_path):
  convert(source, tmp_path / "pairs.jsonl", "pairs")
  _, _, judgements = read_records(tmp_path / "pairs.jsonl")
  assert [(j.id, j.item, j.ranks, j.strength) for j in judgements] == [
    ("j1", "pair", (0, 1), 3), ("j2", "triple", (0, 2, 1), None), ("j3", "triple", (0, 0, -1), None),
    ("j6", "pair", (0, 0), None)]  # fmt: skip


def pair(texts, ranks, group="g", **more):
  return {"prompt": "p", "responses": list(texts), "ranks": ranks, "annotator": "ann", "group": group, **more}


@pytest.mark.parametrize(
  "pairs",
  [
    [("ab", [0, 1]), ("cd", [0, 1])],  # four responses, of whose order two pairs say little
    [("ab", [0, 1]), ("bc", [0, 1]), ("ca", [0, 1])],  # a circle
    [("ab", [0, 1]), ("ab", [1, 0])],
    [("aa", [0, 1]), ("ab", [0, 1])],
  ],
)
def test_pairs_that_make_up_no_ranking_are_judgements_of_their_own(pairs, tmp_path):
  path = write(tmp_path / "a.jsonl", [pair(texts, ranks, item="i") for texts, ranks in pairs])
  _, items, judgements = read_records(path)
  texts = {item.id: "".join(response.text for response in item.responses) for item in items}
  assert [(texts[j.item], list(j.ranks)) for j in judgements] == pairs
  assert len({j.id for j in judgements}) == len(pairs)


def test_equal_texts_of_an_item_stay_apart(tmp_path):
  item = Item("i", "p", tuple(map(Response, "aba")))
  judgement = Judgement("j", "i", "ann", (0, 1, 2), ratings=(7, 4, 1), ranks=(0, 1, 2))
  write_records(tmp_path / "a.jsonl", ([Annotator("ann")], [item], [judgement]))
  for shape, field in (("ratings", "ratings"), ("rankings", "ranks")):
    convert(tmp_path / "a.jsonl", tmp_path / "b.jsonl", shape)
    _, (read,), (found,) = read_records(tmp_path / "b.jsonl")
    said = sorted(zip((response.text for response in read.responses), getattr(found, field), strict=True))
    assert said == sorted(zip("aba", getattr(judgement, field), strict=True))


def test_rows_without_a_group_are_judgements_of_their_own(tmp_path):
  rows = [
    {"prompt": "p", "response": "a", "rating": 7},
    {"prompt": "p", "response": "a", "rating": 6, "annotator": "ann"},
    {"prompt": "p", "response": "a", "critique": "too short", "rewrite": None},
  ]
  annotators, items, judgements = read_records(write(tmp_path / "a.jsonl", rows))
  assert [annotator.id for annotator in annotators] == ["unknown", "ann"] and len(items) == 1
  assert [(j.ratings, j.critiques) for j in judgements] == [((7,), None), ((6,), None), (None, ("too short",))]


@pytest.mark.parametrize(
  "rows, message",
  [
    ([{"prompt": "p"}], "a.jsonl:1: found the columns prompt; a row is a record with a 'type', or has"),
    ([{"prompt": "p", "response": "a", "rating": None}], "a.jsonl:1: found the columns"),
    ([{"prompt": 1, "response": "a", "rating": 1}], "a.jsonl:1: 'prompt' must be a string, found a number (1)"),
    ([{"prompt": "p", "response": "a", "rating": 8}], "a.jsonl:1: 'ratings[0]' must be 1 to 7 or null, found 8"),
    ([{"prompt": "p", "response": "a", "flags": "bad"}], "a.jsonl:1: 'flags' must be a list"),
    ([{"prompt": "p", "response": "a", "critique": ""}], "a.jsonl:1: a judgement must say something"),
    ([{"prompt": "p", "response": "a", "rating": 1, "annotator": 5}], "a.jsonl:1: 'annotator' must be a string"),
    ([pair("ab", [0])], "a.jsonl:1: 'ranks' has 1 entries for 2 responses"),
    ([pair("ab", [0, 1], gold=[1, 2])], "a.jsonl:1: 'gold' scores belong to comparisons without 'group' and 'item'"),
    ([pair("ab", [0, 1]), pair("bc", [0, 1], annotator="bob")], "a.jsonl:2: 'annotator' is 'bob', but 'ann' in the"),
    ([pair("ab", [0, 1]), pair("bc", [0, 1], item="i")], "a.jsonl:2: 'item' is 'i', but '' in the same group"),
    ([pair("ab", [0, 1]), pair("abc", [0, 1, 2])], "a.jsonl:2: a ranking of 3, and its group has other ranks too"),
    ([pair("ab", [0, 1], item="i"), {**pair("ab", [0, 1], "h", item="i"), "prompt": "q"}],
     "a.jsonl:2: the id 'i' occurs before with other content"),
  ],
)  # fmt: skip
def test_a_malformed_row_is_named_with_file_and_line(rows, message, tmp_path):
  with pytest.raises(DataError) as error:
    read_records(write(tmp_path / "a.jsonl", rows))
  assert message in str(error.value) and str(error.value).startswith(str(tmp_path))


def test_files_that_disagree_are_refused(tmp_path):
  row = {"prompt": "p", "response": "a", "rating": 7, "annotator": "ann", "group": "g"}
  first, second = write(tmp_path / "a.jsonl", [row]), write(tmp_path / "b.jsonl", [{**row, "rating": 6}])
  with pytest.raises(DataError, match="b.jsonl:1: 'rating' is 6, but another one earlier in the same group"):
    read_records(first, second)


def test_a_csv_is_for_spreadsheets(source, tmp_path):
  convert(source, tmp_path / "ratings.csv", "ratings")
  with pytest.raises(DataError, match="ratings.csv: a .csv is for spreadsheets, .* convert to .jsonl"):
    read_records(tmp_path / "ratings.csv")


def test_ranks_and_pairs_by_hand():
  assert dense_ranks(np.array([[0.5, 2.0, 0.5, np.nan]])).tolist() == [[1, 0, 1, -1]]
  ranks = np.array([[0, -1, 1], [2, 0, 2], [-1, -1, 0]])
  row, first, second = ranked_pairs(ranks)
  assert list(zip(row, first, second, strict=True)) == [(0, 0, 2), (1, 0, 1), (1, 0, 2), (1, 1, 2)]
  assert pair_outcomes(ranks[row, first], ranks[row, second]).tolist() == [1, 0, 0.5, 1]
  assert np.isnan(pair_outcomes(np.array([-1]), np.array([0]))).all()
