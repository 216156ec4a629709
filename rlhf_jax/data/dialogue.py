"""The project's chat form, that of Anthropic's HH data: prompts and responses as text, and dialogues split in turns."""

import re
from collections.abc import Sequence

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"
SYSTEM = "\n\nSystem:"  # only at the very start: in HH it may stand in an answer, as text

_TURN = re.compile(r"\n\n(Human|Assistant):")

# The same form as a Jinja chat template, for programs that serve the project's models. Every turn of the assistant ends
# in <eos>, those of a prompt too: a policy that is trained on all of them learns to stop after each.
CHAT_TEMPLATE = (
  "{{ bos_token }}{% for message in messages %}"
  "{{ {'user': '\n\nHuman: ', 'system': '\n\nSystem: '}.get(message['role'], '\n\nAssistant: ') }}"
  "{{ message['content'] }}"
  "{{ eos_token if message['role'] == 'assistant' else '' }}{% endfor %}"
  "{{ '\n\nAssistant:' if add_generation_prompt else '' }}"
)


class UnusableDialogue(ValueError):
  """A well-formed dialogue that lacks the part asked for; readers count such dialogues by the message."""


def is_dialogue(prompt: str) -> bool:
  """Whether a prompt is a dialogue that ends where the assistant answers; otherwise it is a bare instruction."""
  return prompt.startswith((HUMAN, SYSTEM)) and prompt.endswith(ASSISTANT)


def render_prompt(prompt: str) -> str:
  """The text that the policy continues: a bare instruction becomes the human's turn, a dialogue stays as it is."""
  return prompt if is_dialogue(prompt) else f"{HUMAN} {prompt}{ASSISTANT}"


def render_response(response: str) -> str:
  """The response as it follows a rendered prompt: stripped, with one leading space."""
  return " " + response.strip()


def split_dialogue(text: str) -> list[tuple[str, str]]:
  """The (role, text) turns of a dialogue; roles are "Human", "Assistant" and "System", texts are stripped.

  Two turns of the same role in a row, and a last turn of either role, occur in published data and are kept. Only the
  first turn can be the system's.

  Raises:
    ValueError: the text does not start with the human's turn, or with the system's turn and then the human's.
  """
  if not text.startswith((HUMAN, SYSTEM)):
    raise ValueError(f"not a dialogue: it must start with {HUMAN!r}, found {text[:40]!r}")
  first, *parts = _TURN.split(text)
  system = [("System", first.removeprefix(SYSTEM).strip())] if first else []
  if not parts or parts[0] != "Human":
    raise ValueError(f"not a dialogue: {SYSTEM!r} must be followed by {HUMAN!r}")
  return system + [(role, body.strip()) for role, body in zip(parts[::2], parts[1::2], strict=True)]


def join_dialogue(turns: Sequence[tuple[str, str]]) -> str:
  r"""The dialogue that `split_dialogue` splits into these turns.

  Raises:
    ValueError: the turns do not start with the human's, or with the system's and then the human's.
    UnusableDialogue: a text holds the mark of a turn, such as "\n\nHuman:".
  """
  if any(_TURN.search(text.strip()) for _, text in turns):
    raise UnusableDialogue("a message spells the beginning of a turn")
  roles = [role for role, _ in turns]
  if roles[:1] != ["Human"] and roles[:2] != ["System", "Human"] or "System" in roles[1:]:
    raise ValueError(f"a dialogue starts with the human, or with one system message, found {', '.join(roles)}")
  return "".join(f"\n\n{role}: {text.strip()}" for role, text in turns)


def split_answer(dialogue: str) -> tuple[str, str]:
  r"""The prompt (up to and with the last "\n\nAssistant:") and the stripped last answer of a dialogue.

  Raises:
    ValueError: as `split_dialogue`.
    UnusableDialogue: the last turn is not the assistant's.
  """
  if split_dialogue(dialogue)[-1][0] != "Assistant":
    raise UnusableDialogue("the last turn is not the assistant's")
  end = dialogue.rindex(ASSISTANT) + len(ASSISTANT)
  return dialogue[:end], dialogue[end:].strip()


def split_pair(chosen: str, rejected: str) -> tuple[str, str, str]:
  """(prompt, chosen response, rejected response) of two whole dialogues that differ in their last turn alone.

  Raises:
    ValueError: as `split_dialogue`.
    UnusableDialogue: the dialogues differ before the last turn, which makes them answers to different prompts, or the
      last turn is not the assistant's.
  """
  prompt, chosen_response = split_answer(chosen)
  rejected_prompt, rejected_response = split_answer(rejected)
  if prompt != rejected_prompt:
    raise UnusableDialogue("no shared prompt: chosen and rejected differ before the last turn")
  return prompt, chosen_response, rejected_response
