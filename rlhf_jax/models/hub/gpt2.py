"""GPT-2 (Radford et al. 2019): learned positions, and matrices that lie as [in, out]."""

from __future__ import annotations

from typing import Any

from rlhf_jax.models.config import DecoderConfig
from rlhf_jax.models.hub.config_fields import MAX_LAYERS, Fields, activation_name
from rlhf_jax.models.hub.family import Family

MODULES = {
  "embedding": "transformer.wte",
  "position_embedding": "transformer.wpe",
  "final_norm": "transformer.ln_f",
  "unembedding": "lm_head",
  "layers_{i}/attention_norm": "transformer.h.{i}.ln_1",
  "layers_{i}/mlp_norm": "transformer.h.{i}.ln_2",
  "layers_{i}/qkv": "transformer.h.{i}.attn.c_attn",
  "layers_{i}/attention_out": "transformer.h.{i}.attn.c_proj",
  "layers_{i}/up": "transformer.h.{i}.mlp.c_fc",
  "layers_{i}/mlp_out": "transformer.h.{i}.mlp.c_proj",
}


def _read(f: Fields) -> DecoderConfig:
  heads, d_model, length = f.size("n_head"), f.size("n_embd"), f.size("n_positions")
  scaled = f.take("scale_attn_weights", bool, True)
  return DecoderConfig(
    family="gpt2",
    vocab_size=f.size("vocab_size"),
    num_layers=f.size("n_layer", most=MAX_LAYERS),
    d_model=d_model,
    num_heads=heads,
    num_kv_heads=heads,
    d_ff=f.size("n_inner", 4 * d_model),
    max_length=length,
    learned_positions=length,
    norm="layer",
    norm_eps=f.positive("layer_norm_epsilon", 1e-5),
    query_scale=0.0 if scaled else 1.0,
    qkv_bias=True,
    attention_out_bias=True,
    mlp_bias=True,
    gated=False,
    activation=f.activation("activation_function", "gelu_new"),
    tied=f.take("tie_word_embeddings", bool, True),
  )


def _write(c: DecoderConfig) -> dict[str, Any]:
  return {
    "vocab_size": c.vocab_size,
    "n_positions": c.learned_positions,
    "n_embd": c.d_model,
    "n_layer": c.num_layers,
    "n_head": c.num_heads,
    "n_inner": c.d_ff,
    "activation_function": activation_name(c.activation, gelu_tanh="gelu_new"),
    "layer_norm_epsilon": c.norm_eps,
    "scale_attn_weights": c.query_scale == 0.0,
    "tie_word_embeddings": c.tied,
  }


GPT2 = Family(
  _read,
  _write,
  MODULES,
  language_model="GPT2LMHeadModel",
  classifier="GPT2ForSequenceClassification",
  fused="columns",
  input_first=True,
  optional_prefix="transformer.",  # the first files lack it
)
