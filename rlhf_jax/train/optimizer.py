"""The optimiser of every algorithm: Adam with clipping, warm-up and decay, built with optax from one dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlhf_jax.models.stacked import STACKED
from rlhf_jax.ranges import NonNegativeFloat, PositiveFloat, ShareBelowOne


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """Settings of AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

  learning_rate: NonNegativeFloat
  """Learning rate at its peak."""
  warmup: ShareBelowOne
  """Share of the steps in which the learning rate rises linearly to its peak, from 0 up to 1; 0 for none."""
  decay: Literal["constant", "linear", "cosine"]
  """Course of the learning rate after warm-up: "linear" and "cosine" fall to 0, "constant" stays."""
  beta1: ShareBelowOne
  """Decay of the moving average of gradients, per step."""
  beta2: ShareBelowOne
  """Decay of the moving average of squared gradients, per step."""
  eps: PositiveFloat
  """Constant added to the root of the averaged squared gradient."""
  tensorflow_eps: bool
  """Switch for the place of `eps`. False adds it after bias correction, as torch and optax do. True adds it before, as
  TensorFlow's Adam does, which the original RLHF code used: with g = 1e-6 and eps = 1e-5 the first step is then 0.00315
  of the learning rate, not 0.0909 (N implementation details of RLHF, section 4)."""
  weight_decay: NonNegativeFloat
  """Coefficient of decoupled weight decay, in units of the learning rate, on matrices only; 0 for none."""
  clip_norm: PositiveFloat
  """Norm that the global gradient is clipped to."""


def make_schedule(settings: Optimizer, num_steps: int) -> optax.Schedule:
  """The function from a step to its learning rate, over `num_steps` optimiser steps."""
  warmup = round(settings.warmup * num_steps)
  rest = max(num_steps - warmup, 1)
  after = {
    "constant": optax.constant_schedule(settings.learning_rate),
    "linear": optax.linear_schedule(settings.learning_rate, 0.0, rest),
    "cosine": optax.cosine_decay_schedule(settings.learning_rate, rest),
  }[settings.decay]
  if not warmup:
    return after
  # The first step has a learning rate above 0: at 0 it would be wasted.
  rise = optax.linear_schedule(settings.learning_rate / warmup, settings.learning_rate, warmup)
  return optax.join_schedules([rise, after], [warmup])


class Scheduled(NamedTuple):
  """An optax transformation that tells its learning rate."""

  init: Callable[[Any], Any]
  """`init(params) -> state`."""
  update: Callable[..., tuple[Any, Any]]
  """`update(gradients, state, params) -> (updates, state)`."""
  learning_rate: Callable[[Any], jax.Array]
  """`learning_rate(state) -> f32[]`, that of the next update."""


def make_optimizer(settings: Optimizer, num_steps: int) -> Scheduled:
  """AdamW behind a clip of the global norm; weight decay on matrices only."""
  scale = _scale_by_tensorflow_adam if settings.tensorflow_eps else optax.scale_by_adam
  schedule = make_schedule(settings, num_steps)
  chain = optax.chain(
    optax.clip_by_global_norm(settings.clip_norm),
    scale(settings.beta1, settings.beta2, settings.eps),
    optax.add_decayed_weights(settings.weight_decay, mask=_matrices),
    optax.scale_by_learning_rate(schedule),
  )
  return Scheduled(chain.init, chain.update, lambda state: jnp.asarray(schedule(state[-1].count), jnp.float32))


def _matrices(params):
  """Whether each array is of matrices; stacked layers have a dimension in front (see `rlhf_jax.models.stacked`)."""

  def is_matrix(path, x):
    layers = any(getattr(key, "key", None) == STACKED for key in path)
    return x.ndim > 1 + layers

  return jax.tree_util.tree_map_with_path(is_matrix, params)


def _scale_by_tensorflow_adam(beta1: float, beta2: float, eps: float) -> optax.GradientTransformation:
  """Adam whose eps is Kingma & Ba's "epsilon hat": m_hat / (sqrt(v_hat) + eps / sqrt(1 - beta2^t))."""

  def init(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    return optax.ScaleByAdamState(count=jnp.zeros([], jnp.int32), mu=zeros, nu=zeros)

  def update(grads, state, params=None):
    del params
    count = state.count + 1
    mu = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.mu, grads)
    nu = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, state.nu, grads)
    rate = jnp.sqrt(1 - beta2**count) / (1 - beta1**count)
    steps = jax.tree.map(lambda m, v: rate * m / (jnp.sqrt(v) + eps), mu, nu)
    return steps, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

  return optax.GradientTransformation(init, update)
