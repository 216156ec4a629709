"""Sampling: its log-probs are the training forward's, its layout has no gaps, its rows are independent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.objectives import token_logprobs
from rlhf_jax.sampling import generate
from rlhf_jax.types import Prompts

EOS, PAD = 1, 0
MODEL = language_model(DecoderConfig(11, 2, 32, 4, 2, 48, 24))
PARAMS = jax.tree.map(lambda x: 3 * x, MODEL.init(jax.random.key(0)))  # sharper than at initialisation
LENGTHS = np.array([5, 2, 7, 1, 4, 6, 3, 7])
PROMPTS = Prompts(jax.random.randint(jax.random.key(1), (8, 7), 2, 11), jnp.array(LENGTHS))


def sample(prompts=PROMPTS, key=0, temperature=1.0, max_new_tokens=12):
  return jax.jit(
    lambda prompts, key: generate(
      MODEL, PARAMS, prompts, key, max_new_tokens=max_new_tokens, temperature=temperature, eos_id=EOS, pad_id=PAD
    )
  )(prompts, jax.random.key(key))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_recorded_logp_is_the_training_forwards(temperature):
  rollout = sample(temperature=temperature)
  logits = MODEL.apply(PARAMS, rollout.tokens) / temperature
  logp = token_logprobs(logits, rollout.tokens, mask=rollout.mask)
  assert rollout.mask.any(axis=1).all()
  np.testing.assert_allclose(rollout.logp, logp, atol=1e-5)


def test_layout_prompt_then_response_then_padding():
  rollout = sample()
  ends = []
  for tokens, mask, prompt, length, finished in zip(
    *map(np.asarray, (rollout.tokens, rollout.mask, PROMPTS.tokens, LENGTHS, rollout.finished)), strict=True
  ):
    np.testing.assert_array_equal(tokens[:length], prompt[:length])
    index = np.flatnonzero(mask)
    np.testing.assert_array_equal(index, np.arange(length, length + len(index)))
    assert (tokens[index[-1] + 1 :] == PAD).all()
    assert finished == (tokens[index[-1]] == EOS) and EOS not in tokens[index[:-1]]
    assert finished or len(index) == 12
    ends.append(finished)
  assert any(ends) and not all(ends), "the case needs both rows that end and rows that do not"


def test_a_row_does_not_depend_on_the_others_or_on_padding():
  whole = sample()
  wider = Prompts(jnp.pad(PROMPTS.tokens, [(0, 0), (0, 4)], constant_values=9), PROMPTS.lengths)
  padded = sample(wider)
  changed = sample(Prompts(PROMPTS.tokens.at[1:].set(3), PROMPTS.lengths))
  np.testing.assert_array_equal(whole.tokens[:, :12], padded.tokens[:, :12])
  np.testing.assert_array_equal(whole.tokens[0], changed.tokens[0])


def test_rows_and_keys_draw_differently():
  same = Prompts(jnp.full((64, 3), 4), jnp.full((64,), 3))
  first = sample(same)
  assert len({tuple(row) for row in np.asarray(first.tokens).tolist()}) > 32
  assert (first.tokens != sample(same, key=1).tokens).any()
  np.testing.assert_array_equal(first.tokens, sample(same).tokens)


def test_first_token_frequencies_match_the_softmax():
  same = Prompts(jnp.full((4000, 2), 4), jnp.full((4000,), 2))
  rollout = sample(same, max_new_tokens=1, temperature=0.8)
  frequency = np.bincount(np.asarray(rollout.tokens[:, 2]), minlength=11) / 4000
  logits = MODEL.apply(PARAMS, jnp.array([[4, 4, 0]]))[0, 2] / 0.8
  np.testing.assert_allclose(frequency, jax.nn.softmax(logits), atol=0.03)


def test_temperature_zero_is_greedy():
  rollout = sample(temperature=0.0)
  best = MODEL.apply(PARAMS, rollout.tokens).argmax(axis=-1)
  np.testing.assert_array_equal(np.where(rollout.mask, rollout.tokens, 0), np.where(rollout.mask, best, 0))


def test_vmapped_over_a_population_each_member_samples_as_alone():
  """One predicate stops the loop of all: who is done waits, and writes nothing more."""
  eager = {"decoder": jax.tree.map(lambda x: 0.3 * x, PARAMS["decoder"])}  # nearly uniform: ends at other times
  members = jax.tree.map(lambda *leaves: jnp.stack(leaves), PARAMS, eager)
  keys = jnp.stack([jax.random.key(3), jax.random.key(4)])
  one = PROMPTS.replace(tokens=PROMPTS.tokens[:2], lengths=PROMPTS.lengths[:2])

  def draw(params, key):
    return generate(MODEL, params, one, key, max_new_tokens=12, eos_id=EOS, pad_id=PAD)

  together = jax.jit(jax.vmap(draw))(members, keys)
  widths = []
  for number, params in enumerate((PARAMS, eager)):
    alone = jax.jit(draw)(params, keys[number])
    widths.append(int(alone.mask.sum(axis=1).max()))
    for name in ("tokens", "mask", "finished"):
      np.testing.assert_array_equal(getattr(together, name)[number], getattr(alone, name))
    np.testing.assert_allclose(together.logp[number], alone.logp, atol=1e-5)
  assert widths[0] != widths[1]
