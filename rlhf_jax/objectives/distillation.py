"""Divergences of a student from a teacher, over the whole vocabulary at each token."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.objectives.kl import floor_logp, kl_exact
from rlhf_jax.reduce import Scalar, check_shapes, float32, select_rows

__all__ = ["generalized_jsd_loss"]


def generalized_jsd_loss(
  logits: Num[ArrayLike, "*b v"],
  logits_teacher: Num[ArrayLike, "*b v"],
  *,
  beta: Scalar,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """GKD: `beta KL(P || M) + (1 - beta) KL(Q || M)`, `M = beta P + (1 - beta) Q` (arXiv:2306.13649, eq. 1).

  P is the teacher and Q the student. The value goes to 0 with beta and with 1 - beta, so that, as the authors do, 0
  stands for the limit of the value over beta, the forward KL(P || Q), and 1 for that over 1 - beta, the reverse KL(Q ||
  P). beta is then a Python number.

  Args: logits[..., V], of the student; logits_teacher[..., V], into which no gradient flows; mask[...]. beta: between 0
    and 1. Returns: f32[...], in nats.

  >>> student, teacher = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.75, 0.25]))
  >>> [round(float(generalized_jsd_loss(student, teacher, beta=beta)), 4) for beta in (0.0, 0.5, 1.0)]
  [0.1308, 0.0338, 0.1438]
  """
  check_shapes("generalized_jsd_loss", {"logits": logits, "logits_teacher": logits_teacher}, {"mask": mask})
  # Floored, so that a token of probability 0 adds 0 to values and slopes.
  teacher = jax.lax.stop_gradient(
    floor_logp(jax.nn.log_softmax(select_rows(logits_teacher, mask), axis=-1))
  )  # [..., V]
  if isinstance(beta, int | float) and beta == 1:
    return kl_exact(logits, teacher, mask=mask)
  student = floor_logp(jax.nn.log_softmax(select_rows(logits, mask), axis=-1))
  if isinstance(beta, int | float) and beta == 0:
    return jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)
  beta = float32(beta)
  mixture = jnp.logaddexp(jnp.log(beta) + teacher, jnp.log1p(-beta) + student)

  def divergence(logp: jax.Array) -> jax.Array:  # [...], KL(p || M)
    return jnp.sum(jnp.exp(logp) * (logp - mixture), axis=-1)

  return beta * divergence(teacher) + (1.0 - beta) * divergence(student)
