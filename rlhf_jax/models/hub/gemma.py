"""Gemma 2 (arXiv 2408.00118) and 3 (arXiv 2503.19786), text only: Llama's form with more norms, soft caps, windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rlhf_jax.models.config import DecoderConfig
from rlhf_jax.models.hub import llama
from rlhf_jax.models.hub.config_fields import FULL, SLIDING, Fields, read_rope, read_windows, rope_fields, write_windows
from rlhf_jax.models.hub.family import Family, Gguf

MODULES = llama.MODULES | {
  "layers_{i}/attention_post_norm": "model.layers.{i}.post_attention_layernorm",
  "layers_{i}/mlp_norm": "model.layers.{i}.pre_feedforward_layernorm",
  "layers_{i}/mlp_post_norm": "model.layers.{i}.post_feedforward_layernorm",
}
_ACTIVATION = "hidden_activation"


def _read_gemma2(f: Fields) -> DecoderConfig:
  shape = _read(f, window_period=2)
  return DecoderConfig(
    family="gemma2",
    **shape,
    **read_rope(rope_fields(f), shape["max_length"]),
    attention_softcap=f.stated("attn_logit_softcapping", float),
    logit_softcap=f.stated("final_logit_softcapping", float),
  )


def _read_gemma3(f: Fields) -> DecoderConfig:
  shape = _read(f, window_period=f.size("sliding_window_pattern", 6))
  f.only("attn_logit_softcapping", None)  # the published code reads this field and then forgets to apply it
  return DecoderConfig(
    family="gemma3_text",
    **shape,
    **_read_two_ropes(f, shape["max_length"]),
    logit_softcap=f.take("final_logit_softcapping", float, 0.0),
    query_key_norm=True,
  )


def _read(f: Fields, window_period: int) -> dict[str, Any]:
  """The arguments of `DecoderConfig` that both generations state alike.

  window_period: every layer but the last of so many has a window, where layer_types does not say.
  """
  shape = llama.read_shape(f, head_dim=256, tied=True, activation=_ACTIVATION)
  f.left.pop("hidden_act", None)  # Gemma's first releases have both fields, and hidden_activation counts
  bias = f.take("attention_bias", bool, False)
  window = f.stated("sliding_window", int)
  return shape | dict(
    qkv_bias=bias,
    attention_out_bias=bias,
    windows=read_windows(f, window, [(layer + 1) % window_period != 0 for layer in range(shape["num_layers"])]),
    norm="zero_centered",
    post_norms=True,
    embedding_scale=math.sqrt(shape["d_model"]),
    query_scale=f.positive("query_pre_attn_scalar", 256.0) ** -0.5,
  )


def _read_two_ropes(f: Fields, max_length: int) -> dict[str, Any]:
  """Gemma 3's rotary positions: a base of their own for layers with a window, in a field or in a dictionary."""
  local = 0.0 if f.has("rope_parameters") else f.positive("rope_local_base_freq", 10000.0)
  rope = rope_fields(f)
  if rope.has(FULL) or rope.has(SLIDING):
    sliding = Fields(rope.take(SLIDING, dict, {}), f"{rope.where}.{SLIDING}")
    sliding.only("rope_type", "default")
    local = sliding.positive("rope_theta", 10000.0)
    sliding.finish()
    rope = Fields(rope.take(FULL, dict, {}) | rope.left, rope.where)
  return read_rope(rope, max_length, theta=1e6) | {"window_rope_theta": local}


def _write(c: DecoderConfig) -> dict[str, Any]:
  values = llama.write_shape(c, activation=_ACTIVATION) | write_windows(c)
  if c.window_rope_theta:
    values["rope_local_base_freq"] = c.window_rope_theta
  return values | {
    "attention_bias": c.qkv_bias,
    "query_pre_attn_scalar": round((c.query_scale or c.head_dim**-0.5) ** -2),
    "final_logit_softcapping": c.logit_softcap or None,
    "attn_logit_softcapping": c.attention_softcap or None,
  }


def _complete(largest: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
  """`Gguf.complete`. llama.cpp knows query_pre_attn_scalar by the number of layers of the `largest` model, the 27B."""

  def complete(values: dict[str, Any]) -> dict[str, Any]:
    width, heads, scalar = (values.get(name) for name in ("hidden_size", "num_attention_heads", "head_dim"))
    if values.get("num_hidden_layers") == largest and type(width) is int and type(heads) is int and heads > 0:
      scalar = width // heads
    return values | {_ACTIVATION: "gelu_pytorch_tanh", "query_pre_attn_scalar": scalar}

  return complete


def _restore(name: str, tensor: np.ndarray, values: Mapping[str, Any]) -> np.ndarray:
  return tensor - 1 if name.endswith("norm.weight") else tensor  # llama.cpp stores 1 + scale


GEMMA2 = Family(
  _read_gemma2,
  _write,
  MODULES,
  language_model="Gemma2ForCausalLM",
  classifier="Gemma2ForSequenceClassification",
  gguf=Gguf("gemma2", _complete(largest=46), _restore),
)
GEMMA3 = Family(
  _read_gemma3,
  _write,
  MODULES,
  language_model="Gemma3ForCausalLM",
  classifier="Gemma3TextForSequenceClassification",
  gguf=Gguf("gemma3", _complete(largest=62), _restore),
)
