"""Losses on human feedback: comparisons, rankings and ratings of responses, and direct preference optimisation.

Rewards are logits of preference: only their differences matter. Log-probs are of whole responses, in nats.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.objectives.kl import floor_logp, log_ratio
from rlhf_jax.reduce import Scalar, check_shapes, float32, masked_mean, ordered_pairs, select

__all__ = [
  "bradley_terry_loss",
  "dpo_loss",
  "ipo_loss",
  "kto_loss",
  "orpo_loss",
  "pairwise_ranking_loss",
  "plackett_luce_loss",
  "rating_loss",
  "simpo_loss",
]


def bradley_terry_loss(
  chosen: Scalar | Num[ArrayLike, "*b"],
  rejected: Scalar | Num[ArrayLike, "*b"],
  *,
  margin: Scalar | Num[ArrayLike, "*b"] = 0.0,
  label_smoothing: Scalar | Num[ArrayLike, "*b"] = 0.0,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`-(1 - e) log sigmoid(d) - e log sigmoid(-d)`, with `d = chosen - rejected - margin` and e the label smoothing.

  Bradley and Terry 1952; as a reward-model loss, arXiv:2203.02155, eq. 1. A margin, a scalar or one for each pair, asks
  for a larger gap where the preference was strong (arXiv:2307.09288, eq. 2). Label smoothing, too, is a scalar or one
  for each pair: the share of labels that are assumed to be flipped.

  Args: chosen, rejected, mask: [...], one reward per response. Returns: f32[...], nats per pair; 0 or infinity where
    one reward of a pair is infinite, NaN where both are the same infinity.

  >>> [round(x, 4) for x in bradley_terry_loss(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])).tolist()]
  [0.6931, 0.1269]
  """
  arrays = {"chosen": chosen, "rejected": rejected, "margin": margin, "label_smoothing": label_smoothing, "mask": mask}
  check_shapes("bradley_terry_loss", arrays)
  difference = select(chosen, mask) - select(rejected, mask) - select(margin, mask)
  return select(_flipped_log_sigmoid(difference, label_smoothing), mask)


def pairwise_ranking_loss(
  rewards: Num[ArrayLike, "*b k"], ranks: Num[ArrayLike, "*b k"], *, margin: Scalar | Num[ArrayLike, "*b"] = 0.0
) -> Float32[jax.Array, "*b"]:
  """Mean of `-log sigmoid(r_i - r_j - m)` over the pairs of a group with rank_i < rank_j (arXiv:2203.02155, eq. 1).

  Each group counts once however many of its K (K - 1) / 2 pairs are untied, so a long list does not outweigh a
  short one; a group without an untied pair gives 0. The margin m is as in `bradley_terry_loss`.

  Args: rewards[..., K]; ranks[..., K], 0 for the best response, equal for ties, below 0 for an absent response, whose
    reward is ignored, NaN included; margin[...], one for each group. Returns: f32[...], nats per pair.

  >>> round(float(pairwise_ranking_loss(jnp.array([2.0, 1.0, 0.0, -1.0]), jnp.arange(4))), 4)
  0.207
  """
  check_shapes("pairwise_ranking_loss", {"rewards": rewards, "ranks": ranks}, {"margin": margin})
  present, worse = _comparisons(ranks)
  rewards = select(rewards, present)
  gaps = rewards[..., :, None] - rewards[..., None, :] - jnp.asarray(margin)[..., None, None]  # [..., K, K]
  return masked_mean(-jax.nn.log_sigmoid(gaps), worse, axis=(-2, -1))


def plackett_luce_loss(rewards: Num[ArrayLike, "*b k"], ranks: Num[ArrayLike, "*b k"]) -> Float32[jax.Array, "*b"]:
  """`-log P(ranking)`, `sum_i -log(exp(r_i) / (exp(r_i) + sum_{j: rank_j > rank_i} exp(r_j)))`.

  Each response in turn is chosen from itself and the responses ranked below it (Luce 1959; Plackett 1975). Tied
  responses are compared with those below them and not with each other, so a group without an untied pair gives 0. With
  K = 2 it is the Bradley-Terry loss.

  Args: rewards[..., K]; ranks[..., K] as in `pairwise_ranking_loss`. Returns: f32[...], nats per group, a sum.

  >>> round(float(jnp.exp(-plackett_luce_loss(jnp.array([1.0, 0.0, -1.0]), jnp.arange(3)))), 4)
  0.4863
  """
  check_shapes("plackett_luce_loss", {"rewards": rewards, "ranks": ranks})
  present, worse = _comparisons(ranks)
  rewards = select(rewards, present)  # [..., K]
  rivals = jnp.eye(rewards.shape[-1], dtype=bool) | worse  # [..., K, K]; never empty, so the log stays finite
  losses = jax.nn.logsumexp(rewards[..., None, :] - rewards[..., :, None], axis=-1, where=rivals)  # [..., K]
  return jnp.sum(select(losses, present), axis=-1)


def rating_loss(
  rewards: Scalar | Num[ArrayLike, "*b"],
  ratings: Scalar | Num[ArrayLike, "*b"],
  *,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`(reward - rating)^2`, for feedback given as numbers (a regression reward model, as in arXiv:2406.08673).

  Args: rewards, ratings, mask: [...]. Returns: f32[...], in squared units of the ratings.

  >>> print(rating_loss(jnp.array([2.5]), jnp.array([4])))
  [2.25]
  """
  check_shapes("rating_loss", {"rewards": rewards, "ratings": ratings, "mask": mask})
  return jnp.square(select(rewards, mask) - select(ratings, mask))


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
  h = _implicit_margin("dpo_loss", logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, mask)
  return select(_flipped_log_sigmoid(jnp.multiply(beta, h), label_smoothing), mask)


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
  h = _implicit_margin("ipo_loss", logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, mask)
  return select(jnp.square(h - 1.0 / (2.0 * beta)), mask)


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


def _flipped_log_sigmoid(x: jax.Array, label_smoothing: ArrayLike) -> jax.Array:
  # An infinite x is a certain preference, whose loss is 0 or infinity: 0 * inf, or inf - inf, would be NaN.
  share = float32(label_smoothing)
  flipped = jnp.where(share == 0, 0.0, -share * jax.nn.log_sigmoid(-x))
  return -jax.nn.log_sigmoid(x) * (1.0 - share) + flipped


def _implicit_margin(
  function: str,
  logp_chosen: ArrayLike,
  logp_rejected: ArrayLike,
  ref_logp_chosen: ArrayLike,
  ref_logp_rejected: ArrayLike,
  mask: ArrayLike | None,
) -> jax.Array:
  """h of `dpo_loss`."""
  policy = {"logp_chosen": logp_chosen, "logp_rejected": logp_rejected}
  reference = {"ref_logp_chosen": ref_logp_chosen, "ref_logp_rejected": ref_logp_rejected}
  check_shapes(function, {**policy, **reference, "mask": mask})
  return log_ratio(logp_chosen, ref_logp_chosen, mask) - log_ratio(logp_rejected, ref_logp_rejected, mask)


def _comparisons(ranks: ArrayLike) -> tuple[jax.Array, jax.Array]:
  """(present, worse): [..., K], True for a response with a rank, and [..., i, j], True where j is ranked below i."""
  ranks = jnp.asarray(ranks)
  return ranks >= 0, ordered_pairs(ranks)


def _log_odds(logp: jax.Array) -> jax.Array:
  """`log(p / (1 - p))` with p kept below 1; at that bound the slope is not cut off, so that p can still fall."""
  bound = -jnp.finfo(jnp.float32).eps
  below = jnp.where(logp > bound, bound + (logp - jax.lax.stop_gradient(logp)), logp)
  return logp - jnp.log(-jnp.expm1(below))
