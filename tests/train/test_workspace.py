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
from rlhf_jax.train.workspace import in_chunks, select_model

CONFIG = DecoderConfig(17, 1, 16, 2, 2, 24, 16, logit_softcap=2.0, tied=False)
TOKENS = jax.random.randint(jax.random.key(2), (3, 10), 0, 17)
SEGMENTS = jnp.broadcast_to(jnp.arange(10) // 4, TOKENS.shape)


@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["rows", "packed"])
def test_a_model_with_chunked_logits_gives_the_same_log_probs(segments):
  whole = language_model(CONFIG)
  chunked = in_chunks(whole, 4)
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
  plain = language_model(CONFIG, "none", "xla")
  assert select_model(CONFIG, transport) is plain
  assert select_model(CONFIG, dataclasses.replace(transport, remat="full")) is language_model(CONFIG, "full", "xla")
  assert select_model(CONFIG, dataclasses.replace(transport, logits_chunk=4)) is in_chunks(plain, 4)


def test_attention_of_another_platform_is_refused():
  for attention, platform in (("cudnn", "GPU"), ("splash", "TPU")):
    if jax.default_backend() == platform.lower():
      continue
    with pytest.raises(ConfigError, match=f"config.transport.attention='{attention}' needs a {platform}"):
      select_model(CONFIG, Transport("jit", 1, 1, attention=attention))
