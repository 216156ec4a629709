"""Log-probabilities of continuations, for ranking by likelihood, perplexity and the harness."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.models import LanguageModel
from rlhf_jax.objectives import ChunkedLogits, token_logprobs
from rlhf_jax.positions import positions_of, take_at
from rlhf_jax.stage import Transport
from rlhf_jax.train.heldout import fixed_batches
from rlhf_jax.train.processes import host
from rlhf_jax.train.rows import by_rows
from rlhf_jax.types import Params

WIDTH = 32  # tokens; rows are padded to a multiple of it, which bounds the number of compiled programs
STEPS = 8  # shares of a row's width that continuations are padded to, for the same reason

Continuations = Callable[[Params, Sequence[tuple[Sequence[int], Sequence[int]]]], tuple[np.ndarray, np.ndarray]]


def make_likelihood(
  model: LanguageModel, pad_id: int, batch_size: int, transport: Transport | None = None
) -> Continuations:
  """`likelihood(params, pairs) -> (logp f32[N], greedy bool[N])` of N pairs of (context ids, continuation ids).

  logp: sum over the continuation of log p(token | all tokens before), in nats. greedy: True where every token of the
  continuation is the most probable token. A context has at least one token (<bos>).

  transport: None where the parameters are not placed on a mesh.

  Raises (when called):
    ValueError: a context is empty, or a pair is longer than the model.
  """

  def score_rows(  # tokens, mask [B, T], at[B, N]
    params: Params, tokens: jax.Array, mask: jax.Array, at: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    def read(logits: jax.Array, tokens: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
      return token_logprobs(logits, tokens, mask=mask), jnp.argmax(logits, axis=-1) == tokens

    logits = model.apply(params, tokens, at=at)
    if isinstance(logits, ChunkedLogits):
      logp, hit = logits.map(read, tokens, mask)
    else:
      tokens, mask = take_at(tokens, at), take_at(mask, at)
      logp, hit = read(logits, tokens, mask)
    return jnp.sum(logp, axis=1), jnp.all(hit | ~mask, axis=1)

  score = jax.jit(by_rows(score_rows, transport) if transport else score_rows)

  def likelihood(params: Params, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.array([len(context) + len(continuation) for context, continuation in pairs], int)
    if any(not len(context) for context, _ in pairs):
      raise ValueError("a context is empty; it must hold <bos> at least")
    if len(sizes) and sizes.max() > model.config.max_length:
      raise ValueError(f"{sizes.max()} tokens exceed model.max_length={model.config.max_length}")
    logp, greedy = np.zeros(len(pairs), np.float32), np.zeros(len(pairs), bool)
    order = np.argsort(-sizes, kind="stable")  # rows of similar length share a batch
    for _, indices, kept in fixed_batches(len(order), batch_size):
      rows = order[indices[:kept]]
      width = min(-(-int(sizes[rows[0]]) // WIDTH) * WIDTH, model.config.max_length)
      tokens = np.full((batch_size, width), pad_id, np.int32)
      mask = np.zeros((batch_size, width), bool)
      for i, row in enumerate(rows):
        context, continuation = pairs[row]
        tokens[i, : sizes[row]] = [*context, *continuation]
        mask[i, len(context) : sizes[row]] = True
      found = score(params, tokens, mask, positions_of(mask, STEPS))
      logp[rows], greedy[rows] = (host(values)[: len(rows)] for values in found)
    return logp, greedy

  return likelihood
