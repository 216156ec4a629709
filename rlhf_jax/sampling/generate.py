"""Autoregressive sampling with a cache: the same forward as in training, so the same log-probs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from rlhf_jax.sampling.filters import sample_supported, sample_tokens
from rlhf_jax.types import Array, Params, Prompts, Rollout


class Decodes(Protocol):
  """The functions of a model that `generate` calls (see `rlhf_jax.models.LanguageModel`)."""

  def init_cache(self, batch: int, length: int, /) -> Any:
    """An empty cache: a tree of arrays [batch, _, length, _]."""

  def prefill(self, params: Params, tokens: Array, last: Array, /) -> tuple[jax.Array, Any]:
    """(tokens[B, S], last[B]) -> (hidden[B, d] of the tokens at these indices, the cache of all S tokens)."""

  def extend(
    self, params: Params, tokens: jax.Array, positions: jax.Array, cache: Any, at: Array | None = None, /
  ) -> tuple[jax.Array, Any]:
    """(tokens[B, S], positions[B, S], cache) -> (hidden[B, S, d], cache); with at[B, N], hidden[B, N, d] of these S
    alone. `generate` gives `at` only with a prefix."""

  def unembed(self, params: Params, hidden: jax.Array, /) -> jax.Array:
    """hidden[..., d] -> logits[..., V]."""


class Slots(NamedTuple):
  """The state of decoding, S slots side by side; a slot is a row of the cache."""

  row: jax.Array
  """i32[S], the row that the slot decodes; N for a free slot, an index out of range, so that its writes are dropped."""
  token: jax.Array
  """i32[S], the token sampled last, which is not in the cache yet."""
  num_sampled: jax.Array
  """i32[S], the number of tokens sampled for the row."""
  matched: jax.Array
  """i32[S], the state of the search for stop strings (see `stop_table`)."""


class Sampled(NamedTuple):
  """The rows so far."""

  tokens: jax.Array
  """i32[N, T], prompts and sampled tokens."""
  logp: jax.Array
  """f32[N, T], log-probs of the sampled tokens, 0 elsewhere."""
  lengths: jax.Array
  """i32[N], the number of sampled tokens."""
  finished: jax.Array
  """bool[N], True after EOS or a stop string."""
  support: jax.Array | None
  """u8[N, T, ceil(V / 8)], as in `Rollout`; None where it is not recorded."""


class State(NamedTuple):
  """The state of the loop over tokens."""

  started: jax.Array
  """i32[], the number of rows that have been given a slot so far, in their order."""
  slots: Slots
  cache: Any
  """Keys and values of the slots."""
  sampled: Sampled


class Inputs(NamedTuple):
  """The constants of the loop over tokens."""

  model: Decodes
  params: Params
  prompts: Prompts
  """N / copies prompts, each the beginning of `copies` rows side by side."""
  copies: int
  prompt_lengths: jax.Array
  """i32[N], lengths of the prompts in tokens."""
  uniform: jax.Array | None
  """f32[N, max_new_tokens] in [0, 1), the random number that each token is drawn with; None at temperature 0."""
  limits: jax.Array
  """i32[N], the number of tokens that a row may have."""
  choose: Callable[..., tuple[jax.Array, ...]]
  """(uniform[S] or None, logits[S, V]) -> (tokens[S], logp[S]), and with them the support where it is recorded."""
  ends: jax.Array
  """i32[E], the tokens that end a row."""
  stop_table: jax.Array | None
  """i32[M, V] of `stop_table`; None for no stop strings."""
  prefix: Any
  """The cache [1, _, prefix, _] of the tokens that all prompts begin with; None for no prefix."""
  end_together: tuple[str, ...]
  """Axes of a mesh whose devices end their loops at once."""

  @property
  def rows(self) -> int:
    """The number of rows N."""
    return self.prompt_lengths.shape[0]


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
  record_support: bool = False,
  stop_table: jax.Array | None = None,
  samples_per_prompt: int = 1,
  slots: int = 0,
  refill: int = 0,
  limits: jax.Array | None = None,
  prefix: int = 0,
  end_together: tuple[str, ...] = (),
) -> Rollout:
  """Samples responses until EOS, a stop string or `max_new_tokens`; the loop ends when all rows have ended.

  B prompts give N = B * samples_per_prompt rows, those of one prompt side by side; the prompt is prefilled once for
  them. With fewer `slots` than rows, that many rows are decoded at once, and a waiting row takes the slot of a row that
  has ended, inside the compiled loop: the cost of a batch of uneven lengths is then that of its tokens.

  Args:
    params: the parameters of the model.
    prompts: B prompts of at most P tokens.
    key: a key, from which row n draws with fold_in(key, n), or the keys of all rows, [N]. A row's tokens depend on its
      prompt and its key alone, not on other rows, slots or padding.
    max_new_tokens: the largest number of tokens of a response.
    eos_id: the token or the tokens that end a response.
    pad_id: the token that fills the end of a row.
    temperature, top_k, top_p, min_p: as in `sample_tokens`. The recorded log-prob is that of the sampled token under
      the *whole* softmax at the sampling temperature (at temperature 0 under the plain softmax), whatever the
      truncation.
    record_support: whether the log-prob is instead that of the truncated softmax, and the tokens it leaves are
      recorded (see `sample_supported`): for training, which needs the distribution that the tokens were drawn from.
    stop_table: i32[M, V] of `rlhf_jax.sampling.stop_table`; the token that completes a stop string ends a response.
    slots: the number of rows decoded at once; 0 for all rows.
    refill: the number of slots that must be free before waiting rows are prefilled together; 0 for an eighth of slots.
    limits: i32[N], the number of tokens that each row may have, at most max_new_tokens; a row of 0 is not sampled.
    prefix: the number of tokens, fewer than those of any prompt, that all prompts begin with, which are prefilled once
      (see `common_prefix`); a row of limit 0 may be shorter and begin with others. 0 prefills each prompt whole.
    end_together: inside a shard_map, the manual axes of the mesh whose devices take as many turns of each loop as the
      one that needs most: for models that communicate, since a device that had left would be waited for in vain.

  Returns:
    Rollout of width P + max_new_tokens. A response follows its prompt without a gap; pad_id fills the rest. `at` are
    the max_new_tokens positions behind each prompt.

  Raises:
    ValueError: prefix leaves no token of the prompts.
  """
  prompts, limits, stop_table = jax.tree.map(jnp.asarray, (prompts, limits, stop_table))
  batch, prompt_width = prompts.tokens.shape
  rows, width = batch * samples_per_prompt, prompt_width + max_new_tokens
  slots = min(slots or rows, rows)
  if not 0 <= prefix < prompt_width:
    raise ValueError(f"prefix={prefix} leaves no token of prompts of {prompt_width} tokens")
  choose = sample_supported if record_support else sample_tokens
  inputs = Inputs(
    model,
    params,
    prompts,
    samples_per_prompt,
    prompt_lengths=jnp.repeat(prompts.lengths, samples_per_prompt),
    uniform=_uniform(key if key.ndim else _fold_in(key, rows), max_new_tokens) if temperature > 0 else None,
    limits=jnp.full((rows,), max_new_tokens) if limits is None else limits,
    choose=functools.partial(choose, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p),
    ends=jnp.atleast_1d(jnp.asarray(eos_id)),
    stop_table=stop_table,
    prefix=_prefill_prefix(model, params, prompts.tokens, jnp.argmax(prompts.lengths), prefix) if prefix else None,
    end_together=end_together,
  )
  inside = jnp.arange(prompt_width) < prompts.lengths[:, None]
  tokens = jnp.repeat(jnp.where(inside, prompts.tokens, pad_id), samples_per_prompt, axis=0)
  sampled = Sampled(
    jnp.pad(tokens, [(0, 0), (0, max_new_tokens)], constant_values=pad_id),
    jnp.zeros((rows, width), jnp.float32),
    jnp.zeros((rows,), jnp.int32),
    jnp.zeros((rows,), bool),
    _no_support(inputs, width) if record_support else None,
  )
  if slots == rows:
    sampled = _decode_together(inputs, sampled)
  else:
    sampled = _decode_in_turn(inputs, sampled, slots, refill or max(slots // 8, 1))
  after = jnp.arange(width) - inputs.prompt_lengths[:, None]  # [N, T], the index in the response
  mask = (after >= 0) & (after < sampled.lengths[:, None])
  at = inputs.prompt_lengths[:, None] + jnp.arange(max_new_tokens)  # [N, max_new_tokens]
  return Rollout(sampled.tokens, mask, sampled.logp, sampled.finished, sampled.support, at)


def _no_support(inputs: Inputs, width: int) -> jax.Array:
  """u8[N, width, ceil(V / 8)] of zeros, for the V logits of the model."""
  model, params, prompts = inputs.model, inputs.params, inputs.prompts
  hidden, _ = jax.eval_shape(model.prefill, params, prompts.tokens, prompts.lengths)
  words = jax.eval_shape(model.unembed, params, hidden).shape[-1]
  return jnp.zeros((inputs.rows, width, -(-words // 8)), jnp.uint8)


def _uniform(keys: jax.Array, count: int) -> jax.Array:
  """f32[N, count] in [0, 1), each number from a key of its own; drawn in the loop they would take ten times as long."""
  return jax.vmap(lambda key: jax.vmap(jax.random.uniform)(_fold_in(key, count)))(keys)


def _fold_in(key: jax.Array, count: int) -> jax.Array:
  """The keys fold_in(key, 0), ..., fold_in(key, count - 1)."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))


def _decode_together(inputs: Inputs, sampled: Sampled) -> Sampled:
  """All rows at once, until the last one has ended."""
  hidden, cache = _prefill(inputs, inputs.prompts, inputs.copies)
  room = sampled.tokens.shape[1] - inputs.prompts.tokens.shape[1]
  cache = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 0), (0, room), (0, 0)]), cache)
  slots, sampled = _sample(inputs, hidden, _new_slots(inputs, jnp.arange(inputs.rows)), sampled)
  state = State(jnp.array(inputs.rows), slots, cache, sampled)

  def unfinished(state: State) -> jax.Array:
    return _agreed(inputs, _any_left(state.slots.row < inputs.rows))

  return jax.lax.while_loop(unfinished, functools.partial(_decode, inputs), state).sampled


def _decode_in_turn(inputs: Inputs, sampled: Sampled, num_slots: int, refill: int) -> Sampled:
  """As many rows at once as there are slots; whenever `refill` slots are free, the next rows take them.

  The loop over tokens is inside a loop over refills; a `cond` in a single loop would copy the cache at every step.
  """
  shared = max(n for n in range(1, num_slots + 1) if inputs.copies % n == 0)  # rows of a prompt that begin together
  groups = max(min(refill, num_slots) // shared, 1)
  together = groups * shared

  def begin(state: State) -> State:
    row = state.started + jnp.arange(together)
    first = jnp.minimum(row[::shared], inputs.rows - 1) // inputs.copies  # [groups], prompts
    hidden, prefix = _prefill(inputs, jax.tree.map(lambda x: x[first], inputs.prompts), shared)
    (slot,) = jnp.nonzero(state.slots.row == inputs.rows, size=together, fill_value=num_slots)
    new, sampled = _sample(inputs, hidden, _new_slots(inputs, row), state.sampled)
    return State(
      state.started + together,
      jax.tree.map(lambda old, part: old.at[slot].set(part, mode="drop"), state.slots, new),
      jax.tree.map(lambda old, part: old.at[slot, :, : part.shape[2]].set(part, mode="drop"), state.cache, prefix),
      sampled,
    )

  def in_use(state: State) -> jax.Array:
    """Whether to decode a token rather than refill: no row waits, or too few slots are free for waiting rows."""
    waiting = jnp.maximum(inputs.rows - state.started, 0)
    busy = _busy(inputs, state)
    return _agreed(inputs, (busy > 0) & ((waiting == 0) | (num_slots - busy < jnp.minimum(together, waiting))))

  def refill_and_decode(state: State) -> State:
    return jax.lax.while_loop(in_use, functools.partial(_decode, inputs), begin(state))

  free = jnp.full((num_slots,), inputs.rows)
  nothing = jnp.zeros((num_slots,), jnp.int32)
  cache = inputs.model.init_cache(num_slots, sampled.tokens.shape[1])
  state = State(jnp.zeros((), jnp.int32), Slots(free, nothing, nothing + 1, nothing), cache, sampled)
  return jax.lax.while_loop(
    lambda state: _agreed(inputs, state.started < inputs.rows), refill_and_decode, state
  ).sampled


def _prefill(inputs: Inputs, prompts: Prompts, copies: int) -> tuple[jax.Array, Any]:
  """(the hidden state at the end of each prompt, the caches), each `copies` times, side by side."""
  state = _behind_prefix(inputs, prompts) if inputs.prefix else _whole_prompts(inputs, prompts)
  return jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), state)


def _whole_prompts(inputs: Inputs, prompts: Prompts) -> tuple[jax.Array, Any]:
  return inputs.model.prefill(inputs.params, prompts.tokens, prompts.lengths - 1)


def _prefill_prefix(model: Decodes, params: Params, tokens: Array, row: jax.Array, prefix: int) -> Any:
  """The cache of the first tokens of this row. It is the longest: rows that only fill a shape may begin otherwise."""
  return model.prefill(params, jnp.asarray(tokens)[row, :prefix][None], jnp.zeros((1,), jnp.int32))[1]


def _behind_prefix(inputs: Inputs, prompts: Prompts) -> tuple[jax.Array, Any]:
  """What `_whole_prompts` returns, by a forward of the tokens behind the prefix."""
  prefix = jax.tree.leaves(inputs.prefix)[0].shape[2]
  rest = jnp.asarray(prompts.tokens)[:, prefix:]
  rows, room = rest.shape

  def begun(x: jax.Array) -> jax.Array:
    return jnp.pad(jnp.broadcast_to(x, (rows, *x.shape[1:])), [(0, 0), (0, 0), (0, room), (0, 0)])

  positions = jnp.broadcast_to(prefix + jnp.arange(room), rest.shape)
  last = jnp.maximum(prompts.lengths - 1 - prefix, 0)[:, None]
  hidden, cache = inputs.model.extend(inputs.params, rest, positions, jax.tree.map(begun, inputs.prefix), last)
  return hidden[:, 0], cache


def _new_slots(inputs: Inputs, row: jax.Array) -> Slots:
  """Slots that begin to decode these rows; a slot whose row does not exist or may have no token is free."""
  exists = (row < inputs.rows) & (inputs.limits[jnp.minimum(row, inputs.rows - 1)] > 0)
  nothing = jnp.zeros(row.shape, jnp.int32)
  return Slots(jnp.where(exists, row, inputs.rows), nothing, nothing, nothing)


def _busy(inputs: Inputs, state: State) -> jax.Array:
  """The number of slots in use."""
  return jnp.sum(state.slots.row < inputs.rows)


def _decode(inputs: Inputs, state: State) -> State:
  """Samples one more token in every slot."""
  slots = state.slots
  place = inputs.prompt_lengths[jnp.minimum(slots.row, inputs.rows - 1)] + slots.num_sampled - 1
  hidden, cache = inputs.model.extend(inputs.params, slots.token[:, None], place[:, None], state.cache)
  slots, sampled = _sample(inputs, hidden[:, 0], slots, state.sampled)
  return State(state.started, slots, cache, sampled)


def _sample(inputs: Inputs, hidden: jax.Array, slots: Slots, sampled: Sampled) -> tuple[Slots, Sampled]:
  """Draws the next token of each slot and records it; a row that ends with it leaves its slot free."""
  of = jnp.minimum(slots.row, inputs.rows - 1)
  logits = inputs.model.unembed(inputs.params, hidden)
  uniform = None if inputs.uniform is None else inputs.uniform[of, slots.num_sampled]
  token, logp, *support = inputs.choose(uniform, logits)
  finished, matched = jnp.isin(token, inputs.ends), slots.matched
  if inputs.stop_table is not None:
    matched = inputs.stop_table[matched, token]
    finished |= matched == inputs.stop_table.shape[0] - 1
  count, place = slots.num_sampled + 1, (slots.row, inputs.prompt_lengths[of] + slots.num_sampled)
  sampled = Sampled(
    sampled.tokens.at[place].set(token, mode="drop"),
    sampled.logp.at[place].set(logp, mode="drop"),
    sampled.lengths.at[slots.row].set(count, mode="drop"),
    sampled.finished.at[slots.row].set(finished, mode="drop"),
    None if sampled.support is None else sampled.support.at[place].set(support[0], mode="drop"),
  )
  row = jnp.where(finished | (count >= inputs.limits[of]), inputs.rows, slots.row)
  return Slots(row, token, count, matched), sampled


def _agreed(inputs: Inputs, goes_on: jax.Array) -> jax.Array:
  """Whether a loop goes on: where this device does, or one that it ends together with."""
  if not inputs.end_together:
    return goes_on
  return jax.lax.pmax(goes_on.astype(jnp.int32), inputs.end_together) > 0


@jax.custom_batching.custom_vmap
def _any_left(busy: jax.Array) -> jax.Array:
  """Whether any of busy[S] is True."""
  return jnp.any(busy)


@_any_left.def_vmap
def _any_left_of_all(axis_size: int, in_batched: list[bool], busy: jax.Array) -> tuple[jax.Array, bool]:
  # One answer for all lanes of a vmap: with one for each, the loop would copy the whole cache at every token.
  return jnp.any(busy), False
