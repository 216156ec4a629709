"""Autoregressive sampling with a cache: the same forward as in training, so the same log-probs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from rlhf_jax.sampling.filters import sample_tokens
from rlhf_jax.types import Params, Prompts, Rollout


class Decodes(Protocol):
  """What `generate` needs of a model (see `rlhf_jax.models.LanguageModel`)."""

  def init_cache(self, batch, length): ...
  def prefill(self, params, tokens, last): ...
  def extend(self, params, tokens, positions, cache): ...
  def unembed(self, params, hidden): ...


class Slots(NamedTuple):
  """What is being decoded; a slot is a row of the cache.

  row: i32[S], whose tokens the slot decodes; where it is free, the number of rows, which no write reaches. token:
  i32[S], sampled last and not in the cache yet. index: i32[S], how many were sampled. matched: i32[S], the state of the
  stop strings.
  """

  row: jax.Array
  token: jax.Array
  index: jax.Array
  matched: jax.Array


class Sampled(NamedTuple):
  """What has been sampled: tokens i32[N, T] and logp f32[N, T] behind the prompts, count i32[N], finished bool[N]."""

  tokens: jax.Array
  logp: jax.Array
  count: jax.Array
  finished: jax.Array


class State(NamedTuple):
  """What the loop carries. started: i32[], the rows before it have been given a slot."""

  started: jax.Array
  slots: Slots
  cache: Any
  sampled: Sampled


class Task(NamedTuple):
  """What the loop does not change.

  prompts: of N / copies prompts, each the beginning of `copies` rows. lengths, limits: [N], of the rows. uniform:
  f32[N, max_new_tokens], what each token is drawn with. choose: (uniform, logits) -> (tokens, logp). ends: i32[E], the
  tokens that end a row.
  """

  model: Decodes
  params: Params
  prompts: Prompts
  copies: int
  lengths: jax.Array
  uniform: jax.Array
  limits: jax.Array
  choose: Callable
  ends: jax.Array
  stop_table: jax.Array | None

  @property
  def rows(self) -> int:
    """N."""
    return self.lengths.shape[0]


def generate(
  model: Decodes,
  params: Params,
  prompts: Prompts,
  key: jax.Array,
  *,
  max_new_tokens: int,
  eos_id: int | Sequence[int],
  pad_id: int,
  temperature: float = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
  min_p: float = 0.0,
  stop_table: jax.Array | None = None,
  samples_per_prompt: int = 1,
  slots: int = 0,
  refill: int = 0,
  limits: jax.Array | None = None,
) -> Rollout:
  """Samples responses until EOS, a stop string or `max_new_tokens`, and stops early when all rows have ended.

  B prompts give N = B * samples_per_prompt rows, those of one prompt side by side; it is prefilled once for them. With
  fewer `slots` than rows, that many are decoded at a time, and rows that have ended make room for waiting ones inside
  the compiled loop: a batch of uneven lengths then costs what its tokens cost.

  Args:
    key: one key, from which row n draws with fold_in(key, n), or the keys of all rows, [N]. A row's tokens depend on
      its prompt and its key alone: on no other row, slot or padding.
    eos_id: the token that ends a response, or several.
    temperature, top_k, top_p, min_p: as in `sample_tokens`. The recorded log-prob is that of the sampled token under
      the *whole* softmax at the sampling temperature (at temperature 0, the plain one), whatever the truncation: that
      is what training evaluates.
    stop_table: i32[M, V] of `rlhf_jax.sampling.stop_table`; the token that completes a stop string is the last.
    slots: rows decoded at a time; 0 is all of them.
    refill: how many slots must be free before waiting rows are prefilled, together; 0 is an eighth of the slots.
    limits: i32[N], tokens that each row may have, at most max_new_tokens; a row of 0 is not sampled.

  Returns:
    Rollout of width P + max_new_tokens; responses follow their prompt without a gap, PAD behind.
  """
  prompts, limits, stop_table = jax.tree.map(jnp.asarray, (prompts, limits, stop_table))
  batch, prompt_width = prompts.tokens.shape
  rows, width = batch * samples_per_prompt, prompt_width + max_new_tokens
  slots = min(slots or rows, rows)
  task = Task(
    model,
    params,
    prompts,
    samples_per_prompt,
    lengths=jnp.repeat(prompts.lengths, samples_per_prompt),
    uniform=_uniform(key if key.ndim else _fold_in(key, rows), max_new_tokens),
    limits=jnp.full((rows,), max_new_tokens) if limits is None else limits,
    choose=functools.partial(sample_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p),
    ends=jnp.atleast_1d(jnp.asarray(eos_id)),
    stop_table=stop_table,
  )
  inside = jnp.arange(prompt_width) < prompts.lengths[:, None]
  tokens = jnp.repeat(jnp.where(inside, prompts.tokens, pad_id), samples_per_prompt, axis=0)
  sampled = Sampled(
    jnp.pad(tokens, [(0, 0), (0, max_new_tokens)], constant_values=pad_id),
    jnp.zeros((rows, width), jnp.float32),
    jnp.zeros((rows,), jnp.int32),
    jnp.zeros((rows,), bool),
  )
  if slots == rows:
    sampled = _decode_together(task, sampled)
  else:
    sampled = _decode_in_turn(task, sampled, slots, refill or max(slots // 8, 1))
  after = jnp.arange(width) - task.lengths[:, None]  # [N, T], of the response
  mask = (after >= 0) & (after < sampled.count[:, None])
  return Rollout(tokens=sampled.tokens, mask=mask, logp=sampled.logp, finished=sampled.finished)


def _uniform(keys: jax.Array, count: int) -> jax.Array:
  """f32[N, count] in [0, 1): each from a key of its own. Made at once, it costs a tenth of what it does in the loop."""
  return jax.vmap(lambda key: jax.vmap(jax.random.uniform)(_fold_in(key, count)))(keys)


def _fold_in(key: jax.Array, count: int) -> jax.Array:
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))


def _decode_together(task: Task, sampled: Sampled) -> Sampled:
  """All rows at once, until the last one has ended."""
  hidden, cache = _prefill(task, task.prompts, task.copies)
  room = sampled.tokens.shape[1] - task.prompts.tokens.shape[1]
  cache = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 0), (0, room), (0, 0)]), cache)
  slots, sampled = _sample(task, hidden, _new_slots(task, jnp.arange(task.rows)), sampled)
  state = State(jnp.array(task.rows), slots, cache, sampled)

  def unfinished(state: State) -> jax.Array:
    return _any_left(state.slots.row < task.rows)

  return jax.lax.while_loop(unfinished, functools.partial(_decode, task), state).sampled


def _decode_in_turn(task: Task, sampled: Sampled, num_slots: int, refill: int) -> Sampled:
  """As many rows as there are slots; whenever `refill` of these are free, the next rows get them.

  Two loops, one in the other, and no branch: a cache that passes through a `cond` would be copied at every step.
  """
  shared = max(n for n in range(1, num_slots + 1) if task.copies % n == 0)  # rows of one prompt that begin together
  groups = max(min(refill, num_slots) // shared, 1)
  together = groups * shared

  def begin(state: State) -> State:
    row = state.started + jnp.arange(together)
    first = jnp.minimum(row[::shared], task.rows - 1) // task.copies  # [groups], of the prompts
    hidden, prefix = _prefill(task, jax.tree.map(lambda x: x[first], task.prompts), shared)
    (slot,) = jnp.nonzero(state.slots.row == task.rows, size=together, fill_value=num_slots)
    new, sampled = _sample(task, hidden, _new_slots(task, row), state.sampled)
    return State(
      state.started + together,
      jax.tree.map(lambda old, part: old.at[slot].set(part, mode="drop"), state.slots, new),
      jax.tree.map(lambda old, part: old.at[slot, :, : part.shape[2]].set(part, mode="drop"), state.cache, prefix),
      sampled,
    )

  def in_use(state: State) -> jax.Array:
    """Whether to decode on: no row waits, or too few slots are free for those that do."""
    waiting = jnp.maximum(task.rows - state.started, 0)
    busy = _busy(task, state)
    return (busy > 0) & ((waiting == 0) | (num_slots - busy < jnp.minimum(together, waiting)))

  def turn(state: State) -> State:
    return jax.lax.while_loop(in_use, functools.partial(_decode, task), begin(state))

  free = jnp.full((num_slots,), task.rows)
  nothing = jnp.zeros((num_slots,), jnp.int32)
  cache = task.model.init_cache(num_slots, sampled.tokens.shape[1])
  state = State(jnp.zeros((), jnp.int32), Slots(free, nothing, nothing + 1, nothing), cache, sampled)
  return jax.lax.while_loop(lambda state: state.started < task.rows, turn, state).sampled


def _prefill(task: Task, prompts: Prompts, copies: int):
  """(the hidden state at the end of each prompt, the caches), each `copies` times, side by side."""
  state = task.model.prefill(task.params, prompts.tokens, prompts.lengths - 1)
  return jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), state)


def _new_slots(task: Task, row: jax.Array) -> Slots:
  """Slots in which nothing was sampled yet; those of no row, or of one that may have no token, are free."""
  exists = (row < task.rows) & (task.limits[jnp.minimum(row, task.rows - 1)] > 0)
  nothing = jnp.zeros(row.shape, jnp.int32)
  return Slots(jnp.where(exists, row, task.rows), nothing, nothing, nothing)


def _busy(task: Task, state: State) -> jax.Array:
  return jnp.sum(state.slots.row < task.rows)


def _decode(task: Task, state: State) -> State:
  """One more token for every slot."""
  slots = state.slots
  place = task.lengths[jnp.minimum(slots.row, task.rows - 1)] + slots.index - 1
  hidden, cache = task.model.extend(task.params, slots.token[:, None], place[:, None], state.cache)
  slots, sampled = _sample(task, hidden[:, 0], slots, state.sampled)
  return State(state.started, slots, cache, sampled)


def _sample(task: Task, hidden: jax.Array, slots: Slots, sampled: Sampled) -> tuple[Slots, Sampled]:
  """Draws the next token of each slot and records it; a row that ends with it leaves its slot free."""
  of = jnp.minimum(slots.row, task.rows - 1)
  token, logp = task.choose(task.uniform[of, slots.index], task.model.unembed(task.params, hidden))
  finished, matched = jnp.isin(token, task.ends), slots.matched
  if task.stop_table is not None:
    matched = task.stop_table[matched, token]
    finished |= matched == task.stop_table.shape[0] - 1
  count, place = slots.index + 1, (slots.row, task.lengths[of] + slots.index)
  sampled = Sampled(
    sampled.tokens.at[place].set(token, mode="drop"),
    sampled.logp.at[place].set(logp, mode="drop"),
    sampled.count.at[slots.row].set(count, mode="drop"),
    sampled.finished.at[slots.row].set(finished, mode="drop"),
  )
  row = jnp.where(finished | (count >= task.limits[of]), task.rows, slots.row)
  return Slots(row, token, count, matched), sampled


@jax.custom_batching.custom_vmap
def _any_left(busy: jax.Array) -> jax.Array:
  """busy[S] -> whether a row goes on."""
  return jnp.any(busy)


@_any_left.def_vmap
def _any_left_of_all(axis_size, in_batched, busy):
  # One answer for all that are vmapped: with an answer each, the loop would copy the whole cache at every token.
  return jnp.any(busy), False
