"""Direct preference optimisation: losses that hold each response against a fixed point, and not only against another.

Log-probs are of whole responses, in nats; no gradient flows into the reference's.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.objectives.kl import log_ratio
from rlhf_jax.reduce import Scalar, check_shapes, float32, select

__all__ = [
  "apo_down_loss",
  "apo_zero_loss",
  "bco_loss",
  "kto_loss",
  "nca_loss",
  "sppo_hard_loss",
]


def kto_loss(
  logp: Scalar | Num[ArrayLike, "*b"],
  ref_logp: Scalar | Num[ArrayLike, "*b"],
  desirable: Scalar | Shaped[ArrayLike, "*b"],
  kl: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  desirable_weight: Scalar | Num[ArrayLike, "*b"] = 1.0,
  undesirable_weight: Scalar | Num[ArrayLike, "*b"] = 1.0,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`w (1 - sigmoid(s beta (logp - ref_logp - z)))`, s = 1 for a desirable response and -1 otherwise.

  `z = max(kl, 0)` is an estimate of KL(policy || reference) for the batch, without gradient (arXiv:2402.01306; w is
  desirable_weight or undesirable_weight, the paper's lambda_D or lambda_U).

  Args: logp, ref_logp [...], sums over a response's tokens; desirable[...], boolean; kl, a scalar or [...].
  Returns: f32[...].

  >>> round(float(kto_loss(-1.0, -2.0, True, 0.0, beta=0.1)), 4)
  0.475
  """
  arrays = {"logp": logp, "ref_logp": ref_logp, "desirable": desirable, "kl": kl, "mask": mask}
  settings = {"beta": beta, "desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
  check_shapes("kto_loss", {**arrays, **settings})
  desirable = select(desirable, mask) != 0
  baseline = jax.lax.stop_gradient(jnp.maximum(select(kl, mask), 0.0))
  gain = beta * (log_ratio(logp, ref_logp, mask) - baseline)
  weight = jnp.where(desirable, desirable_weight, undesirable_weight)
  return select(weight * jax.nn.sigmoid(jnp.where(desirable, -gain, gain)), mask)


def bco_loss(
  logp: Scalar | Num[ArrayLike, "*b"],
  ref_logp: Scalar | Num[ArrayLike, "*b"],
  desirable: Scalar | Shaped[ArrayLike, "*b"],
  shift: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`-log sigmoid(s (beta (logp - ref_logp) - shift))`, s = 1 for a desirable response and -1 otherwise.

  Binary classifier optimisation (arXiv:2404.04656): the cross-entropy of a classifier of single responses bounds
  the loss of DPO from above. The paper's shift delta is half the sum of the mean rewards `beta (logp - ref_logp)` of
  desirable and of undesirable responses; no gradient flows into it. The paper also reweighs undesirable responses where
  the prompts of the two kinds differ, which is left out.

  Args: logp, ref_logp [...], sums over a response's tokens; desirable[...], boolean; shift, a scalar or [...], in units
  of reward. Returns: f32[...].

  >>> round(float(bco_loss(-1.0, -2.0, True, 0.0, beta=0.1)), 4)
  0.6444
  """
  arrays = {"logp": logp, "ref_logp": ref_logp, "desirable": desirable, "shift": shift, "mask": mask, "beta": beta}
  check_shapes("bco_loss", arrays)
  reward = beta * log_ratio(logp, ref_logp, mask) - jax.lax.stop_gradient(select(shift, mask))
  return select(-jax.nn.log_sigmoid(jnp.where(select(desirable, mask) != 0, reward, -reward)), mask)


def nca_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  ref_logp_chosen: Scalar | Num[ArrayLike, "*b"],
  ref_logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`-log sigmoid(r) - log sigmoid(-r) / 2 - log sigmoid(-r') / 2`, r and r' being `beta (logp - ref_logp)` of either.

  Noise contrastive alignment (arXiv:2402.05369, for a pair of which one response is chosen): where DPO
  raises the difference r - r' alone, and both may fall, here r is held up too: r has its minimum at log 2.

  Args: four log-probs [...], each the *sum* over a response's tokens, and mask[...]. Returns: f32[...].

  >>> round(float(nca_loss(-1.0, -3.0, -2.0, -2.0, beta=0.1)), 4)
  1.3388
  """
  chosen, rejected = _rewards("nca_loss", beta, logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, mask)
  log_sigmoid = jax.nn.log_sigmoid
  return select(-log_sigmoid(chosen) - 0.5 * (log_sigmoid(-chosen) + log_sigmoid(-rejected)), mask)


def apo_zero_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  ref_logp_chosen: Scalar | Num[ArrayLike, "*b"],
  ref_logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`1 - sigmoid(r) + sigmoid(r')`, r and r' being `beta (logp - ref_logp)` of chosen and rejected.

  Anchored preference optimisation, zero (arXiv:2408.06266, eq. 7): chosen responses become likelier and rejected ones
  less likely, for pairs of which the chosen one is better than what the policy writes. It is `kto_loss` of both with a
  KL of 0, and so has an unpaired form.

  Args: four log-probs [...], each the *sum* over a response's tokens, and mask[...]. Returns: f32[...].

  >>> round(float(apo_zero_loss(-1.0, -3.0, -2.0, -2.0, beta=0.1)), 4)
  0.95
  """
  chosen, rejected = _rewards(
    "apo_zero_loss", beta, logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, mask
  )
  return select(jax.nn.sigmoid(-chosen) + jax.nn.sigmoid(rejected), mask)


def apo_down_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  ref_logp_chosen: Scalar | Num[ArrayLike, "*b"],
  ref_logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`sigmoid(r) + 1 - sigmoid(r - r')`, r and r' being `beta (logp - ref_logp)` of chosen and rejected.

  Anchored preference optimisation, down (arXiv:2408.06266, eq. 8): both responses become less likely, the rejected one
  more so, for pairs of which even the chosen one is worse than what the policy writes.

  Args: four log-probs [...], each the *sum* over a response's tokens, and mask[...]. Returns: f32[...].

  >>> round(float(apo_down_loss(-1.0, -3.0, -2.0, -2.0, beta=0.1)), 4)
  0.9751
  """
  chosen, rejected = _rewards(
    "apo_down_loss", beta, logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, mask
  )
  return select(jax.nn.sigmoid(chosen) + jax.nn.sigmoid(rejected - chosen), mask)


def sppo_hard_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  ref_logp_chosen: Scalar | Num[ArrayLike, "*b"],
  ref_logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`(d - 1 / (2 beta))^2 + (d' + 1 / (2 beta))^2`, d and d' being `logp - ref_logp` of chosen and rejected, in nats.

  Self-play preference optimisation (arXiv:2405.00675, eq. 4.7; beta is 1 / eta) with hard targets: the paper regresses
  d on `(P - 1/2) / beta`, P being the share of the policy's responses that the response beats, as a preference model
  estimates it; here P is 1 for the chosen and 0 for the rejected response. Both then go to a log-ratio of
  1 / (2 beta), however often they would be preferred: the fixed point is not the paper's equilibrium.

  Args: four log-probs [...], each the *sum* over a response's tokens, and mask[...]. Returns: f32[...].

  >>> round(float(sppo_hard_loss(-1.0, -3.0, -2.0, -2.0, beta=0.1)), 4)
  32.0
  """
  chosen, rejected = _rewards(
    "sppo_hard_loss", beta, logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, mask
  )
  return select((jnp.square(chosen - 0.5) + jnp.square(rejected + 0.5)) / jnp.square(float32(beta)), mask)


def _rewards(
  function: str,
  beta: ArrayLike,
  logp_chosen: ArrayLike,
  logp_rejected: ArrayLike,
  ref_logp_chosen: ArrayLike,
  ref_logp_rejected: ArrayLike,
  mask: ArrayLike | None,
) -> tuple[jax.Array, jax.Array]:
  """`beta (logp - ref_logp)` of the chosen and of the rejected response."""
  policy = {"logp_chosen": logp_chosen, "logp_rejected": logp_rejected, "beta": beta}
  reference = {"ref_logp_chosen": ref_logp_chosen, "ref_logp_rejected": ref_logp_rejected}
  check_shapes(function, {**policy, **reference, "mask": mask})
  chosen, rejected = log_ratio(logp_chosen, ref_logp_chosen, mask), log_ratio(logp_rejected, ref_logp_rejected, mask)
  return jnp.multiply(beta, chosen), jnp.multiply(beta, rejected)
