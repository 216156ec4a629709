"""The optimiser every algorithm uses: Adam with clipping, warm-up and decay, built by optax from one dataclass."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """Settings of AdamW.

  learning_rate: the peak. warmup: share of the steps that rise to it. decay: what follows, down to 0 ("linear",
  "cosine") or "constant". eps: added outside the square root, as in torch and optax; TensorFlow's Adam, which the
  original RLHF code used, adds it before bias correction, so with g = 1e-6 and eps = 1e-5 the first step here is
  0.0909 of the learning rate where TensorFlow takes 0.00315 (N implementation details of RLHF, section 4);
  `tensorflow_eps` chooses the latter. clip_norm: of the global gradient.
  """

  learning_rate: float
  warmup: float
  decay: Literal["constant", "linear", "cosine"]
  beta1: float
  beta2: float
  eps: float
  tensorflow_eps: bool
  weight_decay: float
  clip_norm: float

  def __post_init__(self):
    if self.learning_rate < 0 or not 0 <= self.warmup < 1 or self.clip_norm <= 0:
      raise ValueError(
        f"learning_rate={self.learning_rate} must be >= 0, warmup={self.warmup} in [0, 1), "
        f"clip_norm={self.clip_norm} > 0"
      )


def make_schedule(settings: Optimizer, num_steps: int) -> optax.Schedule:
  """Step -> learning rate, over `num_steps` optimiser steps."""
  warmup = round(settings.warmup * num_steps)
  rest = max(num_steps - warmup, 1)
  after = {
    "constant": optax.constant_schedule(settings.learning_rate),
    "linear": optax.linear_schedule(settings.learning_rate, 0.0, rest),
    "cosine": optax.cosine_decay_schedule(settings.learning_rate, rest),
  }[settings.decay]
  if not warmup:
    return after
  # The first step must not be wasted on a learning rate of 0.
  rise = optax.linear_schedule(settings.learning_rate / warmup, settings.learning_rate, warmup)
  return optax.join_schedules([rise, after], [warmup])


def make_optimizer(settings: Optimizer, num_steps: int) -> optax.GradientTransformation:
  """AdamW behind a clip of the global norm; weight decay on matrices only."""
  scale = _scale_by_tensorflow_adam if settings.tensorflow_eps else optax.scale_by_adam
  return optax.chain(
    optax.clip_by_global_norm(settings.clip_norm),
    scale(settings.beta1, settings.beta2, settings.eps),
    optax.add_decayed_weights(settings.weight_decay, mask=_matrices),
    optax.scale_by_learning_rate(make_schedule(settings, num_steps)),
  )


def _matrices(params):
  return jax.tree.map(lambda x: x.ndim > 1, params)


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
