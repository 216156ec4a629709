"""Stop strings, found while decoding, wherever tokens cut them, by an automaton over the bytes of the response."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def stop_table(pieces: Sequence[bytes], stops: Sequence[str]) -> np.ndarray:
  """The automaton that searches for `stops`: i32[M, V], the state after each token for every state before it.

  State 0 is the start of a response. State M - 1 means that the response holds a stop string; nothing leads away from
  it. This is the automaton of Aho and Corasick (1975) over bytes, which takes the bytes of a token in one step: a stop
  string may begin and end anywhere in a token.

  Args:
    pieces: the bytes that each of the V tokens adds to a text (`rlhf_jax.data.token_bytes`).
    stops: the stop strings.

  Raises:
    ValueError: a stop string is empty.
  """
  targets = [stop.encode() for stop in stops]
  if not all(targets):
    raise ValueError(f"stop={tuple(stops)!r} holds an empty string, which every response contains")
  follow = _follow(targets)
  lengths = np.array([len(piece) for piece in pieces])
  table = np.tile(np.arange(len(follow), dtype=np.int32)[:, None], len(pieces))
  for index in range(lengths.max(initial=0)):
    (longer,) = np.nonzero(lengths > index)
    byte = np.array([pieces[token][index] for token in longer.tolist()])
    table[:, longer] = follow[table[:, longer], byte]
  return table


def before_stop(text: str, stops: Sequence[str]) -> str:
  """The text before its first stop string; all of the text if it has none."""
  return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


def _follow(targets: Sequence[bytes]) -> np.ndarray:
  """The state after each byte, i32[M, 256]; a state is the longest end of the text that is the start of a target."""
  states = sorted({target[:length] for target in targets for length in range(len(target))}, key=len)
  number = {state: index for index, state in enumerate(states)}
  follow = np.full((len(states) + 1, 256), len(states), np.int32)
  for state in states:
    for byte in range(256):
      text = state + bytes([byte])
      if not text.endswith(tuple(targets)):
        follow[number[state], byte] = next(number[text[i:]] for i in range(len(text) + 1) if text[i:] in number)
  return follow
