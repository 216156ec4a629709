"""Every family against transformers on small random models: logits, greedy generation, export and import."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.models import language_model, only_scored
from rlhf_jax.models.hub import export_model, load_pretrained, open_pretrained
from rlhf_jax.sampling import generate
from rlhf_jax.types import Prompts

torch = pytest.importorskip("torch", reason="the reference is transformers with torch")
transformers = pytest.importorskip("transformers", reason="the reference is transformers with torch")

V, T = 96, 20
LENGTHS = (20, 13, 7)
IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
SHAPE = dict(
  vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
  max_position_embeddings=64, **IDS,
)  # fmt: skip
OLDER = dict(rope_theta=10000.0)
NEOX = {key: value for key, value in SHAPE.items() if key != "num_key_value_heads"}
FAMILIES = {
  "llama": ("Llama", SHAPE | dict(tie_word_embeddings=True, rms_norm_eps=1e-5)),
  "mistral": ("Mistral", SHAPE | dict(sliding_window=5, head_dim=16)),
  "qwen2": ("Qwen2", SHAPE | dict(use_sliding_window=True, sliding_window=6, max_window_layers=1)),
  "qwen3": ("Qwen3", SHAPE | dict(head_dim=16, tie_word_embeddings=True)),
  "gemma2": ("Gemma2", SHAPE | dict(
    head_dim=16, sliding_window=5, query_pre_attn_scalar=24, final_logit_softcapping=3.0, attn_logit_softcapping=2.0,
  )),
  "gemma3": ("Gemma3Text", SHAPE | dict(
    head_dim=16, sliding_window=5, sliding_window_pattern=2, query_pre_attn_scalar=24, rope_theta=1e6,
    rope_local_base_freq=1e4, rope_scaling={"rope_type": "linear", "factor": 2.0},
  )),
  "gpt2": ("GPT2", dict(vocab_size=V, n_positions=64, n_embd=32, n_layer=2, n_head=4, **IDS)),
  "gpt_neox": ("GPTNeoX", NEOX | dict(rotary_pct=0.5)),
}  # fmt: skip
LLAMA3 = dict(
  rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16
)
VARIANTS = {
  "llama3": ("Llama", SHAPE | OLDER | dict(rope_scaling=LLAMA3)),
  "linear": ("Llama", SHAPE | OLDER | dict(rope_scaling={"type": "linear", "factor": 2.5})),
  "yarn": ("Qwen2", SHAPE | OLDER | dict(
    rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
  )),
  "biases, untied": ("Llama", SHAPE | dict(attention_bias=True, mlp_bias=True, num_key_value_heads=1)),
  "global layers": ("Mistral", SHAPE | dict(sliding_window=None)),
  "serial neox": ("GPTNeoX", NEOX | dict(use_parallel_residual=False, rotary_pct=1.0, hidden_act="gelu_new")),
  "gpt2 without scale": ("GPT2", dict(
    vocab_size=V, n_positions=64, n_embd=32, n_layer=2, n_head=4, n_inner=40, scale_attn_weights=False, **IDS,
  )),
}  # fmt: skip
TOKENS = np.random.default_rng(0).integers(3, V, (len(LENGTHS), T))


def reference(name, settings, directory):
  """A transformers model with parameters that all matter (its own initialisation leaves biases at 0), saved."""
  config = getattr(transformers, f"{name}Config")(**settings, attn_implementation="eager")
  model = transformers.AutoModelForCausalLM.from_config(config).eval()
  generator = torch.Generator().manual_seed(0)
  for path, parameter in model.named_parameters():
    noise = torch.randn(parameter.shape, generator=generator)
    around_one = "norm" in path and path.endswith("weight") and "Gemma" not in name or ".ln_" in path
    parameter.data = 1 + 0.2 * noise if around_one else 0.3 * noise
  model.save_pretrained(directory, max_shard_size="20KB")
  return model


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
  """case -> (theirs, the opened directory, our model, its parameters), each made once."""

  @functools.cache
  def make(case):
    directory = tmp_path_factory.mktemp("saved")
    theirs = reference(*(FAMILIES | VARIANTS)[case], directory)
    opened = open_pretrained(directory)
    return theirs, opened.config, language_model(opened.config), load_pretrained(opened)

  return make


def logits_of(model, tokens, mask=None):
  with torch.no_grad():
    mask = None if mask is None else torch.tensor(mask, dtype=torch.long)
    return model(torch.tensor(np.asarray(tokens)), attention_mask=mask).logits.numpy()


def differences(model, params, theirs, alone):
  """The largest differences of logits: {kind of row: max |ours - theirs|} at the real tokens.

  alone: the rows that are not packed go through a forward without segments.
  """
  real = np.arange(T) < np.array(LENGTHS)[:, None]
  expected = logits_of(theirs, TOKENS, real)
  rows = np.where(real, TOKENS, 0)
  packed = np.concatenate([TOKENS[1, :13], TOKENS[2, :7]])
  segments = jnp.asarray([*real.astype(int), [1] * 13 + [2] * 7])
  ours = np.asarray(jax.jit(model.apply)(params, np.array([*rows, packed]), segments))
  apart = [np.abs(ours[3, 1:13] - expected[1, :12]).max(), np.abs(ours[3, 14:] - expected[2, :6]).max()]
  ours = np.asarray(jax.jit(model.apply)(params, rows)) if alone else ours[:3]
  found = np.abs(ours[:, 1:] - expected[:, :-1])
  return {"unpadded": found[0].max(), "padded": found[1:][real[1:, 1:]].max(), "packed": max(apart)}


@pytest.mark.parametrize("case", FAMILIES | VARIANTS)
def test_logits_of_padded_unpadded_and_packed_rows(case, imported):
  theirs, _, model, params = imported(case)
  found = differences(model, params, theirs, alone=case in ("llama", "gpt2", "gemma3"))
  print(case, {kind: f"{value:.1e}" for kind, value in found.items()})  # pytest -s shows the figures
  assert max(found.values()) < 1e-4, found
  assert np.abs(logits_of(theirs, TOKENS)).max() > 0.5  # else any logits would agree


@pytest.mark.parametrize("case", FAMILIES | VARIANTS)
def test_an_export_is_read_back_bitwise_and_by_transformers(case, imported, tmp_path):
  theirs, config, _, params = imported(case)
  export_model(tmp_path / "export", config, params, IDS)
  again = open_pretrained(tmp_path / "export")
  assert again.config == config
  jax.tree.map(np.testing.assert_array_equal, load_pretrained(again), params)
  loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export", attn_implementation="eager")
  assert type(loaded) is type(theirs)
  np.testing.assert_allclose(logits_of(loaded, TOKENS), logits_of(theirs, TOKENS), atol=1e-5)


@pytest.mark.parametrize("case", FAMILIES)
def test_transformers_reads_an_export_in_bfloat16_as_the_rounded_model(case, imported, tmp_path):
  _, config, _, params = imported(case)
  rounded = jax.tree.map(lambda x: x.astype("bfloat16").astype("float32"), params)
  export_model(tmp_path / "half", config, params, IDS, "bfloat16")
  export_model(tmp_path / "whole", config, rounded, IDS)
  half, whole = (transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("half", "whole"))
  assert half.dtype == torch.bfloat16 and whole.dtype == torch.float32
  theirs = whole.state_dict()
  assert half.state_dict().keys() == theirs.keys()
  assert all(torch.equal(x.float(), theirs[name]) for name, x in half.state_dict().items())


@pytest.mark.parametrize("case", FAMILIES)
def test_greedy_generation_token_for_token(case, imported):
  theirs, _, model, params = imported(case)
  prompts = Prompts(np.where(np.arange(T) < np.array(LENGTHS)[:, None], TOKENS, 0), np.array(LENGTHS))
  rollout = jax.jit(
    lambda params, prompts: generate(
      model, params, prompts, jax.random.key(0), max_new_tokens=12, temperature=0.0, eos_id=2, pad_id=0
    )
  )(params, prompts)
  for row, length in enumerate(LENGTHS):
    expected = theirs.generate(torch.tensor(TOKENS[row : row + 1, :length]), max_new_tokens=12, do_sample=False)[0]
    count = int(rollout.mask[row].sum())
    assert rollout.tokens[row, : length + count].tolist() == expected.tolist()


@pytest.mark.parametrize("case", FAMILIES)
def test_a_reward_model_is_a_classifier_of_one_label(case, imported, tmp_path):
  _, config, model, params = imported(case)
  params = model.init_head(jax.random.key(1), params)
  params["head"]["bias"] = jnp.float32(0.3)
  export_model(tmp_path / "export", config, params, IDS)
  again = open_pretrained(tmp_path / "export")
  jax.tree.map(np.testing.assert_array_equal, load_pretrained(again), params)

  theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "export")
  assert theirs.config.num_labels == 1
  real = np.arange(T) < np.array(LENGTHS)[:, None]
  tokens = np.where(real, TOKENS, 0)
  with torch.no_grad():
    mask = torch.tensor(real, dtype=torch.long)
    expected = theirs.eval()(torch.tensor(tokens), attention_mask=mask).logits[:, 0].numpy()
  ours = jax.jit(model.score)(params, tokens, real)
  np.testing.assert_allclose(ours, expected + theirs.config.score_bias, atol=1e-4)
  assert np.std(expected) > 0.05
  scored = only_scored(params)  # as it is trained: without an output matrix of its own
  export_model(tmp_path / "scored", config, scored, IDS)
  jax.tree.map(np.testing.assert_array_equal, load_pretrained(open_pretrained(tmp_path / "scored")), scored)
