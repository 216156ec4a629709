"""The dataclasses of arrays that travel between the parts: all are pytrees, and only `Mean` computes anything.

Layout, everywhere: a sequence starts at index 0 and is padded only at its end, and a per-token array is aligned
with `tokens`: index t speaks of the action `tokens[:, t]` taken in the state `tokens[:, :t]`.
"""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlhf_jax.packing import Packing
from rlhf_jax.reduce import weighted_sum

Params = Any  # a pytree of arrays
Array = jax.Array | np.ndarray  # on a device, or on its way there


class Batch(struct.PyTreeNode):
  """Token sequences for a supervised loss."""

  tokens: Array
  """i32[B, T]."""
  mask: Array
  """bool[B, T], True where the loss counts."""
  segments: Array | None = None
  """i32[B, T], the number of each token's sequence in a packed row, between which nothing attends or shifts; None for
  rows of one sequence."""
  at: Array | None = None
  """i32[B, N], the positions of the mask (see `rlhf_jax.positions`), for a forward that leaves out what others need;
  None for a forward of all T."""


class Preferences(struct.PyTreeNode):
  """Ranked responses: all of a prompt's comparisons stay in one element (InstructGPT, section 3.5)."""

  tokens: Array
  """i32[N, K, T], prompt and response; a pair of responses is K = 2."""
  mask: Array
  """bool[N, K, T], True on every real token."""
  ranks: Array
  """i32[N, K], 0 for the best response, equal for ties, -1 for an absent response."""
  ratings: Array | None = None
  """f32[N, K], NaN for a response without a rating; None where only ranks are known."""
  margin: Array | None = None
  """f32[N], the logits by which a preferred response's reward should exceed a rejected one's; None for no margins."""
  at: Array | Packing | None = None
  """i32[N, K, M], the positions of the mask (see `rlhf_jax.positions`), or a packing of arrays [N, K]; None for all
  T."""
  yes_no: Array | None = None
  """f32[N, K], 1 for a response called good, 0 for one called bad, NaN without an answer; None where none was asked."""


class Prompts(struct.PyTreeNode):
  """Prompts to sample from."""

  tokens: Array
  """i32[B, P], padded at the end."""
  lengths: Array
  """i32[B], in tokens, at least 1."""


class Rollout(struct.PyTreeNode):
  """Sampled sequences, each a prompt and its response."""

  tokens: Array
  """i32[B, T]."""
  mask: Array
  """bool[B, T], True on the sampled tokens, EOS included."""
  logp: Array
  """f32[B, T], log-prob of each sampled token at the sampling temperature, in nats; 0 elsewhere."""
  finished: Array
  """bool[B], True where EOS or a stop string was sampled."""
  support: Array | None = None
  """u8[B, T, ceil(V / 8)], a bit for each token that could be drawn at a sampled place (`numpy.packbits`); 0 elsewhere.
  logp is then of the softmax over these tokens alone. None where all could, or where that was not recorded."""
  at: Array | Packing | None = None
  """i32[B, N], the positions behind the prompt, which hold the mask (see `rlhf_jax.positions`), or the packing of the
  rows that are read (see `rlhf_jax.packing`); None for all T."""

  def experience(self, advantages: Array, **arrays: Array | None) -> Experience:
    """An experience of these sequences: what was recorded of them, advantages f32[B, T], and further arrays by name."""
    recorded: dict[str, Any] = dict(support=self.support, at=self.at, finished=self.finished)
    return Experience(self.tokens, self.mask, self.logp, advantages, **recorded, **arrays)


class Experience(struct.PyTreeNode):
  """The data of a policy update, [B, T] but for what is of a whole response."""

  tokens: Array
  """i32, prompts and responses."""
  mask: Array
  """bool, True on the sampled tokens."""
  logp: Array
  """f32, log-probs of the policy that sampled, in nats."""
  advantages: Array
  """f32, in units of reward."""
  values: Array | None = None
  """f32, values of the critic before the update; None without a critic."""
  returns: Array | None = None
  """f32, targets of the critic; None without a critic."""
  logp_ref: Array | None = None
  """f32, log-probs of the reference in nats; None without a reference."""
  support: Array | None = None
  """u8[B, T, ceil(V / 8)], the tokens that could be drawn, as in `Rollout`; None where all could."""
  at: Array | Packing | None = None
  """i32[B, N], the positions behind the prompt, or the packing of the rows, as in `Rollout`; None for all T."""
  scores: Array | None = None
  """f32[B], scores of the responses, before any penalty; None where they were not recorded."""
  finished: Array | None = None
  """bool[B], True where EOS or a stop string ended the response; None where that was not recorded."""


class TrainState(struct.PyTreeNode):
  """The arrays of a checkpoint."""

  step: Array
  """i32[], the number of steps taken."""
  params: Params
  opt_state: Any
  """State of the optimiser."""
  extra: Any
  """Arrays of the algorithm, such as a KL coefficient."""


class Mean(struct.PyTreeNode):
  """A metric on its way to the host: values and their weights, divided at the very end only (`compute`).

  Sums of Means over microbatches, devices and hosts are exact; means of quotients are not.
  """

  values: Array
  """f32[...]."""
  weights: Array
  """f32[...], the share of each value; broadcast against values."""

  def sum(self) -> Mean:
    """The same metric as two scalars: (sum of weights * values, sum of weights)."""
    weights = jnp.broadcast_to(self.weights, jnp.shape(self.values)).astype(jnp.float32)
    return Mean(weighted_sum(self.values, weights), jnp.sum(weights))

  def __add__(self, other: Mean) -> Mean:
    """Pools two metrics that `sum` has reduced."""
    return Mean(self.values + other.values, self.weights + other.weights)

  def compute(self) -> float:
    """The weighted mean as a Python float; NaN where the weights sum to 0."""
    values, weights = np.asarray(self.values, np.float64), np.asarray(self.weights, np.float64)
    if values.ndim or weights.ndim:
      weights = np.broadcast_to(weights, values.shape)
      total, share = float(np.dot(weights[weights != 0], values[weights != 0])), float(np.sum(weights))
    else:
      total, share = float(values), float(weights)
    return total / share if share else float("nan")


class Max(struct.PyTreeNode):
  """A metric on its way to the host of which the largest value counts, such as a ratio of probabilities."""

  values: Array
  """f32[...]."""

  def sum(self) -> Max:
    """The same metric as one scalar, the largest value."""
    return Max(jnp.max(self.values))

  def __add__(self, other: Max) -> Max:
    """Pools two metrics: the larger value."""
    return Max(jnp.maximum(self.values, other.values))

  def compute(self) -> float:
    """The largest value as a Python float."""
    return float(np.max(self.values))


def pool(total: Any, part: Any) -> Any:
  """The sum of two trees of arrays, in which metrics pool: Means add up, the larger Max stays."""
  return jax.tree.map(operator.add, total, part, is_leaf=_is_metric)


def nothing(shapes: Any) -> Any:
  """The tree to which `pool` adds nothing: zeros like `shapes`, and -inf for each Max."""
  return jax.tree.map(
    lambda x: Max(jnp.full(x.values.shape, -jnp.inf)) if isinstance(x, Max) else jax.tree.map(jnp.zeros_like, x),
    shapes,
    is_leaf=_is_metric,
  )


def pool_over(tree: Any, axes: str | tuple[str, ...]) -> Any:
  """The sum of a tree of arrays over mapped axes, of pmap or shard_map; the largest value of each Max in it."""
  return jax.tree.map(
    lambda x: jax.lax.pmax(x, axes) if isinstance(x, Max) else jax.lax.psum(x, axes), tree, is_leaf=_is_metric
  )


def _is_metric(x: Any) -> bool:
  return isinstance(x, Mean | Max)
