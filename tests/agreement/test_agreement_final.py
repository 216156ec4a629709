"""Final judgements: the answer to an item in each consensus and on each board, and a rating in no agreement."""

import dataclasses
import json

import numpy as np
import pytest
from judgement_samples import item, judgement, records, write

from rlhf_jax.agreement import consensus
from rlhf_jax.agreement.findings import analyse
from rlhf_jax.agreement.report import consensus_rows, summary
from rlhf_jax.agreement.tables import judgement_table, pairs_of
from rlhf_jax.cli import main
from rlhf_jax.feedback.records import (
  UNDONE,
  Annotator,
  Item,
  Judgement,
  Response,
  answers,
  settled,
)

FITS = (consensus.majority, consensus.dawid_skene, consensus.noisy_bradley_terry)
PEOPLE = ("ann", "bob", "cid")
GIVEN = {name: {"i": (0, 1), "j": (0, 1), "k": (1, 0) if name == "cid" else (0, 1)} for name in PEOPLE} | {"eve": {}}
NAMES = ("majority", "dawid_skene", "noisy_bradley_terry")


def study(*final):
  """Three annotators on three items, and final judgements of the expert."""
  people, items, said = records(GIVEN, experts=("eve",))
  return people, items, [*said, *final]


def by_eve(name, where, ranks, **fields):
  return judgement(name, where, "eve", ranks, final=True, **fields)


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.__name__)
def test_the_consensus_of_a_settled_item_is_the_final_judgement(fit):
  """Against all annotators, and a tie of the expert's; models and scores are those without it."""
  given = judgement_table(*study(by_eve("f1", "i", (1, 0)), by_eve("f2", "k", (0, 0))))
  plain = judgement_table(*study())
  found, alone = (fit(table, pairs_of(table)) for table in (given, plain))
  assert found.ranks.tolist() == [[1, 0], [0, 1], [0, 0]] and alone.ranks.tolist() == [[0, 1]] * 3
  np.testing.assert_array_equal(found.scores, alone.scores)
  assert given.num_final == 2 and len(given.item) == len(plain.item) == 9


def test_agreement_and_screening_do_not_know_it():
  with_final, without = (summary(analyse(*study(*f))) for f in ((by_eve("f", "i", (1, 0)),), ()))
  assert (with_final.pop("final"), without.pop("final")) == (1, 0)
  assert with_final == without


def test_an_item_that_an_expert_alone_judged_has_a_consensus():
  people, items, said = study(by_eve("f", "z", (1, 0)))
  rows = {row["item"]: row for row in consensus_rows(analyse(people, [*items, item("z")], said))}
  assert [rows["z"][name] for name in NAMES] == [[1, 0]] * 3
  assert rows["z"]["scores"] == [None, None] and rows["z"]["settled"] and not rows["i"]["settled"]


def test_who_won_follows_from_the_answers():
  """Two annotators prefer x on six items; the expert says of one of them that y is better."""
  responses = (Response("a b", {"model": "x"}), Response("c d", {"model": "y"}))
  items = [Item(f"i{n}", f"What is {n}?", responses) for n in range(6)]
  said = [judgement(f"{who}{n}", f"i{n}", who, (0, 1)) for who in ("ann", "bob") for n in range(6)]
  people = [Annotator("ann"), Annotator("bob"), Annotator("eve", expert=True)]
  found = analyse(people, items, [*said, judgement("f", "i0", "eve", (1, 0), final=True)])
  best = found.winners.overall.standings[0]
  assert (best.model, best.wins, best.losses) == ("x", 10, 1)


def test_the_last_final_judgement_counts_and_none_that_was_taken_back():
  def final(name, ranks, **fields):
    return Judgement(name, "i", fields.pop("annotator", "eve"), (0, 1), ranks=ranks, final=ranks is not None, **fields)

  first = final("a", (0, 1), created="2026-01-01T00:00:00Z")
  second = final("b", (1, 0), annotator="fay", created="2026-01-02T00:00:00Z")
  other = Judgement("c", "i", "ann", (0, 1), ranks=(0, 0))
  assert settled([second, first]) == settled([first, second]) == {"i": second}
  assert answers([other, second, first]) == [second]
  undone = final("d", None, skipped=UNDONE, supersedes="b", annotator="fay")
  assert answers([other, first, second, undone]) == [first]
  assert answers([other, first, final("e", None, skipped=UNDONE, supersedes="a")])[0] == other
  assert settled([dataclasses.replace(first, ranks=None, skipped="I cannot tell")]) == {}


def test_the_command_counts_final_judgements_in_a_line_of_their_own(tmp_path, capsys):
  path = write(tmp_path / "a.jsonl", study(by_eve("f", "i", (1, 0))))
  assert main(["agreement", str(path), "--out", str(tmp_path / "out")]) == 0
  assert "1 final judgements answer their items, and are no ratings" in capsys.readouterr().out
  assert json.loads((tmp_path / "out/agreement.json").read_text())["final"] == 1
  rows = [json.loads(line) for line in (tmp_path / "out/consensus.jsonl").read_text().splitlines()]
  assert [row["settled"] for row in rows] == [True, False, False]


def test_final_answers_of_yes_or_no_are_counted_apart_too(tmp_path, capsys):
  said = [Judgement(f"{n}", "i", name, (0,), yes_no=(n == 0,)) for n, name in enumerate(("ann", "bob"))]
  final = Judgement("f", "i", "eve", (0,), yes_no=(True,), final=True)
  people = [Annotator("ann"), Annotator("bob"), Annotator("eve", expert=True)]
  path = write(tmp_path / "a.jsonl", (people, [Item("i", "?", (Response("a"),))], [*said, final]))
  assert main(["agreement", str(path)]) == 0
  told = capsys.readouterr().out
  assert "raw agreement of two annotators (yes or no): 0.00" in told and "1 final judgements" in told
