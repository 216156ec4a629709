"""Direct preference optimisation without a reference: losses of the mean log-prob of a response's tokens, in nats."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.objectives.kl import floor_logp
from rlhf_jax.reduce import Scalar, check_shapes, select

__all__ = [
  "orpo_loss",
  "simpo_loss",
]


def orpo_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`-logp_chosen - beta log sigmoid(log odds_chosen - log odds_rejected)` (arXiv:2403.07691, eq. 6 and 7).

  `odds = p / (1 - p)` with p = exp(logp); the first term is the paper's supervised loss, and beta is its lambda. There
  is no reference. The odds stay finite at p = 1.

  Args: logp_chosen, logp_rejected [...], each the *mean* over a response's tokens; mask[...]. Returns: f32[...].

  >>> round(float(orpo_loss(jnp.log(0.5), jnp.log(0.25), beta=1.0)), 4)
  0.9808
  """
  arrays = {"logp_chosen": logp_chosen, "logp_rejected": logp_rejected, "beta": beta, "mask": mask}
  check_shapes("orpo_loss", arrays)
  chosen, rejected = floor_logp(logp_chosen, mask), floor_logp(logp_rejected, mask)
  return select(-chosen - beta * jax.nn.log_sigmoid(_log_odds(chosen) - _log_odds(rejected)), mask)


def simpo_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  margin: Scalar | Num[ArrayLike, "*b"] = 0.0,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`-log sigmoid(beta (logp_chosen - logp_rejected) - margin)` (arXiv:2405.14734, eq. 6; margin is its gamma).

  Args: logp_chosen, logp_rejected [...], each the *mean* over a response's tokens; mask[...]. Returns: f32[...].

  >>> round(float(simpo_loss(-1.0, -2.0, beta=2.0, margin=1.0)), 4)
  0.3133
  """
  arrays = {"logp_chosen": logp_chosen, "logp_rejected": logp_rejected, "margin": margin, "beta": beta, "mask": mask}
  check_shapes("simpo_loss", arrays)
  difference = floor_logp(logp_chosen, mask) - floor_logp(logp_rejected, mask)
  return select(-jax.nn.log_sigmoid(beta * difference - select(margin, mask)), mask)


def _log_odds(logp: jax.Array) -> jax.Array:
  """`log(p / (1 - p))` with p kept below 1; at that bound the slope is not cut off, so that p can still fall."""
  bound = -jnp.finfo(jnp.float32).eps
  below = jnp.where(logp > bound, bound + (logp - jax.lax.stop_gradient(logp)), logp)
  return logp - jnp.log(-jnp.expm1(below))
