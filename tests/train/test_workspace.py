"""How a model computes is chosen by `transport`, and changes no number."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.objectives import token_logprobs
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import Transport
from rlhf_jax.train.workspace import frozen, is_scanned, select_model, with_lazy_logits

pytestmark = pytest.mark.usefixtures("unoptimised")
CONFIG = DecoderConfig(17, 1, 16, 2, 2, 24, 16, logit_softcap=2.0, tied=False)
TOKENS = jax.random.randint(jax.random.key(2), (3, 10), 0, 17)
SEGMENTS = jnp.broadcast_to(jnp.arange(10) // 4, TOKENS.shape)


@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["rows", "packed"])
def test_a_model_with_chunked_logits_gives_the_same_log_probs(segments):
  whole = language_model(CONFIG)
  chunked = with_lazy_logits(whole, 4)
  params = whole.init_head(jax.random.key(1), jax.jit(whole.init)(jax.random.key(0)))

  def logprobs(model):
    def run(params):
      logits, values = model.apply_with_value(params, TOKENS, segments)
      alone = token_logprobs(model.apply(params, TOKENS, segments), TOKENS)
      return token_logprobs(logits / 0.7, TOKENS), values, alone

    return jax.jit(run)(params)

  for got, expected in zip(logprobs(chunked), logprobs(whole), strict=True):
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_transport_chooses():
  transport = Transport("jit", 1, 1)
  auto = "chunked" if jax.default_backend() == "cpu" else "xla"
  plain = language_model(CONFIG, "none", auto)
  assert select_model(CONFIG, transport) is with_lazy_logits(plain, 0)
  remat = dataclasses.replace(transport, remat="full", layers="unrolled")
  assert select_model(CONFIG, remat) is with_lazy_logits(language_model(CONFIG, "full", auto), 0)
  assert select_model(CONFIG, dataclasses.replace(transport, logits_chunk=4)) is with_lazy_logits(plain, 4)
  for attention in ("xla", "chunked"):
    chosen = select_model(CONFIG, dataclasses.replace(transport, attention=attention))
    assert chosen is with_lazy_logits(language_model(CONFIG, "none", attention), 0)


@pytest.mark.parametrize(
  "layers, number, remat, platform, scanned",
  [
    ("auto", 8, "none", "cpu", False),
    ("auto", 9, "none", "cpu", True),
    ("auto", 2, "full", "cpu", True),
    ("auto", 2, "none", "tpu", True),
    ("unrolled", 9, "full", "tpu", False),
    ("scanned", 2, "none", "cpu", True),
  ],
)
def test_few_layers_are_unrolled_on_a_cpu(layers, number, remat, platform, scanned):
  assert is_scanned(number, Transport("jit", 1, 1, remat=remat, layers=layers), platform) == scanned


def test_attention_of_another_platform_is_refused():
  for attention, platform in (("cudnn", "GPU"), ("splash", "TPU")):
    if jax.default_backend() == platform.lower():
      continue
    with pytest.raises(ConfigError, match=f"config.transport.attention='{attention}' needs a {platform}"):
      select_model(CONFIG, Transport("jit", 1, 1, attention=attention))


@pytest.mark.parametrize("tied", [True, False])
def test_a_frozen_model_has_the_numbers_of_its_float32_parameters(tied):
  """Its matrices lie in the dtype of the computation; a reward model has no output matrix."""
  config = DecoderConfig(64, 2, 32, 2, 2, 48, 16, tied=tied, query_key_norm=True, dtype="bfloat16")
  model = language_model(config)
  params = model.init_head(jax.random.key(1), model.init(jax.random.key(0)))
  tokens = np.random.default_rng(0).integers(3, 64, (4, 16)).astype(np.int32)
  mask = np.ones_like(tokens, bool)
  policy, judge = frozen(model, params), frozen(model, params, scores_only=True)
  assert policy["decoder"]["layers_0"]["up"]["kernel"].dtype == policy["decoder"]["embedding"]["embedding"].dtype
  assert policy["decoder"]["layers_0"]["up"]["kernel"].dtype == jax.numpy.bfloat16
  assert policy["decoder"]["layers_0"]["mlp_norm"]["scale"].dtype == policy["head"]["kernel"].dtype == np.float32
  assert "unembedding" not in judge["decoder"] and ("unembedding" in policy["decoder"]) != tied
  apply, score = jax.jit(model.apply), jax.jit(model.score)
  np.testing.assert_array_equal(apply(policy, tokens), apply(params, tokens))
  np.testing.assert_array_equal(score(judge, tokens, mask), score(params, tokens, mask))
  whole = language_model(DecoderConfig(64, 2, 32, 2, 2, 48, 16))
  unchanged = whole.init(jax.random.key(0))
  assert all(a is b for a, b in zip(*map(jax.tree.leaves, (frozen(whole, unchanged), unchanged)), strict=True))


def test_a_reward_model_that_reads_the_likelihood_keeps_its_output_matrix():
  model = language_model(DecoderConfig(64, 1, 32, 2, 2, 48, 16, tied=False))
  params = model.init_head(jax.random.key(1), model.init(jax.random.key(0)), 0.5)
  assert "unembedding" in frozen(model, params, scores_only=True)["decoder"]
