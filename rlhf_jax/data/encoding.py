"""Prompts and responses as token ids, in the project's chat form or in the form of a published model's chat template.

A conversation is rendered whole and tokenised whole, as transformers' `apply_chat_template` does it, and so is its
prompt, which ends in the generation prompt, as sampling sees it. The response's tokens are the rest of the
conversation's. Where the prompt's tokens are no beginning of the conversation's (a template that opens a think block
for an answer, a token that spans the boundary), they stay as sampling sees them, the text that follows the prompt's is
tokenised after them, and the row is counted.

Control tokens come from the chat form's own text alone: the same characters in a message are plain text.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from rlhf_jax.data.chat_templates import TemplateRefusal
from rlhf_jax.data.dialogue import CHAT_TEMPLATE, Dialogue, Prompt, Response, answer_message, is_trained, messages_of
from rlhf_jax.data.files import DataError
from rlhf_jax.data.rendering import (
  Request,
  Text,
  answer_start,
  content_start,
  earlier_spans,
  render_answers,
  render_dialogues,
)
from rlhf_jax.data.tokenizer import Tokenizer
from rlhf_jax.writing import write_bytes

# The tokens that a loss counts: those of the last answer, of all turns of the assistant, or every token but the first.
LossTokens = Literal["last", "all", "everything"]
Encoded = tuple[np.ndarray, np.ndarray]  # (ids i32[T], mask bool[T]) of an example; mask is True on the counted tokens

Span = tuple[int, int]  # begin and end in a text

REJOINED = "its prompt is no beginning of its conversation in tokens, and its response is tokenised after the prompt"


class Answered(NamedTuple):
  """A prompt and a response to it as token ids."""

  prompt: list[int]
  """Ids that sampling starts from."""
  response: list[int]
  """Ids that follow them; the template may end a conversation with tokens behind the end of the turn."""
  said: np.ndarray
  """bool over the response's ids: those that the assistant writes, the end of its turn included."""

  @property
  def num_said(self) -> int:
    """Number of the response's ids up to the end of its turn."""
    return int(np.flatnonzero(self.said)[-1]) + 1

  @property
  def content(self) -> list[int]:
    """The ids of the response without the end of its turn."""
    return self.response[: self.num_said - 1]


def prompt_ids(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
  """The ids that a response follows: those of the prompt in the chat form, with the generation prompt at its end.

  Raises:
    DataError: the chat template refuses the prompt.
  """
  (found,) = encode_prompts(tokenizer, [prompt])
  if isinstance(found, str):
    raise DataError(found)
  return found


def response_ids(tokenizer: Tokenizer, prompt: Prompt, response: Response) -> list[int]:
  """The ids of a response that follow those of `prompt_ids`, the end of its turn included. Raises DataError."""
  (found,) = encode_answers(tokenizer, [(prompt, response)])
  if isinstance(found, str):
    raise DataError(found)
  return found.response


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[Prompt]) -> list[list[int] | str]:
  """`prompt_ids` of many prompts; for a prompt that the chat template refuses, the reason."""
  texts = render_dialogues(tokenizer, [Request(messages_of(prompt), True) for prompt in prompts])
  ids = iter(_tokenise(tokenizer, [text for text in texts if isinstance(text, Text)]))
  return [next(ids) if isinstance(text, Text) else _reason(text) for text in texts]


def encode_answers(
  tokenizer: Tokenizer, pairs: Sequence[tuple[Prompt, Response]], notes: Counter[str] | None = None
) -> list[Answered | str]:
  """(prompt, response) pairs as tokens; for a pair that the chat template refuses, the reason.

  notes: counts the pairs whose prompt is no beginning of their conversation.
  """
  return [found if isinstance(found, str) else found[0] for found in _encode(tokenizer, pairs, notes)]


def response_lengths(tokenizer: Tokenizer, pairs: Sequence[tuple[Prompt, Response]]) -> list[float]:
  """The number of tokens of each response, the end of its turn included; inf where the chat template refuses it."""
  return [float("inf") if isinstance(one, str) else one.num_said for one in encode_answers(tokenizer, pairs)]


def encode_demonstrations(
  tokenizer: Tokenizer,
  demonstrations: Sequence[tuple[Prompt, Response]],
  loss: LossTokens,
  notes: Counter[str] | None = None,
) -> list[Encoded | str]:
  """(ids i32[T], mask bool[T]) of each (prompt, response); mask is True on the tokens of `loss`.

  The ids are those of `prompt_ids` and then of `response_ids`, whatever `loss` is. For a demonstration that the chat
  template refuses it is the reason. notes: as in `encode_answers`.
  """
  encoded = _encode(tokenizer, demonstrations, notes)
  spoken = _turns(tokenizer, demonstrations, encoded, trained=True) if loss == "all" else {}
  silent = _turns(tokenizer, demonstrations, encoded, trained=False) if loss != "last" else {}
  result: list[Encoded | str] = []
  for row, found in enumerate(encoded):
    if isinstance(found, str):
      result.append(found)
      continue
    prompt, response, said = found[0]
    mask = np.full(len(prompt) + len(response), loss == "everything")
    mask[len(prompt) :] |= said
    if row in spoken:
      mask[: len(prompt)] |= spoken[row]
    if row in silent:
      mask[: len(prompt)] &= ~silent[row]
    mask[0] = False  # no token precedes it, from which it could be predicted
    result.append((np.asarray(prompt + response, np.int32), mask))
  return result


def _turns(
  tokenizer: Tokenizer,
  pairs: Sequence[tuple[Prompt, Response]],
  encoded: Sequence[tuple[Answered, Text] | str],
  trained: bool,
) -> dict[int, np.ndarray]:
  """{row: bool, True on the tokens of the prompt in turns of the assistant} of the rows that have such turns.

  trained: whether they are the turns to train on, or those with the weight 0.
  """
  rows = {
    row: (messages_of(prompt), found[1])
    for row, ((prompt, _), found) in enumerate(zip(pairs, encoded, strict=True))
    if not isinstance(found, str)
    and any(turn.role == "assistant" and is_trained(turn) == trained for turn in messages_of(prompt))
  }
  prompts, texts = [prompt for prompt, _ in rows.values()], [text for _, text in rows.values()]
  spans = earlier_spans(tokenizer, prompts, texts, trained)
  starts = (_with_starts(tokenizer, text)[1] for text in texts)
  return {row: _inside(begin, here) for row, begin, here in zip(rows, starts, spans, strict=True)}


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


def _encode(
  tokenizer: Tokenizer, pairs: Sequence[tuple[Prompt, Response]], notes: Counter[str] | None
) -> list[tuple[Answered, Text] | str]:
  """The tokens of each pair with its prompt's text, or the reason why the chat template refuses it."""
  if tokenizer.splits_before_spaces and not tokenizer.chat_template:
    return _encode_apart(tokenizer, pairs)
  number = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in pairs))}
  dialogues = [messages_of(prompt) for prompt in number]
  wholes = [(*messages_of(prompt), answer_message(response)) for prompt, response in pairs]
  requests = [Request(messages, True) for messages in dialogues] + [Request(messages, False) for messages in wholes]
  rendered = render_dialogues(tokenizer, requests)
  prompts, conversations = rendered[: len(number)], rendered[len(number) :]
  texts: list[Text] = [text for text in prompts if isinstance(text, Text)]
  for (prompt, _), whole in zip(pairs, conversations, strict=True):
    before = prompts[number[prompt]]
    if isinstance(before, Text) and isinstance(whole, Text):
      texts.append(whole)
  ids = iter(_tokenise(tokenizer, texts))
  prompt_tokens = [next(ids) if isinstance(text, Text) else [] for text in prompts]
  found: list[tuple[Answered, Text] | str] = []
  for place, ((prompt, _), whole) in enumerate(zip(pairs, conversations, strict=True)):
    before, start_ids = prompts[number[prompt]], prompt_tokens[number[prompt]]
    if not (isinstance(before, Text) and isinstance(whole, Text)):
      found += [_reason(one) for one in (before, whole) if isinstance(one, TemplateRefusal)][:1]
      continue
    response, start = next(ids), len(before.text)
    starts: list[int] | None = None
    if response[: len(start_ids)] == start_ids:
      response = response[len(start_ids) :]
      if tokenizer.chat_template and whole.spans:
        starts = [index - start for index in _with_starts(tokenizer, whole)[1][len(start_ids) :]]
    else:
      begin = _answer_start(tokenizer, wholes[place], before.text, whole.text)
      if begin is None:
        found.append("the chat template leaves no trace of where the answer begins")
        continue
      start = begin
      response, starts = _tokenise_after(tokenizer, Text(whole.text[start:], whole.guard, ()))
      if notes is not None:
        notes[REJOINED] += 1
    spans = [(first - start, last - start) for first, last in whole.spans] if tokenizer.chat_template else []
    found.append((_answered(tokenizer, start_ids, response, starts, spans), before))
  return found


def _encode_apart(tokenizer: Tokenizer, pairs: Sequence[tuple[Prompt, Response]]) -> list[tuple[Answered, Text] | str]:
  """`_encode` in the project's own form: what a response adds to a prompt's text has its tokens there too, so that the
  whole need not be tokenised again."""
  number = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in pairs))}
  prompts = render_dialogues(tokenizer, [Request(messages_of(prompt), True) for prompt in number])
  answers = render_answers(tokenizer, [answer_message(response) for _, response in pairs])
  ids = iter(_tokenise(tokenizer, [text for text in (*prompts, *answers) if isinstance(text, Text)]))
  prompt_tokens = [next(ids) if isinstance(text, Text) else [] for text in prompts]
  found: list[tuple[Answered, Text] | str] = []
  for (prompt, _), answer in zip(pairs, answers, strict=True):
    before, start_ids = prompts[number[prompt]], prompt_tokens[number[prompt]]
    response = next(ids) if isinstance(answer, Text) else []
    if isinstance(before, Text) and isinstance(answer, Text):
      found.append((_answered(tokenizer, start_ids, response, None, ()), before))
    else:
      found += [_reason(one) for one in (before, answer) if isinstance(one, TemplateRefusal)][:1]
  return found


def _answered(
  tokenizer: Tokenizer, prompt: list[int], response: list[int], starts: list[int] | None, spans: Sequence[Span]
) -> Answered:
  """starts: index of the character at which each id of the response begins. spans: those of {% generation %} blocks."""
  end = min((response.index(index) for index in tokenizer.end_ids if index in response), default=len(response))
  if end == len(response):  # a template without an end of a turn: without one the model would not learn to stop
    response = [*response, tokenizer.eos_id]
  said = np.arange(len(response)) <= end
  if starts is not None and spans:
    said &= np.append(_inside(starts, spans), np.zeros(len(response) - len(starts), bool))
    said[end] = True
  return Answered(prompt, response, said)


def _answer_start(tokenizer: Tokenizer, dialogue: Dialogue, prompt: str, whole: str) -> int | None:
  (before,) = render_dialogues(tokenizer, [Request(dialogue[:-1], False)])
  said = whole[: content_start(tokenizer, dialogue, whole)]
  return answer_start(tokenizer, said, prompt, before.text if isinstance(before, Text) else prompt)


def _reason(refusal: TemplateRefusal) -> str:
  return f"the chat template refuses it: {refusal}"


def _tokenise(tokenizer: Tokenizer, texts: Sequence[Text]) -> list[list[int]]:
  """The ids of texts whose control tokens are meant, all at once."""
  try:
    plain = [text.text for text in texts if not text.guard]
    ids = iter([found.ids for found in tokenizer.parsing.encode_batch_fast(plain, add_special_tokens=False)])
  except TypeError as error:
    raise ValueError("cannot encode a text that is not a string of valid Unicode") from error
  return [_with_starts(tokenizer, text)[0] if text.guard else next(ids) for text in texts]


def _with_starts(tokenizer: Tokenizer, text: Text) -> tuple[list[int], list[int]]:
  """The ids of a text without its guards, and the index of the character that each begins at."""
  try:
    found = tokenizer.parsing.encode(text.text, add_special_tokens=False)
  except TypeError as error:
    raise ValueError(f"cannot encode {text.text[:60]!r}: not a string of valid Unicode") from error
  tokens = zip(found.ids, found.offsets, strict=True)
  guarded = (text.text[begin:end] == text.guard for begin, end in found.offsets)
  kept = [token for token, guard in zip(tokens, guarded, strict=True) if not (text.guard and guard)]
  return [index for index, _ in kept], [begin for _, (begin, _) in kept]


def _tokenise_after(tokenizer: Tokenizer, text: Text) -> tuple[list[int], list[int]]:
  """`_with_starts` of a text that follows another: without what a vocabulary of SentencePiece puts before the first."""
  for anchor in ("\n", ".", "a"):
    alone = tokenizer.parsing.encode(anchor, add_special_tokens=False).ids
    ids, starts = _with_starts(tokenizer, Text(anchor + text.text, text.guard, ()))
    if ids[: len(alone)] == alone and all(start >= len(anchor) for start in starts[len(alone) :]):
      return ids[len(alone) :], [start - len(anchor) for start in starts[len(alone) :]]
  return _with_starts(tokenizer, text)


def _inside(starts: Sequence[int], spans: Sequence[Span]) -> np.ndarray:
  """bool over tokens that begin at these characters: those that begin in one of the spans."""
  places = np.asarray(starts, np.int64)
  found = np.zeros(len(places), bool)
  for begin, end in spans:
    found |= (places >= begin) & (places < end)
  return found
