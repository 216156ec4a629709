"""Ids without a token: never sampled, and without a share of any probability, in sampling and in training alike."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from rlhf_jax import data
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.models.hub import export_model
from rlhf_jax.objectives import ChunkedLogits, kl_exact, lm_loss, token_entropy, token_logprobs
from rlhf_jax.sampling import generate
from rlhf_jax.stage import ImportedModel, Stage, Transport
from rlhf_jax.train import open_workspace
from rlhf_jax.types import Prompts

pytestmark = pytest.mark.usefixtures("unoptimised")
V = 150  # more than a block of the sampler
GAPS = ((7, 9), (140, 150))
TOKENS = np.array([index for index in range(V) if not any(first <= index < end for first, end in GAPS)])
PADDED = DecoderConfig(V, 2, 16, 2, 1, 24, 32, tied=False, ids_without_token=GAPS)
MODEL = language_model(PADDED)
FREE = language_model(dataclasses.replace(PADDED, ids_without_token=()))
APPLY, APPLY_FREE = jax.jit(MODEL.apply), jax.jit(FREE.apply)


@pytest.fixture(scope="module")
def params():
  """A model whose padding has the largest logits by far."""
  found = MODEL.init(jax.random.key(0))
  kernel = found["decoder"]["unembedding"]["kernel"]
  absent = np.setdiff1d(np.arange(V), TOKENS)
  found["decoder"]["unembedding"]["kernel"] = (kernel * 20).at[:, absent].multiply(50.0)
  return found


def sliced(params):
  """The same model with a matrix of the real tokens alone: its logits stand in the order of TOKENS."""
  decoder = params["decoder"]
  return {"decoder": decoder | {"unembedding": {"kernel": decoder["unembedding"]["kernel"][:, TOKENS]}}}


SETTINGS = [
  dict(temperature=1.0),
  dict(temperature=0.0),
  dict(temperature=0.7, top_k=50),
  dict(temperature=2.0, top_p=0.9),
  dict(temperature=1.0, min_p=0.01),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_what_is_sampled_and_its_log_probs_in_training(params, settings):
  prompts = Prompts(np.array([[1, 20, 30, 40]] * 16), np.full(16, 4))
  run = jax.jit(lambda p, k: generate(MODEL, p, prompts, k, max_new_tokens=12, eos_id=2, pad_id=0, **settings))
  rollout = run(params, jax.random.key(1))
  mask = np.asarray(rollout.mask)
  assert np.isin(np.asarray(rollout.tokens)[mask], TOKENS).all()
  logits = APPLY(params, rollout.tokens) / (settings["temperature"] or 1.0)
  found = np.asarray(token_logprobs(logits, rollout.tokens, mask=mask))
  np.testing.assert_allclose(found[mask], np.asarray(rollout.logp)[mask], atol=2e-5)
  likeliest = np.asarray(APPLY_FREE(params, rollout.tokens)).argmax(-1)[mask]
  assert np.isin(likeliest, TOKENS).mean() < 0.5, "the case is one: whatever the settings, padding would be sampled"


def test_the_distribution_is_that_of_the_real_tokens(params):
  batch = np.random.default_rng(0).choice(TOKENS, (3, 6))
  small = language_model(dataclasses.replace(PADDED, vocab_size=len(TOKENS), ids_without_token=()))
  index = np.searchsorted(TOKENS, batch)
  hidden = jax.jit(MODEL.hidden)(params, batch)
  logits, expected = MODEL.unembed(params, hidden), small.unembed(sliced(params), hidden)
  np.testing.assert_array_equal(logits[..., TOKENS], expected)
  for ours in (logits, ChunkedLogits(hidden, MODEL.unembedding(params), 4)):
    np.testing.assert_allclose(token_logprobs(ours, batch), token_logprobs(expected, index), rtol=1e-5)
    np.testing.assert_allclose(token_entropy(ours), token_entropy(expected), rtol=1e-5, atol=1e-6)
    for smoothing in (0.0, 0.1):
      loss = lm_loss(ours, batch, z_loss=1e-4, label_smoothing=smoothing)
      np.testing.assert_allclose(loss, lm_loss(expected, index, z_loss=1e-4, label_smoothing=smoothing), rtol=1e-5)
  np.testing.assert_allclose(kl_exact(logits, logits * 0.5), kl_exact(expected, expected * 0.5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_are_those_of_the_real_tokens(params, smoothing):
  batch = np.random.default_rng(0).choice(TOKENS, (3, 6))

  def loss(params):
    logits = MODEL.apply(params, batch)
    value = lm_loss(logits, batch, label_smoothing=smoothing) - 0.1 * token_entropy(logits)
    return jnp.sum(value[:, 1:])

  found = jax.jit(jax.grad(loss))(params)
  assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(found))
  kernel = found["decoder"]["unembedding"]["kernel"]
  assert (kernel[:, np.setdiff1d(np.arange(V), TOKENS)] == 0).all() and (kernel[:, TOKENS] != 0).any()


def published(directory, tied):
  """A model with a padded vocabulary, and a tokenizer with a gap in its ids."""
  tokenizer = data.train_tokenizer(["Where does Tom live? Tom lives in Oakford.\n" * 20], 300)
  state = json.loads(tokenizer.backend.to_str())
  last = max(state["model"]["vocab"].values())
  state["added_tokens"].append({**state["added_tokens"][0], "id": last + 4, "content": "<tool>", "special": False})
  state["model"]["vocab"]["<tool>"] = last + 4
  tokenizers.Tokenizer.from_str(json.dumps(state)).save(str(directory / "tokenizer.json"))
  names = dict(pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
  (directory / "tokenizer_config.json").write_text(json.dumps(names))
  config = DecoderConfig(last + 20, 1, 16, 2, 1, 24, 32, tied=tied)
  export_model(directory, config, language_model(config).init(jax.random.key(0)), {})
  return last


@pytest.mark.parametrize("tied", [True, False])
def test_a_run_finds_the_ids_without_a_token(tmp_path, tied):
  last = published(tmp_path, tied)
  model = ImportedModel(str(tmp_path))
  stage = Stage("sft", tmp_path, 0, "{model}", model, Transport(kind="jit", fsdp=1, microbatches=1))
  tokenizer, model = open_workspace(stage)
  assert model.config.ids_without_token == ((last + 1, last + 4), (last + 5, last + 20))
  assert tokenizer.encode("<tool>") == [last + 4] and "<tool>" not in tokenizer.control
  assert "ids_without_token" not in model.config.describe()

  export_model(tmp_path / "out", model.config, model.init(jax.random.key(0)), {})
  generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
  assert generation["suppress_tokens"] == [*range(last + 1, last + 4), *range(last + 5, last + 20)]


def test_a_vocabulary_without_gaps_has_none():
  tokenizer = data.train_tokenizer(["a b c"], 270)
  assert data.ids_without_token(tokenizer, tokenizer.vocab_size) == ()
