"""Published sequence classifiers of one label against transformers: scores of padded batches, and exported again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.models import language_model
from rlhf_jax.models.hub import export_model, load_pretrained, open_pretrained

torch = pytest.importorskip("torch", reason="the reference is transformers with torch")
transformers = pytest.importorskip("transformers", reason="the reference is transformers with torch")

V, T = 96, 20
LENGTHS = (20, 13, 7, 1)
IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
SHAPE = dict(
  vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
  max_position_embeddings=64, num_labels=1, **IDS,
)  # fmt: skip
NEOX = {key: value for key, value in SHAPE.items() if key != "num_key_value_heads"}
UNTIED = {
  "Llama": SHAPE | dict(tie_word_embeddings=False),
  "Mistral": SHAPE | dict(tie_word_embeddings=False, sliding_window=5),
  "Qwen2": SHAPE | dict(tie_word_embeddings=False),
  "Qwen3": SHAPE | dict(tie_word_embeddings=False, head_dim=16),
  "GPTNeoX": NEOX | dict(tie_word_embeddings=False),
  "Gemma2": SHAPE | dict(tie_word_embeddings=False, head_dim=16),
}
TIED = {
  "Llama": SHAPE | dict(tie_word_embeddings=True),
  "Gemma3Text": SHAPE | dict(head_dim=16),
  "GPT2": dict(vocab_size=V, n_positions=64, n_embd=32, n_layer=2, n_head=4, num_labels=1, **IDS),
}
CASES = [*((name, "untied", values) for name, values in UNTIED.items()), *((n, "tied", v) for n, v in TIED.items())]
TOKENS = np.random.default_rng(0).integers(3, V, (len(LENGTHS), T))
REAL = np.arange(T) < np.array(LENGTHS)[:, None]


def scores_of(model):
  with torch.no_grad():
    tokens, mask = torch.tensor(np.where(REAL, TOKENS, 0)), torch.tensor(REAL, dtype=torch.long)
    return model.eval()(tokens, attention_mask=mask).logits[:, 0].numpy()


@pytest.mark.parametrize("name, kind, settings", CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_scores_of_padded_batches_and_the_export(name, kind, settings, tmp_path):
  torch.manual_seed(0)
  config = getattr(transformers, f"{name}Config")(**settings)
  theirs = transformers.AutoModelForSequenceClassification.from_config(config)
  for parameter in theirs.parameters():  # its own initialisation leaves biases at 0 and norms at 1
    parameter.data += 0.1 * torch.randn(parameter.shape)
  theirs.save_pretrained(tmp_path / "theirs")

  opened = open_pretrained(tmp_path / "theirs")
  assert opened.config.tied == (kind == "tied")
  params, model = load_pretrained(opened), language_model(opened.config)
  expected = scores_of(theirs)
  found = jax.jit(model.score)(params, jnp.asarray(np.where(REAL, TOKENS, 0)), jnp.asarray(REAL))
  print(name, kind, f"{np.abs(found - expected).max():.1e}")  # pytest -s shows the figures
  np.testing.assert_allclose(found, expected, atol=1e-5)
  assert np.std(expected) > 0.05

  export_model(tmp_path / "ours", opened.config, params, IDS)
  jax.tree.map(np.testing.assert_array_equal, load_pretrained(open_pretrained(tmp_path / "ours")), params)
  again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours")
  assert type(again) is type(theirs) and again.config.num_labels == 1
  np.testing.assert_allclose(scores_of(again), expected, atol=1e-6)
