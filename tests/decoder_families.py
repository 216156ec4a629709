"""Small shapes of the eight families of models, by what tells them apart."""

from rlhf_jax.models import DecoderConfig

BASE = dict(vocab_size=17, num_layers=3, d_model=16, num_heads=4, num_kv_heads=2, d_ff=24, max_length=16)
GEMMA = dict(norm="zero_centered", post_norms=True, activation="gelu_tanh", embedding_scale=4.0)
FAMILIES = {
  "llama": dict(),
  "mistral": dict(windows=(3, 3, 3), head_size=8, tied=False),
  "qwen2": dict(num_layers=4, windows=(0, 0, 4, 4), qkv_bias=True),
  "qwen3": dict(query_key_norm=True),
  "gemma2": dict(num_layers=5, windows=(3, 0) * 2 + (3,), attention_softcap=2.0, logit_softcap=3.0, **GEMMA),
  "gemma3_text": dict(
    num_layers=7, windows=(4, 4, 0) * 2 + (4,), window_rope_theta=100.0, query_key_norm=True, **GEMMA
  ),
  "gpt2": dict(learned_positions=16, norm="layer", qkv_bias=True, attention_out_bias=True, mlp_bias=True, gated=False),
  "gpt_neox": dict(parallel_residual=True, norm="layer", rotary_dim=2, mlp_bias=True, gated=False, tied=False),
}


def config_of(family, **more):
  return DecoderConfig(**BASE | dict(family=family) | FAMILIES[family] | more)


def shallow_of(family, **more):
  """With two layers, one of each kind where the family has two: a third is the same program once more."""
  kinds = tuple(dict.fromkeys(FAMILIES[family].get("windows", ())))
  return config_of(family, **dict(num_layers=2, windows=(kinds * 2)[:2]) | more)
