"""Log-probabilities of tokens, their entropy, and the language-model loss.

Logits may be a `ChunkedLogits`: the values are the same, without an array [..., T, V].
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float32, Int, Num, Shaped, UInt8

from rlhf_jax.objectives.chunked import ChunkedLogits, supported
from rlhf_jax.reduce import Scalar, check_shapes, float32, select, select_rows

__all__ = [
  "collision_entropy",
  "lm_loss",
  "logprobs_and_entropy",
  "score_energy",
  "token_entropy",
  "token_logprobs",
  "truncated_logits",
]

Logits = ArrayLike | ChunkedLogits


def token_logprobs(
  logits: Num[ArrayLike, "*b v"] | ChunkedLogits,
  tokens: Int[ArrayLike, "*b"],
  *,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`log softmax(logits[t])[tokens[t]]`: the log-prob of each token under its own prediction, in nats.

  Their sum over a text is the text's log-prob (Bengio et al. 2003). There is no shift here: `logits[..., t, :]` is the
  prediction *for* `tokens[..., t]`. For log-probs at the temperature of a sampler, pass `logits / temperature`.

  Args: logits[..., T, V]; tokens[..., T], integers in [0, V); mask[..., T].
  Returns: f32[..., T]. A token outside the vocabulary gives NaN rather than the log-prob of another token.

  >>> logp = token_logprobs(jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])), jnp.array([0, 2]))
  >>> [round(x, 4) for x in logp.tolist()]
  [-0.6931, -1.3863]
  """
  check_shapes("token_logprobs", _named(logits), {"tokens": tokens, "mask": mask})
  if isinstance(logits, ChunkedLogits):
    return logits.where(mask).map(lambda part, tokens, mask: token_logprobs(part, tokens, mask=mask), tokens, mask)
  logits = select_rows(logits, mask)  # [..., T, V]
  return select(_picked(logits, tokens, mask) - _log_normaliser(logits), mask)


def token_entropy(
  logits: Num[ArrayLike, "*b v"] | ChunkedLogits, *, mask: Shaped[ArrayLike, "*b"] | None = None
) -> Float32[jax.Array, "*b"]:
  """`-sum_v p_v log p_v` of `p = softmax(logits)`, in nats (Shannon 1948).

  A logit of -inf is a token of probability 0.

  Args: logits[..., V]; mask[...]. Returns: f32[...].

  >>> round(float(token_entropy(jnp.zeros(4))), 4)
  1.3863
  """
  check_shapes("token_entropy", _named(logits), {"mask": mask})
  if isinstance(logits, ChunkedLogits):
    return logits.where(mask).map(lambda part, mask: token_entropy(part, mask=mask), mask)
  logp = jax.nn.log_softmax(select_rows(logits, mask), axis=-1)  # [..., V]
  entropy = -jnp.sum(jnp.exp(logp) * jnp.where(jnp.isneginf(logp), 0.0, logp), axis=-1)  # 0 log 0 = 0
  return select(entropy, mask)


def logprobs_and_entropy(
  logits: Num[ArrayLike, "*b v"] | ChunkedLogits,
  tokens: Int[ArrayLike, "*b"],
  *,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> tuple[Float32[jax.Array, "*b"], Float32[jax.Array, "*b"]]:
  """`(token_logprobs, token_entropy)`; the logits of a `ChunkedLogits` are computed once for both.

  Args: logits[..., T, V]; tokens[..., T]; mask[..., T]. Returns: f32[..., T] twice.

  >>> logp, entropy = logprobs_and_entropy(jnp.zeros((1, 4)), jnp.array([2]))
  >>> round(float(logp[0]), 4), round(float(entropy[0]), 4)
  (-1.3863, 1.3863)
  """
  check_shapes("logprobs_and_entropy", _named(logits), {"tokens": tokens, "mask": mask})
  if isinstance(logits, ChunkedLogits):
    return logits.where(mask).map(
      lambda part, tokens, mask: logprobs_and_entropy(part, tokens, mask=mask), tokens, mask
    )
  return token_logprobs(logits, tokens, mask=mask), token_entropy(logits, mask=mask)


def score_energy(
  logits: Num[ArrayLike, "*b v"] | ChunkedLogits,
  tokens: Int[ArrayLike, "*b"],
  *,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`1 - 2 p_token + sum_v p_v^2`: squared norm of the gradient of a log-prob in its logits (arXiv:2602.07078).

  Args: logits[..., T, V], the prediction for tokens[..., T]; mask[..., T]. Returns: f32[..., T], between 0 and 2.

  >>> print(score_energy(jnp.log(jnp.array([[0.5, 0.25, 0.25]])), jnp.array([0])))
  [0.375]
  """
  check_shapes("score_energy", _named(logits), {"tokens": tokens, "mask": mask})
  if isinstance(logits, ChunkedLogits):
    return logits.where(mask).map(lambda part, tokens, mask: score_energy(part, tokens, mask=mask), tokens, mask)
  p = jax.nn.softmax(select_rows(logits, mask), axis=-1)  # [..., T, V]
  return select(1.0 - 2.0 * _picked(p, tokens, mask) + jnp.sum(jnp.square(p), axis=-1), mask)


def collision_entropy(
  logits: Num[ArrayLike, "*b v"] | ChunkedLogits, *, mask: Shaped[ArrayLike, "*b"] | None = None
) -> Float32[jax.Array, "*b"]:
  """`-log sum_v p_v^2` of `p = softmax(logits)`, in nats (Renyi 1961, of order 2): two draws are the same so often.

  Args: logits[..., V]; mask[...]. Returns: f32[...].

  >>> round(float(collision_entropy(jnp.log(jnp.array([0.5, 0.25, 0.25])))), 4)
  0.9808
  """
  check_shapes("collision_entropy", _named(logits), {"mask": mask})
  if isinstance(logits, ChunkedLogits):
    return logits.where(mask).map(lambda part, mask: collision_entropy(part, mask=mask), mask)
  logp = jax.nn.log_softmax(select_rows(logits, mask), axis=-1)  # [..., V]
  return select(-jax.nn.logsumexp(2.0 * logp, axis=-1), mask)


def lm_loss(
  logits: Num[ArrayLike, "*b v"] | ChunkedLogits,
  tokens: Int[ArrayLike, "*b"],
  *,
  z_loss: Scalar = 0.0,
  label_smoothing: Scalar = 0.0,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """Cross-entropy of the next token, `(1 - e) (-log p_token) + e mean_v(-log p_v) + z_loss (log Z)^2`.

  `e` is the label smoothing (arXiv:1512.00567, section 7), a share of probability spread over the whole vocabulary, the
  token itself included, but for tokens that a logit of -inf rules out. z_loss keeps `Z = sum_v exp(logit_v)` near 1
  (PaLM, arXiv:2204.02311, section 5: 1e-4).

  Args: logits[..., T, V], the prediction for tokens[..., T]; mask[..., T]. Returns: f32[..., T], nats per token.

  >>> loss = lm_loss(jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])), jnp.array([0, 2]))
  >>> [round(x, 4) for x in loss.tolist()]
  [0.6931, 1.3863]
  """
  check_shapes("lm_loss", _named(logits), {"tokens": tokens, "mask": mask})
  if isinstance(logits, ChunkedLogits):

    def of_chunk(part: jax.Array, tokens: jax.Array, mask: jax.Array | None) -> jax.Array:
      return lm_loss(part, tokens, z_loss=z_loss, label_smoothing=label_smoothing, mask=mask)

    return logits.where(mask).map(of_chunk, tokens, mask)
  logits = select_rows(logits, mask)  # [..., T, V]
  log_z = jax.nn.logsumexp(logits, axis=-1)  # [..., T]
  loss = log_z - _picked(logits, tokens, mask)
  if not (isinstance(label_smoothing, int | float) and label_smoothing == 0):
    # A plain 0 leaves this out, as it costs a pass over V.
    mean = jnp.mean(logits, axis=-1, where=~jnp.isneginf(logits))
    share = float32(label_smoothing)
    loss = (1.0 - share) * loss + share * (log_z - mean)
  return select(loss + z_loss * jnp.square(log_z), mask)


def truncated_logits(
  logits: Num[ArrayLike, "*b v"] | ChunkedLogits, support: UInt8[ArrayLike, "*b bytes"] | None
) -> Num[jax.Array, "*b v"] | ChunkedLogits:
  """The logits of the policy that sampled with top_k, top_p or min_p: -inf for the tokens that could not be drawn.

  Under the whole softmax the score of an action that was drawn from a truncated one has a mean that is not 0: with a
  constant reward REINFORCE then makes the policy ever surer. With the tokens that could be drawn held fixed
  (DeepSeek-V3.2, arXiv:2512.02556, "keep sampling mask"), the ratio is 1 before the first update, and the gradient is
  that of the truncated policy.

  Args: logits[..., V] at the sampling temperature; support u8[..., ceil(V / 8)] as `Rollout.support` has it, or None
    where all tokens could be drawn. Returns: the logits; a `ChunkedLogits` where a `ChunkedLogits` was given.

  >>> print(truncated_logits(jnp.array([0.5, 0.25, 0.125]), jnp.array([0b10100000], jnp.uint8)))
  [0.5    -inf 0.125]
  """
  if support is None:
    return logits if isinstance(logits, ChunkedLogits) else jnp.asarray(logits)
  ((name, rows),) = _named(logits).items()
  size = jnp.shape(support)[-1] if isinstance(logits, ChunkedLogits) else -(-jnp.shape(rows)[-1] // 8)
  if jnp.shape(support) != (*jnp.shape(rows)[:-1], size):
    raise ValueError(
      f"truncated_logits: support has shape {jnp.shape(support)}, and {name} has {jnp.shape(rows)}: support needs the "
      f"shape {(*jnp.shape(rows)[:-1], size)}, a bit for each token of the vocabulary"
    )
  if isinstance(logits, ChunkedLogits):
    return logits._replace(support=support)
  return supported(jnp.asarray(logits), jnp.asarray(support))


@jax.custom_jvp
def _log_normaliser(logits: jax.Array) -> jax.Array:
  """`log sum_v exp(logits[..., v])`, the same bits in every program.

  A sum that a compiler joins with what stands before or behind it may add in another order. Between the barriers it
  stands alone, so that a forward pass gives the very log-probs of an update (see `rlhf_jax.train.old_logprobs`).
  """
  barrier = jax.lax.optimization_barrier
  return barrier(jax.nn.logsumexp(barrier(logits), axis=-1))


@_log_normaliser.defjvp
def _log_normaliser_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
  (logits,), (tangent,) = primals, tangents
  log_z = _log_normaliser(logits)
  # Where no token has a probability, log_z is -inf: the slope is NaN, as that of the plain function.
  return log_z, jnp.sum(jnp.exp(logits - log_z[..., None]) * tangent, axis=-1)


def _named(logits: Logits) -> dict[str, ArrayLike]:
  """The array with the axes of the logits, and its name for messages."""
  if isinstance(logits, ChunkedLogits):
    return {"hidden": np.broadcast_to(np.float32(0), logits.shape)}  # an array that takes no memory
  return {"logits": logits}


def _picked(logits: jax.Array, tokens: ArrayLike, mask: ArrayLike | None) -> jax.Array:
  """`logits[..., t, tokens[..., t]]`, with token 0 at masked positions."""
  tokens = jnp.asarray(tokens)
  tokens = tokens if mask is None else jnp.where(jnp.asarray(mask) != 0, tokens, 0)
  # A negative index would silently count from the end of the vocabulary; an index past the end gives NaN.
  tokens = jnp.where(tokens < 0, logits.shape[-1], tokens)
  return jnp.take_along_axis(logits, tokens[..., None], axis=-1, mode="fill")[..., 0]
