"""Questions of a few-shot evaluation: read from rows, given worked examples, and written as token ids.

The text form, for base models, is that of lm-evaluation-harness: for each example "prompt answer" and an empty line,
then the prompt; the answer follows after one space. In the turns form each example is a human turn with its answer, in
the chat form or template that the model was tuned on.
"""

import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from rlhf_jax import data

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


def read_questions(path: Path, *, with_choices: bool) -> list[Question]:
  """The questions in a file of rows {"prompt" or "question", "answer", and optional "choices" and "cluster"}.

  With choices the answer is a choice or its index; without choices it is a text, a number, or a list of right answers,
  of which examples show the first.

  Raises:
    DataError: a row is no such question; the message names file and line.
  """
  return [_question(row, f"{path}:{line}", with_choices) for line, row in data.read_rows(path)]


def _question(row: dict[str, Any], where: str, with_choices: bool) -> Question:
  prompt, answer = row.get("prompt", row.get("question")), row.get("answer")
  if not isinstance(prompt, str) or not prompt.strip() or answer is None:
    raise data.DataError(f'{where}: need "answer" and a text "prompt" or "question"; found {", ".join(row)}')
  choices = row.get("choices") if with_choices else ()
  if not isinstance(choices, (list, tuple)) or not all(isinstance(choice, str) and choice for choice in choices):
    raise data.DataError(f'{where}: "choices" must be a list of texts, not {choices!r}')
  if with_choices and (len(choices) < 2 or len(set(choices)) < len(choices)):
    raise data.DataError(f'{where}: "choices" must be two or more different texts, not {choices!r}')
  right = -1
  if choices:
    is_index = isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices)
    if not is_index and answer not in choices:
      raise data.DataError(f'{where}: "answer" must be one of the {len(choices)} choices or its index, not {answer!r}')
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


def context_ids(tokenizer: data.Tokenizer, question: Question, shots: Sequence[Question], form: Form) -> list[int]:
  """The ids of examples and question, which the answer follows; the first is <bos>."""
  if form == "text":
    examples = "".join(f"{shot.prompt} {shot.answer}\n\n" for shot in shots)
    return [tokenizer.bos_id, *tokenizer.encode(examples + question.prompt)]
  return data.prompt_ids(tokenizer, _dialogue(question, shots))


def answer_ids(
  tokenizer: data.Tokenizer, question: Question, shots: Sequence[Question], answer: str, form: Form
) -> list[int]:
  """The ids of an answer as it follows the context, without the end of the turn."""
  if form == "text":
    return tokenizer.encode(f" {answer.strip()}")
  return data.response_ids(tokenizer, _dialogue(question, shots), answer)[:-1]


def _dialogue(question: Question, shots: Sequence[Question]) -> str:
  if not shots:
    return question.prompt
  turns = "".join(data.render_prompt(shot.prompt) + data.render_response(shot.answer) for shot in shots)
  return turns + data.render_prompt(question.prompt)
