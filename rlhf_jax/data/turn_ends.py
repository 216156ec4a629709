"""The tokens that end a turn of the assistant: what a response is trained to stop with, and what sampling stops at.

A tokenizer's eos_token is often the end of a text, not of a turn (Gemma 2 and 3, the first Llama 3 Instruct). The end
of a turn is what the chat template puts behind the assistant's content; further ends stand in generation_config.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import tokenizers

from rlhf_jax.data.chat_templates import TemplateRefusal, render
from rlhf_jax.data.files import DataError
from rlhf_jax.foreign_files import read_object

_ANSWER = "Yes.\ufdef"  # no template holds it


def listed_ends(path: Path) -> tuple[int, ...]:
  """The ids of eos_token_id in the generation_config.json beside a file; () where there is none. Raises DataError."""
  file = path.with_name("generation_config.json")
  if not file.is_file():
    return ()
  try:
    found = read_object(file).get("eos_token_id")
  except (OSError, ValueError) as error:
    raise DataError(f"{file}: cannot be read as JSON ({error}); copy or download it again") from error
  ids = found if isinstance(found, list) else [] if found is None else [found]
  if not all(type(index) is int and index >= 0 for index in ids):
    raise DataError(f"{file}: eos_token_id must be an id or a list of ids, not {found!r:.80}")
  return tuple(ids)


def template_end(backend: tokenizers.Tokenizer, template: str, named: Mapping[str, str]) -> int | None:
  """The id of the first added token behind the assistant's last content in a chat template; None where there is none.

  White space is passed over. A template that refuses the dialogue it is tried with has none.

  Raises:
    TemplateFailure: the template is broken, or takes too much time or memory.
  """
  messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": _ANSWER}]
  try:
    text = render(template, **named, messages=messages, tools=None, documents=None, add_generation_prompt=False)
  except TemplateRefusal:
    return None
  following = text.rpartition(_ANSWER)[2] if _ANSWER in text else ""
  names = {token.content: index for index, token in backend.get_added_tokens_decoder().items() if token.content.strip()}
  names |= {name: index for name in named.values() if (index := backend.token_to_id(name)) is not None}
  longest_first = sorted(filter(None, names), key=len, reverse=True)
  found = re.match(rf"\s*({'|'.join(map(re.escape, longest_first))})", following) if longest_first else None
  return names[found[1]] if found else None
