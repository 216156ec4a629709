r"""Prompt templates, which turn the columns of a row into a prompt and its answer, in one of several phrasings.

A template is a pair of texts with columns in braces, as in FLAN (Wei et al. 2021, arXiv 2109.01652):

  ("Does \"{premise}\" mean that \"{hypothesis}\"?\n\n{options_}", "{answer}")

Some names in FLAN's files stand for a text that is made from a column of lists: {options_} and {options_str} from the
column options, {numbered_X} and {X_newline} from the column X.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rlhf_jax.data.files import DataError, read_text, type_name
from rlhf_jax.data.row_values import listing, schema_error
from rlhf_jax.foreign_files import decode_json

Template = tuple[str, str]

_COLUMN = re.compile(r"\{([A-Za-z_]\w*)\}")

# Both have the columns question and answer, the second also rationale, which comes before the answer (Wei et al. 2022,
# arXiv 2201.11903).
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
  """The templates of a source.

  templates: the (prompt, answer) pairs.
  columns: the columns that the templates name, each once.
  """

  templates: tuple[Template, ...]
  columns: tuple[str, ...]

  def values(self, row: Mapping[str, Any], where: str) -> dict[str, str]:
    """The text of each column that a template names. Raises RowError."""
    return {name: _text(row, name, where) for name in self.columns}


def load_templates(given: str | Sequence[Sequence[str]]) -> Phrasings:
  """The phrasings that a source asks for: "zero_shot", "chain_of_thought", "FILE:NAME", or the templates themselves.

  FILE is JSON: {name: [[prompt, answer], ...]}, or such an object under the key "PATTERNS" as in FLAN.

  Raises:
    DataError: the file or the name in it is absent, or its templates are not pairs of texts.
  """
  found = _BUILT_IN.get(given) or _read(given) if isinstance(given, str) else given
  if not isinstance(found, (list, tuple)) or not found or not all(map(_is_pair, found)):
    raise DataError(f"templates {given!r:.200} must be pairs of texts (prompt, answer)")
  templates = tuple((prompt, answer) for prompt, answer in found)
  columns = dict.fromkeys(name for pair in templates for text in pair for name in _COLUMN.findall(text))
  return Phrasings(templates, tuple(columns))


def fill(template: Template, values: Mapping[str, str]) -> Template:
  """(prompt, answer) of a template with `values` in the place of its columns; braces in the values stay."""
  prompt, answer = template
  return _filled(prompt, values), _filled(answer, values)


def _filled(text: str, values: Mapping[str, str]) -> str:
  form, columns = _parts(text)
  return form % tuple([values[name] for name in columns])


@functools.lru_cache(maxsize=4096)
def _parts(text: str) -> tuple[str, tuple[str, ...]]:
  """The text of a template with %s in the place of its columns, and the columns in this order."""
  return _COLUMN.sub("%s", text.replace("%", "%%")), tuple(_COLUMN.findall(text))


def with_examples(prompt: str, examples: Sequence[tuple[str, str]]) -> str:
  """The solved examples (prompt, answer), and then the prompt, with an empty line between them."""
  return "".join(f"{question}\n{answer}\n\n" for question, answer in examples) + prompt


def _read(name: str) -> Any:
  path, _, key = name.rpartition(":")
  if not path:
    raise DataError(f"templates {name!r} must be {', '.join(_BUILT_IN)} or FILE:NAME")
  try:
    named = decode_json(read_text(path).encode())
  except DataError:
    raise
  except ValueError as error:
    raise DataError(f"{path}: not JSON ({error})") from error
  named = named.get("PATTERNS", named) if isinstance(named, dict) else {}
  if not isinstance(named, dict) or key not in named:
    raise DataError(f"{path}: no templates for {key!r} among {listing(sorted(named))}")
  return named[key]


def _is_pair(found: object) -> bool:
  return isinstance(found, (list, tuple)) and len(found) == 2 and all(isinstance(text, str) for text in found)


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
  found = row[name] if name in row else _derived(row, name, where)
  if isinstance(found, (int, float)) and not isinstance(found, bool):
    return str(found)
  if not isinstance(found, str):
    raise schema_error(f"{where}: {name!r} must be a string or a number, found {type_name(found)} ({str(found)[:40]})")
  return found


def _derived(row: Mapping[str, Any], name: str, where: str) -> str:
  """The text that FLAN makes from a column of lists, under the name `name`."""
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
