"""Token arrays of responses in steps, with the places where the steps end."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rlhf_jax.data.arrays import Arrays, pad_rows, too_long
from rlhf_jax.data.encoding import encode_answers
from rlhf_jax.data.records import Steps
from rlhf_jax.data.tokenizer import Tokenizer

NO_TOKEN = "a step without a token of its own"


def step_rows(
  tokenizer: Tokenizer, responses: Sequence[Steps], length: int, notes: Counter[str] | None = None
) -> tuple[Arrays, list[int], Counter[str]]:
  """(arrays, indices of the responses kept, {reason: how many were skipped for it}).

  A row is a conversation as in `demonstration_rows`, its answer being the steps, one a line. notes: as there.

  Returns:
    tokens: i32[N, T].
    ends: bool[N, T]; True on the last token of each step, which of the last step is the end of the turn.
    correct: bool[N, T]; the label of the step that ends there, False elsewhere.
  """
  wholes = encode_answers(tokenizer, [(record.prompt, record.response) for record in responses], notes)
  begun = [
    (record.prompt, "\n".join(record.steps[:count])) for record in responses for count in range(1, len(record.steps))
  ]
  parts = iter(encode_answers(tokenizer, begun))
  ids: list[list[int]] = []
  marks: list[tuple[list[int], Sequence[bool]]] = []
  kept: list[int] = []
  skips: Counter[str] = Counter()
  for index, (record, whole) in enumerate(zip(responses, wholes, strict=True)):
    beginnings = [next(parts) for _ in record.steps[1:]]
    refused = next((found for found in (whole, *beginnings) if isinstance(found, str)), "")
    if isinstance(whole, str) or refused:
      skips[refused] += 1
      continue
    if len(whole.prompt) + len(whole.response) > length:
      skips[too_long(length)] += 1
      continue
    # A token may span the end of a step: a step ends where the tokens of what was said so far stop being the whole's.
    ends = [_shared(part.content, whole.response) - 1 for part in beginnings if not isinstance(part, str)]
    ends = [len(whole.prompt) + end for end in (*ends, whole.num_said - 1)]
    if ends[0] < len(whole.prompt) or len({*ends}) < len(ends):
      skips[NO_TOKEN] += 1
      continue
    ids.append(whole.prompt + whole.response)
    marks.append((ends, record.correct))
    kept.append(index)
  tokens, _ = pad_rows(ids, length, tokenizer.pad_id)
  arrays = {"tokens": tokens, **{name: np.zeros(tokens.shape, bool) for name in ("ends", "correct")}}
  for row, (places, correct) in enumerate(marks):
    arrays["ends"][row, places], arrays["correct"][row, places] = True, correct
  return arrays, kept, skips


def _shared(part: Sequence[int], whole: Sequence[int]) -> int:
  """The number of tokens that both begin with."""
  return next((i for i, (a, b) in enumerate(zip(part, whole, strict=False)) if a != b), min(len(part), len(whole)))
