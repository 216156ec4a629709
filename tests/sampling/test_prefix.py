"""What all prompts begin with is prefilled once, and nothing changes but rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoder_families import FAMILIES, config_of

from rlhf_jax.models import language_model
from rlhf_jax.sampling import common_prefix, generate
from rlhf_jax.types import Prompts

pytestmark = pytest.mark.usefixtures("unoptimised")
SHARED, LENGTHS = 6, np.array([11, 7, 9, 10])
TOKENS = np.random.default_rng(0).integers(2, 17, (4, 11), dtype=np.int32)
TOKENS[:, :SHARED] = TOKENS[0, :SHARED]
PROMPTS = Prompts(TOKENS, LENGTHS)


TOGETHER, IN_TURN = {}, dict(slots=3, refill=2, samples_per_prompt=2)


@pytest.mark.parametrize(
  "family, settings",
  [*((family, TOGETHER) for family in FAMILIES), ("llama", IN_TURN), ("gemma3_text", IN_TURN)],
  ids=[*FAMILIES, "llama-in turn", "gemma3_text-in turn"],
)
def test_a_shared_prefix_changes_nothing(family, settings):
  model = language_model(config_of(family))
  params = model.init(jax.random.key(1))

  def sample(prefix):
    fixed = dict(max_new_tokens=5, eos_id=1, pad_id=0, temperature=0.8, prefix=prefix) | settings
    return jax.jit(lambda params, prompts, key: generate(model, params, prompts, key, **fixed))

  expected, found = (sample(prefix)(params, PROMPTS, jax.random.key(2)) for prefix in (0, SHARED))
  np.testing.assert_array_equal(found.tokens, expected.tokens)
  np.testing.assert_array_equal(found.mask, expected.mask)
  np.testing.assert_allclose(found.logp, expected.logp, atol=2e-5)
  assert len({tuple(row) for row in np.asarray(found.tokens[:, -5:]).tolist()}) > 2


def test_a_row_that_is_not_sampled_may_begin_with_other_tokens():
  model = language_model(config_of("llama"))
  params = model.init(jax.random.key(1))
  fixed = dict(max_new_tokens=5, eos_id=1, pad_id=0)
  filled = Prompts(np.vstack([np.zeros((1, 11), np.int32), TOKENS]), np.array([1, *LENGTHS]))
  limits, keys = jnp.array([0, 5, 5, 5, 5]), jax.random.split(jax.random.key(3), 5)
  found = generate(model, params, filled, keys, limits=limits, prefix=SHARED, **fixed)
  expected = generate(model, params, PROMPTS, keys[1:], **fixed)
  np.testing.assert_array_equal(found.tokens[1:], expected.tokens)
  assert not found.mask[0].any()


@pytest.mark.parametrize(
  "shared, lengths, expected",
  [
    (70, (80, 75), 64),
    (70, (80, 65), 64),
    (70, (80, 64), 32),
    (31, (80, 80), 0),
    (80, (33, 90), 32),
    (80, (32, 90), 0),
  ],
)
def test_the_prefix_is_what_all_prompts_begin_with_and_leaves_each_a_token(shared, lengths, expected):
  tokens = np.arange(2 * 90).reshape(2, 90)
  tokens[1, :shared] = tokens[0, :shared]
  assert common_prefix(Prompts(tokens, np.array(lengths))) == expected
  assert common_prefix(Prompts(tokens[:1], np.array(lengths[:1]))) == 0, "one prompt shares nothing"


def test_a_prefix_leaves_a_token_of_each_prompt():
  model = language_model(config_of("llama"))
  with pytest.raises(ValueError, match="prefix=11 leaves no token of prompts of 11 tokens"):
    generate(model, {}, PROMPTS, jax.random.key(0), max_new_tokens=1, eos_id=1, pad_id=0, prefix=11)
