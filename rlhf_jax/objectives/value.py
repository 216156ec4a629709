"""Advantages and returns along a response, and the loss of the value function."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.reduce import Scalar, check_shapes, float32, per_token, select

__all__ = ["discounted_returns", "gae", "length_adaptive_lambda", "value_loss"]


def gae(
  rewards: Scalar | Num[ArrayLike, "*b t"],
  values: Scalar | Num[ArrayLike, "*b t"],
  mask: Shaped[ArrayLike, "*b t"],
  *,
  discount: Scalar | Num[ArrayLike, "*b t"] = 1.0,
  lam: Scalar | Num[ArrayLike, "*b t"] = 0.95,
  bootstrap: Scalar | Num[ArrayLike, "*b"] = 0.0,
) -> Float32[jax.Array, "*b t"]:
  """Generalised advantage estimation (arXiv:1506.02438, eq. 11-16).

  `delta_t = r_t + discount V_{t+1} - V_t` and `A_t = delta_t + discount lam A_{t+1}`, where t + 1 is the next
  position of the mask. After its last position V is `bootstrap` and A is 0, so values of padding have no effect. The
  mask may start late; positions missing in its middle are skipped. The target of the value function is
  `gae(...) + values`.

  Args: rewards[..., T], values[..., T] with values[t] = V(state before the token t), mask[..., T]. discount, lam: a
    scalar, or [..., T] with a value for each step t. bootstrap: a scalar, or [...], the value of the state after a
    sequence's last token; 0 where the episode ends there.
  Returns: f32[..., T], 0 outside the mask.

  >>> advantages = gae(jnp.array([0, 0, 1]), jnp.array([0.5, 0.4, 0.3]), jnp.ones(3))
  >>> [round(x, 5) for x in advantages.tolist()]
  [0.43675, 0.565, 0.7]
  """
  arrays = {"rewards": rewards, "values": values, "mask": mask, "discount": discount, "lam": lam}
  check_shapes("gae", arrays, {"bootstrap": bootstrap})
  steps = [select(x, mask) for x in (rewards, values, discount, lam)]

  def step(
    carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, ...]
  ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    next_value, next_advantage = carry
    on, reward, value, discount, lam = inputs  # [...]
    advantage = reward + discount * next_value - value + discount * lam * next_advantage
    carry = jnp.where(on, value, next_value), jnp.where(on, advantage, next_advantage)
    return carry, jnp.where(on, advantage, 0.0)

  time_first = tuple(jnp.moveaxis(x, -1, 0) for x in jnp.broadcast_arrays(jnp.asarray(mask) != 0, *steps))  # [T, ...]
  # Made from the inputs, so that under shard_map the carry varies over the mesh as they do.
  end = jnp.zeros_like(sum(steps), shape=jnp.shape(time_first[0])[1:])
  _, advantages = jax.lax.scan(step, (end + float32(bootstrap), end), time_first, reverse=True)
  return jnp.moveaxis(advantages, 0, -1)


def discounted_returns(
  rewards: Scalar | Num[ArrayLike, "*b t"],
  mask: Shaped[ArrayLike, "*b t"],
  *,
  discount: Scalar | Num[ArrayLike, "*b t"] = 1.0,
) -> Float32[jax.Array, "*b t"]:
  """`G_t = r_t + discount G_{t+1}` along the mask, and 0 after its last position (Sutton and Barto 2018, eq. 3.9).

  Args: rewards[..., T], mask[..., T]; mask and discount as in `gae`. Returns: f32[..., T], 0 outside the mask.

  >>> print(discounted_returns(jnp.array([1, 0, 2]), jnp.ones(3), discount=0.5))
  [1.5 1.  2. ]
  """
  check_shapes("discounted_returns", {"rewards": rewards, "mask": mask, "discount": discount})
  return gae(rewards, 0.0, mask, discount=discount, lam=1.0)


def length_adaptive_lambda(mask: Shaped[ArrayLike, "*b t"], *, alpha: Scalar) -> Float32[jax.Array, "*b t"]:
  """VAPO: `lambda = 1 - 1 / (alpha l)` for a response of l tokens (arXiv:2504.05118), not below 0.

  The weights of GAE's terms then sum to `alpha l`: a score reaches the first token of a long response too.

  Args: mask[..., T]; alpha, 0.05 in the paper. Returns: f32[..., T] for `gae(lam=...)`, constant along a sequence; 0
    for one without a token.

  >>> print(length_adaptive_lambda(jnp.array([[1, 1, 1, 1], [1, 0, 0, 0]]), alpha=0.5))
  [[0.5 0.5 0.5 0.5]
   [0.  0.  0.  0. ]]
  """
  length = jnp.sum(jnp.asarray(mask) != 0, axis=-1, dtype=jnp.int32).astype(jnp.float32)
  lam = jnp.where(length > 0, 1.0 - 1.0 / (alpha * jnp.maximum(length, 1.0)), 0.0)
  return per_token(jnp.maximum(lam, 0.0), mask)


def value_loss(
  values: Scalar | Num[ArrayLike, "*b"],
  values_old: Scalar | Num[ArrayLike, "*b"] | None,
  returns: Scalar | Num[ArrayLike, "*b"],
  *,
  clip: Scalar | None = None,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`0.5 (V - R)^2`, or with `clip` the larger of that and `0.5 (clip(V, V_old - clip, V_old + clip) - R)^2`.

  The factor 1/2 is inside, as in PPO's reference implementation (arXiv:2403.17031 lists the clipping). `clip` is in
  units of the return. values_old is read only with `clip`, and may otherwise be None.

  Args: values, values_old, returns, mask: [...]. Returns: f32[...].

  >>> print(value_loss(jnp.array([1.0]), jnp.array([0.0]), jnp.array([3.0]), clip=0.5))
  [3.125]
  """
  check_shapes("value_loss", {"values": values, "values_old": values_old, "returns": returns, "mask": mask})
  values = select(values, mask)
  returns = jax.lax.stop_gradient(select(returns, mask))
  error = jnp.square(values - returns)
  if clip is None:
    return 0.5 * error
  if values_old is None:
    raise ValueError(f"value_loss: clip={clip} needs values_old, not None")
  values_old = jax.lax.stop_gradient(select(values_old, mask))
  clipped = jnp.clip(values, values_old - clip, values_old + clip)
  return 0.5 * jnp.maximum(error, jnp.square(clipped - returns))
