"""The value function of an algorithm with a critic: where it starts from, and how it is read beside the policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from rlhf_jax import data
from rlhf_jax.models import LanguageModel, only_scored
from rlhf_jax.stage import Stage
from rlhf_jax.train.workspace import load_stage, stage_key
from rlhf_jax.types import Array, Params


def with_critic(
  policy: Params, stage: Stage, model: LanguageModel, tokenizer: data.Tokenizer, *, shared_trunk: bool, init: str = ""
) -> dict[str, Params]:
  """{"policy", "value"} before the first step; with `shared_trunk` {"policy"}, whose head is the value function.

  init: the stage whose parameters the value function starts from, with its head where it has one; "" starts from the
  policy's with a fresh head.
  """
  if shared_trunk:
    return {"policy": model.init_head(stage_key(stage), policy)}
  value = load_stage(stage, init, model, tokenizer) if init else policy
  if "head" in value:
    head = {part: value["head"][part] for part in ("kernel", "bias")}  # a state has no likelihood of a response
    value = {**value, "head": head}
  else:
    value = model.init_head(stage_key(stage), value)
  return {"policy": policy, "value": only_scored(value)}


def policy_and_value(model: LanguageModel, shared_trunk: bool) -> tuple[Callable[..., Any], Callable[..., jax.Array]]:
  """`apply(params, tokens, at=None) -> (logits, values)` and `values_of(params, tokens, at=None)`.

  params are those of `with_critic`; at[B, N] the positions that count (see `rlhf_jax.positions`).
  """

  def apply(params: Params, tokens: Array, at: Array | None = None) -> tuple[jax.Array, jax.Array]:
    if shared_trunk:
      return model.apply_with_value(params["policy"], tokens, at=at)
    return model.apply(params["policy"], tokens, at=at), model.value(params["value"], tokens, at=at)

  def values_of(params: Params, tokens: Array, at: Array | None = None) -> jax.Array:
    return model.value(params["policy" if shared_trunk else "value"], tokens, at=at)

  return apply, values_of
