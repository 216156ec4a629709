"""The chat form, and taking HH dialogues apart exactly once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_jax.data import (
  UnusableDialogue,
  render_prompt,
  render_response,
  split_answer,
  split_dialogue,
  split_pair,
)


def test_bare_instruction_is_wrapped():
  assert render_prompt("Where does Tom live?") == "\n\nHuman: Where does Tom live?\n\nAssistant:"


@given(st.text())
def test_rendering_twice_is_rendering_once(prompt):
  assert render_prompt(render_prompt(prompt)) == render_prompt(prompt)


def test_dialogue_prompt_is_kept():
  prompt = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:"
  assert render_prompt(prompt) == prompt


@pytest.mark.parametrize("response", ["Oakford.", " Oakford.", "\n Oakford. \n"])
def test_response_has_exactly_one_leading_space(response):
  assert render_response(response) == " Oakford."


def test_split_dialogue():
  text = "\n\nHuman: Hi\n\nAssistant:  Hello.\n\nSecond paragraph.\n\nHuman: Bye"
  assert split_dialogue(text) == [
    ("Human", "Hi"),
    ("Assistant", "Hello.\n\nSecond paragraph."),
    ("Human", "Bye"),
  ]


def test_split_dialogue_keeps_consecutive_turns_and_inline_names():
  text = "\n\nHuman: Price?\n\nAssistant: A second...\n\nAssistant: 50. Human: is inline.\nHuman: one newline"
  assert split_dialogue(text) == [
    ("Human", "Price?"),
    ("Assistant", "A second..."),
    ("Assistant", "50. Human: is inline.\nHuman: one newline"),
  ]


@pytest.mark.parametrize("text", ["", "Hi", "\n\nAssistant: Hi", "Human: Hi\n\nAssistant: Hello", "\n\n\nHuman: Hi"])
def test_malformed_dialogue_is_refused(text):
  with pytest.raises(ValueError, match="must start with"):
    split_dialogue(text)


def test_split_answer():
  assert split_answer("\n\nHuman: Hi\n\nAssistant: Hello ") == ("\n\nHuman: Hi\n\nAssistant:", "Hello")


def test_split_pair_splits_at_the_last_turn():
  shared = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:"
  assert split_pair(shared + " Good bye", shared + " Good night") == (shared, "Good bye", "Good night")


def test_split_pair_ignores_a_prefix_that_the_answers_share():
  shared = "\n\nHuman: Hi\n\nAssistant:"
  assert split_pair(shared + " Hello you", shared + " Hello me") == (shared, "Hello you", "Hello me")


@pytest.mark.parametrize(
  "rejected",
  ["\n\nHuman: Ho\n\nAssistant: Hello", "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Hm\n\nAssistant: Hello"],
)
def test_pairs_that_differ_before_the_last_turn_share_no_prompt(rejected):
  with pytest.raises(UnusableDialogue, match="no shared prompt"):
    split_pair("\n\nHuman: Hi\n\nAssistant: Hello", rejected)


def test_a_dialogue_that_ends_with_the_human_has_no_answer():
  with pytest.raises(UnusableDialogue, match="not the assistant's"):
    split_answer("\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye")


@given(st.text(), st.text(), st.text())
def test_split_pair_undoes_rendering(prompt, chosen, rejected):
  rendered = render_prompt(prompt.replace("\n", " "))
  chosen, rejected = chosen.replace("\n", " "), rejected.replace("\n", " ")
  pair = split_pair(rendered + render_response(chosen), rendered + render_response(rejected))
  assert pair == (rendered, chosen.strip(), rejected.strip())
