"""The records that rows are read as, and the reasons why a record is without use."""

import json
from typing import Any, NamedTuple

from rlhf_jax.data.dialogue import Prompt, Response, is_empty

CALLS = {"tool_calls", "reasoning_content"}  # keys of a message that say something beside its content


class Demonstration(NamedTuple):
  """A prompt and the answer to imitate."""

  prompt: Prompt
  response: Response


class PromptRow(NamedTuple):
  """A prompt, and the row that it was read from, with all its columns."""

  prompt: Prompt
  row: dict[str, Any]


class Text(NamedTuple):
  """A text to learn language from, without prompt or end."""

  text: str


class Comparison(NamedTuple):
  """One annotator's ranking of the responses to a prompt: rank 0 is best, equal ranks tie, -1 is absent."""

  prompt: Prompt
  responses: tuple[Response, ...]
  ranks: tuple[int, ...]
  annotator: str = ""


class Ratings(NamedTuple):
  """One annotator's marks for the responses to a prompt, on the scale of the file; None is no mark."""

  prompt: Prompt
  responses: tuple[Response, ...]
  ratings: tuple[float | None, ...]
  annotator: str = ""


class Critique(NamedTuple):
  """Feedback in words on a response, and a better response; critique or rewrite is "" where it is absent."""

  prompt: Prompt
  response: Response
  critique: str
  rewrite: str
  annotator: str = ""


class Unpaired(NamedTuple):
  """One response to a prompt, and whether it is a good one (Ethayarajh et al. 2024, arXiv 2402.01306)."""

  prompt: Prompt
  response: Response
  desirable: bool
  annotator: str = ""


class Steps(NamedTuple):
  """The steps of one response to a prompt, and whether each is right (Lightman et al. 2023, arXiv 2305.20050)."""

  prompt: Prompt
  steps: tuple[str, ...]
  correct: tuple[bool, ...]
  annotator: str = ""

  @property
  def response(self) -> str:
    """The response as a text, a line for each step."""
    return "\n".join(self.steps)


def _said(response: Response) -> Response:
  """What a response says, without white space at its ends; "" for nothing."""
  if isinstance(response, str):
    return response.strip()
  return response if response.content.strip() or CALLS & json.loads(response.more or "{}").keys() else ""


def prompt_problem(prompt: Prompt) -> str | None:
  """The reason why a prompt is without use, or None."""
  return "empty prompt" if is_empty(prompt) else None


def demonstration_problem(demonstration: Demonstration | Unpaired) -> str | None:
  """The reason why a prompt with a response is without use, or None."""
  if is_empty(demonstration.prompt):
    return "empty prompt"
  return None if _said(demonstration.response) else "empty response"


def streamed_problem(record: Demonstration | Text) -> str | None:
  """The reason why a demonstration or a text is without use, or None."""
  if isinstance(record, Text):
    return None if record.text.strip() else "empty text"
  return demonstration_problem(record)


def comparison_problem(comparison: Comparison) -> str | None:
  """The reason why a comparison is without use to a learner of orders, or None."""
  tied = len({rank for rank in comparison.ranks if rank >= 0}) < 2
  return ranking_problem(comparison) or ("all responses tied" if tied else None)


def ranking_problem(comparison: Comparison) -> str | None:
  """The reason why a comparison, which may tie all responses, is without use, or None."""
  slots = zip(comparison.responses, comparison.ranks, strict=True)
  ranked = [(_said(response), rank) for response, rank in slots if rank >= 0]
  if is_empty(comparison.prompt):
    return "empty prompt"
  if len(ranked) < 2:
    return "fewer than two ranked responses"
  if not all(response for response, _ in ranked):
    return "empty response"
  return "identical responses" if len({response for response, _ in ranked}) < 2 else None


def ratings_problem(ratings: Ratings) -> str | None:
  """The reason why a group of ratings is without use, or None."""
  slots = zip(ratings.responses, ratings.ratings, strict=True)
  rated = [_said(response) for response, rating in slots if rating is not None]
  if is_empty(ratings.prompt):
    return "empty prompt"
  if not rated:
    return "no rated response"
  return None if all(rated) else "empty response"


def steps_problem(steps: Steps) -> str | None:
  """The reason why a response in steps is without use, or None."""
  if is_empty(steps.prompt):
    return "empty prompt"
  return None if steps.steps and all(step.strip() for step in steps.steps) else "no step, or an empty one"


def critique_problem(critique: Critique) -> str | None:
  """The reason why a critique is without use, or None."""
  if is_empty(critique.prompt):
    return "empty prompt"
  return None if critique.critique.strip() or critique.rewrite.strip() else "empty critique"
