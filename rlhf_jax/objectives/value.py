"""Advantages and returns along a response, and the loss of the value function."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rlhf_jax.reduce import check_axes, float32, select

__all__ = ["discounted_returns", "gae", "value_loss"]


def gae(
  rewards: ArrayLike,
  values: ArrayLike,
  mask: ArrayLike,
  *,
  discount: ArrayLike = 1.0,
  lam: ArrayLike = 0.95,
) -> jax.Array:
  """Generalised advantage estimation (arXiv:1506.02438, eq. 11-16).

  `delta_t = r_t + discount V_{t+1} - V_t` and `A_t = delta_t + discount lam A_{t+1}`, where t + 1 is the next
  position of the mask. After its last position V and A are 0, so values of padding have no effect. The mask may start
  late; positions missing in its middle are skipped. The target of the value function is `gae(...) + values`.

  Args: rewards[..., T], values[..., T] with values[t] = V(state before the token t), mask[..., T].
  Returns: f32[..., T], 0 outside the mask.

  >>> advantages = gae(jnp.array([0, 0, 1]), jnp.array([0.5, 0.4, 0.3]), jnp.ones(3))
  >>> [round(x, 5) for x in advantages.tolist()]
  [0.43675, 0.565, 0.7]
  """
  check_axes("gae", {"rewards": rewards, "values": values, "mask": mask})
  rewards, values, mask = jnp.broadcast_arrays(select(rewards, mask), select(values, mask), jnp.asarray(mask) != 0)
  discount, lam = float32(discount), float32(lam)

  def step(
    carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, ...]
  ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    next_value, next_advantage = carry
    reward, value, on = inputs  # [...]
    advantage = reward + discount * next_value - value + discount * lam * next_advantage
    carry = jnp.where(on, value, next_value), jnp.where(on, advantage, next_advantage)
    return carry, jnp.where(on, advantage, 0.0)

  # Made from the inputs, so that under shard_map the carry varies over the mesh as they do.
  end = jnp.zeros_like(rewards + values, shape=rewards.shape[:-1])
  time_first = tuple(jnp.moveaxis(x, -1, 0) for x in (rewards, values, mask))  # [T, ...]
  _, advantages = jax.lax.scan(step, (end, end), time_first, reverse=True)
  return jnp.moveaxis(advantages, 0, -1)


def discounted_returns(rewards: ArrayLike, mask: ArrayLike, *, discount: ArrayLike = 1.0) -> jax.Array:
  """`G_t = r_t + discount G_{t+1}` along the mask, and 0 after its last position (Sutton and Barto 2018, eq. 3.9).

  Args: rewards[..., T], mask[..., T]; the mask as in `gae`. Returns: f32[..., T], 0 outside the mask.

  >>> print(discounted_returns(jnp.array([1, 0, 2]), jnp.ones(3), discount=0.5))
  [1.5 1.  2. ]
  """
  return gae(rewards, jnp.zeros_like(rewards), mask, discount=discount, lam=1.0)


def value_loss(
  values: ArrayLike,
  values_old: ArrayLike | None,
  returns: ArrayLike,
  *,
  clip: float | None = None,
  mask: ArrayLike | None = None,
) -> jax.Array:
  """`0.5 (V - R)^2`, or with `clip` the larger of that and `0.5 (clip(V, V_old - clip, V_old + clip) - R)^2`.

  The factor 1/2 is inside, as in PPO's reference implementation (arXiv:2403.17031 lists the clipping). `clip` is in
  units of the return. values_old is read only with `clip`, and may otherwise be None.

  Args: values, values_old, returns, mask: [...]. Returns: f32[...].

  >>> print(value_loss(jnp.array([1.0]), jnp.array([0.0]), jnp.array([3.0]), clip=0.5))
  [3.125]
  """
  check_axes("value_loss", {"values": values, "values_old": values_old, "returns": returns, "mask": mask})
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
