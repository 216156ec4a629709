"""config.json as it is published: what it means, and that nothing in it is ignored."""

import dataclasses
import json
import math
import subprocess
import sys
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.models import DecoderConfig, RopeScaling, UnsupportedModelError, language_model
from rlhf_jax.models.config import FamilyName
from rlhf_jax.models.hub import export_model, load_pretrained, open_pretrained, read_config, write_config
from rlhf_jax.models.hub.families import FAMILIES

# As they stand on the hub.
SMOLLM2 = {
  "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
  "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
  "intermediate_size": 1536, "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False,
  "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
  "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None,
  "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.42.3",
  "transformers.js_config": {}, "use_cache": True, "vocab_size": 49152,
}  # fmt: skip
LLAMA31 = SMOLLM2 | {
  "tie_word_embeddings": False, "rope_theta": 500000.0, "rope_scaling": {
    "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
  },
}  # fmt: skip
PYTHIA = {
  "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "classifier_dropout": 0.1, "eos_token_id": 0,
  "hidden_act": "gelu", "hidden_size": 512, "initializer_range": 0.02, "intermediate_size": 2048,
  "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 8,
  "num_hidden_layers": 6, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False,
  "torch_dtype": "float16", "transformers_version": "4.24.0", "use_cache": True, "use_parallel_residual": True,
  "vocab_size": 50304,
}  # fmt: skip
GPT2 = {
  "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 50256,
  "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
  "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
  "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
  "summary_type": "cls_index", "summary_use_proj": True, "task_specific_params": {}, "vocab_size": 50257,
}  # fmt: skip
QWEN25 = {
  "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645,
  "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
  "max_position_embeddings": 32768, "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 14,
  "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
  "sliding_window": 32768, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
  "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
GEMMA3 = {
  "architectures": ["Gemma3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
  "attn_logit_softcapping": None, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 106],
  "final_logit_softcapping": None, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
  "initializer_range": 0.02, "intermediate_size": 6912, "max_position_embeddings": 32768,
  "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
  "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
  "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
  "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 262144,
}  # fmt: skip
MISTRAL = SMOLLM2 | {"model_type": "mistral", "sliding_window": 4096}
MISTRAL = {key: value for key, value in MISTRAL.items() if key not in ("attention_bias", "mlp_bias")}
PUBLISHED = dict(
  smollm2=SMOLLM2, llama31=LLAMA31, pythia=PYTHIA, gpt2=GPT2, qwen25=QWEN25, gemma3=GEMMA3, mistral=MISTRAL
)


@pytest.mark.parametrize(
  "name, expected",
  [
    ("smollm2", dict(num_kv_heads=3, rope_theta=1e5, norm_eps=1e-5, tied=True, max_length=8192)),
    ("llama31", dict(tied=False, rope_scaling=RopeScaling("llama3", 8.0, 8192, 1.0, 4.0))),
    ("pythia", dict(rotary_dim=16, parallel_residual=True, norm="layer", gated=False, tied=False, activation="gelu")),
    ("gpt2", dict(learned_positions=1024, d_ff=3072, qkv_bias=True, tied=True, activation="gelu_tanh")),
    ("qwen25", dict(qkv_bias=True, attention_out_bias=False, windows=(), tied=True)),
    ("gemma3", dict(windows=((512,) * 5 + (0,)) * 4 + (512, 512), window_rope_theta=1e4, rope_theta=1e6, tied=True)),
    ("gemma3", dict(head_size=256, query_scale=1 / 16, embedding_scale=math.sqrt(1152))),
    ("mistral", dict(windows=(4096,) * 30, qkv_bias=False)),
  ],
)
def test_published_configs(name, expected):
  config = read_config(PUBLISHED[name])
  assert {key: getattr(config, key) for key in expected} == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_written_config_means_the_same(name):
  config = read_config(PUBLISHED[name])
  assert read_config(json.loads(json.dumps(write_config(config)))) == config


def test_models_do_not_know_their_file_formats():
  script = "import sys, rlhf_jax.models; print([name for name in sys.modules if 'models.hub' in name])"
  assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_family_of_a_config_has_a_file_format():
  assert set(FAMILIES) == set(typing.get_args(FamilyName))


@pytest.mark.parametrize(
  "values, message",
  [
    (SMOLLM2 | {"attention_sinks": 4}, "the field attention_sinks=4 is not supported"),
    (SMOLLM2 | {"quantization_config": {"bits": 4}}, "the field quantization_config="),
    (SMOLLM2 | {"model_type": "mamba"}, "model_type='mamba' is not supported"),
    (SMOLLM2 | {"hidden_act": "relu2"}, "hidden_act='relu2' is not supported"),
    (SMOLLM2 | {"hidden_size": "576"}, "hidden_size must be int, not '576'"),
    (SMOLLM2 | {"num_hidden_layers": True}, "num_hidden_layers must be int, not True"),
    (SMOLLM2 | {"num_key_value_heads": 4}, "num_kv_heads=4 must divide"),
    (SMOLLM2 | {"rope_interleaved": True}, "rope_interleaved=True is not supported"),
    (SMOLLM2 | {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type='dynamic' is not supported"),
    (SMOLLM2 | {"rope_scaling": {"type": "linear", "factor": 2.0, "ntk": 1}}, "the field ntk=1 is not supported"),
    (SMOLLM2 | {"rope_scaling": {"type": "linear"}}, "lacks the field 'factor'"),
    (SMOLLM2 | {"sliding_window": 8}, "the field sliding_window=8 is not supported"),
    ({k: v for k, v in SMOLLM2.items() if k != "hidden_size"}, "lacks the field 'hidden_size'"),
    ({k: v for k, v in MISTRAL.items() if k != "sliding_window"}, "lacks the field 'sliding_window'"),
    (QWEN25 | {"use_sliding_window": True, "layer_types": ["chunked_attention"] * 24}, "layer_types="),
    (GEMMA3 | {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0 is not supported"),
    (GEMMA3 | {"use_bidirectional_attention": True}, "use_bidirectional_attention=True is not supported"),
    (GPT2 | {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True is not supported"),
    (GPT2 | {"add_cross_attention": True}, "add_cross_attention=True is not supported"),
  ],
)
def test_what_is_not_supported_is_named(values, message):
  with pytest.raises(UnsupportedModelError, match=message):
    read_config(values)


def test_a_family_that_cannot_say_a_variant_is_refused():
  plain = DecoderConfig(16, 1, 8, 2, 2, 8, 8)
  assert read_config(write_config(plain)) == plain
  for name, value in dict(query_key_norm=True, gated=False, logit_softcap=30.0, windows=(4,), norm="layer").items():
    with pytest.raises(UnsupportedModelError, match=f"llama cannot be written with {name}="):
      write_config(dataclasses.replace(plain, **{name: value}))


TINY = DecoderConfig(16, 1, 8, 2, 1, 12, 8)
PARAMS = language_model(TINY).init(jax.random.key(0))


@pytest.fixture
def directory(tmp_path):
  export_model(tmp_path, TINY, PARAMS, dict(eos_token_id=2))
  return tmp_path


def rewrite(directory, change):
  """Writes the tensors of model.safetensors anew after `change(dict)`."""
  from safetensors.numpy import load_file, save_file

  tensors = load_file(directory / "model.safetensors")
  change(tensors)
  save_file(tensors, directory / "model.safetensors")


NORM = "model.norm.weight"


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda t: t.pop(NORM), "has no tensor 'model.norm.weight'"),
    (lambda t: t.update({NORM: np.ones(9, np.float32)}), r"model.norm.weight is \(9,\), the config asks for \(8,\)"),
    (lambda t: t.update(extra=np.ones(3, np.float32)), "the tensor 'extra' has no place in a llama"),
    (lambda t: t.update({"lm_head.weight": np.ones((16, 8), np.float32)}), "the tensor 'lm_head.weight' has no place"),
    (lambda t: t.update({NORM: np.ones(8, np.int32)}), "model.norm.weight is of dtype I32"),
  ],
)
def test_weights_that_do_not_fit_are_named(directory, change, message):
  rewrite(directory, change)
  with pytest.raises(UnsupportedModelError, match=message):
    load_pretrained(open_pretrained(directory))


def test_a_tied_embedding_may_be_written_twice(directory):
  rewrite(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))
  jax.tree.map(np.testing.assert_array_equal, load_pretrained(open_pretrained(directory)), PARAMS)


def test_half_precision_becomes_float32(directory):
  rewrite(directory, lambda t: t.update({name: x.astype(jnp.bfloat16) for name, x in t.items()}))
  loaded = load_pretrained(open_pretrained(directory))
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y.astype(jnp.bfloat16).astype(np.float32)), loaded, PARAMS)
  assert {x.dtype for x in jax.tree.leaves(loaded)} == {jnp.float32.dtype}


def test_a_file_that_is_cut_short_is_named(directory):
  path = directory / "model.safetensors"
  path.write_bytes(path.read_bytes()[:-4])
  with pytest.raises(UnsupportedModelError, match="is cut short or damaged"):
    open_pretrained(directory)
  path.write_bytes(b"\xff" * 16)
  with pytest.raises(UnsupportedModelError, match="is not a safetensors file"):
    open_pretrained(directory)
  path.unlink()
  with pytest.raises(UnsupportedModelError, match="has neither model.safetensors nor"):
    open_pretrained(directory)


def test_shards_are_read_by_the_devices_that_hold_them(directory):
  """Every family's layouts through a mesh: each device asks for its own columns or rows."""
  mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

  def shard(shapes):
    def spec(leaf):  # the last dimension, where it divides
      last = "x" if leaf.shape[-1] % 8 == 0 else None
      return jax.sharding.PartitionSpec(*[None] * (leaf.ndim - 1), last)

    return jax.tree.map(lambda leaf: jax.sharding.NamedSharding(mesh, spec(leaf)), shapes)

  for family, more in (("llama", {}), ("gpt2", dict(learned_positions=8)), ("gpt_neox", {})):
    config = TINY if family == "llama" else DecoderConfig(
      16, 1, 8, 2, 2, 16, 8, norm_eps=1e-5, family=family, norm="layer", qkv_bias=True, attention_out_bias=True,
      mlp_bias=True, gated=False, activation="gelu", **more,
    )  # fmt: skip
    fresh = language_model(config).init(jax.random.key(0))
    params = jax.tree.map(lambda x: x + jnp.arange(x.size).reshape(x.shape), fresh)
    export_model(directory / family, config, params, {})
    loaded = load_pretrained(open_pretrained(directory / family), shard)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    kernel = loaded["decoder"]["layers_0"]["query"]["kernel"]
    assert len({str(shard.index) for shard in kernel.addressable_shards}) == 8


def test_a_name_that_is_nothing_is_refused(tmp_path):
  with pytest.raises(UnsupportedModelError, match="name a directory with a config.json, a .gguf file, or owner/name"):
    open_pretrained(tmp_path / "absent")
  with pytest.raises(UnsupportedModelError, match="config.json cannot be read"):
    open_pretrained(tmp_path)
