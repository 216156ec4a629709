"""Prompt templates: what turns the columns of a row into a prompt and its answer, in one of several phrasings.

A template is a pair of texts with columns in braces, as in FLAN (Wei et al. 2021, arXiv 2109.01652):

  ("Does \\"{premise}\\" mean that \\"{hypothesis}\\"?\\n\\n{options_}", "{answer}")

FLAN's files name some texts that are made from a list in the row: {options_} and {options_str} from options,
{numbered_X} and {X_newline} from X.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rlhf_jax.data.files import DataError, read_text, type_name
from rlhf_jax.data.row_values import listing, schema_error

Template = tuple[str, str]

_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")

# Columns: question, answer; and rationale, which comes before the answer (Wei et al. 2022, arXiv 2201.11903).
ZERO_SHOT: tuple[Template, ...] = (
  ("{question}", "{answer}"),
  ("{question}\nAnswer:", "{answer}"),
  ("Question: {question}\nAnswer:", "{answer}"),
  ("Q: {question}\nA:", "{answer}"),
  ("Please answer this question: {question}", "{answer}"),
)
CHAIN_OF_THOUGHT: tuple[Template, ...] = (
  ("{question}\nLet's think step by step.", "{rationale}\nThe answer is {answer}."),
  ("Question: {question}\nThink step by step, then answer.", "{rationale}\nThe answer is {answer}."),
  ("{question}\nReason first, then give the answer.", "{rationale}\nThe answer is {answer}."),
  ("Q: {question}\nA: Let's work it out.", "{rationale}\nThe answer is {answer}."),
  ("Answer this question, and explain how you get there: {question}", "{rationale}\nThe answer is {answer}."),
)
_BUILT_IN = {"zero_shot": ZERO_SHOT, "chain_of_thought": CHAIN_OF_THOUGHT}


class Phrasings(NamedTuple):
  """Templates and the columns they name between them."""

  templates: tuple[Template, ...]
  fields: tuple[str, ...]

  def values(self, row: Mapping[str, Any], where: str) -> dict[str, str]:
    """The text of each column that a template names. Raises RowError."""
    return {name: _text(row, name, where) for name in self.fields}


def load_templates(given: str | Sequence[Sequence[str]]) -> Phrasings:
  """The phrasings that a source names: "zero_shot", "chain_of_thought", "FILE:TASK", or the templates themselves.

  FILE is JSON: {task: [[prompt, answer], ...]}, or that under "PATTERNS" as FLAN has it.

  Raises:
    DataError: there is no such file or task, or what it holds are no templates.
  """
  found = _BUILT_IN.get(given) or _read(given) if isinstance(given, str) else given
  if not found or not all(len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in found):
    raise DataError(f"templates {given!r} must be pairs of texts (prompt, answer)")
  templates = tuple((prompt, answer) for prompt, answer in found)
  fields = dict.fromkeys(name for pair in templates for text in pair for name in _FIELD.findall(text))
  return Phrasings(templates, tuple(fields))


def fill(template: Template, values: Mapping[str, str]) -> Template:
  """(prompt, answer) of a template; braces in the values stay as they are."""
  prompt, answer = (_FIELD.sub(lambda field: values[field[1]], text) for text in template)
  return prompt, answer


def with_examples(prompt: str, examples: Sequence[Template]) -> str:
  """A prompt behind solved examples, (prompt, answer) each."""
  return "".join(f"{question}\n{answer}\n\n" for question, answer in examples) + prompt


def _read(name: str) -> Sequence[Sequence[str]]:
  path, _, task = name.rpartition(":")
  if not path:
    raise DataError(f"templates {name!r} must be {', '.join(_BUILT_IN)} or FILE:TASK")
  try:
    tasks = json.loads(read_text(path))
  except json.JSONDecodeError as error:
    raise DataError(f"{path}: not JSON ({error})") from error
  tasks = tasks.get("PATTERNS", tasks) if isinstance(tasks, dict) else {}
  if task not in tasks:
    raise DataError(f"{path}: no templates for {task!r} among {listing(sorted(tasks))}")
  return tasks[task]


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
  found = row[name] if name in row else _derived(row, name, where)
  if isinstance(found, (int, float)) and not isinstance(found, bool):
    return str(found)
  if not isinstance(found, str):
    raise schema_error(f"{where}: {name!r} must be a string or a number, found {type_name(found)} ({str(found)[:40]})")
  return found


def _derived(row: Mapping[str, Any], name: str, where: str) -> str:
  """The texts that FLAN makes from lists."""
  rules: tuple[tuple[str, Callable[[list[str]], str]], ...] = (
    (r"(options)_(?:str)?", lambda items: "OPTIONS:\n" + "\n".join(f"- {item}" for item in items)),
    (r"numbered_(\w+)", lambda items: "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))),
    (r"(\w+)_newline", "\n".join),
  )
  for pattern, join in rules:
    match = re.fullmatch(pattern, name)
    if match and match[1] in row:
      items = row[match[1]]
      if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        found = f"{type_name(items)} ({str(items)[:40]})"
        raise schema_error(f"{where}: {match[1]!r} must be a list of strings, found {found}")
      return join(items)
  raise schema_error(f"{where}: no column {name!r}, which the template names, among {listing(row)}")
