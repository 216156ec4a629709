"""The one chat form: rendering to it, and taking dialogues in the format of Anthropic's HH data apart."""

import re

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"

_TURN = re.compile(r"\n\n(Human|Assistant):")


class UnusableDialogue(ValueError):
  """A well-formed dialogue without the part asked for; readers count these by the message."""


def render_prompt(prompt: str) -> str:
  """The text the policy continues: a bare instruction is wrapped, a dialogue stays as it is."""
  if prompt.startswith(HUMAN) and prompt.endswith(ASSISTANT):
    return prompt
  return f"{HUMAN} {prompt}{ASSISTANT}"


def render_response(response: str) -> str:
  """The response as it follows a rendered prompt: stripped, then exactly one leading space."""
  return " " + response.strip()


def split_dialogue(text: str) -> list[tuple[str, str]]:
  """The (role, text) turns of a dialogue; roles are "Human" and "Assistant", texts are stripped.

  Real dialogues hold two turns of the same role in a row, and end in either role; both are kept as they are.

  Raises:
    ValueError: the text does not start with the human's turn.
  """
  if not text.startswith(HUMAN):
    raise ValueError(f"not a dialogue: it must start with {HUMAN!r}, found {text[:40]!r}")
  _, *parts = _TURN.split(text)
  return [(role, body.strip()) for role, body in zip(parts[::2], parts[1::2], strict=True)]


def split_answer(dialogue: str) -> tuple[str, str]:
  """The prompt (up to and with the last "\\n\\nAssistant:") and the stripped last answer of a dialogue.

  Raises:
    ValueError: as `split_dialogue`.
    UnusableDialogue: the last turn is not the assistant's.
  """
  if split_dialogue(dialogue)[-1][0] != "Assistant":
    raise UnusableDialogue("the last turn is not the assistant's")
  end = dialogue.rindex(ASSISTANT) + len(ASSISTANT)
  return dialogue[:end], dialogue[end:].strip()


def split_pair(chosen: str, rejected: str) -> tuple[str, str, str]:
  """(prompt, chosen response, rejected response) of two whole dialogues that differ in their last turn only.

  Raises:
    ValueError: as `split_dialogue`.
    UnusableDialogue: they differ before the last turn, so that they answer different prompts, or the last
      turn is not the assistant's.
  """
  prompt, chosen_response = split_answer(chosen)
  rejected_prompt, rejected_response = split_answer(rejected)
  if prompt != rejected_prompt:
    raise UnusableDialogue("no shared prompt: chosen and rejected differ before the last turn")
  return prompt, chosen_response, rejected_response
