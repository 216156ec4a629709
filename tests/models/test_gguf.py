"""GGUF files, written by the `gguf` package as llama.cpp writes them, against the model they were made from."""

import json

import jax
import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.models import DecoderConfig, UnsupportedModelError, language_model
from rlhf_jax.models.hub import export_model, load_pretrained, open_pretrained

gguf = pytest.importorskip("gguf", reason="needs the extra gguf")

CONFIG = DecoderConfig(264, 2, 32, 4, 2, 48, 64, norm_eps=1e-5, tied=False)
PARAMS = language_model(CONFIG).init(jax.random.key(0))
NAMES = {
  "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
  "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def interleave(weights, heads):
  """llama.cpp's LlamaModel.permute (convert_hf_to_gguf.py)."""
  halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
  return halves.swapaxes(1, 2).reshape(weights.shape)


def write(path, tmp_path, more=(), architecture="llama"):
  export_model(tmp_path / "source", CONFIG, PARAMS, {})
  writer = gguf.GGUFWriter(path, architecture)
  writer.add_block_count(2)
  writer.add_context_length(64)
  writer.add_embedding_length(32)
  writer.add_feed_forward_length(48)
  writer.add_head_count(4)
  writer.add_head_count_kv(2)
  writer.add_rope_freq_base(10000.0)
  writer.add_rope_dimension_count(8)
  writer.add_layer_norm_rms_eps(1e-5)
  for name, value in more:
    writer.add_uint32(name, value)
  trained = json.loads(data.train_tokenizer(["a b c"] * 3, 264).backend.to_str())["model"]
  words = sorted(trained["vocab"], key=trained["vocab"].get)
  writer.add_tokenizer_model("gpt2")
  writer.add_tokenizer_pre("gpt-2")
  writer.add_token_list(words)
  writer.add_token_types([3, 3, 3] + [1] * (len(words) - 3))
  writer.add_token_merges([" ".join(merge) for merge in trained["merges"]])
  writer.add_bos_token_id(1)
  writer.add_eos_token_id(2)
  writer.add_pad_token_id(2)
  from safetensors.numpy import load_file

  for name, tensor in load_file(tmp_path / "source" / "model.safetensors").items():
    if "q_proj" in name or "k_proj" in name:
      tensor = interleave(tensor, 4 if "q_proj" in name else 2)
    name = name.replace("model.layers.", "blk.").replace("model.embed_tokens", "token_embd")
    name = name.replace("model.norm", "output_norm").replace("lm_head", "output")
    for long, short in NAMES.items():
      name = name.replace(long, short)
    writer.add_tensor(name, tensor)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def test_a_gguf_is_the_model_it_was_made_from(tmp_path):
  opened = open_pretrained(write(tmp_path / "model.gguf", tmp_path))
  assert opened.config == CONFIG
  jax.tree.map(np.testing.assert_array_equal, load_pretrained(opened), PARAMS)


def test_its_tokenizer_has_a_pad_that_is_not_eos(tmp_path):
  tokenizer = data.load_tokenizer(write(tmp_path / "model.gguf", tmp_path))
  assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 0)
  text = "a b c <eos> \u00e9"
  assert tokenizer.decode(tokenizer.encode(text)) == text and min(tokenizer.encode(text)) > 2


def test_what_is_not_supported_is_named(tmp_path):
  with pytest.raises(UnsupportedModelError, match="the field llama.expert_count=8 is not supported"):
    open_pretrained(write(tmp_path / "experts.gguf", tmp_path, [("llama.expert_count", 8)]))
  with pytest.raises(UnsupportedModelError, match="general.architecture='mamba' is not supported"):
    open_pretrained(write(tmp_path / "mamba.gguf", tmp_path, architecture="mamba"))
  (tmp_path / "text.gguf").write_text("no model, but long enough to hold a header")
  with pytest.raises(UnsupportedModelError, match="is not a GGUF file"):
    open_pretrained(tmp_path / "text.gguf")
