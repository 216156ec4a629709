"""Prompts and responses as token ids, in the project's chat form or in the form of a published model's chat template.

Prompt and response are tokenised apart, so that the boundary between them is where sampling puts it; every earlier turn
of the assistant in a prompt is tokenised apart too. Control tokens come from the template's own text alone: the same
characters in the text of a user or a model are plain text.
"""

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn

import numpy as np

from rlhf_jax.data.dialogue import ASSISTANT, CHAT_TEMPLATE, is_dialogue, render_prompt, render_response, split_dialogue
from rlhf_jax.data.files import DataError, write_bytes
from rlhf_jax.data.tokenizer import Tokenizer

if TYPE_CHECKING:
  import jinja2

_MARK = "\ue000{}\ue001"  # private-use characters around a number: the place of a message's text in a rendered template
_MARKS = re.compile("\ue000(\\d+)\ue001")
_ROLES = {"Human": "user", "Assistant": "assistant", "System": "system"}

# The tokens that a loss counts: those of the last answer, of all turns of the assistant, or every token but the first.
LossTokens = Literal["last", "all", "everything"]
Encoded = tuple[np.ndarray, np.ndarray]  # (ids i32[T], mask bool[T]) of an example; mask is True on the counted tokens


class Piece(NamedTuple):
  """A part of an example that is tokenised by itself."""

  content: str | int
  """Text, or the id of a control token."""
  spoken: bool = False
  """Whether the assistant writes it."""


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
  """The ids that a response follows: <bos> and the rendered prompt, or the prompt in the chat template.

  Raises:
    DataError: the chat template refuses the turns of the prompt.
  """
  return _ids(tokenizer, prompt_pieces(tokenizer, prompt))


def response_ids(tokenizer: Tokenizer, prompt: str, response: str) -> list[int]:
  """The ids of a response that follow those of `prompt_ids`, with <eos> at their end."""
  return _ids(tokenizer, response_pieces(tokenizer, prompt, response))


def encode_demonstrations(
  tokenizer: Tokenizer, demonstrations: Sequence[tuple[str, str]], loss: LossTokens
) -> list[Encoded]:
  """(ids i32[T], mask bool[T]) of each (prompt, response), all tokenised at once; mask is True on the tokens of `loss`.

  The ids are those of `prompt_ids` and then of `response_ids`, whatever `loss` is. Raises DataError as `prompt_ids`
  does.
  """
  pairs = [
    (prompt_pieces(tokenizer, prompt), response_pieces(tokenizer, prompt, response))
    for prompt, response in demonstrations
  ]
  pieces = [piece for pair in pairs for part in pair for piece in part]
  texts = tokenizer.encode_batch([piece.content for piece in pieces if isinstance(piece.content, str)])
  encoded = iter(texts)
  found = []
  for pair in pairs:
    ids: list[int] = []
    mask: list[bool] = []
    for part, is_response in zip(pair, (False, True), strict=True):
      for content, spoken in part:
        here = next(encoded) if isinstance(content, str) else [content]
        ids += here
        mask += [is_response or loss == "everything" or (loss == "all" and spoken)] * len(here)
    mask[0] = False  # no token precedes it, from which it could be predicted
    found.append((np.asarray(ids, np.int32), np.asarray(mask)))
  return found


def prompt_pieces(tokenizer: Tokenizer, prompt: str) -> list[Piece]:
  """The pieces of `prompt_ids`. Raises DataError."""
  if tokenizer.chat_template:
    roles, texts = zip(*_turns(prompt), strict=True)
    return _template_pieces(tokenizer, _render(tokenizer, roles, True), roles, texts)
  pieces = [Piece(tokenizer.bos_id)]
  if not is_dialogue(prompt):
    return [*pieces, Piece(render_prompt(prompt))]
  text = ""
  for role, said in split_dialogue(prompt)[:-1]:
    if role == "Assistant":
      pieces += [Piece(text + ASSISTANT), Piece(" " + said, True), Piece(tokenizer.eos_id, True)]
      text = ""
    else:
      text += f"\n\n{role}: {said}"
  return [*pieces, Piece(text + ASSISTANT)]


def response_pieces(tokenizer: Tokenizer, prompt: str, response: str) -> list[Piece]:
  """The pieces of `response_ids`. Raises DataError."""
  if not tokenizer.chat_template:
    return [Piece(render_response(response), True), Piece(tokenizer.eos_id, True)]
  control, text = _lead(tokenizer, len(_turns(prompt)))
  contents: tuple[int | str, ...] = (*control, text + response.strip(), tokenizer.eos_id)
  return [Piece(content, True) for content in contents]


def export_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
  """Writes tokenizer.json, and tokenizer_config.json with the chat template, as published models have them."""
  tokenizer.save(directory / "tokenizer.json")
  names = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id}
  settings = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    **{name: tokenizer.backend.id_to_token(index) for name, index in names.items()},
    "clean_up_tokenization_spaces": False,
    "chat_template": tokenizer.chat_template or CHAT_TEMPLATE,
  }
  write_bytes(directory / "tokenizer_config.json", json.dumps(settings, indent=2, ensure_ascii=False).encode())


def _ids(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> list[int]:
  ids: list[int] = []
  for content, _ in pieces:
    ids += tokenizer.encode(content) if isinstance(content, str) else [content]
  return ids


def _turns(prompt: str) -> list[tuple[str, str]]:
  if not is_dialogue(prompt):
    return [("user", prompt)]
  return [(_ROLES[role], text) for role, text in split_dialogue(prompt)[:-1]]


@functools.lru_cache(maxsize=256)
def _lead(tokenizer: Tokenizer, num_turns: int) -> tuple[tuple[int, ...], str]:
  """The control tokens and the text that the template puts between the end of a prompt and the response."""
  roles = tuple(("user", "assistant")[i % 2] for i in range(num_turns))
  roles = roles if roles[-1] == "user" else (*roles[1:], "user")
  before, whole = _render(tokenizer, roles, True), _render(tokenizer, (*roles, "assistant"), False)
  lead = whole[len(before) :].partition(_MARK.format(len(roles)))[0] if whole.startswith(before) else ""
  if any(token in lead for token in tokenizer.control):
    return tuple(_ids(tokenizer, _template_pieces(tokenizer, lead, (), ()))), ""
  return (), lead


@functools.lru_cache(maxsize=256)
def _render(tokenizer: Tokenizer, roles: tuple[str, ...], add_generation_prompt: bool) -> str:
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
def _compile(template: str) -> "jinja2.Template":
  import jinja2
  from jinja2.sandbox import ImmutableSandboxedEnvironment  # a template comes with the model and is foreign code

  def raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)

  environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
  )
  environment.filters["tojson"] = lambda value, **arguments: json.dumps(value, ensure_ascii=False, **arguments)
  environment.globals["raise_exception"] = raise_exception
  return environment.from_string(template)


def _template_pieces(tokenizer: Tokenizer, text: str, roles: Sequence[str], contents: Sequence[str]) -> list[Piece]:
  """The pieces of a rendered template, with `contents`, never read as control tokens, in the place of its marks.

  A turn of the assistant is a piece of its own that begins where a response to the turns before it would; the <eos>
  that follows it is spoken too.
  """
  pieces: list[Piece] = []
  speaking = False
  for number, part in enumerate(_control_pattern(tuple(tokenizer.control)).split(text)):
    if number % 2:
      index = tokenizer.control[part]
      pieces.append(Piece(index, speaking and index == tokenizer.eos_id))
      speaking = speaking and index != tokenizer.eos_id
      continue
    start = 0
    for mark in _MARKS.finditer(part):
      turn = int(mark[1])
      if roles[turn] != "assistant":
        continue
      _, lead = _lead(tokenizer, turn)
      cut = mark.start() - len(lead) * part.endswith(lead, start, mark.start())
      pieces += [Piece(part[start:cut]), Piece(part[cut : mark.end()], True)]
      start, speaking = mark.end(), True
    pieces.append(Piece(part[start:]))
  filled = ((_fill(content, contents), spoken) for content, spoken in pieces)
  return [Piece(content, spoken) for content, spoken in filled if content != ""]


def _fill(content: str | int, contents: Sequence[str]) -> str | int:
  return content if isinstance(content, int) else _MARKS.sub(lambda mark: contents[int(mark[1])], content)


@functools.lru_cache(maxsize=8)
def _control_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
  longest_first = sorted(names, key=len, reverse=True)
  return re.compile(f"({'|'.join(map(re.escape, longest_first))})")
