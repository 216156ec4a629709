"""Autoregressive sampling with a cache: the same forward as in training, so the same log-probs."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp

from rlhf_jax.types import Params, Prompts, Rollout


class Decodes(Protocol):
  """What `generate` needs of a model (see `rlhf_jax.models.LanguageModel`)."""

  def init_cache(self, batch, length): ...
  def extend(self, params, tokens, positions, cache): ...
  def unembed(self, params, hidden): ...


def generate(
  model: Decodes,
  params: Params,
  prompts: Prompts,
  key: jax.Array,
  *,
  max_new_tokens: int,
  temperature: float = 1.0,
  eos_id: int,
  pad_id: int,
) -> Rollout:
  """Samples one response per prompt until EOS or `max_new_tokens`, and stops early when all rows have ended.

  Row b draws from keys folded from (key, b, index of the token): a row's tokens depend on no other row. `temperature`
  0 takes the most probable token. The recorded log-prob is that of the sampled token under the full softmax at the
  sampling temperature (at temperature 0, under the plain softmax), which is what training must evaluate.

  Returns:
    Rollout of width P + max_new_tokens; responses follow their prompt without a gap, PAD behind.
  """
  batch, prompt_width = prompts.tokens.shape
  rows = jnp.arange(batch)
  width = prompt_width + max_new_tokens
  positions = jnp.broadcast_to(jnp.arange(prompt_width), (batch, prompt_width))
  hidden, cache = model.extend(params, prompts.tokens, positions, model.init_cache(batch, width))
  last_hidden = hidden[rows, prompts.lengths - 1]  # [B, d]
  row_keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
  inside = jnp.arange(prompt_width) < prompts.lengths[:, None]
  tokens = jnp.pad(
    jnp.where(inside, prompts.tokens, pad_id), [(0, 0), (0, max_new_tokens)], constant_values=pad_id
  )

  def step(carry):
    index, tokens, logp, mask, done, last_hidden, cache = carry
    logits = model.unembed(params, last_hidden)  # [B, V]
    logits = logits / (temperature if temperature > 0 else 1.0)
    if temperature > 0:
      keys = jax.vmap(lambda row_key: jax.random.fold_in(row_key, index))(row_keys)
      action = jax.vmap(jax.random.categorical)(keys, logits)
    else:
      action = jnp.argmax(logits, axis=-1)
    action_logp = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], axis=1)[:, 0]
    place = prompts.lengths + index
    tokens = tokens.at[rows, place].set(jnp.where(done, pad_id, action))
    logp = logp.at[rows, place].set(jnp.where(done, 0.0, action_logp))
    mask = mask.at[rows, place].set(~done)
    done = done | (action == eos_id)
    hidden, cache = model.extend(params, action[:, None], place[:, None], cache)
    return index + 1, tokens, logp, mask, done, hidden[:, 0], cache

  def unfinished(carry):
    return (carry[0] < max_new_tokens) & _any_left(carry[4])

  carry = (
    jnp.zeros((), jnp.int32),
    tokens,
    jnp.zeros((batch, width), jnp.float32),
    jnp.zeros((batch, width), bool),
    jnp.zeros((batch,), bool),
    last_hidden,
    cache,
  )
  _, tokens, logp, mask, done, _, _ = jax.lax.while_loop(unfinished, step, carry)
  return Rollout(tokens=tokens, mask=mask, logp=logp, finished=done)


@jax.custom_batching.custom_vmap
def _any_left(done: jax.Array) -> jax.Array:
  """done[B] -> whether a row goes on."""
  return ~jnp.all(done)


@_any_left.def_vmap
def _any_left_of_all(axis_size, in_batched, done):
  # One answer for all that are vmapped: with an answer each, the loop would copy the whole cache at every token.
  return ~jnp.all(done), False
