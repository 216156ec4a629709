"""The formats in which rows of demonstrations, comparisons, ratings and critiques are published.

The columns of a row tell its format; a null column is none. Further columns are ignored (ids, sources, scores), unless
they change what the row means: those are honoured (`row_dialogues.CONTEXT`, "label") or refused (`REFUSED_OF_ROW`). A
row of a known format without use (with an empty response, for instance) is skipped for a stated reason; every other
fault is a `RowError`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

from rlhf_jax.data import row_comparisons, row_dialogues, row_values
from rlhf_jax.data.dialogue import Prompt, Response, UnusableDialogue, prompt_value, response_value, split_answer
from rlhf_jax.data.files import Row
from rlhf_jax.data.records import (
  Critique,
  Demonstration,
  PromptRow,
  Ratings,
  Steps,
  Text,
  Unpaired,
  comparison_problem,
  critique_problem,
  demonstration_problem,
  prompt_problem,
  ranking_problem,
  ratings_problem,
  steps_problem,
  streamed_problem,
)
from rlhf_jax.data.row_values import elements, optional_text, schema_error, value

Parser = Callable[[Row, str], Iterator[Any]]  # (row, "file:line") -> the records of the row
Problem = Callable[[Any], str | None]  # record -> the reason why it is without use, or None


class RowFormats(NamedTuple):
  """The formats that one kind of record is read from.

  `parsers` maps the columns of a format to its parser; the first format whose columns a row has reads the row.
  `problem` tells why a record that was read is without use. `of_demonstration` makes a record of a demonstration, which
  templates have written; None where there is no such record.
  """

  parsers: Mapping[tuple[str, ...], Parser]
  problem: Problem
  of_demonstration: Callable[[Demonstration], Any] | None = None

  def parse(self, row: Row, where: str) -> Iterator[Any]:
    """The records of a row. Raises RowError, and UnusableDialogue for a row without use."""
    row_values.check_keys(row, row_values.REFUSED_OF_ROW, where)
    # Columns that other rows of a table have are null; a row with nothing else is read to say which one is.
    parse = self._find({name for name, found in row.items() if found is not None}) or self._find(row.keys())
    if parse is None:
      accepted = " or ".join(row_values.listing(names) for names in self.parsers)
      raise schema_error(f"{where}: found columns {row_values.listing(row)}; rename or add columns to have {accepted}")
    return parse(row, where)

  def _find(self, columns: Set[str]) -> Parser | None:
    return next((parse for names, parse in self.parsers.items() if all(name in columns for name in names)), None)


def _prompt_answer(column: str) -> Parser:
  def parse(row: Row, where: str) -> Iterator[Demonstration]:
    yield Demonstration(row_dialogues.prompt(row, where), row_dialogues.response(row, column, where))

  return parse


def _instruction(row: Row, task: Row, where: str) -> Prompt:
  """The instruction of a row with the input of a task, in the context of the row."""
  instruction, task_input = value(row, "instruction", str, where), optional_text(task, "input", where)
  asked = f"{instruction}\n{task_input}" if task_input.strip() else instruction
  return row_dialogues.in_context(row, asked, where)


def _alpaca(row: Row, where: str) -> Iterator[Demonstration]:
  yield Demonstration(_instruction(row, row, where), value(row, "output", str, where))


def _self_instruct(row: Row, where: str) -> Iterator[Demonstration]:
  for instance in elements(row, "instances", dict, where):
    yield Demonstration(_instruction(row, instance, where), value(instance, "output", str, where))


def _asked(row: Row, where: str) -> Prompt:
  row_values.check_keys(row, _OF_QUESTION, where)
  return row_dialogues.in_context(row, value(row, "question", str, where), where)


def _question(row: Row, where: str) -> Iterator[Demonstration]:
  yield Demonstration(_asked(row, where), value(row, "answer", str, where))


def _text(row: Row, where: str) -> Iterator[Text]:
  yield Text(value(row, "text", str, where))


def _whole(column: str) -> Parser:
  """The parser of a column with a whole dialogue, whose last turn is the answer."""

  def parse(row: Row, where: str) -> Iterator[Demonstration]:
    prompt, response = split_answer(row_dialogues.counted(row_dialogues.dialogue(row, column, where)))
    yield Demonstration(row_dialogues.in_context(row, prompt, where), response)

  return parse


def _chosen(row: Row, where: str) -> Iterator[Demonstration]:
  prompt, response = row_dialogues.answered(row, "chosen", where)
  yield Demonstration(row_dialogues.in_context(row, prompt, where), response)


def _conversations(row: Row, where: str) -> Iterator[Demonstration]:
  """A whole dialogue, or, beside "chosen", the turns before that answer."""
  if row.get("chosen") is None:
    yield from _whole("conversations")(row, where)
  else:
    yield Demonstration(row_dialogues.conversation(row, where), row_dialogues.response(row, "chosen", where))


def _label(row: Row, where: str) -> bool:
  """The column "label". Raises RowError."""
  if not isinstance(row["label"], bool):
    raise schema_error(
      f"{where}: 'label' beside an answer is true for a good one and false for a bad one, found "
      f"{str(row['label'])[:40]}; if it means something else, leave it out (of a source by columns={{'label': ''}})"
    )
  return row["label"]


def _imitated(parse: Parser) -> Parser:
  """The parser of demonstrations whose rows may have a label."""

  def parse_good(row: Row, where: str) -> Iterator[Demonstration]:
    if row.get("label") is not None and not _label(row, where):
      raise UnusableDialogue("labelled as a bad answer")
    return parse(row, where)

  return parse_good


def _labelled(parse: Parser) -> Parser:
  def parse_labelled(row: Row, where: str) -> Iterator[Unpaired]:
    desirable, annotator = _label(row, where), row_values.annotator(row, where)
    for prompt, response in parse(row, where):
      yield Unpaired(prompt, response, desirable, annotator)

  return parse_labelled


def _apart(parse: Parser) -> Parser:
  """The parser of comparisons as single responses: the best of a comparison are good, its worst are bad."""

  def parse_apart(row: Row, where: str) -> Iterator[Unpaired]:
    found = list(parse(row, where))
    problems = [comparison_problem(comparison) for comparison in found]
    if found and all(problems):
      raise UnusableDialogue(problems[0])
    for comparison in (one for one, problem in zip(found, problems, strict=True) if not problem):
      ranked = [rank for rank in comparison.ranks if rank >= 0]
      for response, rank in zip(comparison.responses, comparison.ranks, strict=True):
        if rank in (min(ranked), max(ranked)):
          yield Unpaired(comparison.prompt, response, rank == min(ranked), comparison.annotator)

  return parse_apart


def _rated(row: Row, where: str) -> Iterator[Ratings]:
  yield _marks(row, elements(row, "responses", str, where), value(row, "ratings", list, where), where)


def _rated_alone(row: Row, where: str) -> Iterator[Ratings]:
  yield _marks(row, [row_dialogues.response(row, "response", where)], [row["rating"]], where)


def _marks(row: Row, responses: Sequence[Response], found: Sequence[Any], where: str) -> Ratings:
  ratings = [
    None if rating is None else float(value({f"ratings[{i}]": rating}, f"ratings[{i}]", float, where))
    for i, rating in enumerate(found)
  ]
  if len(responses) != len(ratings):
    raise schema_error(f"{where}: {len(responses)} responses but {len(ratings)} ratings; give one or null for each")
  if any(rating is not None and not abs(rating) < float("inf") for rating in ratings):
    raise schema_error(f"{where}: found the ratings {ratings}; each must be a finite number, or null")
  return Ratings(row_dialogues.prompt(row, where), tuple(responses), tuple(ratings), row_values.annotator(row, where))


def _steps(row: Row, where: str) -> Iterator[Steps]:
  steps, labels = elements(row, "completions", str, where), elements(row, "labels", bool, where)
  if len(steps) != len(labels):
    raise schema_error(f"{where}: {len(steps)} completions but {len(labels)} labels; give one label for each step")
  prompt, annotator = row_dialogues.prompt(row, where), row_values.annotator(row, where)
  yield Steps(prompt, tuple(step.strip("\n") for step in steps), tuple(labels), annotator)


def _critique(row: Row, where: str) -> Iterator[Critique]:
  critique, rewrite = (optional_text(row, name, where) for name in ("critique", "rewrite"))
  response = row_dialogues.response(row, "response", where)
  yield Critique(row_dialogues.prompt(row, where), response, critique, rewrite, row_values.annotator(row, where))


def _prompt_of(parse: Parser) -> Parser:
  return lambda row, where: (record.prompt for record in parse(row, where))


def _with_row(parse: Parser) -> Parser:
  return lambda row, where: (PromptRow(prompt, row) for prompt in parse(row, where))


def _one(read: Callable[[Row, str], Prompt]) -> Parser:
  return lambda row, where: iter((read(row, where),))


# Columns beside "question" that belong to what is asked, in a form that no data sets share.
_OF_QUESTION = dict.fromkeys(
  ("context", "choices", "options", "passage"), "write the prompt by 'templates' of the source, which name the columns"
)
_ANSWERS: dict[tuple[str, ...], Parser] = {
  ("prompt", "response"): _prompt_answer("response"),
  ("prompt", "completion"): _prompt_answer("completion"),
  ("messages",): _whole("messages"),
  ("conversations",): _conversations,
  ("instruction", "output"): _alpaca,
  ("instruction", "instances"): _self_instruct,
  ("question", "answer"): _question,
}
_CHOSEN: dict[tuple[str, ...], Parser] = {("prompt", "chosen"): _chosen, ("chosen",): _whole("chosen")}
DEMONSTRATIONS = RowFormats(
  {**{names: _imitated(parse) for names, parse in _ANSWERS.items()}, **_CHOSEN},
  demonstration_problem,
  lambda demonstration: demonstration,
)
STREAMED = DEMONSTRATIONS._replace(parsers={**DEMONSTRATIONS.parsers, ("text",): _text}, problem=streamed_problem)
_COMPARED: dict[tuple[str, ...], Parser] = {
  ("prompt", "responses", "ranks"): row_comparisons.ranked,
  ("message_tree_id", "prompt"): row_comparisons.tree,
  ("prompt", "chosen", "rejected"): row_comparisons.pair,
  ("conversations", "chosen", "rejected"): row_comparisons.conversation_pair,
  ("chosen", "rejected"): row_comparisons.dialogue_pair,
  ("info", "summaries", "choice"): row_comparisons.summaries,
  ("input", "output_1", "output_2", "label"): row_comparisons.outputs,
}
COMPARISONS = RowFormats(_COMPARED, comparison_problem)
RANKINGS = RowFormats(_COMPARED, ranking_problem)  # comparisons, in which all responses may be tied
UNPAIRED = RowFormats(
  {
    **{(*names, "label"): _labelled(parse) for names, parse in _ANSWERS.items()},
    **{names: _apart(parse) for names, parse in _COMPARED.items()},
  },
  demonstration_problem,
)
RATINGS = RowFormats(
  {("prompt", "responses", "ratings"): _rated, ("prompt", "response", "rating"): _rated_alone}, ratings_problem
)
STEPWISE = RowFormats({("prompt", "completions", "labels"): _steps}, steps_problem)
CRITIQUES = RowFormats(
  {("prompt", "response", "critique"): _critique, ("prompt", "response", "rewrite"): _critique}, critique_problem
)
PROMPTS = RowFormats(
  {
    ("message_tree_id", "prompt"): _prompt_of(row_comparisons.tree),
    ("prompt",): _one(row_dialogues.prompt),
    ("messages",): _prompt_of(_whole("messages")),
    ("conversations",): _prompt_of(_conversations),
    ("instruction", "instances"): _prompt_of(_self_instruct),
    ("instruction",): _one(lambda row, where: _instruction(row, row, where)),
    ("question",): _one(_asked),
    ("chosen",): _prompt_of(_whole("chosen")),
    ("info", "summaries", "choice"): _prompt_of(row_comparisons.summaries),
    ("input", "output_1", "output_2", "label"): _prompt_of(row_comparisons.outputs),
  },
  prompt_problem,
  lambda demonstration: demonstration.prompt,
)
# A prompt that templates have written has no row of its own: its row is the demonstration.
PROMPT_ROWS = RowFormats(
  {names: _with_row(parse) for names, parse in PROMPTS.parsers.items()},
  lambda record: prompt_problem(record.prompt),
  lambda shown: PromptRow(
    shown.prompt, {"prompt": prompt_value(shown.prompt), "response": response_value(shown.response)}
  ),
)
