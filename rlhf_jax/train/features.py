"""Features of texts by a model that stays as it is, for heads that are fitted on them (`evaluation.linear_reward`)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import data
from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import token_logprobs
from rlhf_jax.stage import Transport
from rlhf_jax.train.progress import StageProgress
from rlhf_jax.train.rewards import read_texts
from rlhf_jax.train.rows import by_rows
from rlhf_jax.train.workspace import frozen
from rlhf_jax.types import Array, Params
from rlhf_jax.writing import write_bytes

AT_ONCE = 128  # tokens whose logits exist at once

Features = Callable[[Sequence[data.Prompt], Sequence[data.Response]], np.ndarray]


def text_features(
  model: LanguageModel, tokenizer: data.Tokenizer, params: Params, batch_size: int, transport: Transport
) -> Features:
  """`features(prompts, responses) -> f32[N, d + 1]` of given texts: what a reward model's head reads.

  The first d are the hidden state at the <eos> of a finished response, behind the last norm, where `text_scorer` reads
  its score. The last is the mean log-probability, in nats, of the response's tokens and of its end. So the score of a
  head is `features[:, :d] @ kernel + bias`, and a head's weight of the likelihood multiplies the last feature.

  params: a language model or a reward model, with its adapters; a head is not read.

  Raises (when called):
    DataError: prompt and response together are longer than the model.
  """
  params = frozen(model, {name: part for name, part in params.items() if name != "head"})

  def of_rows(params: Params, tokens: Array, mask: Array) -> jax.Array:
    params = model.share_table(params)
    # One more token, so that there is a place which has seen the last one; nothing reads it.
    tokens, mask = (jnp.pad(x, ((0, 0), (0, 1))) for x in (tokens, mask))
    counted = mask & (jnp.arange(tokens.shape[1]) > 0)  # nothing predicts the first token
    hidden = model.hidden(params, tokens)  # [B, T + 1, d]; place t has seen the tokens before it
    end = jnp.max(jnp.where(mask, jnp.arange(tokens.shape[1]), 0), axis=1) + 1
    last = jnp.take_along_axis(hidden, end[:, None, None], axis=1)[:, 0]
    logp = _logprobs(model.unembedding(params), hidden, tokens, counted)
    mean = logp.sum(axis=1) / jnp.maximum(counted.sum(axis=1), 1)
    return jnp.concatenate([last.astype(jnp.float32), mean[:, None]], axis=1)

  compiled = jax.jit(by_rows(of_rows, transport))

  def features(prompts: Sequence[data.Prompt], responses: Sequence[data.Response]) -> np.ndarray:
    texts = [data.Demonstration(*both) for both in zip(prompts, responses, strict=True)]
    found = read_texts(lambda *rows: compiled(params, *rows), tokenizer, texts, model.config.max_length, batch_size)
    return found.reshape(len(texts), model.config.d_model + 1)

  return features


def _logprobs(unembed: Callable[[jax.Array], jax.Array], hidden: jax.Array, tokens: Array, mask: Array) -> jax.Array:
  """Log-probs f32[B, T] of tokens[B, T], whose predictions are unembed(hidden[B, T, d]); 0 where the mask is off.

  Logits are made of the tokens of the mask alone, `AT_ONCE` at a time: a small part of an array [B, T, V].
  """
  flat, states = jnp.asarray(tokens).ravel(), hidden.reshape(-1, hidden.shape[-1])
  total = len(flat)
  order = jnp.argsort(~mask.ravel(), stable=True)  # those of the mask first
  order = jnp.pad(order, (0, -total % AT_ONCE), constant_values=total)

  def step(number: jax.Array, logp: jax.Array) -> jax.Array:
    rows = jax.lax.dynamic_slice_in_dim(order, number * AT_ONCE, AT_ONCE)
    logits = unembed(states.at[rows].get(mode="fill", fill_value=0))
    return logp.at[rows].set(token_logprobs(logits, flat.at[rows].get(mode="fill", fill_value=0)), mode="drop")

  steps = -(-mask.sum() // AT_ONCE)
  logp = jax.lax.fori_loop(0, steps, step, jnp.zeros(total, jnp.float32))
  return jnp.where(mask, logp.reshape(mask.shape), 0.0)


def kept_features(
  path: Path,
  features: Features,
  prompts: Sequence[data.Prompt],
  responses: Sequence[data.Response],
  part: int,
  model: str,
) -> np.ndarray:
  """`features(prompts, responses)`, f32[N, D], in parts that are kept in the directory `path`, with progress.

  A call that was interrupted goes on behind the last part that it finished. A part that was made of other texts or by
  another model is made anew.

  Args:
    part: number of texts in each part.
    model: name of what made the features, which belongs to what a part is made from.
  """
  cuts = [slice(start, start + part) for start in range(0, len(prompts), part)]
  digests = [_digest(model, prompts[cut], responses[cut]) for cut in cuts]
  files = [path / f"{number:05d}.npz" for number in range(len(cuts))]
  found = [_read_part(file, digest) for file, digest in zip(files, digests, strict=True)]
  missing = [number for number, kept in enumerate(found) if kept is None]
  done = sum(len(kept) for kept in found if kept is not None)
  with StageProgress(path.name, len(prompts), done) if missing else contextlib.nullcontext() as progress:
    for number in missing:
      began = time.monotonic()
      made = features(prompts[cuts[number]], responses[cuts[number]])
      write_bytes(files[number], _part_bytes(digests[number], made, time.monotonic() - began))
      found[number] = made
      done += len(made)
      if progress:
        progress.update(done, {})
  return np.concatenate([kept for kept in found if kept is not None]) if found else features([], [])


def seconds_of(path: Path) -> float:
  """The seconds that the parts of `kept_features` in the directory `path` took, in one call or in several."""
  return sum(float(np.load(file)["seconds"]) for file in path.glob("*.npz"))


def _read_part(file: Path, made_from: str) -> np.ndarray | None:
  if not file.exists():
    return None
  with np.load(file) as kept:
    return np.asarray(kept["features"]) if str(kept["made_from"]) == made_from else None


def _part_bytes(made_from: str, features: np.ndarray, seconds: float) -> bytes:
  packed = io.BytesIO()
  np.savez(packed, made_from=made_from, features=features.astype(np.float32), seconds=seconds)
  return packed.getvalue()


def _digest(model: str, prompts: Sequence[data.Prompt], responses: Sequence[data.Response]) -> str:
  texts: list[Any] = [model, [*map(data.prompt_value, prompts)], [*map(data.response_value, responses)]]
  return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
