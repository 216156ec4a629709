"""Questions of a few-shot evaluation: read from rows, given worked examples, and written as token ids.

The text form, for base models, is that of lm-evaluation-harness: for each example "prompt answer" and an empty line,
then the prompt; the answer follows after one space. In the turns form each example is a human turn with its answer, in
the chat form or template that the model was tuned on.
"""

import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.files import Row
from rlhf_jax.data.row_formats import RowFormats
from rlhf_jax.data.row_values import schema_error

Form = Literal["text", "turns"]


class Question(NamedTuple):
  """A question with its answer."""

  prompt: str
  """Text of the question."""
  choices: tuple[str, ...]
  """Answers to choose from; () for an open question."""
  answer: str
  """Right answer, as a worked example shows it."""
  right: int
  """Index of the right answer in `choices`; -1 for an open question."""
  cluster: str
  """Name of the group that examples are drawn from; "" for none."""


def question_formats(with_choices: bool) -> RowFormats:
  """The format of rows {"prompt" or "question", "answer", and optional "choices" and "cluster"}.

  With choices the answer is a choice or its index; without choices it is a text, a number, or a list of right answers,
  of which examples show the first. A row that is no such question is a `RowError` with its file and line.
  """

  def parse(row: Row, where: str) -> Iterator[Question]:
    yield question_of(row, where, with_choices)

  return RowFormats({(): parse}, lambda question: None)


def question_of(row: Row, where: str, with_choices: bool) -> Question:
  """The question of a row, as `question_formats` has it. Raises RowError, which starts with `where`."""
  prompt, answer = row.get("prompt", row.get("question")), row.get("answer")
  if not isinstance(prompt, str) or not prompt.strip() or answer is None:
    raise schema_error(f'{where}: need "answer" and a text "prompt" or "question"; found {", ".join(row)}')
  choices = row.get("choices") if with_choices else ()
  if not isinstance(choices, (list, tuple)) or not all(isinstance(choice, str) and choice for choice in choices):
    raise schema_error(f'{where}: "choices" must be a list of texts, not {choices!r}')
  if with_choices and (len(choices) < 2 or len(set(choices)) < len(choices)):
    raise schema_error(f'{where}: "choices" must be two or more different texts, not {choices!r}')
  right = -1
  if choices:
    is_index = isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices)
    if not is_index and answer not in choices:
      raise schema_error(f'{where}: "answer" must be one of the {len(choices)} choices or its index, not {answer!r}')
    right = answer if is_index else choices.index(answer)
    answer = choices[right]
  elif isinstance(row.get("choices"), list) and isinstance(answer, int):
    answer = row["choices"][answer]  # this evaluation asks it as an open question, without its choices
  shown = answer[0] if isinstance(answer, list) else answer
  return Question(prompt.strip(), tuple(choices), str(shown).strip(), right, str(row.get("cluster", "")))


def draw_shots(
  questions: Sequence[Question], pool: Sequence[Question], count: int, seed: int
) -> list[tuple[Question, ...]]:
  """`count` different examples for each question, of its cluster, none with the question's own prompt.

  The draw depends on the seed and the prompt alone, so that the first k examples serve for k shots.

  Raises:
    DataError: the pool has too few examples.
  """
  by_cluster: defaultdict[str, dict[str, Question]] = defaultdict(dict)
  for example in pool:
    by_cluster[example.cluster].setdefault(example.prompt, example)
  drawn = []
  for question in questions:
    options = [example for prompt, example in by_cluster[question.cluster].items() if prompt != question.prompt]
    if len(options) < count:
      of = f" of the cluster {question.cluster!r}" if question.cluster else ""
      raise data.DataError(f"{count} shots need as many examples{of}; there are {len(options)} beside the question")
    rng = np.random.default_rng([seed, zlib.crc32(question.prompt.encode())])
    drawn.append(tuple(options[i] for i in rng.permutation(len(options))[:count]))
  return drawn


def text_prompt(shots: Sequence[Question], prompt: str) -> str:
  """The text form: for each example "prompt answer" and an empty line, then the prompt, which the answer follows."""
  return "".join(f"{shot.prompt} {shot.answer}\n\n" for shot in shots) + prompt


def context_ids(tokenizer: data.Tokenizer, question: Question, shots: Sequence[Question], form: Form) -> list[int]:
  """The ids of examples and question, which the answer follows; the first is <bos>."""
  if form == "text":
    return [tokenizer.bos_id, *tokenizer.encode(text_prompt(shots, question.prompt))]
  return data.prompt_ids(tokenizer, _dialogue(question, shots))


def answer_ids(
  tokenizer: data.Tokenizer, question: Question, shots: Sequence[Question], answer: str, form: Form
) -> list[int]:
  """The ids of an answer as it follows the context, without the end of the turn."""
  if form == "text":
    return tokenizer.encode(f" {answer.strip()}")
  (found,) = data.encode_answers(tokenizer, [(_dialogue(question, shots), answer)])
  if isinstance(found, str):
    raise data.DataError(found)
  return found.content


def _dialogue(question: Question, shots: Sequence[Question]) -> data.Prompt:
  turns = [
    message for shot in shots for message in (data.Message("user", shot.prompt), data.Message("assistant", shot.answer))
  ]
  return data.as_prompt([*turns, data.Message("user", question.prompt)])
