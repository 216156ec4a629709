"""Dialogues as text: in the chat template of a model as transformers renders it, or in the project's own chat form.

A template gets the messages themselves, with all their keys. Characters of a message that spell a control token are
text: a guard character in their midst keeps them from being read as the token, and the tokens leave it out.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from rlhf_jax.data.chat_templates import Rendered, TemplateFailure, TemplateRefusal, render_all
from rlhf_jax.data.dialogue import Dialogue, Message, is_trained, own_form, own_turn
from rlhf_jax.data.files import DataError
from rlhf_jax.data.tokenizer import Tokenizer

_GUARDS = [chr(code) for code in range(0xFDD0, 0xFDEF)]  # code points that are no characters, and stand in no text
_PROBE = "\ufdef"


class Text(NamedTuple):
  """A rendered dialogue."""

  text: str
  guard: str
  """Character that the tokens leave out; "" for none."""
  spans: tuple[tuple[int, int], ...]
  """Begin and end of each part that the chat form marks as the assistant's; () where it marks none."""


class Request(NamedTuple):
  """A dialogue to be rendered."""

  messages: Dialogue
  for_answer: bool
  """Whether the text ends where the assistant's answer begins (`add_generation_prompt`)."""


def render_dialogues(tokenizer: Tokenizer, requests: Sequence[Request]) -> list[Text | TemplateRefusal]:
  """The text of each dialogue, or the refusal of the chat form.

  Raises:
    DataError: the chat template is broken or takes too much time or memory.
  """
  spelled = _spelled(tokenizer)
  guards = _guards(spelled, [request.messages for request in requests])
  values = []
  for request, guard in zip(requests, guards, strict=True):
    messages = [_guarded(spelled, message.row(), guard) for message in request.messages]
    tools = messages[0].pop("tools", None) if messages else None
    asked = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": request.for_answer}
    values.append({**tokenizer.named, **asked})
  found: Sequence[Rendered | TemplateRefusal]
  try:
    found = render_all(tokenizer.chat_template, values) if tokenizer.chat_template else [own_form(v) for v in values]
  except TemplateFailure as error:
    raise DataError(f"the model's chat template cannot be used: {error}") from error
  return [
    one if isinstance(one, TemplateRefusal) else Text(one.text, guard, one.spans)
    for one, guard in zip(found, guards, strict=True)
  ]


def render_answers(tokenizer: Tokenizer, answers: Sequence[Message]) -> list[Text | TemplateRefusal]:
  """What each answer adds to the text of its prompt in the project's own chat form, or the refusal of that form."""
  spelled = _spelled(tokenizer)
  guards = _guards(spelled, [(answer,) for answer in answers])
  found = [
    own_turn(_guarded(spelled, answer.row(), guard), tokenizer.named["eos_token"])
    for answer, guard in zip(answers, guards, strict=True)
  ]
  return [
    one if isinstance(one, TemplateRefusal) else Text(one, guard, ()) for one, guard in zip(found, guards, strict=True)
  ]


def answer_start(tokenizer: Tokenizer, whole: str, prompt: str, before: str) -> int | None:
  """Index in the text of a conversation where an answer begins; None where no trace of its beginning is found.

  It is the end of `prompt`, the text before the answer with the generation prompt. Where the conversation does not
  begin with that (a think block that the template opens for an answer and leaves out of a conversation, a turn that it
  writes otherwise once it is answered), it is what follows the last generation prompt, or as much of it as the template
  keeps, cut at control tokens and line ends. Without a generation prompt the last control token of the prompt serves.

  whole: the text of the conversation up to the content of the answer. before: `prompt` without the generation prompt.
  """
  if whole.startswith(prompt):
    return len(prompt)
  pieces = [piece for piece in re.split(_added_pattern(tokenizer), prompt) if piece]
  asked = prompt[len(before) :] if prompt.startswith(before) else ""
  asked = asked or next((piece for piece in reversed(pieces) if piece in tokenizer.control), "")
  pieces = [piece for piece in re.split(r"(\n)|" + _added_pattern(tokenizer), asked) if piece]
  heads = ["".join(pieces[:count]) for count in range(len(pieces), 0, -1)]
  found = next((head for head in heads if head in whole), None)
  return None if found is None else whole.rindex(found) + len(found)


def content_start(tokenizer: Tokenizer, dialogue: Dialogue, text: str) -> int:
  """Index in the text of a whole conversation where the content of its last message begins to matter."""
  (altered,) = render_dialogues(tokenizer, [Request((*dialogue[:-1], _altered(dialogue[-1])), False)])
  return _shared(text, altered.text) if isinstance(altered, Text) else len(text)


def earlier_spans(
  tokenizer: Tokenizer, prompts: Sequence[Dialogue], texts: Sequence[Text], trained: bool = True
) -> list[tuple[tuple[int, int], ...]]:
  """Begin and end of each turn of the assistant in the rendered prompts, the end of the turn included.

  They are the turns to train on, or those with the weight 0. Where the chat form marks the assistant's parts, these are
  given for the turns to train on, and may hold turns with the weight 0.

  A turn begins where an answer to the messages before it would, and ends with the first token that ends turns, or where
  the text of the next turn begins to differ from what stands there without it.
  """
  turns = [
    (row, place)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    for place, message in enumerate(prompt)
    if message.role == "assistant" and is_trained(message) == trained and not (trained and text.spans)
  ]
  asked: list[Request] = []
  for row, place in turns:
    prompt = prompts[row]
    following = (*prompt[: place + 1], *map(_altered, prompt[place + 1 :]))
    asked += [Request(prompt[:place], True), Request(prompt[:place], False)]
    asked += [Request(prompt[: place + 1], False), Request(following, True)]
  found = iter(render_dialogues(tokenizer, asked))
  spans = [list(text.spans) if trained else [] for text in texts]
  for row, _ in turns:
    with_start, before, alone, altered = (
      "" if isinstance(one, TemplateRefusal) else one.text for one in (next(found) for _ in range(4))
    )
    text = texts[row].text
    bound = _shared(text, altered if altered != text else alone)
    start = answer_start(tokenizer, text[:bound], with_start, before)
    if start is None:
      continue
    end = re.compile(_pattern(tuple(tokenizer.end_tokens))).search(text, start, bound)
    spans[row].append((start, end.end() if end else max(start, min(bound, _shared(text, alone)))))
  return [tuple(found_here) for found_here in spans]


def _altered(message: Message) -> Message:
  return Message(message.role, _PROBE + message.content)


def _shared(text: str, other: str) -> int:
  """Length of the beginning that two texts share."""
  low, high = 0, min(len(text), len(other))
  while low < high:
    middle = (low + high + 1) // 2
    low, high = (middle, high) if text.startswith(other[:middle]) else (low, middle - 1)
  return low


def _spelled(tokenizer: Tokenizer) -> re.Pattern[str]:
  """Finds the control tokens that a text spells."""
  return re.compile(_pattern((*tokenizer.control, *tokenizer.end_tokens)))


def _guards(spelled: re.Pattern[str], dialogues: Sequence[Dialogue]) -> list[str]:
  """For each dialogue a character that no message holds, where a message spells a control token; else ""."""
  said = [[part for _, *parts in messages for part in parts] for messages in dialogues]
  if not spelled.search("\n".join(itertools.chain.from_iterable(said))):  # one search is faster than one a message
    return [""] * len(said)
  return [_guard(spelled, parts) for parts in said]


def _guard(spelled: re.Pattern[str], said: Sequence[str]) -> str:
  if not any(map(spelled.search, said)):
    return ""
  return next(char for char in _GUARDS if not any(char in part for part in said))


def _guarded(spelled: re.Pattern[str], value: Any, guard: str) -> Any:
  """A JSON value in which the guard stands behind the first character of each control token that a text spells."""
  if not guard or not isinstance(value, (str, list, dict)):
    return value
  if isinstance(value, list):
    return [_guarded(spelled, item, guard) for item in value]
  if isinstance(value, dict):
    return {key: _guarded(spelled, item, guard) for key, item in value.items()}
  return spelled.sub(lambda token: token[0][:1] + guard + token[0][1:], value)


def _added_pattern(tokenizer: Tokenizer) -> str:
  added = tokenizer.backend.get_added_tokens_decoder().values()
  return _pattern((*tokenizer.control, *(token.content for token in added)))


@functools.lru_cache(maxsize=32)
def _pattern(names: tuple[str, ...]) -> str:
  """A regular expression, with one group, of any of the names."""
  longest_first = sorted(filter(None, set(names)), key=len, reverse=True)
  return f"({'|'.join(map(re.escape, longest_first))})"
