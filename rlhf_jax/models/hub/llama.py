"""Llama (arXiv 2302.13971) and Mistral (arXiv 2310.06825), and the form of config.json that others took over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlhf_jax.models.config import DecoderConfig
from rlhf_jax.models.hub.config_fields import MAX_LAYERS, Fields, activation_name, read_rope, rope_fields, write_rope
from rlhf_jax.models.hub.family import Family, Gguf

MODULES = {
  "embedding": "model.embed_tokens",
  "final_norm": "model.norm",
  "unembedding": "lm_head",
  "layers_{i}/attention_norm": "model.layers.{i}.input_layernorm",
  "layers_{i}/mlp_norm": "model.layers.{i}.post_attention_layernorm",
  "layers_{i}/query_norm": "model.layers.{i}.self_attn.q_norm",
  "layers_{i}/key_norm": "model.layers.{i}.self_attn.k_norm",
  "layers_{i}/query": "model.layers.{i}.self_attn.q_proj",
  "layers_{i}/key": "model.layers.{i}.self_attn.k_proj",
  "layers_{i}/value": "model.layers.{i}.self_attn.v_proj",
  "layers_{i}/attention_out": "model.layers.{i}.self_attn.o_proj",
  "layers_{i}/gate": "model.layers.{i}.mlp.gate_proj",
  "layers_{i}/up": "model.layers.{i}.mlp.up_proj",
  "layers_{i}/mlp_out": "model.layers.{i}.mlp.down_proj",
}


def read_shape(
  f: Fields, *, head_dim: int | None = None, tied: bool = False, activation: str = "hidden_act"
) -> dict[str, Any]:
  """The arguments of `DecoderConfig` that Llama and its descendants state under the same names.

  Args:
    head_dim: the meaning of an absent head_dim; None for hidden_size / num_attention_heads.
    tied: the meaning of an absent tie_word_embeddings.
    activation: the name of the field with the activation.
  """
  heads, d_model = f.size("num_attention_heads"), f.size("hidden_size")
  head_dim = f.size("head_dim", head_dim or max(d_model // heads, 1))
  return dict(
    vocab_size=f.size("vocab_size"),
    num_layers=f.size("num_hidden_layers", most=MAX_LAYERS),
    d_model=d_model,
    num_heads=heads,
    num_kv_heads=f.size("num_key_value_heads", heads),
    head_size=head_dim if head_dim * heads != d_model else 0,
    d_ff=f.size("intermediate_size"),
    max_length=f.size("max_position_embeddings"),
    norm_eps=f.positive("rms_norm_eps", 1e-6),
    activation=f.activation(activation),
    tied=f.take("tie_word_embeddings", bool, tied),
  )


def write_shape(c: DecoderConfig, *, activation: str = "hidden_act") -> dict[str, Any]:
  """The fields that `read_shape` takes, and the rotary fields."""
  return {
    "vocab_size": c.vocab_size,
    "hidden_size": c.d_model,
    "intermediate_size": c.d_ff,
    "num_hidden_layers": c.num_layers,
    "num_attention_heads": c.num_heads,
    "num_key_value_heads": c.num_kv_heads,
    "head_dim": c.head_dim,
    activation: activation_name(c.activation),
    "max_position_embeddings": c.max_length,
    "rms_norm_eps": c.norm_eps,
    "tie_word_embeddings": c.tied,
    **write_rope(c),
  }


def _read_llama(f: Fields) -> DecoderConfig:
  shape = read_shape(f)
  bias = f.take("attention_bias", bool, False)
  return DecoderConfig(
    family="llama",
    **shape,
    **read_rope(rope_fields(f), shape["max_length"]),
    qkv_bias=bias,
    attention_out_bias=bias,
    mlp_bias=f.take("mlp_bias", bool, False),
  )


def _write_llama(c: DecoderConfig) -> dict[str, Any]:
  return write_shape(c) | {"attention_bias": c.qkv_bias, "mlp_bias": c.mlp_bias}


def _read_mistral(f: Fields) -> DecoderConfig:
  shape = read_shape(f)
  window = f.stated("sliding_window", int)  # of every layer
  return DecoderConfig(
    family="mistral",
    **shape,
    **read_rope(rope_fields(f), shape["max_length"]),
    windows=(window,) * shape["num_layers"] if window else (),
  )


def _write_mistral(c: DecoderConfig) -> dict[str, Any]:
  return write_shape(c) | {"sliding_window": max(c.windows, default=0) or None}


def _complete(values: dict[str, Any]) -> dict[str, Any]:
  return values | {"hidden_act": "silu"}


def _restore(name: str, tensor: np.ndarray, values: Mapping[str, Any]) -> np.ndarray:
  # llama.cpp rotates neighbouring features, so its files hold the rows of queries and keys interleaved.
  heads = values["num_attention_heads"]
  if ".k_proj." in name:
    heads = values.get("num_key_value_heads", heads)
  elif ".q_proj." not in name:
    return tensor
  return tensor.reshape(heads, -1, 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


LLAMA = Family(
  _read_llama,
  _write_llama,
  MODULES,
  language_model="LlamaForCausalLM",
  classifier="LlamaForSequenceClassification",
  gguf=Gguf("llama", _complete, _restore),
)
MISTRAL = Family(_read_mistral, _write_mistral, MODULES, "MistralForCausalLM", "MistralForSequenceClassification")
