"""Prompts and responses as token ids, in the project's chat form or in that of a published model's chat template.

Prompt and response are tokenised apart, so that the boundary is where sampling puts it. In a template only the
template's own text spells control tokens, never what a user or a model wrote.
"""

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path

from rlhf_jax.data.files import DataError, write_bytes
from rlhf_jax.data.templates import ASSISTANT, HUMAN, render_prompt, render_response, split_dialogue
from rlhf_jax.data.tokenizer import Tokenizer

# The project's chat form as a template, for those who serve its models elsewhere.
TEMPLATE = (
  "{{ bos_token }}{% for message in messages %}"
  "{{ '\n\nHuman: ' if message['role'] == 'user' else '\n\nAssistant: ' }}{{ message['content'] }}"
  "{{ eos_token if message['role'] == 'assistant' and loop.last else '' }}{% endfor %}"
  "{{ '\n\nAssistant:' if add_generation_prompt else '' }}"
)
_MARK = "\ue000{}\ue001"  # private-use characters, which stand for a text while the template is rendered
_MARKS = re.compile("\ue000(\\d+)\ue001")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
  """The ids a response follows: <bos> and the rendered prompt, or what the chat template makes of it.

  Raises:
    DataError: the template refuses the prompt's turns.
  """
  if not tokenizer.chat_template:
    return [tokenizer.bos_id, *tokenizer.encode(render_prompt(prompt))]
  turns = _turns(prompt)
  text = _render(tokenizer, [role for role, _ in turns], True)
  return _template_ids(tokenizer, text, [text for _, text in turns])


def response_ids(tokenizer: Tokenizer, prompt: str, response: str) -> list[int]:
  """The ids of a response as they follow `prompt_ids`, <eos> at their end."""
  if not tokenizer.chat_template:
    return [*tokenizer.encode(render_response(response)), tokenizer.eos_id]
  control, text = _lead(tokenizer, len(_turns(prompt)))
  return [*control, *tokenizer.encode(text + response.strip()), tokenizer.eos_id]


def export_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
  """Writes tokenizer.json and tokenizer_config.json, chat template included, as published models carry them."""
  tokenizer.save(directory / "tokenizer.json")
  names = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id}
  settings = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    **{name: tokenizer.backend.id_to_token(index) for name, index in names.items()},
    "clean_up_tokenization_spaces": False,
    "chat_template": tokenizer.chat_template or TEMPLATE,
  }
  write_bytes(directory / "tokenizer_config.json", json.dumps(settings, indent=2, ensure_ascii=False).encode())


def _turns(prompt: str) -> list[tuple[str, str]]:
  if not (prompt.startswith(HUMAN) and prompt.endswith(ASSISTANT)):
    return [("user", prompt)]
  return [(_ROLES[role], text) for role, text in split_dialogue(prompt)[:-1]]


@functools.lru_cache(maxsize=64)
def _lead(tokenizer: Tokenizer, num_turns: int) -> tuple[tuple[int, ...], str]:
  """What the template puts between the end of a prompt and the response: control tokens, then plain text."""
  roles = [("user", "assistant")[i % 2] for i in range(num_turns)]
  roles = roles if roles[-1] == "user" else [*roles[1:], "user"]
  before, whole = _render(tokenizer, roles, True), _render(tokenizer, [*roles, "assistant"], False)
  lead = whole[len(before) :].partition(_MARK.format(len(roles)))[0] if whole.startswith(before) else ""
  if any(token in lead for token in tokenizer.control):
    return tuple(_template_ids(tokenizer, lead, ())), ""
  return (), lead


def _render(tokenizer: Tokenizer, roles: list[str], add_generation_prompt: bool) -> str:
  from jinja2 import TemplateError

  messages = [{"role": role, "content": _MARK.format(i)} for i, role in enumerate(roles)]
  try:
    return _compile(tokenizer.chat_template).render(
      messages=messages,
      add_generation_prompt=add_generation_prompt,
      bos_token=tokenizer.backend.id_to_token(tokenizer.bos_id),
      eos_token=tokenizer.backend.id_to_token(tokenizer.eos_id),
      pad_token=tokenizer.backend.id_to_token(tokenizer.pad_id),
    )
  except TemplateError as error:
    raise DataError(f"the model's chat template refuses a dialogue of the turns {', '.join(roles)}: {error}") from error


@functools.lru_cache(maxsize=8)
def _compile(template: str):
  import jinja2
  from jinja2.sandbox import ImmutableSandboxedEnvironment  # a template comes with the model: it is not our code

  def raise_exception(message):
    raise jinja2.TemplateError(message)

  environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
  )
  environment.filters["tojson"] = lambda value, **arguments: json.dumps(value, ensure_ascii=False, **arguments)
  environment.globals["raise_exception"] = raise_exception
  return environment.from_string(template)


def _template_ids(tokenizer: Tokenizer, text: str, contents: Sequence[str]) -> list[int]:
  """The ids of a rendered template whose marks stand for `contents`, in which no control token is read."""
  ids = []
  for number, piece in enumerate(_control_pattern(tuple(tokenizer.control)).split(text)):
    if number % 2:
      ids.append(tokenizer.control[piece])
    elif piece:
      ids += tokenizer.encode(_MARKS.sub(lambda mark: contents[int(mark[1])], piece))
  return ids


@functools.lru_cache(maxsize=8)
def _control_pattern(names: tuple[str, ...]) -> re.Pattern:
  longest_first = sorted(names, key=len, reverse=True)
  return re.compile(f"({'|'.join(map(re.escape, longest_first))})")
