"""GPT-NeoX (arXiv 2204.06745) and Pythia (arXiv 2304.01373): attention beside mlp, a part of a head rotates."""

from __future__ import annotations

from typing import Any

from rlhf_jax.models.config import DecoderConfig
from rlhf_jax.models.hub.config_fields import MAX_LAYERS, Fields, activation_name, read_rope, rope_fields, write_rope
from rlhf_jax.models.hub.family import Family

MODULES = {
  "embedding": "gpt_neox.embed_in",
  "final_norm": "gpt_neox.final_layer_norm",
  "unembedding": "embed_out",
  "layers_{i}/attention_norm": "gpt_neox.layers.{i}.input_layernorm",
  "layers_{i}/mlp_norm": "gpt_neox.layers.{i}.post_attention_layernorm",
  "layers_{i}/qkv": "gpt_neox.layers.{i}.attention.query_key_value",
  "layers_{i}/attention_out": "gpt_neox.layers.{i}.attention.dense",
  "layers_{i}/up": "gpt_neox.layers.{i}.mlp.dense_h_to_4h",
  "layers_{i}/mlp_out": "gpt_neox.layers.{i}.mlp.dense_4h_to_h",
}


def _read(f: Fields) -> DecoderConfig:
  heads, d_model = f.size("num_attention_heads"), f.size("hidden_size")
  max_length, bias = f.size("max_position_embeddings"), f.take("attention_bias", bool, True)
  return DecoderConfig(
    family="gpt_neox",
    vocab_size=f.size("vocab_size"),
    num_layers=f.size("num_hidden_layers", most=MAX_LAYERS),
    d_model=d_model,
    num_heads=heads,
    num_kv_heads=heads,
    d_ff=f.size("intermediate_size"),
    max_length=max_length,
    norm="layer",
    norm_eps=f.positive("layer_norm_eps", 1e-5),
    **_read_partial_rope(f, max_length, d_model // heads),
    parallel_residual=f.take("use_parallel_residual", bool, True),
    qkv_bias=bias,
    attention_out_bias=bias,
    mlp_bias=True,
    gated=False,
    activation=f.activation("hidden_act", "gelu"),
    tied=f.take("tie_word_embeddings", bool, False),
  )


def _read_partial_rope(f: Fields, max_length: int, head_dim: int) -> dict[str, Any]:
  """Rotary positions of the first features of a head: a share of them, stated as rotary_pct or in rope_parameters."""
  share = None if f.has("rope_parameters") else f.positive("rotary_pct", 0.25)
  rope = rope_fields(f, theta="rotary_emb_base")
  stated = rope.positive("partial_rotary_factor", 1.0)
  rotary_dim = int(head_dim * (stated if share is None else share))
  return read_rope(rope, max_length) | {"rotary_dim": rotary_dim if rotary_dim != head_dim else 0}


def _write(c: DecoderConfig) -> dict[str, Any]:
  rope = write_rope(c)
  return {
    "vocab_size": c.vocab_size,
    "hidden_size": c.d_model,
    "intermediate_size": c.d_ff,
    "num_hidden_layers": c.num_layers,
    "num_attention_heads": c.num_heads,
    "hidden_act": activation_name(c.activation),
    "max_position_embeddings": c.max_length,
    "layer_norm_eps": c.norm_eps,
    "rotary_emb_base": rope.pop("rope_theta"),
    "rotary_pct": (c.rotary_dim or c.head_dim) / c.head_dim,
    **rope,
    "use_parallel_residual": c.parallel_residual,
    "attention_bias": c.qkv_bias,
    "tie_word_embeddings": c.tied,
  }


GPT_NEOX = Family(
  _read,
  _write,
  MODULES,
  language_model="GPTNeoXForCausalLM",
  classifier="GPTNeoXForSequenceClassification",
  fused="heads",
)
