"""Agreement on yes and no: by hand, and from judgements of single responses."""

import pytest

from rlhf_jax.agreement.findings import analyse
from rlhf_jax.agreement.tables import judgement_table
from rlhf_jax.agreement.yes_no import yes_no_agreement
from rlhf_jax.cli import main
from rlhf_jax.feedback.exchange import write_records
from rlhf_jax.feedback.records import Annotator, Item, Judgement, Response

PEOPLE = [Annotator(name) for name in ("ann", "bob")]
# Two annotators on four responses: yes yes, yes no, no no, yes yes; then one response that bob alone judged.
ANSWERS = {"ann": (True, True, False, True, None), "bob": (True, False, False, True, True)}


def single():
  items = [Item(f"i{n}", f"Question {n}?", (Response("An answer."),)) for n in range(5)]
  said = [
    Judgement(f"{name}{n}", f"i{n}", name, (0,), yes_no=(answer,))
    for name, answers in ANSWERS.items()
    for n, answer in enumerate(answers)
    if answer is not None
  ]
  return PEOPLE, items, said


def test_the_coefficients_by_hand():
  found = yes_no_agreement(judgement_table(*single()))
  # 3 of 4 units are equal; ann says yes in 3/4, bob in 2/4.
  chance = 3 / 4 * 2 / 4 + 1 / 4 * 2 / 4
  yes = 5 / 8
  expected = {
    "raw agreement of two annotators (yes or no)": 3 / 4,
    "Cohen's kappa of two annotators (yes or no)": (3 / 4 - chance) / (1 - chance),
    "Fleiss' kappa (yes or no)": 1 - (1 / 4) / (1 - yes**2 - (1 - yes) ** 2),
    "Krippendorff's alpha, nominal (yes or no)": 1 - (1 / 4) / (2 * 5 * 3 / (8 * 7)),
  }
  assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(expected)
  assert all(estimate.num == 4 for estimate in found.values())


def test_answers_to_several_responses_are_units_of_their_own_and_order_them():
  items = [Item("i", "?", (Response("a"), Response("b")))]
  said = [
    Judgement("1", "i", "ann", (0, 1), yes_no=(True, False)),
    Judgement("2", "i", "bob", (0, 1), yes_no=(True, True)),
  ]
  table = judgement_table(PEOPLE, items, said)
  assert table.ranks.tolist() == [[0, 1], [0, 0]]
  found = analyse(PEOPLE, items, said)
  assert found.group["raw agreement of two annotators (yes or no)"].value == 0.5
  ranked = [Judgement("1", "i", "ann", (0, 1), ranks=(0, 1))]
  assert yes_no_agreement(judgement_table(PEOPLE, items, ranked)) == {}


def test_the_command_tells_the_agreement_on_single_responses(tmp_path, capsys):
  write_records(tmp_path / "a.jsonl", single())
  assert main(["agreement", str(tmp_path / "a.jsonl")]) == 0
  assert "Cohen's kappa of two annotators (yes or no): 0.50" in capsys.readouterr().out
  assert main(["agreement", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "out")]) == 2
  assert "--out needs judgements that order two responses" in capsys.readouterr().err
