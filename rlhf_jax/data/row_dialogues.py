"""The prompts, responses and dialogues of a row, in the forms that are published: texts, HH's text form, messages.

The columns "system", "history" and "tools" of a row belong to its dialogue; `in_context` puts them where they act.
"""

import json
from collections.abc import Mapping
from typing import Any

from rlhf_jax.data.dialogue import (
  ASSISTANT,
  HUMAN,
  ROLES,
  SYSTEM,
  Dialogue,
  Message,
  Prompt,
  Response,
  UnusableDialogue,
  as_prompt,
  as_response,
  is_empty,
  is_trained,
  make_message,
  messages_of,
  parse_prompt_text,
  parse_text,
  split_answer,
)
from rlhf_jax.data.files import Row
from rlhf_jax.data.row_values import REFUSED_OF_MESSAGE, check_keys, elements, is_absent, schema_error, value

CONTEXT = frozenset(("system", "system_prompt", "history", "tools"))  # columns that `in_context` reads

# The names of roles in ShareGPT's form {"from", "value"}.
SPEAKERS = {
  **dict.fromkeys(("human", "user"), "user"),
  **dict.fromkeys(("gpt", "chatgpt", "assistant", "model"), "assistant"),
  "system": "system",
  **dict.fromkeys(("tool", "observation"), "tool"),
}


def prompt(row: Row, where: str) -> Prompt:
  """The column "prompt" with its context: a bare instruction, a dialogue up to the assistant's turn, or messages.

  Raises:
    RowError: it is none of these.
    UnusableDialogue: it has a context and is empty.
  """
  return in_context(row, bare_prompt(row, where), where)


def bare_prompt(row: Row, where: str) -> Prompt:
  """The column "prompt" alone. Raises RowError."""
  if isinstance(row.get("prompt"), list):
    return as_prompt(messages(row, "prompt", where))
  found = value(row, "prompt", str, where)
  # Without this check such a dialogue is taken for a bare instruction and wrapped again, unnoticed.
  if found.startswith((HUMAN, SYSTEM)) and not found.endswith(ASSISTANT):
    raise schema_error(f"{where}: 'prompt' is a dialogue that ends in {found[-20:]!r}; end it in {ASSISTANT!r}")
  try:
    return parse_prompt_text(found)
  except ValueError as error:
    raise schema_error(f"{where}: 'prompt' is {error}") from error


def in_context(row: Row, found: Prompt, where: str) -> Prompt:
  """A prompt behind the row's columns "system" (or "system_prompt"), "history" and "tools", where it has them.

  history: a list of pairs [the user's turn, the assistant's turn]. tools: a list of objects, or its JSON text, which
  the first message keeps.

  Raises:
    RowError: a column has another form, or the system speaks twice.
    UnusableDialogue: the prompt is empty.
  """
  if CONTEXT.isdisjoint(row) or all(is_absent(row.get(name)) for name in CONTEXT):
    return found
  if is_empty(found):
    raise UnusableDialogue("empty prompt")
  said = messages_of(found)
  names = [name for name in ("system", "system_prompt") if not is_absent(row.get(name))]
  system = [Message("system", value(row, name, str, where)) for name in names]
  if said[0].role == "system":
    names, system, said = [*names, "a first turn"], [*system, said[0]], said[1:]
  if len(system) > 1:
    raise schema_error(f"{where}: the system speaks twice, found {' and '.join(names)}; keep one of them")
  turns = [*system, *_history(row, where), *said]
  if not is_absent(row.get("tools")):
    more = json.loads(turns[0].more or "{}")
    if "tools" in more:
      raise schema_error(f"{where}: the row and its first message both have 'tools'; keep one of them")
    turns[0] = make_message(turns[0].role, turns[0].content, {**more, "tools": _tools(row, where)})
  return as_prompt(turns)


def _history(row: Row, where: str) -> list[Message]:
  if is_absent(row.get("history")):
    return []
  turns: list[Message] = []
  for i, pair in enumerate(elements(row, "history", list, where)):
    if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
      raise schema_error(f"{where}: history[{i}] must be [the user's turn, the assistant's turn], found {pair!r:.60}")
    user, assistant = (value({f"history[{i}]": text}, f"history[{i}]", str, where) for text in pair)
    turns += [Message("user", user), Message("assistant", assistant)]
  return turns


def _tools(row: Row, where: str) -> list[Any]:
  found = row["tools"]
  if isinstance(found, str):
    try:
      found = json.loads(found)
    except (ValueError, RecursionError) as error:
      raise schema_error(f"{where}: 'tools' is no JSON ({error}), found {row['tools'][:40]!r}") from error
  return elements({"tools": found}, "tools", dict, where)


def response(row: Row, column: str, where: str) -> Response:
  """A column with a bare answer, or with one message of the assistant. Raises RowError."""
  if isinstance(row.get(column), dict):
    turns = messages({column: [row[column]]}, column, where)
  elif isinstance(row.get(column), list) and row[column] and isinstance(row[column][0], dict):
    turns = messages(row, column, where)
  else:
    found = value(row, column, str, where)
    if found.startswith(HUMAN):
      raise schema_error(f"{where}: {column!r} repeats the dialogue; give the answer alone or drop 'prompt'")
    return found
  if len(turns) != 1 or turns[0].role != "assistant":
    raise schema_error(f"{where}: {column!r} beside a prompt must be one message of the assistant")
  return as_response(turns[0])


def answered(row: Row, column: str, where: str) -> tuple[Prompt, Response]:
  """The prompt without its context, and the answer in a column: a bare answer, a message, or a whole dialogue as
  messages that repeats the column "prompt" (UltraFeedback's form). Where it does, its turns are the prompt.

  Raises:
    RowError: the column is none of these, or the dialogue holds other turns than the prompt's.
    UnusableDialogue: the dialogue does not end with an answer.
  """
  asked = bare_prompt(row, where)
  if not isinstance(row.get(column), list) or len(row[column]) < 2:
    return asked, response(row, column, where)
  whole, answer = split_answer(messages(row, column, where))
  repeated, turns = (
    [(message.role, message.content.strip()) for message in messages_of(one)] for one in (asked, whole)
  )
  if not any(turns[start : start + len(repeated)] == repeated for start in range(len(turns))):
    raise schema_error(f"{where}: {column!r} is a dialogue that does not hold the prompt; give the answer alone")
  return whole, answer


def dialogue(row: Row, column: str, where: str) -> Dialogue:
  """A column with a whole dialogue, in the form of Anthropic's HH data or as messages. Raises RowError."""
  if isinstance(row.get(column), list):
    return messages(row, column, where)
  found = value(row, column, str, where)
  try:
    return parse_text(found)
  except ValueError as error:
    raise schema_error(f"{where}: {column!r} is {error}; for a bare answer add a 'prompt' column") from error


def messages(row: Row, column: str, where: str) -> Dialogue:
  """A column of messages, {role, content} or ShareGPT's {from, value}; their further keys that are not null are kept.

  A "weight" of 0 is kept on turns of the assistant alone, which a loss does not count then.

  Raises:
    RowError: a role is unknown, a content is neither a text nor a list of parts that are texts, or a key cannot be
      honoured.
  """
  turns = elements(row, column, dict, where)
  return tuple(_message(turn, f"{where}: {column}[{i}]") for i, turn in enumerate(turns))


def counted(found: Dialogue) -> Dialogue:
  """A dialogue up to its last turn of the assistant without the weight 0; those after it train nothing.

  Raises:
    UnusableDialogue: every turn of the assistant has the weight 0.
  """
  if not found or is_trained(found[-1]):
    return found
  end = next((i for i in range(len(found), 0, -1) if found[i - 1].role == "assistant" and is_trained(found[i - 1])), 0)
  if not end:
    raise UnusableDialogue("every answer has the weight 0")
  return found[:end]


def conversation(row: Row, where: str) -> Prompt:
  """A column "conversations" that ends where the assistant answers, with its context. Raises as `prompt` does."""
  return in_context(row, as_prompt(messages(row, "conversations", where)), where)


def _message(turn: Row, where: str) -> Message:
  is_sharegpt = turn.get("role") is None and turn.get("from") is not None
  role_key, content_key = ("from", "value") if is_sharegpt else ("role", "content")
  roles: Mapping[str, str] = SPEAKERS if is_sharegpt else {role: role for role in ROLES}
  name = value(turn, role_key, str, where)
  if name not in roles:
    raise schema_error(f"{where}: {role_key!r} must be {', '.join(roles)}, found {name!r}")
  role, content = roles[name], turn.get(content_key)
  check_keys(turn, REFUSED_OF_MESSAGE, where)
  more = {key: found for key, found in turn.items() if key not in (role_key, content_key) and found is not None}
  if "weight" in more and _is_counted(role, more["weight"], where):
    del more["weight"]
  if content is None and (more.get("tool_calls") or more.get("reasoning_content")):
    return make_message(role, "", {"content": None, **more})  # templates tell an absent text from an empty one
  text = _joined_parts(turn, content_key, where) if isinstance(content, list) else value(turn, content_key, str, where)
  try:
    return make_message(role, text, more)
  except TypeError as error:
    raise schema_error(f"{where}: a key of the message holds a value that JSON has not ({error})") from error


def _is_counted(role: str, weight: Any, where: str) -> bool:
  """Whether a turn with this "weight" is what it is without one: of the assistant 1, of others 0."""
  expected = (0, 1) if role == "assistant" else (0,)
  if isinstance(weight, bool) or weight not in expected:
    accepted = " or ".join(map(str, expected))
    raise schema_error(f"{where}: 'weight' of a turn of the {role} must be {accepted}, found {str(weight)[:40]}")
  return role != "assistant" or weight == 1


def _joined_parts(turn: Row, column: str, where: str) -> str:
  """The text of a content that is a list of parts {"type": "text", "text": ...}."""
  texts = []
  for i, part in enumerate(elements(turn, column, dict, where)):
    kind = part.get("type", "text")
    if kind != "text":
      raise schema_error(f"{where}: {column}[{i}] is of the type {kind!r}; only parts of the type 'text' can be read")
    texts.append(value(part, "text", str, f"{where}: {column}[{i}]"))
  return "".join(texts)
