"""Losses of a reward model on human feedback: comparisons, rankings and ratings of responses.

Rewards are logits of preference: only their differences matter.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float32, Num, Shaped

from rlhf_jax.reduce import Scalar, check_shapes, float32, masked_mean, ordered_pairs, select, tied_pairs

__all__ = [
  "bradley_terry_loss",
  "correctness_loss",
  "davidson_loss",
  "pairwise_ranking_loss",
  "plackett_luce_loss",
  "rating_loss",
  "reward_centring_loss",
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
  return select(flipped_log_sigmoid(difference, label_smoothing), mask)


def davidson_loss(
  chosen: Scalar | Num[ArrayLike, "*b"],
  rejected: Scalar | Num[ArrayLike, "*b"],
  tied: Scalar | Shaped[ArrayLike, "*b"],
  *,
  tie: Scalar | Num[ArrayLike, "*b"],
  margin: Scalar | Num[ArrayLike, "*b"] = 0.0,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`-log P` of a comparison that may end in a tie, by Davidson's model (1970), with `d = chosen - rejected - margin`.

    P(chosen) = exp(d / 2) / Z,  P(tie) = tie / Z,  P(rejected) = exp(-d / 2) / Z,  Z = exp(d / 2) + tie + exp(-d / 2)

  Two equal rewards tie with probability tie / (2 + tie). The odds of a win to a loss are exp(d) whatever `tie` is, so
  that rewards stay the logits of preference that they are in every other loss of this module; in Rao and Kupper's model
  (1967), a threshold on either side of 0, they do not. For a win the loss is that of Bradley and Terry, and for a tie
  the mean of its two orders less log(tie), both with `log(1 + tie / (2 cosh(d / 2)))` added. A tie has no margin.

  Args: chosen, rejected, mask: [...], one reward per response, in either order for a tie. tied: [...], whether the two
    were called equal. tie: Davidson's parameter, >= 0, a scalar or one for each pair; 0 is `bradley_terry_loss`, in
    which a tie is impossible. margin: as in `bradley_terry_loss`. Returns: f32[...], nats per pair; infinity for what
    is impossible.

  >>> [round(x, 4) for x in davidson_loss(jnp.zeros(2), jnp.zeros(2), jnp.array([False, True]), tie=2.0).tolist()]
  [1.3863, 0.6931]
  """
  arrays = {"chosen": chosen, "rejected": rejected, "tied": tied, "tie": tie, "margin": margin, "mask": mask}
  check_shapes("davidson_loss", arrays)
  is_tie = select(tied, mask) != 0
  d = select(chosen, mask) - select(rejected, mask) - jnp.where(is_tie, 0.0, select(margin, mask))
  tie = select(tie, mask)
  order = flipped_log_sigmoid(d, jnp.where(is_tie, 0.5, 0.0)) - jnp.log(jnp.where(is_tie, tie, 1.0))
  half_sech = jnp.exp(0.5 * (jax.nn.log_sigmoid(d) + jax.nn.log_sigmoid(-d)))  # 1 / (2 cosh(d / 2)), and no overflow
  return select(order + jnp.log1p(tie * half_sech), mask)


def pairwise_ranking_loss(
  rewards: Num[ArrayLike, "*b k"],
  ranks: Num[ArrayLike, "*b k"],
  *,
  margin: Scalar | Num[ArrayLike, "*b"] = 0.0,
  tie: Scalar | Num[ArrayLike, "*b"] = 0.0,
) -> Float32[jax.Array, "*b"]:
  """Mean of `-log sigmoid(r_i - r_j - m)` over the pairs of a group with rank_i < rank_j (arXiv:2203.02155, eq. 1).

  Each group counts once however many of its K (K - 1) / 2 pairs are compared, so a long list does not outweigh a
  short one; a group without an untied pair gives 0. The margin m is as in `bradley_terry_loss`. Where `tie` is above 0,
  tied pairs are compared too, and each pair has the `davidson_loss` with this parameter.

  Args: rewards[..., K]; ranks[..., K], 0 for the best response, equal for ties, below 0 for an absent response, whose
    reward is ignored, NaN included; margin[...], tie[...], one for each group. Returns: f32[...], nats per pair.

  >>> round(float(pairwise_ranking_loss(jnp.array([2.0, 1.0, 0.0, -1.0]), jnp.arange(4))), 4)
  0.207
  """
  check_shapes("pairwise_ranking_loss", {"rewards": rewards, "ranks": ranks}, {"margin": margin, "tie": tie})
  present, worse = _comparisons(ranks)
  rewards = select(rewards, present)
  margin, tie = (float32(x)[..., None, None] for x in (margin, tie))
  tied = tied_pairs(jnp.asarray(ranks)) & (tie > 0)  # [..., K, K]
  compared = worse | tied
  first, second, margin, tie = jnp.broadcast_arrays(rewards[..., :, None], rewards[..., None, :], margin, tie)
  losses = davidson_loss(first, second, tied, tie=tie, margin=margin, mask=compared)
  return masked_mean(losses, compared, axis=(-2, -1))


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


def correctness_loss(
  rewards: Scalar | Num[ArrayLike, "*b"],
  correct: Scalar | Shaped[ArrayLike, "*b"],
  *,
  mask: Shaped[ArrayLike, "*b"] | None = None,
) -> Float32[jax.Array, "*b"]:
  """`-log sigmoid(r)` of what is correct, `-log sigmoid(-r)` of what is not: r is the log odds of being correct.

  The cross-entropy of a verifier, of a whole response or of each of its steps (arXiv:2305.20050, process supervision),
  and the logistic loss of a reward model on people's yes or no.

  Args: rewards, in logits, correct, boolean, mask: [...]. Returns: f32[...], nats.

  >>> [round(x, 4) for x in correctness_loss(jnp.array([1.0, 1.0]), jnp.array([True, False])).tolist()]
  [0.3133, 1.3133]
  """
  check_shapes("correctness_loss", {"rewards": rewards, "correct": correct, "mask": mask})
  rewards = select(rewards, mask)
  return select(-jax.nn.log_sigmoid(jnp.where(select(correct, mask) != 0, rewards, -rewards)), mask)


def reward_centring_loss(rewards: Num[ArrayLike, "*b k"], ranks: Num[ArrayLike, "*b k"]) -> Float32[jax.Array, "*b"]:
  """Mean of `(r_i + r_j)^2` over the pairs of a group with rank_i < rank_j: rewards around 0 (arXiv:2312.09244, eq. 2).

  A loss of comparisons knows differences alone, so that the rewards of one prompt may all be high. With a small
  coefficient this auxiliary loss ties their mean to 0, for each prompt, without a change of their order; pairs are
  counted as in `pairwise_ranking_loss`.

  Args: rewards[..., K]; ranks[..., K] as in `pairwise_ranking_loss`. Returns: f32[...], in squared units of reward.

  >>> print(reward_centring_loss(jnp.array([2.0, 1.0]), jnp.array([0, 1])))
  9.0
  """
  check_shapes("reward_centring_loss", {"rewards": rewards, "ranks": ranks})
  present, worse = _comparisons(ranks)
  rewards = select(rewards, present)
  return masked_mean(jnp.square(rewards[..., :, None] + rewards[..., None, :]), worse, axis=(-2, -1))


def flipped_log_sigmoid(x: jax.Array, label_smoothing: ArrayLike) -> jax.Array:
  """`-(1 - e) log sigmoid(x) - e log sigmoid(-x)`, e the label smoothing, a share of flipped labels; f32[...]."""
  # An infinite x is a certain preference, whose loss is 0 or infinity: 0 * inf, or inf - inf, would be NaN.
  share = float32(label_smoothing)
  flipped = jnp.where(share == 0, 0.0, -share * jax.nn.log_sigmoid(-x))
  return -jax.nn.log_sigmoid(x) * (1.0 - share) + flipped


def _comparisons(ranks: ArrayLike) -> tuple[jax.Array, jax.Array]:
  """(present, worse): [..., K], True for a response with a rank, and [..., i, j], True where j is ranked below i."""
  ranks = jnp.asarray(ranks)
  return ranks >= 0, ordered_pairs(ranks)
