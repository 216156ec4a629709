"""Direct preference optimisation: losses of the difference between two responses' log-probs, relative to a reference's.

Log-probs are of whole responses, in nats. The implicit reward of a response is `beta (logp - ref_logp)`; no gradient
flows into the reference's log-probs.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.objectives.kl import floor_logp, log_ratio
from rlhf_jax.objectives.preference import flipped_log_sigmoid
from rlhf_jax.reduce import Scalar, check_shapes, float32, masked_mean, select

__all__ = [
  "aot_loss",
  "aot_unpaired_loss",
  "discopop_loss",
  "dpo_loss",
  "exo_loss",
  "hinge_loss",
  "ipo_loss",
  "robust_dpo_loss",
  "wpo_weights",
]


def dpo_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  ref_logp_chosen: Scalar | Num[ArrayLike, "*b"],
  ref_logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  label_smoothing: Scalar | Num[ArrayLike, "*b"] = 0.0,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`-log sigmoid(beta h)`, `h = (logp - ref_logp)_chosen - (logp - ref_logp)_rejected` (arXiv:2305.18290, eq. 7).

  beta is in units of reward per nat. Label smoothing is as in `bradley_terry_loss` (conservative DPO).

  Args: four log-probs [...], each the *sum* over a response's tokens, and mask[...]. Returns: f32[...].

  >>> round(float(dpo_loss(-1.0, -3.0, -2.0, -2.0, beta=0.1)), 4)
  0.5981
  """
  check_shapes("dpo_loss", {"logp_chosen": logp_chosen, "beta": beta, "label_smoothing": label_smoothing})
  h = implicit_margin("dpo_loss", logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, mask)
  return select(flipped_log_sigmoid(jnp.multiply(beta, h), label_smoothing), mask)


def robust_dpo_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  ref_logp_chosen: Scalar | Num[ArrayLike, "*b"],
  ref_logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  label_smoothing: Scalar | Num[ArrayLike, "*b"],
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`((1 - e) l(h) - e l(-h)) / (1 - 2 e)`, `l(h) = -log sigmoid(beta h)`, e the label smoothing (arXiv:2403.00409).

  Its mean over labels of which a share e is flipped is `dpo_loss` on the true labels, where that of conservative DPO is
  not. Of one pair it has no lower bound: it falls by beta e / (1 - 2 e) for each nat of a large h, without end.

  Args: four log-probs [...], each the *sum* over a response's tokens, and mask[...]. Returns: f32[...].
    label_smoothing: a share below 0.5; from there on labels say nothing, or the opposite, and the loss is not defined.

  >>> round(float(robust_dpo_loss(-1.0, -3.0, -2.0, -2.0, beta=0.1, label_smoothing=0.1)), 4)
  0.5731
  """
  check_shapes("robust_dpo_loss", {"logp_chosen": logp_chosen, "beta": beta, "label_smoothing": label_smoothing})
  h = implicit_margin("robust_dpo_loss", logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, mask)
  share, x = float32(label_smoothing), jnp.multiply(beta, h)
  losses = (share - 1.0) * jax.nn.log_sigmoid(x) + share * jax.nn.log_sigmoid(-x)
  return select(losses / (1.0 - 2.0 * share), mask)


def ipo_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  ref_logp_chosen: Scalar | Num[ArrayLike, "*b"],
  ref_logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`(h - 1 / (2 beta))^2` with h as in `dpo_loss` (arXiv:2310.12036, eq. 17; beta is the paper's tau).

  Args: four log-probs [...] and mask[...], as in `dpo_loss`. Returns: f32[...].

  >>> round(float(ipo_loss(-1.0, -3.0, -2.0, -2.0, beta=0.1)), 4)
  9.0
  """
  check_shapes("ipo_loss", {"logp_chosen": logp_chosen, "beta": beta})
  h = implicit_margin("ipo_loss", logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, mask)
  return select(jnp.square(h - 1.0 / (2.0 * beta)), mask)


def hinge_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  ref_logp_chosen: Scalar | Num[ArrayLike, "*b"],
  ref_logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`max(0, 1 - beta h)` with h as in `dpo_loss`: pairs beyond the margin 1 / beta have no gradient.

  The calibration loss of SLiC-HF (arXiv:2305.10425), whose log-probs are here relative to the reference, as in
  arXiv:2309.06657. SLiC's second term, the NLL of a target, is left out.

  Args: four log-probs [...], each the *sum* over a response's tokens, and mask[...]. Returns: f32[...].

  >>> round(float(hinge_loss(-1.0, -3.0, -2.0, -2.0, beta=0.1)), 4)
  0.8
  """
  check_shapes("hinge_loss", {"logp_chosen": logp_chosen, "beta": beta})
  h = implicit_margin("hinge_loss", logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, mask)
  return select(jnp.maximum(1.0 - jnp.multiply(beta, h), 0.0), mask)


def exo_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  ref_logp_chosen: Scalar | Num[ArrayLike, "*b"],
  ref_logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  label_smoothing: Scalar | Num[ArrayLike, "*b"] = 1e-3,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`p log(p / (1 - e)) + (1 - p) log((1 - p) / e)`, `p = sigmoid(beta h)`, e the label smoothing.

  Efficient exact optimisation (arXiv:2402.00856, eq. 16): KL(p || q), q being 1 - e for the chosen response, where DPO
  with label smoothing e minimises KL(q || p) up to a constant. The minimum, 0, is at p = 1 - e. Odd: where p is near 0
  the slope vanishes, so that a pair that the policy has far in the wrong order is not learnt from.

  Args: four log-probs [...], each the *sum* over a response's tokens, and mask[...]. Returns: f32[...].
    label_smoothing: a share above 0 and below 1; at 0 the loss is infinite.

  >>> round(float(exo_loss(-1.0, -3.0, -2.0, -2.0, beta=0.1)), 4)
  2.422
  """
  check_shapes("exo_loss", {"logp_chosen": logp_chosen, "beta": beta, "label_smoothing": label_smoothing})
  h = implicit_margin("exo_loss", logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, mask)
  x, share = jnp.multiply(beta, h), float32(label_smoothing)
  right = jax.nn.sigmoid(x) * (jax.nn.log_sigmoid(x) - jnp.log1p(-share))
  wrong = jax.nn.sigmoid(-x) * (jax.nn.log_sigmoid(-x) - jnp.log(share))
  return select(right + wrong, mask)


def discopop_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  ref_logp_chosen: Scalar | Num[ArrayLike, "*b"],
  ref_logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  temperature: Scalar | Num[ArrayLike, "*b"] = 0.05,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`(1 - s) log(1 + exp(-x)) + s exp(-x)`, `x = beta h`, `s = sigmoid(x / temperature)` (arXiv:2406.08414, eq. 5).

  The log-ratio modulated loss that a language model discovered; temperature is its tau. Odd: it is not convex. Around
  x = 0 the weight s moves from the logistic to the larger exponential term, so that the slope is positive there: with
  the default temperature a pair with x between -0.12 and 0.07, as all pairs are before the first update, is pushed
  towards the wrong order, to a minimum at -0.12.

  Args: four log-probs [...], each the *sum* over a response's tokens, and mask[...]. Returns: f32[...].
    Values and slopes are finite for temperatures of at most 1.

  >>> round(float(discopop_loss(-1.0, -3.0, -2.0, -2.0, beta=0.1)), 4)
  0.8148
  """
  arrays = {"logp_chosen": logp_chosen, "beta": beta, "temperature": temperature}
  check_shapes("discopop_loss", arrays)
  h = implicit_margin("discopop_loss", logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, mask)
  x = jnp.multiply(beta, h)
  logistic = -jax.nn.log_sigmoid(x) * jax.nn.sigmoid(-x / temperature)
  exponential = jnp.exp(jax.nn.log_sigmoid(x / temperature) - x)  # s exp(-x), whose factors are 0 and infinite alone
  return select(logistic + exponential, mask)


def aot_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  ref_logp_chosen: Scalar | Num[ArrayLike, "*b"],
  ref_logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  label_smoothing: Scalar | Num[ArrayLike, "*b"] = 0.0,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """Alignment by optimal transport of margins: `dpo_loss` with the reference's margins in another order.

  The pair whose margin `m = logp_chosen - logp_rejected` is the k-th smallest is held against the k-th smallest margin
  of the reference, whichever pair that is of: `-log sigmoid(beta (m_(k) - ref_m_(k)))` (arXiv:2406.05882, the
  paired form). At the optimum the policy's margins dominate the reference's as distributions.

  All elements where the mask is on are sorted together, and count once each; the loss of the k-th margin stands where
  the pair of that margin does. A loss of the whole batch: it is not the same however the batch is cut.

  Args: four log-probs [...], each the *sum* over a response's tokens, and mask[...]. Returns: f32[...].

  >>> chosen, zeros = jnp.array([1.0, 4.0]), jnp.zeros(2)
  >>> [round(x, 4) for x in aot_loss(chosen, zeros, jnp.array([3.0, 0.0]), zeros, beta=1.0).tolist()]
  [0.3133, 0.3133]
  """
  policy = {"logp_chosen": logp_chosen, "logp_rejected": logp_rejected, "beta": beta}
  reference = {"ref_logp_chosen": ref_logp_chosen, "ref_logp_rejected": ref_logp_rejected}
  check_shapes("aot_loss", {**policy, **reference, "label_smoothing": label_smoothing, "mask": mask})
  margin = floor_logp(logp_chosen, mask) - floor_logp(logp_rejected, mask)
  ref_margin = jax.lax.stop_gradient(floor_logp(ref_logp_chosen, mask) - floor_logp(ref_logp_rejected, mask))
  x = jnp.multiply(beta, margin - _in_the_order_of(margin, ref_margin, mask))
  return select(flipped_log_sigmoid(x, label_smoothing), mask)


def aot_unpaired_loss(
  logp_chosen: Scalar | Num[ArrayLike, "*b"],
  logp_rejected: Scalar | Num[ArrayLike, "*b"],
  ref_logp_chosen: Scalar | Num[ArrayLike, "*b"],
  ref_logp_rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  beta: Scalar | Num[ArrayLike, "*b"],
  label_smoothing: Scalar | Num[ArrayLike, "*b"] = 0.0,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """Alignment by optimal transport of rewards: `-log sigmoid(beta (r_(k) - r'_(k)))`, k-th smallest of either side.

  With `r = logp - ref_logp` of chosen and r' of rejected responses, each sorted over the batch (arXiv:2406.05882,
  the unpaired form): at the optimum the rewards of chosen responses dominate those of rejected ones as
  distributions, whichever prompts they belong to. What is sorted, and where each loss stands, is as in `aot_loss`, by
  the chosen responses.

  Args: four log-probs [...], each the *sum* over a response's tokens, and mask[...]. Returns: f32[...].

  >>> chosen, rejected, zeros = jnp.array([1.0, 4.0]), jnp.array([3.0, 0.0]), jnp.zeros(2)
  >>> [round(x, 4) for x in aot_unpaired_loss(chosen, rejected, zeros, zeros, beta=1.0).tolist()]
  [0.3133, 0.3133]
  """
  policy = {"logp_chosen": logp_chosen, "logp_rejected": logp_rejected, "beta": beta}
  reference = {"ref_logp_chosen": ref_logp_chosen, "ref_logp_rejected": ref_logp_rejected}
  check_shapes("aot_unpaired_loss", {**policy, **reference, "label_smoothing": label_smoothing, "mask": mask})
  chosen, rejected = log_ratio(logp_chosen, ref_logp_chosen, mask), log_ratio(logp_rejected, ref_logp_rejected, mask)
  x = jnp.multiply(beta, chosen - _in_the_order_of(chosen, rejected, mask))
  return select(flipped_log_sigmoid(x, label_smoothing), mask)


def wpo_weights(
  logp: Num[ArrayLike, "*b t"], entropy: Num[ArrayLike, "*b t"], mask: Shaped[ArrayLike, "*b t"]
) -> Float32[jax.Array, "*b"]:
  """`exp(mean_t(logp_t + entropy_t))`, how likely the policy writes a response (arXiv:2406.11827, eq. 2).

  entropy is the `collision_entropy` of each token's distribution: the mean of `p(token) / sum_v p_v^2` is 1 for a token
  that the policy samples. WPO multiplies the loss of a pair by the weights of its two responses, so that pairs which
  others wrote count as if the policy had written them. No gradient flows into the weights.

  Args: logp, entropy, mask[..., T]. Returns: f32[...]; 1 for a response without a token.

  >>> print(wpo_weights(jnp.log(jnp.array([0.5, 0.25])), jnp.log(jnp.array([2.0, 1.0])), jnp.array([1, 1])))
  0.5
  """
  check_shapes("wpo_weights", {"logp": logp, "entropy": entropy, "mask": mask})
  return jax.lax.stop_gradient(jnp.exp(masked_mean(floor_logp(logp, mask) + select(entropy, mask), mask, axis=-1)))


def implicit_margin(
  function: str,
  logp_chosen: ArrayLike,
  logp_rejected: ArrayLike,
  ref_logp_chosen: ArrayLike,
  ref_logp_rejected: ArrayLike,
  mask: ArrayLike | None,
) -> jax.Array:
  """h of `dpo_loss`; `function` is the name of the caller, for messages."""
  policy = {"logp_chosen": logp_chosen, "logp_rejected": logp_rejected}
  reference = {"ref_logp_chosen": ref_logp_chosen, "ref_logp_rejected": ref_logp_rejected}
  check_shapes(function, {**policy, **reference, "mask": mask})
  return log_ratio(logp_chosen, ref_logp_chosen, mask) - log_ratio(logp_rejected, ref_logp_rejected, mask)


def _in_the_order_of(x: jax.Array, values: jax.Array, mask: ArrayLike | None) -> jax.Array:
  """The values where the mask is on, in another order: the k-th smallest stands where the k-th smallest of x does."""
  x, values = jnp.broadcast_arrays(x, values)
  on = jnp.broadcast_to(jnp.asarray(True if mask is None else mask) != 0, x.shape)
  places, order = (
    jnp.argsort(jnp.where(on, array, jnp.inf).ravel()) for array in (x, values)
  )  # what is off comes last
  return jnp.zeros(x.size).at[places].set(values.ravel()[order]).reshape(x.shape)
