"""Losses on pairs of responses, by the name that a config gives, or as a function of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from rlhf_jax.objectives import dpo_loss, ipo_loss, kto_loss, orpo_loss, simpo_loss
from rlhf_jax.ranges import NonNegativeFloat, PositiveFloat, Share
from rlhf_jax.train.array_functions import ArrayFunction, array_function
from rlhf_jax.types import Array

OPTIONS = {"dpo": ("label_smoothing",), "kto": ("desirable_weight", "undesirable_weight"), "simpo": ("margin",)}
REFERENCE_FREE = {"orpo": orpo_loss, "simpo": simpo_loss}

# (logp f32[N, K], ref_logp f32[N, K], kl f32[N], mask f32[N, K, K]) -> f32[N, K, K], at [n, i, j] of responses i and j
PairLoss = Callable[[Array, Array, Array, Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Loss:
  """Settings of the loss. Options of other losses must be None; an own option that is None takes the loss's default."""

  name: Literal["dpo", "ipo", "kto", "orpo", "simpo", "own"]
  """Name of the loss, as listed at the head of `rlhf_jax.algorithms.dpo`."""
  beta: PositiveFloat
  """Coefficient of the KL (dpo, kto), the paper's tau (ipo) or lambda (orpo), or scale of the rewards (simpo)."""
  label_smoothing: Share | None = None
  """Share of labels assumed to be flipped (dpo), between 0 and 1; None is 0."""
  desirable_weight: NonNegativeFloat | None = None
  """Weight of desirable responses (kto); None is 1."""
  undesirable_weight: NonNegativeFloat | None = None
  """Weight of undesirable responses (kto); None is 1."""
  margin: float | None = None
  """Margin between the scaled mean log-probs of chosen and rejected (simpo), in logits; None is 0."""
  function: ArrayFunction = ArrayFunction()
  """Function `(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta, mask)` of the loss "own", which
  returns the losses. All are f32[N, K, K], at [n, i, j] of responses i and j; mask is 1 where i was preferred to j."""

  def __post_init__(self):
    if (self.name == "own") != bool(self.function.function):
      raise ValueError(f"name={self.name!r}, function={self.function.function!r}: 'own' needs a function, others none")
    for key in {key for keys in OPTIONS.values() for key in keys} - set(OPTIONS.get(self.name, ())):
      if getattr(self, key) is not None:
        raise ValueError(f"{key} has no effect on the loss {self.name!r}: leave it out")

  @property
  def options(self) -> dict[str, float]:
    """The keyword arguments of the loss function."""
    keys = ("beta", *OPTIONS.get(self.name, ()))
    return {key: getattr(self, key) for key in keys if getattr(self, key) is not None}

  @property
  def reference_free(self) -> bool:
    """Whether the loss has no reference; its log-probs are then means over the tokens of a response, and not sums."""
    return self.name in REFERENCE_FREE


def pair_loss(settings: Loss) -> PairLoss:
  """`loss(logp, ref_logp, kl, mask)` of all pairs of a group, with response i as the chosen and j as the rejected one.

  logp, ref_logp f32[N, K]: log-probs of the responses, sums over their tokens, or means where the loss is
  reference-free. kl f32[N]: KTO's z. mask f32[N, K, K]: on where i was preferred to j. Returns f32[N, K, K].

  Raises (when called):
    RewardError: a function of one's own failed, or returned an array of another shape.
  """
  options = settings.options
  known: dict[str, Callable[..., jax.Array]] = {"dpo": dpo_loss, "ipo": ipo_loss}
  of_four = array_function(settings.function, known.get(settings.name, dpo_loss))

  def loss(logp: Array, ref_logp: Array, kl: Array, mask: Array) -> jax.Array:
    sides = [x for array in (logp, ref_logp) for x in (array[:, :, None], array[:, None, :])]
    chosen, rejected, ref_chosen, ref_rejected, z = jnp.broadcast_arrays(*sides, kl[:, None, None])  # [N, K, K]
    if settings.name in REFERENCE_FREE:
      return REFERENCE_FREE[settings.name](chosen, rejected, mask=mask, **options)
    if settings.name == "kto":
      gain = kto_loss(chosen, ref_chosen, True, z, mask=mask, **options)
      return 0.5 * (gain + kto_loss(rejected, ref_rejected, False, z, mask=mask, **options))
    return of_four(chosen, rejected, ref_chosen, ref_rejected, mask=mask, **options)

  return loss
