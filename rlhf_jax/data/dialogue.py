r"""Dialogues: a list of messages, each with its role and its content; and the project's own chat form.

A dialogue is a list of messages wherever it goes; no text is ever taken apart to find turns in it. What is asked in one
plain turn of the user is the text of that turn, and an answer that is nothing but text is that text. HH's text form
("\n\nHuman: ...\n\nAssistant: ...", Bai et al. 2022, arXiv 2204.05862) is parsed where files are read (`parse_text`).
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlhf_jax.data.chat_templates import Rendered, TemplateRefusal

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"
SYSTEM = "\n\nSystem:"  # only at the very start: in HH it may stand in an answer, as text
ROLES = ("user", "assistant", "system", "tool")

NO_SHARED_PROMPT = "no shared prompt: chosen and rejected differ before the last turn"

_TURN = re.compile(r"\n\n(Human|Assistant):")
_MARKS = {"user": HUMAN, "assistant": ASSISTANT, "system": SYSTEM, "tool": "\n\nTool:"}

# The same form as a Jinja chat template, for programs that serve the project's models. Every turn of the assistant ends
# in <eos>, those of a prompt too: a policy that is trained on all of them learns to stop after each.
CHAT_TEMPLATE = (
  "{{ bos_token }}{% if tools %}{{ raise_exception('this chat form has no place for tools') }}{% endif %}"
  "{% for message in messages %}{% if message['tool_calls'] or message['reasoning_content'] %}"
  "{{ raise_exception('this chat form has no place for tool calls and reasoning') }}{% endif %}"
  "{{ {'user': '\n\nHuman: ', 'system': '\n\nSystem: ', 'tool': '\n\nTool: '}.get(message['role'], '\n\nAssistant: ')"
  " }}{{ message['content'] | trim }}"
  "{{ eos_token if message['role'] == 'assistant' else '' }}{% endfor %}"
  "{{ '\n\nAssistant:' if add_generation_prompt else '' }}"
)
# As earlier versions wrote it, without `trim`; it stands in the fingerprints of tokenizers in the project's own form.
_EARLIER = (
  "{{ bos_token }}{% for message in messages %}"
  "{{ {'user': '\n\nHuman: ', 'system': '\n\nSystem: '}.get(message['role'], '\n\nAssistant: ') }}"
  "{{ message['content'] }}"
  "{{ eos_token if message['role'] == 'assistant' else '' }}{% endfor %}"
  "{{ '\n\nAssistant:' if add_generation_prompt else '' }}"
)


OWN_TEMPLATES = (_EARLIER, CHAT_TEMPLATE)


class Message(NamedTuple):
  """A turn of a dialogue."""

  role: str
  """Role of the speaker, one of `ROLES`."""
  content: str
  """Text of the turn."""
  more: str = ""
  """Further keys of the message, such as reasoning_content or tool_calls, as a JSON object, and the tools of a dialogue
  on its first message; "" for none."""

  def row(self) -> dict[str, Any]:
    """The message as a row of a file has it, and as a chat template reads it."""
    return {"role": self.role, "content": self.content, **(json.loads(self.more) if self.more else {})}


Dialogue = tuple[Message, ...]
Prompt = str | Dialogue  # a text is the one turn of a user that has no further keys
Response = str | Message  # a text is an answer that has no further keys
PromptValue = str | list[dict[str, Any]]  # a prompt as JSON has it, and as functions of a user get it


class UnusableDialogue(ValueError):
  """A well-formed dialogue that lacks the part asked for; readers count such dialogues by the message."""


def make_message(role: str, content: str, more: Mapping[str, Any] | None = None) -> Message:
  """A message; `more` are its further keys, whose values are of types that JSON has."""
  return Message(role, content, json.dumps(more, ensure_ascii=False) if more else "")


def messages_of(prompt: Prompt) -> Dialogue:
  """The messages of a prompt."""
  return (Message("user", prompt),) if isinstance(prompt, str) else prompt


def as_prompt(messages: Sequence[Message]) -> Prompt:
  """The prompt of some messages: the text alone of one plain turn of the user.

  A text that looks like HH's form stays a message, so that a file that it is written to gives it back.
  """
  alone = len(messages) == 1 and messages[0].role == "user" and not messages[0].more
  return messages[0].content if alone and not _looks_like_text(messages[0].content) else tuple(messages)


def as_response(message: Message) -> Response:
  """The response of a message of the assistant: its text alone where it has no further keys."""
  return message if message.more or _looks_like_text(message.content) else message.content


def answer_message(response: Response) -> Message:
  """The message of a response."""
  return Message("assistant", response) if isinstance(response, str) else response


def prompt_value(prompt: Prompt) -> PromptValue:
  """The JSON value of a prompt, as files hold it and functions of a user get it: a text, or a list of messages."""
  prompt = as_prompt(messages_of(prompt))
  return prompt if isinstance(prompt, str) else [message.row() for message in prompt]


def value_text(value: Any) -> str:
  """The text for people of what `prompt_value` gave, or of any other JSON value."""
  if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
    return str(value)
  return render_prompt(tuple(Message(str(turn.get("role")), str(turn.get("content"))) for turn in value))


def response_value(response: Response) -> str | list[dict[str, Any]]:
  """The JSON value of a response: a text, or a list of one message."""
  response = as_response(answer_message(response))
  return response if isinstance(response, str) else [response.row()]


def prompt_text(prompt: Prompt) -> str:
  """A prompt for people and for statistics of its words: a dialogue is written in the project's own chat form."""
  return prompt if isinstance(prompt, str) else render_prompt(prompt)


def response_text(response: Response) -> str:
  """The text of a response, without further keys."""
  return response if isinstance(response, str) else response.content


def is_trained(message: Message) -> bool:
  """Whether a turn of the assistant is one to train on: its key "weight", where it has one, is not 0."""
  return '"weight"' not in message.more or json.loads(message.more).get("weight", 1) != 0


def is_empty(prompt: Prompt) -> bool:
  """Whether nobody says anything in a prompt."""
  return not any(message.content.strip() or message.more for message in messages_of(prompt))


def render_prompt(prompt: Prompt) -> str:
  """The prompt in the project's own chat form, up to where the assistant answers."""
  turns = (f"{_MARKS.get(role, role)} {content.strip()}" for role, content, _ in messages_of(prompt))
  return "".join(turns) + ASSISTANT


def own_form(values: Mapping[str, Any]) -> Rendered | TemplateRefusal:
  """What `CHAT_TEMPLATE` gives for these values, with the turns of the assistant as its spans."""
  if values["tools"]:
    return TemplateRefusal("this chat form has no place for tools")
  text, spans = values["bos_token"], []
  for message in values["messages"]:
    turn = own_turn(message, values["eos_token"])
    if isinstance(turn, TemplateRefusal):
      return turn
    text += _MARKS[message["role"]]
    if message["role"] == "assistant":
      spans.append((len(text), len(text) + len(turn)))
    text += turn
  return Rendered(text + (ASSISTANT if values["add_generation_prompt"] else ""), tuple(spans))


def own_turn(message: Mapping[str, Any], eos_token: str) -> str | TemplateRefusal:
  """What `CHAT_TEMPLATE` writes of a message behind the mark of its role."""
  if message.get("tool_calls") or message.get("reasoning_content"):
    return TemplateRefusal("this chat form has no place for tool calls and reasoning")
  content: str = message["content"]
  return f" {content.strip()}{eos_token if message['role'] == 'assistant' else ''}"


def render_response(response: Response) -> str:
  """The response as it follows a rendered prompt: stripped, with one leading space."""
  return " " + response_text(response).strip()


def is_dialogue(text: str) -> bool:
  """Whether a text is a prompt in HH's form, which ends where the assistant answers."""
  return text.startswith((HUMAN, SYSTEM)) and text.endswith(ASSISTANT)


def parse_text(text: str) -> Dialogue:
  """The messages of a dialogue in HH's text form; their contents are stripped.

  Two turns of the same role in a row, and a last turn of either role, occur in published data and are kept. Only the
  first turn can be the system's.

  Raises:
    ValueError: the text does not start with the human's turn, or with the system's turn and then the human's.
  """
  if not text.startswith((HUMAN, SYSTEM)):
    raise ValueError(f"not a dialogue: it must start with {HUMAN!r}, found {text[:40]!r}")
  first, *parts = _TURN.split(text)
  system = [Message("system", first.removeprefix(SYSTEM).strip())] if first else []
  if not parts or parts[0] != "Human":
    raise ValueError(f"not a dialogue: {SYSTEM!r} must be followed by {HUMAN!r}")
  turns = zip(parts[::2], parts[1::2], strict=True)
  return (*system, *(Message("user" if role == "Human" else "assistant", body.strip()) for role, body in turns))


def parse_prompt_text(text: str) -> Prompt:
  """The prompt of a text: of a dialogue in HH's form that ends where the assistant answers, or of a bare instruction.

  Raises:
    ValueError: as `parse_text`.
  """
  return as_prompt(parse_text(text)[:-1]) if is_dialogue(text) else text


def split_answer(dialogue: Dialogue) -> tuple[Prompt, Response]:
  """The prompt and the last answer of a dialogue.

  Raises:
    UnusableDialogue: there are no messages, or the last one is not the assistant's.
  """
  if not dialogue:
    raise UnusableDialogue("no messages")
  if dialogue[-1].role != "assistant":
    raise UnusableDialogue("the last turn is not the assistant's")
  return as_prompt(dialogue[:-1]), as_response(dialogue[-1])


def split_pair(chosen: Dialogue, rejected: Dialogue) -> tuple[Prompt, Response, Response]:
  """(prompt, chosen response, rejected response) of two whole dialogues that differ in their last turn alone.

  Raises:
    UnusableDialogue: the dialogues differ before the last turn, which makes them answers to different prompts, or the
      last turn is not the assistant's.
  """
  prompt, chosen_response = split_answer(chosen)
  rejected_prompt, rejected_response = split_answer(rejected)
  if prompt != rejected_prompt:
    raise UnusableDialogue(NO_SHARED_PROMPT)
  return prompt, chosen_response, rejected_response


def _looks_like_text(text: str) -> bool:
  return text.startswith((HUMAN, SYSTEM))
