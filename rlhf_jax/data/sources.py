"""Readers: files of demonstrations, comparisons and prompts in the shapes they are published in.

The shape of a row is recognised by its columns; further columns are ignored. A row of a known shape that is
of no use (an empty response, say) is skipped and counted by reason; all else that is wrong is a `DataError`.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from rlhf_jax.data.files import DataError, PathLike, read_rows, read_text, type_name, write_rows
from rlhf_jax.data.templates import (
  ASSISTANT,
  HUMAN,
  UnusableDialogue,
  render_prompt,
  render_response,
  split_answer,
  split_dialogue,
  split_pair,
)

__all__ = [
  "Comparison",
  "DataError",
  "Demonstration",
  "read_comparisons",
  "read_demonstrations",
  "read_prompts",
  "read_rows",
  "read_text",
  "write_rows",
]

Record = TypeVar("Record")
Parser = Callable[[dict, str], Iterator[Record]]  # a row and its "file:line" -> what the row holds


class Demonstration(NamedTuple):
  """A prompt and the answer to imitate."""

  prompt: str
  response: str


class Comparison(NamedTuple):
  """One annotator's ranking of the responses to a prompt: rank 0 is best, equal ranks tie, -1 is absent."""

  prompt: str
  responses: tuple[str, ...]
  ranks: tuple[int, ...]
  annotator: str = ""


def read_demonstrations(path: PathLike) -> tuple[list[Demonstration], Counter]:
  """Demonstrations and the counted reasons of skipped ones.

  Accepts {prompt, response}, Alpaca {instruction, input, output}, self-instruct {instruction, instances}
  (a demonstration per instance), and the chosen side of comparisons: {prompt, chosen} or HH {chosen}.

  Raises:
    DataError: as `read_rows`; the columns are none of these, a value has the wrong type, or no row is usable.
  """

  def problem(demonstration: Demonstration) -> str | None:
    if not demonstration.prompt.strip():
      return "empty prompt"
    return None if demonstration.response.strip() else "empty response"

  return _read(path, _DEMONSTRATIONS, problem)


def read_corpus(path: PathLike) -> str:
  """The text of a file to learn language from: plain text, or the rendered dialogues of rows (.json, .jsonl).

  Raises:
    DataError: as `read_text` and `read_demonstrations` do.
  """
  if ".json" not in os.fspath(path):
    return read_text(path)
  demonstrations, _ = read_demonstrations(path)
  return "".join(render_prompt(d.prompt) + render_response(d.response) for d in demonstrations)


def read_comparisons(path: PathLike) -> tuple[list[Comparison], Counter]:
  """Comparisons and the counted reasons of skipped ones.

  Accepts {prompt, responses, ranks}, {prompt, chosen, rejected} and HH dialogues {chosen, rejected}, all with
  an optional annotator, and OASST trees: a prompter's turn with two or more ranked replies is one ranked list
  (unranked replies are absent) under the dialogue so far; ranked turns of the prompter are no responses.

  Raises:
    DataError: as `read_rows`; the columns are none of these, a value has the wrong type, or no row is usable.
  """
  return _read(path, _COMPARISONS, _comparison_problem)


def read_prompts(path: PathLike) -> tuple[list[str], Counter]:
  """Prompts in the order of the file, and the counted reasons of skipped ones.

  Accepts {prompt} rows and every shape of `read_demonstrations` and `read_comparisons`. A prompt that stands in the
  file several times is returned as often: the file is the distribution that prompts are drawn from.

  Raises:
    DataError: as `read_rows`; the columns are none of these, a value has the wrong type, or no row is usable.
  """
  return _read(path, _PROMPTS, lambda prompt: None if prompt.strip() else "empty prompt")


def _read(
  path: PathLike, shapes: dict[tuple[str, ...], Parser], problem: Callable[[Record], str | None]
) -> tuple[list[Record], Counter]:
  """Parses each row by the first of `shapes` whose columns it has, and sorts the records by `problem`."""
  records, skips = [], Counter()
  for line, row in read_rows(path):
    where = f"{path}:{line}"
    parse = next((parse for columns, parse in shapes.items() if row.keys() >= set(columns)), None)
    if parse is None:
      accepted = " or ".join(_columns(columns) for columns in shapes)
      raise DataError(f"{where}: found columns {_columns(row)}; rename or add columns to have {accepted}")
    try:
      for record in parse(row, where):
        reason = problem(record)
        if reason is None:
          records.append(record)
        else:
          skips[reason] += 1
    except UnusableDialogue as error:
      skips[str(error)] += 1
  if not records:
    reasons = ", ".join(f"{reason}: {count}" for reason, count in skips.items()) or "they hold no such record"
    raise DataError(f"{path}: none of its rows is usable ({reasons}); check that this is the file you meant")
  return records, skips


def _columns(columns: Iterable[str]) -> str:
  return "{" + ", ".join(columns) + "}"


def _comparison_problem(comparison: Comparison) -> str | None:
  slots = zip(comparison.responses, comparison.ranks, strict=True)
  ranked = [(response.strip(), rank) for response, rank in slots if rank >= 0]
  if not comparison.prompt.strip():
    return "empty prompt"
  if len(ranked) < 2:
    return "fewer than two ranked responses"
  if not all(response for response, _ in ranked):
    return "empty response"
  if len({response for response, _ in ranked}) < 2:
    return "identical responses"
  return "all responses tied" if len({rank for _, rank in ranked}) < 2 else None


def _value(row: dict, column: str, kind: type, where: str):
  """row[column], checked to be of the type (exactly: true is no number) and to be encodable if it is text."""
  if column not in row:
    raise DataError(f"{where}: no {column!r} among {_columns(row)}; add it")
  value = row[column]
  if type(value) is not kind:
    wanted = {str: "a string", list: "a list", dict: "an object", int: "an integer"}[kind]
    raise DataError(f"{where}: {column!r} must be {wanted}, found {type_name(value)} ({str(value)[:40]})")
  if kind is str:
    try:
      value.encode()
    except UnicodeEncodeError as error:
      raise DataError(
        f"{where}: {column!r} holds the unpaired surrogate {value[error.start]!r} (character {error.start}); "
        f"remove it or write the whole character"
      ) from error
  return value


def _elements(row: dict, column: str, kind: type, where: str) -> list:
  """The elements of a list column, each checked as in `_value`."""
  values = _value(row, column, list, where)
  return [_value({f"{column}[{i}]": value}, f"{column}[{i}]", kind, where) for i, value in enumerate(values)]


def _prompt(row: dict, where: str) -> str:
  prompt = _value(row, "prompt", str, where)
  # Taken for a bare instruction it would be wrapped a second time, and nothing downstream would notice.
  if prompt.startswith(HUMAN) and not prompt.endswith(ASSISTANT):
    raise DataError(f"{where}: 'prompt' is a dialogue that ends in {prompt[-20:]!r}; end it in {ASSISTANT!r}")
  return prompt


def _response(row: dict, column: str, where: str) -> str:
  response = _value(row, column, str, where)
  if response.startswith(HUMAN):
    raise DataError(f"{where}: {column!r} repeats the dialogue; give the answer alone or drop 'prompt'")
  return response


def _dialogue(row: dict, column: str, where: str) -> str:
  dialogue = _value(row, column, str, where)
  try:
    split_dialogue(dialogue)
  except ValueError as error:
    raise DataError(f"{where}: {column!r} is {error}; for a bare answer add a 'prompt' column") from error
  return dialogue


def _annotator(row: dict, where: str) -> str:
  return _value(row, "annotator", str, where) if "annotator" in row else ""


def _plain(row: dict, where: str) -> Iterator[Demonstration]:
  yield Demonstration(_prompt(row, where), _response(row, "response", where))


def _instruction(row: dict, task_input: str, where: str) -> str:
  instruction = _value(row, "instruction", str, where)
  return f"{instruction}\n{task_input}" if task_input.strip() else instruction


def _alpaca(row: dict, where: str) -> Iterator[Demonstration]:
  prompt = _instruction(row, _value(row, "input", str, where), where)
  yield Demonstration(prompt, _value(row, "output", str, where))


def _self_instruct(row: dict, where: str) -> Iterator[Demonstration]:
  for instance in _elements(row, "instances", dict, where):
    prompt = _instruction(row, _value(instance, "input", str, where), where)
    yield Demonstration(prompt, _value(instance, "output", str, where))


def _chosen(row: dict, where: str) -> Iterator[Demonstration]:
  yield Demonstration(_prompt(row, where), _response(row, "chosen", where))


def _chosen_dialogue(row: dict, where: str) -> Iterator[Demonstration]:
  yield Demonstration(*split_answer(_dialogue(row, "chosen", where)))


def _ranked(row: dict, where: str) -> Iterator[Comparison]:
  responses = _elements(row, "responses", str, where)
  ranks = _elements(row, "ranks", int, where)
  if len(responses) != len(ranks):
    raise DataError(f"{where}: {len(responses)} responses but {len(ranks)} ranks; give one rank per response")
  if any(rank < -1 for rank in ranks):
    raise DataError(f"{where}: found the ranks {ranks}; ranks count from 0 (best), and -1 means absent")
  yield Comparison(_prompt(row, where), tuple(responses), tuple(ranks), _annotator(row, where))


def _pair(row: dict, where: str) -> Iterator[Comparison]:
  responses = (_response(row, "chosen", where), _response(row, "rejected", where))
  yield Comparison(_prompt(row, where), responses, (0, 1), _annotator(row, where))


def _dialogue_pair(row: dict, where: str) -> Iterator[Comparison]:
  prompt, *responses = split_pair(_dialogue(row, "chosen", where), _dialogue(row, "rejected", where))
  yield Comparison(prompt, tuple(responses), (0, 1), _annotator(row, where))


def _tree(row: dict, where: str) -> Iterator[Comparison]:
  yield from _node(_value(row, "prompt", dict, where), "", where)


def _node(node: dict, before: str, where: str) -> Iterator[Comparison]:
  """The ranked lists at and below a message that follows the dialogue `before`."""
  markers = {"prompter": HUMAN, "assistant": ASSISTANT}
  role = _value(node, "role", str, where)
  if role not in markers:
    raise DataError(f"{where}: 'role' must be prompter or assistant, found {role!r}")
  dialogue = f"{before}{markers[role]} {_value(node, 'text', str, where).strip()}"
  replies = _elements(node, "replies", dict, where)
  # An unranked reply has no rank, or a null one.
  ranks = [-1 if reply.get("rank") is None else _value(reply, "rank", int, where) for reply in replies]
  if role == "prompter" and sum(rank >= 0 for rank in ranks) >= 2:
    responses = tuple(_value(reply, "text", str, where) for reply in replies)
    yield Comparison(dialogue + ASSISTANT, responses, tuple(ranks))
  for reply in replies:
    yield from _node(reply, dialogue, where)


# In order: the first shape whose columns a row has is the one it is read as.
_DEMONSTRATIONS: dict[tuple[str, ...], Parser] = {
  ("prompt", "response"): _plain,
  ("instruction", "input", "output"): _alpaca,
  ("instruction", "instances"): _self_instruct,
  ("prompt", "chosen"): _chosen,
  ("chosen",): _chosen_dialogue,
}
_COMPARISONS: dict[tuple[str, ...], Parser] = {
  ("prompt", "responses", "ranks"): _ranked,
  ("message_tree_id", "prompt"): _tree,
  ("prompt", "chosen", "rejected"): _pair,
  ("chosen", "rejected"): _dialogue_pair,
}


def _prompt_of(parse: Parser) -> Parser:
  return lambda row, where: (record.prompt for record in parse(row, where))


def _bare_prompt(row: dict, where: str) -> Iterator[str]:
  yield _prompt(row, where)


_PROMPTS: dict[tuple[str, ...], Parser] = {
  ("message_tree_id", "prompt"): _prompt_of(_tree),
  ("prompt",): _bare_prompt,
  ("instruction", "input", "output"): _prompt_of(_alpaca),
  ("instruction", "instances"): _prompt_of(_self_instruct),
  ("chosen",): _prompt_of(_chosen_dialogue),
}
