"""GGUF files of every architecture that is read, against transformers' own reading of them and the model itself."""

import jax
import numpy as np
import pytest

from rlhf_jax.models import language_model
from rlhf_jax.models.hub import load_pretrained, open_pretrained
from rlhf_jax.models.hub.families import FAMILIES
from rlhf_jax.models.hub.tensor_places import join_leaves, leaf_paths, locate

gguf = pytest.importorskip("gguf", reason="needs the extra gguf")
torch = pytest.importorskip("torch", reason="the reference is transformers with torch")
transformers = pytest.importorskip("transformers", reason="the reference is transformers with torch")

V, WIDTH, HEADS, HEAD, LAYERS = 96, 64, 2, 32, 8  # layers: more than a period of Gemma 3's windows
SHAPE = dict(
  vocab_size=V, hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
  num_key_value_heads=1, head_dim=HEAD, max_position_embeddings=64, rms_norm_eps=1e-6,
)  # fmt: skip
CASES = {
  "gemma2": ("Gemma2", SHAPE | dict(
    sliding_window=5, query_pre_attn_scalar=HEAD, final_logit_softcapping=3.0, attn_logit_softcapping=2.0,
  )),
  "gemma3": ("Gemma3Text", SHAPE | dict(
    sliding_window=5, query_pre_attn_scalar=HEAD, rope_theta=1e6, rope_local_base_freq=1e4,
    rope_scaling={"rope_type": "linear", "factor": 8.0},
  )),
  "llama": ("Llama", SHAPE | dict(tie_word_embeddings=False)),
  "qwen2": ("Qwen2", SHAPE | dict(tie_word_embeddings=True)),
  "qwen3": ("Qwen3", SHAPE | dict(tie_word_embeddings=True)),
}  # fmt: skip
NAMES = {  # convert_hf_to_gguf.py, by gguf.TensorNameMap
  "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
  "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
NORMS = {"post_attention_layernorm": "ffn_norm"}
GEMMA_NORMS = {
  "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
  "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


def reference(name, settings):
  config = getattr(transformers, f"{name}Config")(**settings, attn_implementation="eager")
  model = transformers.AutoModelForCausalLM.from_config(config).eval()
  generator = torch.Generator().manual_seed(0)
  for parameter in model.parameters():
    parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator) + (parameter.dim() == 1)
  return model


def write(path, architecture, model, kind):
  """The model as llama.cpp's converter writes it, with matrices of the given type."""
  config, is_gemma = model.config, architecture.startswith("gemma")
  writer = gguf.GGUFWriter(path, architecture)
  writer.add_block_count(LAYERS)
  writer.add_context_length(64)
  writer.add_embedding_length(WIDTH)
  writer.add_feed_forward_length(96)
  writer.add_head_count(HEADS)
  writer.add_head_count_kv(1)
  writer.add_key_length(HEAD)
  writer.add_value_length(HEAD)
  writer.add_layer_norm_rms_eps(config.rms_norm_eps)
  if architecture != "gemma2":
    writer.add_rope_freq_base(1e6 if is_gemma else 1e4)
  if is_gemma:
    writer.add_sliding_window(5)
  if architecture == "gemma2":
    writer.add_attn_logit_softcapping(2.0)
    writer.add_final_logit_softcapping(3.0)
  if architecture == "gemma3":
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(8.0)
  writer.add_tokenizer_model("gpt2")
  writer.add_token_list([f"t{i}" for i in range(V)])
  writer.add_token_types([1] * V)
  writer.add_token_merges(["t 1"])
  for name, tensor in model.state_dict().items():
    array = tensor.numpy()
    if name == "lm_head.weight" and config.tie_word_embeddings:
      continue
    if architecture == "llama" and ("q_proj" in name or "k_proj" in name):  # LlamaModel.permute
      heads = HEADS if "q_proj" in name else 1
      array = array.reshape(heads, 2, HEAD // 2, WIDTH).swapaxes(1, 2).reshape(array.shape)
    if is_gemma and name.endswith("norm.weight"):
      array = array + 1
    short = name.replace("model.layers.", "blk.")
    for long, ours in (NAMES | (GEMMA_NORMS if is_gemma else NORMS)).items():
      short = short.replace(f"{long}.", f"{ours}.")
    if array.ndim == 1 or kind is None:
      writer.add_tensor(short, array)
    else:
      data = gguf.quantize(array, kind)
      writer.add_tensor(short, data, raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


@pytest.fixture(scope="module", params=CASES)
def case(request):
  name, settings = CASES[request.param]
  return request.param, reference(name, settings)


def test_logits_are_those_of_the_model(case, tmp_path):
  architecture, theirs = case
  opened = open_pretrained(write(tmp_path / "model.gguf", architecture, theirs, None))
  tokens = np.random.default_rng(0).integers(0, V, (2, 24))
  with torch.no_grad():
    expected = theirs(torch.tensor(tokens)).logits.numpy()
  ours = np.asarray(jax.jit(language_model(opened.config).apply)(load_pretrained(opened), tokens))
  print(architecture, f"{np.abs(ours[:, 1:] - expected[:, :-1]).max():.1e}")
  np.testing.assert_allclose(ours[:, 1:], expected[:, :-1], atol=1e-4)
  assert np.std(expected) > 0.2


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_quantised_tensors_are_those_of_transformers(case, kind, tmp_path):
  architecture, theirs = case
  path = write(tmp_path / "model.gguf", architecture, theirs, gguf.GGMLQuantizationType[kind])
  kind_of_theirs = type(theirs).from_pretrained(str(tmp_path), gguf_file="model.gguf", dtype=torch.float32)
  expected = {name: tensor.numpy() for name, tensor in kind_of_theirs.state_dict().items()}
  opened = open_pretrained(path)
  compared = set()
  for leaf, array in leaf_paths(load_pretrained(opened)):
    place = locate(FAMILIES[opened.config.family], leaf)
    np.testing.assert_array_equal(join_leaves([np.asarray(array)], place.layout, HEADS), expected[place.name], leaf)
    compared.add(place.name)
  assert compared == set(expected) - ({"lm_head.weight"} if opened.config.tied else set())


@pytest.mark.parametrize("name, layers, scalar", [("gemma2", 46, 4608 // 32), ("gemma3", 62, 5376 // 32)])
def test_the_largest_models_scale_queries_by_their_width(name, layers, scalar):
  family = next(family for family in FAMILIES.values() if family.gguf and family.gguf.architecture == name)
  shape = dict(hidden_size=scalar * 32, num_attention_heads=32, head_dim=128)
  assert family.gguf.complete(shape | dict(num_hidden_layers=layers))["query_pre_attn_scalar"] == scalar
  assert family.gguf.complete(shape | dict(num_hidden_layers=26))["query_pre_attn_scalar"] == 128
