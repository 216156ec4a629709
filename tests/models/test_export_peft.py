"""Adapters as PEFT reads them: onto the exported base, the same logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from rlhf_jax.models import DecoderConfig, add_lora, language_model, stack_layers
from rlhf_jax.models.hub import export_adapters, export_model

CONFIGS = {
  "llama": DecoderConfig(31, 2, 32, 4, 2, 48, 16),
  "gpt2": DecoderConfig(
    31, 2, 32, 4, 4, 48, 16, norm_eps=1e-5, family="gpt2", learned_positions=16, norm="layer", qkv_bias=True,
    attention_out_bias=True, mlp_bias=True, gated=False, activation="gelu_tanh",
  ),
  "gpt_neox": DecoderConfig(
    31, 2, 32, 4, 4, 48, 16, norm_eps=1e-5, family="gpt_neox", norm="layer", qkv_bias=True, attention_out_bias=True,
    mlp_bias=True, gated=False, activation="gelu", parallel_residual=True, tied=False,
  ),
}  # fmt: skip
# Two of the three matrices that GPT-2 and GPT-NeoX fuse, and two names that end alike in GPT-2.
TARGETS = ("query", "value", "attention_out", "mlp_out")


@pytest.mark.parametrize(
  "family", ["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "gpt_neox"))]
)
def test_peft_gives_the_same_logits(family, tmp_path):
  torch = pytest.importorskip("torch", reason="PEFT runs on torch")
  peft = pytest.importorskip("peft", reason="the format is PEFT's")
  transformers = pytest.importorskip("transformers", reason="PEFT needs transformers")
  config = CONFIGS[family]
  model = language_model(config)
  base = jax.jit(model.init)(jax.random.key(0))
  params = add_lora(jax.random.key(1), base, rank=3, alpha=6.0, targets=TARGETS)
  params["lora"] = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size).reshape(x.shape)), params["lora"])
  export_model(tmp_path / "base", config, stack_layers(base), {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2})
  export_adapters(tmp_path / "adapters", config, stack_layers(params), str(tmp_path / "base"))
  export_adapters(tmp_path / "half", config, stack_layers(params), dtype="bfloat16")
  whole, half = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("adapters", "half"))
  assert whole.keys() == half.keys() and {str(x.dtype) for x in half.values()} == {"bfloat16"}
  assert all(np.array_equal(half[name], x.astype(half[name].dtype)) for name, x in whole.items())
  tokens = np.asarray(jax.random.randint(jax.random.key(2), (2, 12), 0, 31))
  mine = np.asarray(model.apply(params, jnp.asarray(tokens)))[:, 1:]
  assert np.abs(mine - np.asarray(model.apply(base, jnp.asarray(tokens)))[:, 1:]).max() > 0.01
  theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
  theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapters").eval()
  with torch.no_grad():
    logits = theirs(torch.tensor(tokens)).logits.numpy()[:, :-1]
  np.testing.assert_allclose(mine, logits, atol=1e-4)
