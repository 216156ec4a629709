"""Phrasings of rows: FLAN's templates unchanged, the project's own, and the columns that a row must have for them."""

import json
from pathlib import Path

import pytest

from rlhf_jax.data import DataError
from rlhf_jax.data.templates import CHAIN_OF_THOUGHT, ZERO_SHOT, fill, load_templates, with_examples

FLAN = Path(__file__).parents[3] / "shared" / "data" / "templates" / "flan_v1_templates.json.gz"
LISTS = dict(options=["yes", "no"], concepts=["a", "b"], tripleset=["c"], questions=["q", "r"], answers=["s", "t"],
             reviews=["u"])  # fmt: skip


def test_a_template_names_columns_in_braces():
  phrasings = load_templates([["{question} ({n})", "{answer}"], ["100 %s%%{answer}?", "{question}"]])
  assert phrasings.columns == ("question", "n", "answer")
  values = phrasings.values({"question": "{answer} {0} {x.__class__}", "n": 3, "answer": "yes"}, "a:1")
  # What a row holds is text: braces in it are not filled in, and no attribute is ever read.
  assert fill(phrasings.templates[0], values) == ("{answer} {0} {x.__class__} (3)", "yes")
  assert fill(phrasings.templates[1], values) == ("100 %s%%yes?", "{answer} {0} {x.__class__}")


def test_lists_become_the_texts_that_flan_names():
  phrasings = load_templates([["{options_}|{options_str}|{numbered_questions}|{concepts_newline}", "x"]])
  values = phrasings.values(LISTS, "a:1")
  options = "OPTIONS:\n- yes\n- no"
  assert fill(phrasings.templates[0], values)[0] == f"{options}|{options}|1. q\n2. r|a\nb"


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"premise": "p"}, "a:1: no column 'options_', which the template names, among {premise}"),
    ({"premise": "p", "options": "yes"}, "a:1: 'options' must be a list of strings, found a string"),
    ({"premise": "p", "options": [1]}, "a:1: 'options' must be a list of strings, found a list"),
    ({"premise": True, "options": ["y"]}, "a:1: 'premise' must be a string or a number, found a boolean"),
  ],
)
def test_a_row_without_a_column_of_the_template_is_refused(row, message):
  with pytest.raises(DataError, match=message):
    load_templates([["{premise} {options_}", "x"]]).values(row, "a:1")


def test_rationales_stand_before_the_answer():
  values = dict(question="1 + 1?", answer="2", rationale="One and one.")
  for template in CHAIN_OF_THOUGHT:
    prompt, answer = fill(template, values)
    assert "1 + 1?" in prompt and "One and one." not in prompt and "2" not in prompt
    assert answer == "One and one.\nThe answer is 2."
  assert {fill(template, values)[1] for template in ZERO_SHOT} == {"2"}
  assert load_templates("chain_of_thought").templates == CHAIN_OF_THOUGHT
  assert len({prompt for prompt, _ in CHAIN_OF_THOUGHT}) == len(CHAIN_OF_THOUGHT) >= 5


def test_solved_examples_stand_in_front():
  assert with_examples("q3", [("q1", "a1"), ("q2", "a2")]) == "q1\na1\n\nq2\na2\n\nq3"


def test_templates_of_a_file(tmp_path):
  (tmp_path / "t.json").write_text(json.dumps({"rte": [["{a}", "{b}"]], "bad": [["{a}"]], "worse": [1], "worst": 1}))
  assert load_templates(f"{tmp_path}/t.json:rte").templates == (("{a}", "{b}"),)
  with pytest.raises(DataError, match="no templates for 'rta' among {bad, rte, worse, worst}"):
    load_templates(f"{tmp_path}/t.json:rta")
  for name in ("bad", "worse", "worst"):
    with pytest.raises(DataError, match="must be pairs"):
      load_templates(f"{tmp_path}/t.json:{name}")
  with pytest.raises(DataError, match="must be zero_shot, chain_of_thought or FILE:NAME"):
    load_templates("zero_shots")


def test_the_610_templates_of_flan_load_as_they_are():
  if not FLAN.exists():
    pytest.skip("the public data set flan_v1_templates is not in ../shared/data")
  import gzip

  named = json.loads(gzip.decompress(FLAN.read_bytes()))["PATTERNS"]
  count = 0
  for name_in_file, pairs in named.items():
    phrasings = load_templates(f"{FLAN}:{name_in_file}")
    names = [name for name in phrasings.columns if name not in ("options_", "options_str")]
    row = {name: f"<{name}>" for name in names} | {"options": ["yes", "no"]}
    values = phrasings.values(row, name_in_file)
    assert [list(template) for template in phrasings.templates] == pairs
    for template in phrasings.templates:
      prompt, answer = fill(template, values)
      assert "{" not in prompt + answer and answer.strip()
      count += 1
  assert count == 610
