"""config.json of published families <-> DecoderConfig. What is not understood is refused by name, never ignored."""

from __future__ import annotations

import math
from typing import Any

from rlhf_jax.models.config import FAMILIES, DecoderConfig, UnsupportedModelError
from rlhf_jax.models.hub.config_fields import (
  Fields,
  Json,
  activation_name,
  read_rope,
  read_windows,
  write_rope,
  write_windows,
)

# Supported with one value only, which is also what their absence means.
_FIXED = {
  "is_encoder_decoder": False,
  "add_cross_attention": False,
  "scale_attn_by_inverse_layer_idx": False,
  "rope_interleaved": False,
  "use_mrope": False,
  "use_bidirectional_attention": False,
}
_TIED = {"gemma2": True, "gemma3_text": True, "gpt2": True}  # where config.json does not say


def read_config(values: Json, where: str = "config.json") -> DecoderConfig:
  """The decoder of a config.json.

  Raises:
    UnsupportedModelError: a field or a value that is unknown or not supported, or a missing one.
  """
  fields = Fields(values, where)
  family = fields.take("model_type", str)
  if family not in FAMILIES:
    raise UnsupportedModelError(f"{where}: model_type={family!r} is not supported. Known: {', '.join(FAMILIES)}.")
  for name, only in _FIXED.items():
    fields.only(name, only)
  read = {"gpt2": _read_gpt2, "gpt_neox": _read_gpt_neox}.get(family, _read_llama)
  described = read(fields, family)
  fields.finish()
  try:
    return DecoderConfig(family=family, **described)
  except ValueError as error:
    raise UnsupportedModelError(f"{where}: {error}") from error


def write_config(config: DecoderConfig) -> dict[str, Any]:
  """The config.json of a decoder, without names and token ids.

  Raises:
    UnsupportedModelError: its family cannot say one of its variants.
  """
  write = {"gpt2": _write_gpt2, "gpt_neox": _write_gpt_neox}.get(config.family, _write_llama)
  values = {"model_type": config.family, **write(config)}
  there = read_config(values, f"a {config.family} of this shape")
  said, meant = there.describe(), config.describe()
  lost = sorted(name for name in {*said, *meant} - {"dtype"} if said.get(name) != meant.get(name))
  if lost:
    raise UnsupportedModelError(
      f"{config.family} cannot be written with {lost[0]}={getattr(config, lost[0])!r}: its config.json means "
      f"{getattr(there, lost[0])!r}"
    )
  return values


def _read_llama(f: Fields, family: str) -> dict[str, Any]:
  """Llama and those that keep its field names: Mistral, Qwen 2 and 3, Gemma 2 and 3."""
  gemma = family.startswith("gemma")
  heads, layers = f.take("num_attention_heads", int), f.take("num_hidden_layers", int)
  d_model, max_length = f.take("hidden_size", int), f.take("max_position_embeddings", int)
  head_dim = f.take("head_dim", int, {"qwen3": 128, "gemma2": 256, "gemma3_text": 256}.get(family, d_model // heads))
  described = dict(
    vocab_size=f.take("vocab_size", int),
    num_layers=layers,
    d_model=d_model,
    num_heads=heads,
    num_kv_heads=f.take("num_key_value_heads", int, heads),
    d_ff=f.take("intermediate_size", int),
    max_length=max_length,
    norm_eps=f.take("rms_norm_eps", float, 1e-6),
    tied=f.take("tie_word_embeddings", bool, _TIED.get(family, False)),
    activation=f.activation("hidden_activation" if gemma else "hidden_act"),
    **read_rope(f, family, max_length, head_dim),
    **read_windows(f, family, layers),
  )
  if gemma:
    f.left.pop("hidden_act", None)  # Gemma's first releases name both; hidden_activation is the one in force
  if head_dim * heads != d_model:
    described["head_size"] = head_dim
  if family == "qwen2":
    described["qkv_bias"] = True
  elif family != "mistral":
    described["qkv_bias"] = described["attention_out_bias"] = f.take("attention_bias", bool, False)
  if family == "llama":
    described["mlp_bias"] = f.take("mlp_bias", bool, False)
  if gemma:
    described |= dict(
      norm="zero_centered",
      post_norms=True,
      embedding_scale=math.sqrt(d_model),
      query_scale=f.take("query_pre_attn_scalar", float, 256.0) ** -0.5,
    )
  if family == "gemma2":
    described["attention_softcap"] = f.stated("attn_logit_softcapping", float)
    described["logit_softcap"] = f.stated("final_logit_softcapping", float)
  elif family == "gemma3_text":
    described["logit_softcap"] = f.take("final_logit_softcapping", float, 0.0)
    f.only("attn_logit_softcapping", None)  # which the published code reads and then forgets to apply
  return described | {"query_key_norm": family in ("qwen3", "gemma3_text")}


def _write_llama(c: DecoderConfig) -> dict[str, Any]:
  gemma = c.family.startswith("gemma")
  values = {
    "vocab_size": c.vocab_size,
    "hidden_size": c.d_model,
    "intermediate_size": c.d_ff,
    "num_hidden_layers": c.num_layers,
    "num_attention_heads": c.num_heads,
    "num_key_value_heads": c.num_kv_heads,
    "head_dim": c.head_dim,
    "hidden_activation" if gemma else "hidden_act": activation_name(c),
    "max_position_embeddings": c.max_length,
    "rms_norm_eps": c.norm_eps,
    "tie_word_embeddings": c.tied,
    **write_rope(c),
    **write_windows(c),
  }
  if c.family not in ("qwen2", "mistral"):
    values["attention_bias"] = c.qkv_bias
  if c.family == "llama":
    values["mlp_bias"] = c.mlp_bias
  if gemma:
    values["query_pre_attn_scalar"] = round((c.query_scale or c.head_dim**-0.5) ** -2)
    values["final_logit_softcapping"] = c.logit_softcap or None
    values["attn_logit_softcapping"] = c.attention_softcap or None
  return values


def _read_gpt_neox(f: Fields, family: str) -> dict[str, Any]:
  heads, d_model, max_length = (
    f.take(name, int) for name in ("num_attention_heads", "hidden_size", "max_position_embeddings")
  )
  bias = f.take("attention_bias", bool, True)
  return dict(
    vocab_size=f.take("vocab_size", int),
    num_layers=f.take("num_hidden_layers", int),
    d_model=d_model,
    num_heads=heads,
    num_kv_heads=heads,
    d_ff=f.take("intermediate_size", int),
    max_length=max_length,
    norm="layer",
    norm_eps=f.take("layer_norm_eps", float, 1e-5),
    **read_rope(f, family, max_length, d_model // heads),
    parallel_residual=f.take("use_parallel_residual", bool, True),
    qkv_bias=bias,
    attention_out_bias=bias,
    mlp_bias=True,
    gated=False,
    activation=f.activation("hidden_act", "gelu"),
    tied=f.take("tie_word_embeddings", bool, False),
  )


def _write_gpt_neox(c: DecoderConfig) -> dict[str, Any]:
  rope = write_rope(c)
  return {
    "vocab_size": c.vocab_size,
    "hidden_size": c.d_model,
    "intermediate_size": c.d_ff,
    "num_hidden_layers": c.num_layers,
    "num_attention_heads": c.num_heads,
    "hidden_act": activation_name(c),
    "max_position_embeddings": c.max_length,
    "layer_norm_eps": c.norm_eps,
    "rotary_emb_base": rope.pop("rope_theta"),
    "rotary_pct": (c.rotary_dim or c.head_dim) / c.head_dim,
    **rope,
    "use_parallel_residual": c.parallel_residual,
    "attention_bias": c.qkv_bias,
    "tie_word_embeddings": c.tied,
  }


def _read_gpt2(f: Fields, family: str) -> dict[str, Any]:
  heads, d_model, length = f.take("n_head", int), f.take("n_embd", int), f.take("n_positions", int)
  scaled = f.take("scale_attn_weights", bool, True)
  return dict(
    vocab_size=f.take("vocab_size", int),
    num_layers=f.take("n_layer", int),
    d_model=d_model,
    num_heads=heads,
    num_kv_heads=heads,
    d_ff=f.take("n_inner", int, 4 * d_model),
    max_length=length,
    learned_positions=length,
    norm="layer",
    norm_eps=f.take("layer_norm_epsilon", float, 1e-5),
    query_scale=0.0 if scaled else 1.0,
    qkv_bias=True,
    attention_out_bias=True,
    mlp_bias=True,
    gated=False,
    activation=f.activation("activation_function", "gelu_new"),
    tied=f.take("tie_word_embeddings", bool, _TIED[family]),
  )


def _write_gpt2(c: DecoderConfig) -> dict[str, Any]:
  return {
    "vocab_size": c.vocab_size,
    "n_positions": c.learned_positions,
    "n_embd": c.d_model,
    "n_layer": c.num_layers,
    "n_head": c.num_heads,
    "n_inner": c.d_ff,
    "activation_function": activation_name(c),
    "layer_norm_epsilon": c.norm_eps,
    "scale_attn_weights": c.query_scale == 0.0,
    "tie_word_embeddings": c.tied,
  }
