"""The packings of rollouts and of groups of responses, by the lengths of their rows, which the host knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rlhf_jax import data
from rlhf_jax.models import shares_tokens
from rlhf_jax.packing import Packing, pack
from rlhf_jax.stage import Stage, Transport
from rlhf_jax.train.mesh import make_mesh
from rlhf_jax.train.rows import rows_at_once
from rlhf_jax.train.speed import count_tokens
from rlhf_jax.train.workspace import select_attention

STEPS = 8  # shares of the rows of a part that the number of packed rows is rounded up to, so that few are compiled
SHARED = 0.75  # prompts for each row at most, where rows share them: that is another program
TOGETHER = 4  # rows of full length that a packed row has room for at most, where they share their prompt
SCORES = 256  # tokens of a row at which the scores of attention take as long as the rest of a layer, on a CPU
PLANNED = 256  # steps whose batches are packed beforehand, so that one shape is enough for them
LAST_TOKENS = 4  # sequences that a packed row has room for where only the state of the last token is asked for


def pack_passes(
  tokens: np.ndarray, mask: np.ndarray, orders: Sequence[np.ndarray], room: int, transport: Transport, group: int = 1
) -> list[Packing] | None:
  """A packing for each pass over the rows, all of one shape; None where packing saves no row, or is not asked for by
  transport.packing.

  Where many rows have the same prompt, those of a part share it.

  Args:
    tokens: i32[B, T].
    mask: bool[B, T], on for the tokens whose log-probs are asked for, one stretch in each row, behind a prompt.
    orders: i32[minibatches, rows], the rows of the minibatches of each pass.
    room: the number of masked tokens that a packed row has room for at least, that of any row or more. It has room for
      T - 1 tokens that are read: nothing is asked of the last one.
    group: the number of neighbouring rows that are never cut apart, such as those of a prompt.
  """
  mesh, num = make_mesh(transport), orders[0].shape[1]
  size = group * rows_at_once(num // group, mesh, transport.microbatches)
  if not _packs(transport, mask) or size != rows_at_once(num, mesh, transport.microbatches):
    return None
  first, end = stretches(mask)
  passes = [[rows[i : i + size] for rows in order for i in range(0, num, size)] for order in orders]
  count, skipped = np.maximum(end - 1, 0), first - 1  # a token is predicted by the one before it
  width = mask.shape[1] - 1
  prompts, together = None, 1
  if _shares(transport, width):
    beginnings = np.where(np.arange(width + 1) < skipped[:, None], tokens, -1)
    _, numbers, counts = np.unique(beginnings, axis=0, return_inverse=True, return_counts=True)
    if len(counts) <= SHARED * len(tokens):
      prompts, together = numbers.ravel(), min(int(counts.max()), size)
  shapes = _shapes(transport, size, width, room, room, _fitting(transport, width, room, together))
  found = [pack(count, skipped, passes, size=size, prompts=prompts, **shape) for shape in shapes]
  saving = [packings for packings in found if _cost_of(packings[0]) < _cost(size, width, room)]
  return min(saving, key=lambda packings: _cost_of(packings[0]), default=None)


def pack_groups(
  rows: Mapping[str, np.ndarray], batch_size: int, num_steps: int, stage: Stage, *, predictions: bool
) -> Callable[[Any, np.ndarray], tuple[Any, dict[str, float]]]:
  """`packed(batch, groups i64[batch]) -> (batch, {"tokens/trained", "tokens/fill"})` of groups that are scored, packed
  where that saves rows: `batch.at` is then a packing with arrays [batch, K].

  The first steps' batches have one shape; a later one that needs more rows has its own. Responses share their prompt.

  Args:
    rows: "tokens" and "mask"[N, K, T], on for the tokens of K responses, one stretch in each row, behind a prompt; "at"
      as in `Preferences`.
    batch_size, num_steps: the number of groups in a step, by `data.batch_indices`, and that of steps.
    predictions: whether a score reads the predictions of all masked tokens, and not the state behind the last alone.
  """
  transport, mask = stage.transport, rows["mask"]
  total, num, width = mask.shape
  first, end = stretches(mask.reshape(-1, width))
  # Behind the last token nothing is predicted, but its state is read.
  skipped, room = (first - 1, rows["at"].shape[-1] + 1) if predictions else (end - 1, min(LAST_TOKENS, width))
  shared = np.clip(skipped, 0, first)
  own = int((end - shared).max(initial=1))
  mesh, packs = make_mesh(transport), _packs(transport, mask)
  prompts, together = None, 1
  if _shares(transport, width):
    prompts = _shared(rows["tokens"], shared.reshape(total, num), end)
    together = _fitting(transport, width, own, int(np.bincount(prompts).max()))

  def at_once(groups: np.ndarray) -> int:
    return num * rows_at_once(len(groups), mesh, transport.microbatches)

  def packing(groups: np.ndarray, shape: Mapping[str, Any]) -> Packing:
    chosen, size = (groups[:, None] * num + np.arange(num)).ravel(), at_once(groups)
    parts = np.split(np.arange(len(chosen)), range(size, len(chosen), size))
    numbers = None if prompts is None else prompts[chosen]
    sharing = dict(prompts=numbers, shared=shared[chosen])
    (found,) = pack(end[chosen], skipped[chosen], [parts], size=size, **sharing, **shape)
    return jax.tree.map(lambda x: x.reshape(-1, num), found)

  def saving(found: Packing) -> bool:
    return _cost_of(found) < _cost(found.size, width, room)

  ahead = [
    data.batch_indices(total, batch_size, step, stage.stage_seed)
    for step in range(min(num_steps, PLANNED) if packs else 0)
  ]
  shapes = _shapes(transport, at_once(ahead[0]), width, room, own, together) if ahead else []
  planned = [max((packing(groups, shape) for groups in ahead), key=lambda found: found.rows) for shape in shapes]
  best = min(filter(saving, planned), key=_cost_of, default=None)
  shape: dict[str, Any] = {}
  if best is not None:
    (chosen,) = (x for x in shapes if (x["width"], x["room"]) == (best.width, best.room))
    shape = {**chosen, "least": best.rows}

  def packed(batch: Any, groups: np.ndarray) -> tuple[Any, dict[str, float]]:
    found = packing(groups, shape) if shape else None
    found = found if found is not None and saving(found) else None
    counts = {"tokens/trained": count_tokens(batch.mask), "tokens/fill": fill(batch.mask, found)}
    return (batch, counts) if found is None else (batch.replace(at=found), counts)

  return packed


def stretches(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(index of the first token of the mask bool[B, T], index behind its last token): i32[B] both, 0 without any."""
  some, length = mask.any(axis=1), mask.shape[1]
  end = np.where(some, length - np.argmax(mask[:, ::-1], axis=1), 0)
  return np.argmax(mask, axis=1).astype(np.int32), end.astype(np.int32)


def ungrouped(arrays: Any) -> Any:
  """A tree of arrays [N, K, ...] as [N * K, ...]."""
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), arrays)


def fill(mask: np.ndarray, packing: Packing | None) -> float:
  """Tokens of sequences for each place of the rows that a forward reads, packed ones or those of mask[..., T].

  It is the share of places that hold a token, but that a shared prompt counts once for each sequence.
  """
  if packing is None:
    return float(stretches(mask.reshape(-1, mask.shape[-1]))[1].sum() / mask.size)
  parts = math.ceil(np.size(packing.count) / packing.size)
  return float(np.sum(packing.count) / (parts * packing.rows * packing.width))


def _shared(tokens: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
  """Numbers i64[N * K], equal for the rows of a group of tokens[N, K, T] that begin with the same first[N, K] tokens as
  its first one."""
  index = np.arange(tokens.shape[-1])
  same = (tokens == tokens[:, :1]) | (index >= first[..., None])  # [N, K, T]
  alike = same.all(axis=-1) & (first == first[:, :1]) & (end.reshape(first.shape) > 0)
  numbers = np.arange(first.size).reshape(first.shape)
  return np.where(alike, numbers[:, :1], numbers).ravel()


def _fitting(transport: Transport, width: int, own: int, together: int) -> int:
  """The number of rows of `width` tokens, of which `own` are not shared, that a packed row has room for in full length.

  together: the largest number of rows that share a prompt.
  """
  attention = select_attention(transport)
  sizes = range(1, min(together, TOGETHER) + 1)
  return max(n for n in sizes if n == 1 or shares_tokens(attention, width + (n - 1) * own))


def _packs(transport: Transport, mask: np.ndarray) -> bool:
  """Whether rows with mask[..., T] may be packed: "cudnn" would need an array of [T, T] for each to be told apart, and
  nothing predicts a first token."""
  return transport.packing < 1 and transport.attention != "cudnn" and not mask[..., 0].any()


def _shares(transport: Transport, width: int) -> bool:
  """Whether the attention of a model that `select_model` makes reads prompts that several sequences share."""
  return shares_tokens(select_attention(transport), width)


def _shapes(transport: Transport, size: int, width: int, room: int, own: int, together: int) -> list[dict[str, Any]]:
  """Keyword arguments of `pack` of which one may cost least.

  Packed rows are as wide as a row, or have room for `together` rows of full length that share a prompt; and they have
  room for the answers of as many rows, or for more, where tokens would fill them later than answers.
  """
  shapes = []
  for number in sorted({1, together}):
    wide, answers = width + (number - 1) * own, number * room
    whole = size * width / wide  # packed rows of this width, if packing saved nothing
    rows = {"width": wide, "least": math.ceil(transport.packing * whole), "step": max(int(whole) // STEPS, 1)}
    shapes += [{**rows, "room": each} for each in sorted({answers, max(answers, 3 * wide // 4)})]
  return shapes


def _cost(rows: int, width: int, room: int) -> float:
  """About what a forward costs: layers and attention of all tokens, and logits of the answers."""
  return rows * (width * (1 + width / SCORES) + room)


def _cost_of(packing: Packing) -> float:
  return _cost(packing.rows, packing.width, packing.room)
