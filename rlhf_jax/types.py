"""The dataclasses of arrays that travel between the parts: all are pytrees, none has behaviour beyond its sums.

Layout, everywhere: a sequence starts at index 0 and is padded only at its end, and a per-token array is aligned
with `tokens`: index t speaks of the action `tokens[:, t]` taken in the state `tokens[:, :t]`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlhf_jax.reduce import weighted_sum

Params = Any  # a pytree of arrays
Array = jax.Array | np.ndarray  # on devices, or on the host before a step


@struct.dataclass
class Batch:
  """Token sequences for a supervised loss.

  tokens: i32[B, T]. mask: bool[B, T], True where the loss counts. segments: i32[B, T] or None; packed rows carry
  the number of the sequence each token belongs to, and nothing attends or shifts across a change of it.
  """

  tokens: Array
  mask: Array
  segments: Array | None = None


@struct.dataclass
class Preferences:
  """Ranked responses: all of a prompt's comparisons stay in one element (InstructGPT, section 3.5).

  tokens: i32[N, K, T], prompt and response. mask: bool[N, K, T], True on every real token. ranks: i32[N, K], 0 is
  the best, ranks tie when equal, -1 is absent. A pair is K = 2. ratings: f32[N, K], NaN where there is none; margin:
  f32[N], logits that the reward of a preferred response must be above; both are None where only ranks are known.
  """

  tokens: Array
  mask: Array
  ranks: Array
  ratings: Array | None = None
  margin: Array | None = None


@struct.dataclass
class Prompts:
  """tokens: i32[B, P], padded at the end. lengths: i32[B], at least 1."""

  tokens: Array
  lengths: Array


@struct.dataclass
class Rollout:
  """Sampled sequences, prompt in front.

  tokens: i32[B, T]. mask: bool[B, T], True on the sampled tokens, EOS included. logp: f32[B, T], log-probability of
  each sampled token at the sampling temperature, 0 elsewhere. finished: bool[B], True where EOS was sampled.
  """

  tokens: jax.Array
  mask: jax.Array
  logp: jax.Array
  finished: jax.Array


@struct.dataclass
class Experience:
  """What a policy update consumes, each [B, T] and aligned with tokens.

  values and returns only with a critic; logp_ref, the reference's log-probs, only where the KL is a term of the loss.
  """

  tokens: jax.Array
  mask: jax.Array
  logp: jax.Array
  advantages: jax.Array
  values: jax.Array | None = None
  returns: jax.Array | None = None
  logp_ref: jax.Array | None = None


class TrainState(struct.PyTreeNode):
  """Everything a checkpoint holds. step: i32[], of the loop. extra: the algorithm's arrays (a KL coefficient, say)."""

  step: jax.Array
  params: Params
  opt_state: Any
  extra: Any


@struct.dataclass
class Mean:
  """A metric on its way to the host: values and their weights, divided only at the very end (`compute`).

  Two Means add up across microbatches, devices and hosts, which two quotients do not.
  """

  values: Array
  weights: Array

  def sum(self) -> Mean:
    """The same metric as two scalars: (sum of weights * values, sum of weights)."""
    weights = jnp.broadcast_to(self.weights, jnp.shape(self.values)).astype(jnp.float32)
    return Mean(weighted_sum(self.values, weights), jnp.sum(weights))

  def __add__(self, other: Mean) -> Mean:
    """Pools two metrics that `sum` has reduced."""
    return Mean(self.values + other.values, self.weights + other.weights)

  def compute(self) -> float:
    """The weighted mean as a Python float; NaN where nothing was counted."""
    reduced = self.sum() if jnp.ndim(self.weights) or jnp.ndim(self.values) else self
    return float(reduced.values) / float(reduced.weights) if float(reduced.weights) else float("nan")
