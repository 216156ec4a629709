"""The formats in which rows of demonstrations, comparisons, ratings and critiques are published.

The columns of a row tell its format; further columns are ignored. A row of a known format without use (with an empty
response, for instance) is skipped for a stated reason; every other fault is a `RowError`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from rlhf_jax.data import row_values
from rlhf_jax.data.dialogue import ASSISTANT, HUMAN, split_answer, split_pair
from rlhf_jax.data.files import Row
from rlhf_jax.data.row_values import elements, schema_error, value


class Demonstration(NamedTuple):
  """A prompt and the answer to imitate."""

  prompt: str
  response: str


class Text(NamedTuple):
  """A text to learn language from, without prompt or end."""

  text: str


class Comparison(NamedTuple):
  """One annotator's ranking of the responses to a prompt: rank 0 is best, equal ranks tie, -1 is absent."""

  prompt: str
  responses: tuple[str, ...]
  ranks: tuple[int, ...]
  annotator: str = ""


class Ratings(NamedTuple):
  """One annotator's marks for the responses to a prompt, on the scale of the file; None is no mark."""

  prompt: str
  responses: tuple[str, ...]
  ratings: tuple[float | None, ...]
  annotator: str = ""


class Critique(NamedTuple):
  """Feedback in words on a response, and a better response; critique or rewrite is "" where it is absent."""

  prompt: str
  response: str
  critique: str
  rewrite: str
  annotator: str = ""


Parser = Callable[[Row, str], Iterator[Any]]  # (row, "file:line") -> the records of the row
Problem = Callable[[Any], str | None]  # record -> the reason why it is without use, or None


class RowFormats(NamedTuple):
  """The formats that one kind of record is read from.

  `parsers` maps the columns of a format to its parser; the first format whose columns a row has reads the row.
  `problem` tells why a record that was read is without use.
  """

  parsers: Mapping[tuple[str, ...], Parser]
  problem: Problem

  def parse(self, row: Row, where: str) -> Iterator[Any]:
    """The records of a row. Raises RowError, and UnusableDialogue for a row without use."""
    parse = next((parse for names, parse in self.parsers.items() if row.keys() >= set(names)), None)
    if parse is None:
      accepted = " or ".join(row_values.listing(names) for names in self.parsers)
      raise schema_error(f"{where}: found columns {row_values.listing(row)}; rename or add columns to have {accepted}")
    return parse(row, where)


def _demonstration_problem(demonstration: Demonstration) -> str | None:
  if not demonstration.prompt.strip():
    return "empty prompt"
  return None if demonstration.response.strip() else "empty response"


def _streamed_problem(record: Demonstration | Text) -> str | None:
  if isinstance(record, Text):
    return None if record.text.strip() else "empty text"
  return _demonstration_problem(record)


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


def _ratings_problem(ratings: Ratings) -> str | None:
  slots = zip(ratings.responses, ratings.ratings, strict=True)
  rated = [response.strip() for response, rating in slots if rating is not None]
  if not ratings.prompt.strip():
    return "empty prompt"
  if not rated:
    return "no rated response"
  return None if all(rated) else "empty response"


def _critique_problem(critique: Critique) -> str | None:
  if not critique.prompt.strip():
    return "empty prompt"
  return None if critique.critique.strip() or critique.rewrite.strip() else "empty critique"


def _prompt_response(row: Row, where: str) -> Iterator[Demonstration]:
  yield Demonstration(row_values.prompt(row, where), row_values.response(row, "response", where))


def _instruction(row: Row, input_text: str, where: str) -> str:
  instruction = value(row, "instruction", str, where)
  return f"{instruction}\n{input_text}" if input_text.strip() else instruction


def _alpaca(row: Row, where: str) -> Iterator[Demonstration]:
  prompt = _instruction(row, value(row, "input", str, where), where)
  yield Demonstration(prompt, value(row, "output", str, where))


def _self_instruct(row: Row, where: str) -> Iterator[Demonstration]:
  for instance in elements(row, "instances", dict, where):
    prompt = _instruction(row, value(instance, "input", str, where), where)
    yield Demonstration(prompt, value(instance, "output", str, where))


def _text(row: Row, where: str) -> Iterator[Text]:
  yield Text(value(row, "text", str, where))


def _messages(row: Row, where: str) -> Iterator[Demonstration]:
  yield Demonstration(*split_answer(row_values.messages(row, "messages", where)))


def _chosen(row: Row, where: str) -> Iterator[Demonstration]:
  yield Demonstration(row_values.prompt(row, where), row_values.response(row, "chosen", where))


def _chosen_dialogue(row: Row, where: str) -> Iterator[Demonstration]:
  yield Demonstration(*split_answer(row_values.dialogue(row, "chosen", where)))


def _ranked(row: Row, where: str) -> Iterator[Comparison]:
  responses = elements(row, "responses", str, where)
  ranks = elements(row, "ranks", int, where)
  if len(responses) != len(ranks):
    raise schema_error(f"{where}: {len(responses)} responses but {len(ranks)} ranks; give one rank per response")
  if any(rank < -1 for rank in ranks):
    raise schema_error(f"{where}: found the ranks {ranks}; ranks count from 0 (best), and -1 means absent")
  yield Comparison(row_values.prompt(row, where), tuple(responses), tuple(ranks), row_values.annotator(row, where))


def _pair(row: Row, where: str) -> Iterator[Comparison]:
  responses = (row_values.response(row, "chosen", where), row_values.response(row, "rejected", where))
  yield Comparison(row_values.prompt(row, where), responses, (0, 1), row_values.annotator(row, where))


def _dialogue_pair(row: Row, where: str) -> Iterator[Comparison]:
  sides = (row_values.dialogue(row, "chosen", where), row_values.dialogue(row, "rejected", where))
  prompt, *responses = split_pair(*sides)
  yield Comparison(prompt, tuple(responses), (0, 1), row_values.annotator(row, where))


def _tree(row: Row, where: str) -> Iterator[Comparison]:
  yield from _node(value(row, "prompt", dict, where), "", where)


def _node(node: Row, before: str, where: str) -> Iterator[Comparison]:
  """The ranked lists of replies to a message that follows the dialogue `before`, and to the messages below it."""
  markers = {"prompter": HUMAN, "assistant": ASSISTANT}
  role = value(node, "role", str, where)
  if role not in markers:
    raise schema_error(f"{where}: 'role' must be prompter or assistant, found {role!r}")
  dialogue = f"{before}{markers[role]} {value(node, 'text', str, where).strip()}"
  replies = elements(node, "replies", dict, where)
  # An unranked reply has no rank, or a null one.
  ranks = [-1 if reply.get("rank") is None else value(reply, "rank", int, where) for reply in replies]
  if role == "prompter" and sum(rank >= 0 for rank in ranks) >= 2:
    responses = tuple(value(reply, "text", str, where) for reply in replies)
    yield Comparison(dialogue + ASSISTANT, responses, tuple(ranks))
  for reply in replies:
    yield from _node(reply, dialogue, where)


def _rated(row: Row, where: str) -> Iterator[Ratings]:
  responses = elements(row, "responses", str, where)
  found = value(row, "ratings", list, where)
  ratings = [
    None if rating is None else float(value({f"ratings[{i}]": rating}, f"ratings[{i}]", float, where))
    for i, rating in enumerate(found)
  ]
  if len(responses) != len(ratings):
    raise schema_error(f"{where}: {len(responses)} responses but {len(ratings)} ratings; give one or null for each")
  if any(rating is not None and not abs(rating) < float("inf") for rating in ratings):
    raise schema_error(f"{where}: found the ratings {ratings}; each must be a finite number, or null")
  yield Ratings(row_values.prompt(row, where), tuple(responses), tuple(ratings), row_values.annotator(row, where))


def _rated_alone(row: Row, where: str) -> Iterator[Ratings]:
  responses = [row_values.response(row, "response", where)]
  yield from _rated({**row, "responses": responses, "ratings": [row["rating"]]}, where)


def _critique(row: Row, where: str) -> Iterator[Critique]:
  critique, rewrite = (value(row, name, str, where) if name in row else "" for name in ("critique", "rewrite"))
  response = row_values.response(row, "response", where)
  yield Critique(row_values.prompt(row, where), response, critique, rewrite, row_values.annotator(row, where))


def _prompt_of(parse: Parser) -> Parser:
  return lambda row, where: (record.prompt for record in parse(row, where))


def _bare_prompt(row: Row, where: str) -> Iterator[str]:
  yield row_values.prompt(row, where)


DEMONSTRATIONS = RowFormats(
  {
    ("prompt", "response"): _prompt_response,
    ("messages",): _messages,
    ("instruction", "input", "output"): _alpaca,
    ("instruction", "instances"): _self_instruct,
    ("prompt", "chosen"): _chosen,
    ("chosen",): _chosen_dialogue,
  },
  _demonstration_problem,
)
STREAMED = RowFormats({**DEMONSTRATIONS.parsers, ("text",): _text}, _streamed_problem)
COMPARISONS = RowFormats(
  {
    ("prompt", "responses", "ranks"): _ranked,
    ("message_tree_id", "prompt"): _tree,
    ("prompt", "chosen", "rejected"): _pair,
    ("chosen", "rejected"): _dialogue_pair,
  },
  _comparison_problem,
)
RATINGS = RowFormats(
  {("prompt", "responses", "ratings"): _rated, ("prompt", "response", "rating"): _rated_alone}, _ratings_problem
)
CRITIQUES = RowFormats(
  {("prompt", "response", "critique"): _critique, ("prompt", "response", "rewrite"): _critique}, _critique_problem
)
PROMPTS = RowFormats(
  {
    ("message_tree_id", "prompt"): _prompt_of(_tree),
    ("prompt",): _bare_prompt,
    ("messages",): _prompt_of(_messages),
    ("instruction", "input", "output"): _prompt_of(_alpaca),
    ("instruction", "instances"): _prompt_of(_self_instruct),
    ("chosen",): _prompt_of(_chosen_dialogue),
  },
  lambda prompt: None if prompt.strip() else "empty prompt",
)
