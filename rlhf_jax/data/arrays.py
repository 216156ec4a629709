"""Token arrays of fixed shape made from text, padded at the end, and pure functions that choose rows from them.

A row that does not fit is skipped and counted by reason; nothing is ever truncated.
"""

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rlhf_jax.data.dialogue import Prompt, render_prompt
from rlhf_jax.data.encoding import Answered, Encoded, encode_answers, encode_prompts
from rlhf_jax.data.records import Comparison, Demonstration
from rlhf_jax.data.tokenizer import Tokenizer

Arrays = dict[str, np.ndarray]

_ABSENT = Answered([], [], np.zeros(0, bool))  # a response that is not there

_PIECE = 1 << 20  # characters that are tokenised at once
_CUT = re.compile(r"(?<=\S)[ \t\r]*\n")


def language_model_rows(tokenizer: Tokenizer, text: str, length: int) -> Arrays:
  """A text as one stream of tokens, cut into rows that each start with <bos>; the last row is padded.

  Returns:
    tokens: i32[N, T]; <bos> and T - 1 tokens of the stream.
    mask: bool[N, T]; True on the tokens of the stream.

  Raises:
    ValueError: `length` is below 2, which leaves no room for text.
  """
  if length < 2:
    raise ValueError(f"length is {length}; it must be at least 2 (<bos> and one token)")
  pieces = [np.asarray(tokenizer.encode(piece), np.int32) for piece in _pieces(text)]
  stream = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)  # [S]
  num_rows = -(-len(stream) // (length - 1))
  padded = np.full(num_rows * (length - 1), tokenizer.pad_id, np.int32)
  padded[: len(stream)] = stream
  tokens = np.full((num_rows, length), tokenizer.bos_id, np.int32)
  tokens[:, 1:] = padded.reshape(num_rows, length - 1)
  mask = np.zeros((num_rows, length), bool)
  mask[:, 1:] = (np.arange(len(padded)) < len(stream)).reshape(num_rows, length - 1)
  return {"tokens": tokens, "mask": mask}


def cut_texts(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> list[list[Encoded]]:
  """The rows of each text, of at most `length` tokens: <bos> and the next stretch of the text's tokens."""
  found = []
  for ids in tokenizer.encode_batch(texts):
    stretches = [ids[start : start + length - 1] for start in range(0, len(ids), length - 1)]
    rows = [np.asarray([tokenizer.bos_id, *stretch], np.int32) for stretch in stretches]
    found.append([(row, np.arange(len(row)) > 0) for row in rows])
  return found


def demonstration_rows(
  tokenizer: Tokenizer, demonstrations: Sequence[Demonstration], length: int, notes: Counter[str] | None = None
) -> tuple[Arrays, Counter[str]]:
  """(arrays, {reason: how many demonstrations were skipped for it}).

  A row is a conversation in the chat form. Its first tokens are those of the prompt as sampling sees it. notes: counts
  what happened to rows that were kept (see `rlhf_jax.data.encoding`).

  Returns:
    tokens: i32[N, T].
    mask: bool[N, T]; True on the response and the end of its turn, which the model must learn to emit.
  """
  rows: list[Answered] = []
  skips: Counter[str] = Counter()
  for found in encode_answers(tokenizer, demonstrations, notes):
    if isinstance(found, str) or len(found.prompt) + len(found.response) > length:
      skips[found if isinstance(found, str) else too_long(length)] += 1
    else:
      rows.append(found)
  return _answer_arrays(rows, length, tokenizer.pad_id), skips


def pack_rows(arrays: Mapping[str, np.ndarray], length: int, pad_id: int, lookback: int = 64) -> Arrays:
  """Packs several short rows into one, each into the first that has room for it, so that little of a batch is padding.

  Args:
    arrays: tokens i32[N, S] and mask bool[N, S] as `demonstration_rows` gives them; a row ends with the last
      True of its mask.
    lookback: packed rows before the newest that may still be filled.

  Returns:
    tokens, mask: [M, length], whole rows side by side.
    segments: i32[M, length]; 1, 2, ... for the short rows in a packed row, 0 on padding.

  Raises:
    ValueError: a row has more than `length` tokens.
  """
  positions = np.arange(arrays["mask"].shape[1])
  sizes = np.max(np.where(arrays["mask"], positions + 1, 0), axis=1, initial=0)  # [N]
  if len(sizes) and sizes.max() > length:
    raise ValueError(f"a row of {sizes.max()} tokens does not fit in length {length}")
  room = np.full(len(sizes), length)  # free tokens of each packed row, begun or not
  packs: list[list[int]] = []  # numbers of the short rows in each packed row
  for index, size in enumerate(sizes):
    start = max(len(packs) - lookback, 0)
    place = start + int(np.argmax(room[start : len(packs) + 1] >= size))
    if place == len(packs):
      packs.append([])
    room[place] -= size
    packs[place].append(index)
  packed = {
    "tokens": np.full((len(packs), length), pad_id, np.int32),
    "mask": np.zeros((len(packs), length), bool),
    "segments": np.zeros((len(packs), length), np.int32),
  }
  for row, indices in enumerate(packs):
    start = 0
    for segment, index in enumerate(indices, 1):
      here, end = slice(start, start + sizes[index]), sizes[index]
      packed["tokens"][row, here] = arrays["tokens"][index, :end]
      packed["mask"][row, here] = arrays["mask"][index, :end]
      packed["segments"][row, here] = segment
      start += end
  return packed


def pad_rows(rows: Sequence[Sequence[int] | np.ndarray], length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
  """(tokens i32[N, length], each row padded at its end, lengths i32[N] before the padding)."""
  tokens = np.full((len(rows), length), pad_id, np.int32)
  for index, row in enumerate(rows):
    tokens[index, : len(row)] = row
  return tokens, np.asarray([len(row) for row in rows], np.int32)


def comparison_rows(
  tokenizer: Tokenizer,
  comparisons: Sequence[Comparison],
  length: int,
  num_responses: int | None = None,
  notes: Counter[str] | None = None,
) -> tuple[Arrays, list[int], Counter[str]]:
  """(arrays, indices of the comparisons kept, {reason: how many were skipped for it}).

  A row is a conversation as in `demonstration_rows`, and slot k of a comparison holds `responses[k]`. The number of
  slots K is `num_responses`, or for None the most responses that any comparison has. A comparison is skipped whole when
  one of its ranked responses is too long or refused by the chat template, or when it has more responses than there are
  slots. notes: as in `demonstration_rows`.

  Returns:
    tokens: i32[N, K, T]; all <pad> where a response is absent.
    mask: bool[N, K, T]; True on the tokens of the response, so that the last True is the end of its turn.
    ranks: i32[N, K]; 0 is best, -1 is absent.
  """
  most = max((len(comparison.responses) for comparison in comparisons), default=0)
  slots = most if num_responses is None else num_responses
  asked = [
    (comparison.prompt, response)
    for comparison in comparisons
    for response, rank in zip(comparison.responses, comparison.ranks, strict=True)
    if rank >= 0
  ]
  encoded = iter(encode_answers(tokenizer, asked, notes))
  rows: list[Answered] = []
  ranks: list[list[int]] = []
  kept: list[int] = []
  skips: Counter[str] = Counter()
  for index, comparison in enumerate(comparisons):
    group: list[Answered | str] = [next(encoded) if rank >= 0 else _ABSENT for rank in comparison.ranks]
    reason = _problem(group, slots, length)
    if reason:
      skips[reason] += 1
      continue
    absent = slots - len(comparison.responses)
    rows += [found for found in (*group, *[_ABSENT] * absent) if not isinstance(found, str)]
    ranks.append([*comparison.ranks] + [-1] * absent)
    kept.append(index)
  arrays = _answer_arrays(rows, length, tokenizer.pad_id)  # [N * K, T]
  arrays = {name: array.reshape(len(kept), slots, length) for name, array in arrays.items()}
  return {**arrays, "ranks": np.asarray(ranks, np.int32).reshape(len(kept), slots)}, kept, skips


def _problem(group: Sequence[Answered | str], slots: int, length: int) -> str:
  if len(group) > slots:
    return f"more than {slots} responses"
  refused = next((found for found in group if isinstance(found, str)), "")
  fits = all(len(found.prompt) + len(found.response) <= length for found in group if not isinstance(found, str))
  return refused or ("" if fits else too_long(length))


def _answer_arrays(rows: Sequence[Answered], length: int, pad_id: int) -> Arrays:
  """tokens i32[N, T] of prompts with their responses, and mask bool[N, T] of what the assistant says in a response."""
  tokens, _ = pad_rows([found.prompt + found.response for found in rows], length, pad_id)
  mask = np.zeros(tokens.shape, bool)
  for row, (prompt, response, said) in enumerate(rows):
    mask[row, len(prompt) : len(prompt) + len(response)] = said
  return {"tokens": tokens, "mask": mask}


def prompt_rows(tokenizer: Tokenizer, prompts: Sequence[Prompt], length: int) -> tuple[Arrays, list[int], Counter[str]]:
  """(arrays, indices of the prompts kept, {reason: how many were skipped for it}).

  A row is the prompt in the chat form, with the generation prompt at its end.

  Returns:
    tokens: i32[N, P].
    lengths: i32[N]; tokens before the padding.
  """
  kept: dict[int, list[int]] = {}
  skips: Counter[str] = Counter()
  for index, found in enumerate(encode_prompts(tokenizer, prompts)):
    if isinstance(found, str) or len(found) > length:
      skips[found if isinstance(found, str) else too_long(length)] += 1
    else:
      kept[index] = found
  tokens, lengths = pad_rows([*kept.values()], length, tokenizer.pad_id)
  return {"tokens": tokens, "lengths": lengths}, [*kept], skips


def take(arrays: Mapping[str, np.ndarray], indices: Sequence[int] | np.ndarray) -> Arrays:
  """The rows `indices` of every array, [N, ...] -> [len(indices), ...]."""
  return {name: array[indices] for name, array in arrays.items()}


def batch_indices(num_rows: int, batch_size: int, step: int, seed: int) -> np.ndarray:
  """The numbers of the rows in the batch of a step, i64[batch_size]; they depend on the seed and the step alone.

  Batches are consecutive slices of shuffled epochs in a row. A batch may span two epochs, so that every epoch uses
  every row exactly once whatever the batch size.

  Raises:
    ValueError: there are no rows, or a size, the step or the seed is out of range.
  """
  if num_rows < 1 or batch_size < 1:
    raise ValueError(f"no batch of {batch_size} from {num_rows} rows; at least 1 of each is needed")
  if step < 0 or seed < 0:
    raise ValueError(f"step is {step}, seed is {seed}; both must be at least 0")
  epochs, offsets = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), num_rows)
  indices = np.empty(batch_size, np.int64)
  for epoch in range(epochs[0], epochs[-1] + 1):
    here = epochs == epoch
    indices[here] = _permutation(num_rows, seed, epoch)[offsets[here]]
  return indices


def split_prompts(prompts: Sequence[Prompt], fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """(training, held-out) indices, i64; a hash of prompt and seed holds out about `fraction` of the prompts.

  Equal prompts are on the same side; a prompt stays on its side when other prompts are added.

  Raises:
    ValueError: `fraction` is not in [0, 1].
  """
  held_out = np.fromiter((is_held_out(prompt, fraction, seed) for prompt in prompts), bool, len(prompts))
  if not 0 <= fraction <= 1:
    raise ValueError(f"fraction is {fraction}; it must be between 0 and 1")
  return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def is_held_out(prompt: Prompt, fraction: float, seed: int) -> bool:
  """Whether `split_prompts` holds a prompt out, which depends on no other prompt."""
  digest = hashlib.sha256(f"{seed}:{render_prompt(prompt)}".encode()).digest()
  return int.from_bytes(digest[:8], "big") / 2**64 < fraction


# Cached because all steps of an epoch need it: shuffling a large set anew costs more than making the batch.
@functools.lru_cache(maxsize=4)
def _permutation(num_rows: int, seed: int, epoch: int) -> np.ndarray:
  return np.random.default_rng((seed, epoch)).permutation(num_rows)


def _pieces(text: str) -> Iterator[str]:
  """The text in pieces of about `_PIECE` characters, whose tokens together are those of the whole text.

  Each cut is before the white space that ends a line: no token of the byte-level pattern spans the step from a
  character to white space after it, while a cut inside a run of white space would change how the run is tokenised.
  """
  start = 0
  while start < len(text):
    cut = _CUT.search(text, start + _PIECE)
    end = cut.start() if cut else len(text)
    yield text[start:end]
    start = end


def too_long(length: int) -> str:
  """The reason for which a row of more than `length` tokens is skipped."""
  return f"longer than {length} tokens"
