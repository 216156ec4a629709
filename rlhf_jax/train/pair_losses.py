"""Losses on pairs of responses, by the name that a config gives, or as a function of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax import objectives
from rlhf_jax.objectives import bco_loss, dpo_loss, kto_loss
from rlhf_jax.ranges import NonNegativeFloat, PositiveFloat, Share
from rlhf_jax.train.array_functions import ArrayFunction, array_function
from rlhf_jax.types import Array

TIE = 1e-4  # nats; smaller gaps count as ties: before the first update policy and reference differ by rounding alone

# (rewards f32[N, K], ranks i32[N, K], margin f32[N] or None) -> f32[N]
RankingLoss = Callable[[Array, Array, Array | None], jax.Array]
# (logp f32[N, K], ref_logp f32[N, K], kl f32[N], mask f32[N, K, K]) -> f32[N, K, K], at [n, i, j] of responses i and j
PairLoss = Callable[[Array, Array, Array, Array], jax.Array]


class Known(NamedTuple):
  """A loss that a config names.

  function: of four log-probs, of two where it is reference-free, or of one response (kto_loss, bco_loss). options: its
  keyword arguments that a config may set. of_means: whether log-probs are means over a response's tokens, not sums.
  """

  function: Callable[..., jax.Array]
  options: tuple[str, ...] = ()
  of_means: bool = False
  reference_free: bool = False


KNOWN = {
  "dpo": Known(dpo_loss, ("label_smoothing",)),
  "robust": Known(objectives.robust_dpo_loss, ("label_smoothing",)),
  "sigmoid_norm": Known(dpo_loss, ("label_smoothing",), of_means=True),
  "ipo": Known(objectives.ipo_loss),
  "hinge": Known(objectives.hinge_loss),
  "exo_pair": Known(objectives.exo_loss, ("label_smoothing",)),
  "discopop": Known(objectives.discopop_loss, ("temperature",)),
  "aot": Known(objectives.aot_loss, ("label_smoothing",)),
  "aot_unpaired": Known(objectives.aot_unpaired_loss, ("label_smoothing",)),
  "kto": Known(kto_loss, ("desirable_weight", "undesirable_weight")),
  "bco_pair": Known(bco_loss),
  "nca_pair": Known(objectives.nca_loss),
  "apo_zero": Known(objectives.apo_zero_loss),
  "apo_down": Known(objectives.apo_down_loss),
  "sppo_hard": Known(objectives.sppo_hard_loss),
  "orpo": Known(objectives.orpo_loss, of_means=True, reference_free=True),
  "simpo": Known(objectives.simpo_loss, ("margin",), of_means=True, reference_free=True),
}
OPTIONS = {name: known.options for name, known in KNOWN.items()}
OWN = Known(dpo_loss)  # the log-probs that a function of one's own gets are those of DPO


@dataclasses.dataclass(frozen=True)
class Loss:
  """Settings of the loss. Options of other losses must be None; an own option that is None takes the loss's default."""

  name: Literal[
    "dpo", "robust", "sigmoid_norm", "ipo", "hinge", "exo_pair", "discopop", "aot", "aot_unpaired", "kto", "bco_pair",
    "nca_pair", "apo_zero", "apo_down", "sppo_hard", "orpo", "simpo", "own",
  ]  # fmt: skip
  """Name of the loss, as listed at the head of `rlhf_jax.algorithms.dpo`."""
  beta: PositiveFloat
  """Coefficient of the KL to the reference, the paper's tau (ipo) or lambda (orpo), or scale of the rewards (simpo)."""
  label_smoothing: Share | None = None
  """Share of labels assumed to be flipped (dpo, robust, sigmoid_norm, aot, aot_unpaired), or the probability that the
  rejected response should have (exo_pair); None is 0, for exo_pair 0.001. robust needs one below 0.5."""
  desirable_weight: NonNegativeFloat | None = None
  """Weight of desirable responses (kto); None is 1."""
  undesirable_weight: NonNegativeFloat | None = None
  """Weight of undesirable responses (kto); None is 1."""
  margin: float | None = None
  """Margin between the scaled mean log-probs of chosen and rejected (simpo), in logits; None is 0."""
  temperature: PositiveFloat | None = None
  """Temperature of the modulation (discopop), in logits; None is 0.05."""
  weighting: Literal["none", "wpo"] = "none"
  """Weight of each pair: "wpo" is the product of `rlhf_jax.objectives.wpo_weights` of its two responses, for pairs that
  the policy did not write; "none" is 1."""
  function: ArrayFunction = ArrayFunction()
  """Function `(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta, mask)` of the loss "own", which
  returns the losses. All are f32[N, K, K], at [n, i, j] of responses i and j; mask is 1 where i was preferred to j."""

  def __post_init__(self):
    if (self.name == "own") != bool(self.function.function):
      raise ValueError(f"name={self.name!r}, function={self.function.function!r}: 'own' needs a function, others none")
    for key in {key for keys in OPTIONS.values() for key in keys} - set(OPTIONS.get(self.name, ())):
      if getattr(self, key) is not None:
        raise ValueError(f"{key} has no effect on the loss {self.name!r}: leave it out")
    if self.name == "robust" and not (self.label_smoothing is not None and self.label_smoothing < 0.5):
      raise ValueError(f"label_smoothing={self.label_smoothing}: the loss 'robust' needs a share of flips below 0.5")
    if self.name == "exo_pair" and self.label_smoothing in (0, 1):
      raise ValueError(f"label_smoothing={self.label_smoothing}: the loss 'exo_pair' is infinite at 0 and at 1")

  @property
  def known(self) -> Known:
    """The function of the loss and what it takes."""
    return KNOWN.get(self.name, OWN)

  @property
  def options(self) -> dict[str, float]:
    """The keyword arguments of the loss function."""
    keys = ("beta", *OPTIONS.get(self.name, ()))
    return {key: getattr(self, key) for key in keys if getattr(self, key) is not None}


def ranking_loss(name: str, *, ties: float = 0.0, centring: float = 0.0) -> RankingLoss:
  """The loss of a reward model on the ranking in each row: that of all pairs ("pairs"), or "plackett_luce".

  ties: Davidson's parameter of tied pairs; 0 skips them. centring: multiple of `objectives.reward_centring_loss` added.
  """

  def loss(rewards: Array, ranks: Array, margin: Array | None) -> jax.Array:
    if name == "pairs":
      order = objectives.pairwise_ranking_loss(rewards, ranks, margin=0.0 if margin is None else margin, tie=ties)
    else:
      order = objectives.plackett_luce_loss(rewards, ranks)
    return order + centring * objectives.reward_centring_loss(rewards, ranks) if centring else order

  return loss


def sign_of(gap: jax.Array) -> jax.Array:
  """1 where the gap, in nats, is above 0, -1 where it is below, 0 where it is a tie."""
  return jnp.where(jnp.abs(gap) < TIE, 0.0, jnp.sign(gap))


def pair_loss(settings: Loss) -> PairLoss:
  """`loss(logp, ref_logp, kl, mask)` of all pairs of a group, with response i as the chosen and j as the rejected one.

  logp, ref_logp f32[N, K]: log-probs of the responses, sums over their tokens, or means where the loss is of means. kl
  f32[N]: KTO's z. mask f32[N, K, K]: on where i was preferred to j. Returns f32[N, K, K].

  Raises (when called):
    RewardError: a function of one's own failed, or returned an array of another shape.
  """
  options, known = settings.options, settings.known
  of_four = array_function(settings.function, known.function)

  def loss(logp: Array, ref_logp: Array, kl: Array, mask: Array) -> jax.Array:
    sides = [x for array in (logp, ref_logp) for x in (array[:, :, None], array[:, None, :])]
    chosen, rejected, ref_chosen, ref_rejected, z = jnp.broadcast_arrays(*sides, kl[:, None, None])  # [N, K, K]
    if known.reference_free:
      return known.function(chosen, rejected, mask=mask, **options)
    if settings.name == "kto":
      gain = kto_loss(chosen, ref_chosen, True, z, mask=mask, **options)
      return 0.5 * (gain + kto_loss(rejected, ref_rejected, False, z, mask=mask, **options))
    if settings.name == "bco_pair":
      right = bco_loss(chosen, ref_chosen, True, 0.0, mask=mask, **options)
      return right + bco_loss(rejected, ref_rejected, False, 0.0, mask=mask, **options)
    return of_four(chosen, rejected, ref_chosen, ref_rejected, mask=mask, **options)

  return loss
